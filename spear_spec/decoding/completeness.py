"""Whether an utterance says all of its text, and the law of utterances that are drawn again where one does not.

A transformer of this kind now and then leaves words out, ends early, or says some twice. Where its attention was pulled
to the letter being spoken (`models/alignment.py`), that shows: the letters of a word left out take no time, and one
said again looks back. A request that asks for it (`Whole`) is drawn anew, each try from the target's own law with
uniforms of its own, until nothing is wrong or the tries are used up; the first of those with the fewest misses is then
kept.

With P the target's law of whole utterances, m(x) the misses of x, and a the chance of a miss (P of m > 0), n
tries give an x without a miss the probability P(x) (1 + a + ... + a^(n-1)): P given completeness, but for the a^n
of n misses in a row. Nothing here depends on how an utterance came about token by token: m is a function of the
finished tokens, so a loop that has the law P, plain or speculative, at any draft length and in any batch, has this law
too. What is heard of an utterance can begin only when it is settled, after its last token.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from spear_spec.config import require
from spear_spec.decoding.chance import REDRAW, derive
from spear_spec.decoding.request import Request
from spear_spec.models.alignment import check_aligned, letter_attention, letter_starts, strays

Misses = Callable[[object, Request, Sequence[int]], int]


def missed(target: object, request: Request, speech: Sequence[int]) -> int:
    """How many words of the request its semantic tokens leave out (their letters take less than `Whole.least` tokens
    each, on average), and how often they lose the thread (`Whole.stray` tokens that speak of another place).

    Raises:
        ConfigError: the target does not tell which letter it speaks.
    """
    wanted = request.whole
    if wanted is None or not wanted.words:
        return 0
    if not speech:
        return len(wanted.words)
    attention = letter_attention(target, request.ids, speech)
    starts = letter_starts(attention)
    out = sum(bool(starts[last] - starts[first] < wanted.least * (last - first)) for first, last in wanted.words)
    return out + strays(attention, starts, wanted.stray)


def check_whole(target: object, request: Request) -> None:
    """Refuse a request whose words cannot be looked for.

    Raises:
        ConfigError: the target does not tell which letter it speaks, or a word lies outside the text.
    """
    if request.whole is not None:
        check_aligned(target)
        for first, last in request.whole.words:
            require(last <= len(request.ids), f"a word at {first} to {last} lies outside a text of {len(request.ids)}")


def redrawn(request: Request, tries: int) -> Request:
    """The request as it is drawn again after so many tries."""
    return replace(request, seed=derive(request.seed, tries, REDRAW))


@dataclass
class Tries:
    """What became of the tries of one request so far: how many there were, and the best of them."""

    count: int = 0
    fewest: int | None = None
    tokens: Sequence[int] = ()
    ended: str = ""

    def settle(self, request: Request, misses: int, tokens: Sequence[int], ended: str) -> bool:
        """A try has ended; whether there is no other one. The best is then in `tokens` and `ended`."""
        self.count += 1
        if self.fewest is None or misses < self.fewest:
            self.fewest, self.tokens, self.ended = misses, tokens, ended
        assert request.whole is not None
        chosen = request.sampling.temperature == 0  # nothing is drawn: it would come out the same
        return misses == 0 or chosen or self.count >= request.whole.tries
