"""Does what is kept follow the law of completeness? Every utterance replayed from what was drawn for it, and compared
with the autoregressive loop's.

What is drawn is tested token by token against the bare target, whatever becomes of it (`scores.py`): whether there is
another try, and behind which tokens, follows from the past alone, so the values are independent and uniform if every
try has the target's law. What is kept of it is a function of the tries, and can be worked out again. So there is little
that a comparison with the other loop could find beyond; it is made all the same, as it assumes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spear_spec.decoding import Request
from spear_spec.decoding.chance import REDRAW, derive, uniforms
from spear_spec.decoding.completeness import Tried, missed
from spear_spec.engine import Decoder, Utterance
from spear_spec.exactness.uniformity import ALPHA, never_check, same_check, two_sample_check

KEPT = "completeness: what is kept"
SHARED = "completeness: shared numbers"
AGAINST = "completeness: against the loop"
LOOKED = ("draws", "length", "likelihood")  # by what utterances of the two loops are compared
SEEDS = 2  # of every text, where the two loops must say the same
_EDGE = 1e-4  # by which rounding may move a law

LawAt = Callable[[Request, list[int]], NDArray[np.float64]]


def follows(target: object, utterance: Utterance) -> bool:
    """Whether an utterance is what the law keeps of the tries that were drawn for it (`decoding/completeness.py`,
    worked out again from its definition).
    """
    request, looked = utterance.request, utterance.looked
    whole = request.whole
    assert whole is not None and not request.prefix
    kept, anew, place, before = 0, 0, whole.place_after(0), [0, 0, []]
    behind: list[tuple[int, Tried]] = []  # (misses, try) behind the same kept tokens
    for number, look in enumerate(looked, 1):
        tokens, ended = look.tokens, look.ended
        here = len(tokens) if place is None else place
        if (len(tokens) != here if ended is None else len(tokens) > here) or (ended is None and place is None):
            return False  # looked at in another place than the law says
        if [look.number, look.begun, tokens[: look.begun]] != before:
            return False  # drawn behind other tokens, or not with uniforms of its own
        speech = tokens[:-1] if ended == "eos" else tokens
        misses = missed(target, request, speech, kept, ended is not None)
        behind.append((misses, look))
        if misses and request.sampling.temperature > 0 and len(behind) < whole.tries:
            anew, before = anew + 1, [anew + 1, kept, tokens[:kept]]
            continue
        _, best = min(behind, key=lambda entry: entry[0])
        if best.ended is not None:
            return number == len(looked) and [utterance.tokens, utterance.ended, utterance.redrawn] == [
                best.tokens,
                best.ended,
                anew,
            ]
        anew += best is not look
        kept, place = max(kept, len(best.tokens) - whole.margin), whole.place_after(len(best.tokens))
        before, behind = [anew, len(best.tokens), best.tokens], []
    return False


class Completed:
    """Utterances of a decoder, and where there is speculation, as many of the autoregressive loop."""

    def __init__(self) -> None:
        self.counts = {"utterances": 0, "redrawn": 0, "short": 0}
        self._wrong = 0
        self._found: dict[bool, dict[tuple[int, ...], list[tuple[float, ...]]]] = {True: {}, False: {}}

    def add(self, target: object, utterance: Utterance, likelihood: float) -> None:
        """One of the decoder; likelihood: the mean log-probability of its tokens."""
        self.counts["utterances"] += 1
        self.counts["redrawn"] += utterance.redrawn
        self.counts["short"] += bool(_left(target, utterance))
        self._wrong += not follows(target, utterance)
        self._note(True, utterance, likelihood)

    def add_plain(self, utterance: Utterance, likelihood: float) -> None:
        """One of the autoregressive loop."""
        self._note(False, utterance, likelihood)

    def _note(self, ours: bool, utterance: Utterance, likelihood: float) -> None:
        told = (float(utterance.redrawn), float(len(utterance.tokens)), likelihood)
        self._found[ours].setdefault(tuple(utterance.request.ids), []).append(told)

    def checks(self, level: float = ALPHA) -> list[dict[str, Any]]:
        """Rows of verify/1, not yet adjusted."""
        checks = [never_check(KEPT, self._wrong, self.counts["utterances"])]
        texts = [text for text in self._found[True] if text in self._found[False]]
        for place, name in enumerate(LOOKED if texts else ()):
            ours, loops = ([_column(self._found[side][text], place) for text in texts] for side in (True, False))
            checks.append(two_sample_check(f"{AGAINST}: {name}", ours, loops, level))
        return checks


def _left(target: object, utterance: Utterance) -> int:
    """What is missed in what was kept."""
    return missed(target, utterance.request, utterance.speech)


def _column(rows: Sequence[tuple[float, ...]], place: int) -> NDArray[np.float64]:
    return np.array([row[place] for row in rows])


def shared_check(decoder: Decoder, requests: Sequence[Request], batch: int, law_at: LawAt) -> dict[str, Any]:
    """Of a rule that draws with the loop's own numbers: the same tokens, endings and redraws as the autoregressive
    loop. tv is the share of requests that part although no number lies within rounding of where the laws change.

    law_at: (request, tokens) to the target's laws [T, V] of each of the tokens.
    """
    total, wrong = 0, 0
    for start in range(0, len(requests), batch):
        group = requests[start : start + batch]
        for request, ours in zip(group, decoder.engine().run(group)):
            [plain] = decoder.alone().engine().run([request])
            total += len(plain.tokens)
            same = (ours.tokens, ours.ended, ours.redrawn) == (plain.tokens, plain.ended, plain.redrawn)
            wrong += not same and not _rounded(request, plain, ours, law_at)
    return same_check(SHARED, wrong, len(requests), total)


def _rounded(request: Request, plain: Utterance, ours: Utterance, law_at: LawAt) -> bool:
    """Whether two that part do so first at a draw whose number lies at the edge between the two tokens."""
    opened: dict[int, int] = {}  # where each stream of uniforms begins
    for one, other in zip(plain.looked, ours.looked):
        first = opened.setdefault(one.number, one.begun)
        at = next((i for i, (a, b) in enumerate(zip(one.tokens, other.tokens)) if a != b), None)
        if at is None:
            continue
        seed = derive(request.seed, one.number, REDRAW) if one.number else request.seed
        [u] = uniforms(seed, at - first, 1)
        edges = np.concatenate([[0.0], np.cumsum(law_at(request, one.tokens[: at + 1])[at])])
        low, high = sorted((one.tokens[at], other.tokens[at]))
        return bool(np.abs(edges[low + 1 : high + 1] - u).min() < _EDGE)
    return False


def mean_log(laws: NDArray[np.float64], tokens: Sequence[int]) -> float:
    """The mean log-probability of tokens under their laws [T, V]."""
    return float(np.log(np.maximum(laws[np.arange(len(tokens)), tokens], 1e-30)).mean()) if tokens else math.nan
