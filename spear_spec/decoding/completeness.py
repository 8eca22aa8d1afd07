"""Whether an utterance says all of its text, and the law of utterances that are drawn again where one does not.

A transformer of this kind now and then leaves words out, ends early, or says some twice. Where its attention was pulled
to the letter being spoken (`models/alignment.py`), that shows: the letters of a word left out take no time, and one
said again looks back. A request that asks for it (`Whole`) is drawn anew, each try from the target's own law with
uniforms of its own, until nothing is wrong or the tries are used up; the first of those with the fewest misses is then
kept.

*Whole utterances* (`Whole.first` 0). With P the target's law of whole utterances, m(x) the misses of x, and a the
chance of a miss (P of m > 0), n tries give an x without a miss the probability P(x) (1 + a + ... + a^(n-1)): P given
completeness, but for the a^n of n misses in a row. What is heard of an utterance can begin only when it is settled,
after its last token.

*Piece by piece* (`Whole.first` above 0), for streams. An utterance is looked at when it has a certain number of tokens
(`Whole.place_after`: 26, 52, 104, 168, 232, ...) and when it has ended. Let x be its tokens at that place, those that
the target has settled behind it left aside, and r the number of those that are kept already.

- m(x) = 0, misses behind the first r tokens counted: all of x but the last `margin` tokens is kept, and can be heard;
  decoding goes on.
- Else decoding goes back to the r tokens, the last that are known to be well, and draws on from there with uniforms of
  its own, up to the same place or an earlier end.
- After `tries` draws behind the same r tokens the first with the fewest misses stays, as if it were well. Where that is
  not the last, decoding goes on behind it, again with uniforms of its own.

The first look comes after `first` tokens, so sound begins a bounded number of tokens after the first one, whatever the
length of the sentence, and what was heard is never taken back.

*Why speculation keeps both laws.* A look is a function of the finished tokens up to a place that itself follows from
these tokens. So it is a stopping time of the sequence of tokens, and given what it sees the tokens behind have the
target's law, in any loop that has this law, plain or speculative, at any draft length and in any batch: a row that goes
on keeps them, one that goes back draws others. What a call has settled beyond the place must not be looked at, or the
law would follow where calls happen to end. A rule that `shares` numbers gives, with a seed, the same tokens and as many
redraws as the plain loop.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from spear_spec.config import require
from spear_spec.decoding.chance import REDRAW, derive
from spear_spec.decoding.request import Request, Whole
from spear_spec.models.alignment import Letters, check_aligned, letter_starts, strays

Misses = Callable[[object, Request, Sequence[int], int, bool], int]  # see `missed`


def missed(target: object, request: Request, speech: Sequence[int], kept: int = 0, ended: bool = True) -> int:
    """How many words of the request its semantic tokens leave out (their letters take less than `Whole.least` tokens
    each, on average), and how often they lose the thread (`Whole.stray` tokens that speak of another place).

    target: the transformer, or the `Letters` of this request's text. speech: without the end token. kept: what lies
    among so many first tokens is not counted. ended: whether they are all; if not, words that end within the last
    `Whole.margin` tokens, or were not reached, are not counted either.

    Raises:
        ConfigError: the target does not tell which letter it speaks.
    """
    wanted = request.whole
    if wanted is None or not wanted.words:
        return 0
    if not speech:
        return len(wanted.words) if ended else 0
    letters = target if isinstance(target, Letters) else Letters(target, request.ids)
    attention = letters.attention(speech)
    starts = letter_starts(attention, ended)
    passed = len(speech) if ended else len(speech) - wanted.margin
    out = sum(
        bool(kept <= starts[last] <= passed and starts[last] - starts[first] < wanted.least * (last - first))
        for first, last in wanted.words
    )
    return out + strays(attention, starts, wanted.stray, kept)


def check_whole(target: object, request: Request) -> None:
    """Refuse a request whose words cannot be looked for.

    Raises:
        ConfigError: the target does not tell which letter it speaks, or a word lies outside the text.
    """
    if request.whole is not None:
        check_aligned(target)
        for first, last in request.whole.words:
            require(last <= len(request.ids), f"a word at {first} to {last} lies outside a text of {len(request.ids)}")


@dataclass(frozen=True)
class Tried:
    """What was looked at: kept tokens of an utterance up to a place (ended None) or all of them (the end token among
    them), and what is missed in them. begun: so many of them were there before. number: of the stream of uniforms that
    drew the others, see `Tries`.
    """

    tokens: list[int]
    ended: str | None
    misses: int
    begun: int
    number: int


@dataclass
class Tries:
    """One request that wants to be whole on its way: what is kept of it, and what was tried behind that.

    kept: so many first tokens stay. place: where it is looked at next; None: at its end. number: how often it was begun
    anew. looked: all that was looked at, in order. letters: of the text, once they were asked for.
    """

    request: Request
    kept: int = field(init=False)
    place: int | None = field(init=False)
    number: int = 0
    looked: list[Tried] = field(default_factory=list)
    letters: Letters | None = None
    _count: int = 0
    _best: Tried | None = None
    _begun: int = field(init=False)

    def __post_init__(self) -> None:
        self.kept = self._begun = len(self.request.prefix)
        self.place = self._whole.place_after(self.kept)

    @property
    def _whole(self) -> Whole:
        assert self.request.whole is not None
        return self.request.whole

    def due(self, tokens: Sequence[int], ended: str | None) -> tuple[list[int], str | None] | None:
        """What is to be looked at now of an utterance's tokens, and why it ended there; None: nothing yet."""
        place = self.place
        if place is not None and (len(tokens) > place or (len(tokens) == place and ended is None)):
            return list(tokens[:place]), None
        return None if ended is None else (list(tokens), ended)

    def settle(self, tokens: list[int], ended: str | None, misses: int) -> Tried | None:
        """Take what was looked at; returns what stays. None: it is to be drawn again behind the tokens that are kept.

        What stays has ended, or `kept` and `place` tell how it goes on.
        """
        tried = Tried(tokens, ended, misses, self._begun, self.number)
        self.looked.append(tried)
        self._count += 1
        if self._best is None or misses < self._best.misses:
            self._best = tried
        chosen = self.request.sampling.temperature == 0  # nothing is drawn: it would come out the same
        if misses and not chosen and self._count < self._whole.tries:
            return None
        best, self._best, self._count = self._best, None, 0
        if best.ended is None:
            self.kept = max(self.kept, len(best.tokens) - self._whole.margin)
            self.place = self._whole.place_after(len(best.tokens))
            self._begun = len(best.tokens)
        return best

    def anew(self, tokens: Sequence[int]) -> Request:
        """The request as it goes on behind these tokens, with uniforms of its own."""
        self.number += 1
        self._begun = len(tokens)
        seed = derive(self.request.seed, self.number, REDRAW)
        return replace(self.request, prefix=tuple(tokens), seed=seed)
