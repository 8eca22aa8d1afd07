"""Beam search: the likeliest utterance that a bounded search finds, in place of one that is drawn.

At each step the `width` best beginnings of a text are continued with every token. Of the `width` best continuations
those that end are set aside; the `width` best of those that do not end go on. Ended ones are compared by
log P / lp(n), n tokens, the end token included, with the length penalty of Wu et al. 2016 (arXiv 1609.08144,
equation 14), lp(n) = ((5 + n) / 6)^alpha; alpha 0 compares bare probabilities, which favours what is short.

Nothing is drawn. Texts give the same tokens whatever the seed, and what comes out is no sample of the target's law:
temperature, top-k and top-p have no meaning here, and no draft is verified, as there is no law to be kept.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch

from spear_spec.config import SamplingConfig, number, whole
from spear_spec.decoding.limits import FRAME_RATE, Guard
from spear_spec.decoding.request import Request, caps_of, encode
from spear_spec.decoding.session import exact_math
from spear_spec.errors import ConfigError, ContractError, NumericsError
from spear_spec.models.contract import Target
from spear_spec.runtime.eager import EagerRuntime

WIDEST_BEAM = 4096
LENGTH_PENALTY = 0.6

_Candidate = tuple[float, int, int]  # log probability, beginning that is continued, token


def penalty(length: int, alpha: float) -> float:
    """lp(length) = ((5 + length) / 6)^alpha; equation 14 of arXiv 1609.08144."""
    return float(((5 + length) / 6) ** alpha)


@dataclass(frozen=True)
class Found:
    """The best utterance that was found for a text.

    tokens: kept ids, a prefix and the end token included. log_probability: of what stands behind the prefix; score: the
    same over its length penalty. ended: "eos"; "cap" or "guard" where nothing was found that ends by itself. calls: of
    the target.
    """

    tokens: list[int]
    score: float
    log_probability: float
    ended: str
    calls: int = 0

    @property
    def speech(self) -> list[int]:
        """The tokens without the end token."""
        return self.tokens[:-1] if self.ended == "eos" else self.tokens


@dataclass
class _Beginning:
    tokens: list[int]
    total: float
    guard: Guard


@dataclass
class _Text:
    """A text's search. live: its beginnings, by place among the text's rows; complete: utterances that have ended by
    themselves so far.
    """

    number: int
    cap: int
    prefix: int
    guidance: float
    live: list[_Beginning]
    best: Found | None = None
    complete: int = 0
    calls: int = 0

    def go_on(self, candidates: Sequence[_Candidate], width: int, alpha: float, eos: int) -> list[int]:
        """Take a step's candidates, best first; returns which beginning each of the new ones continues, by place.

        None are left when the text is done.
        """
        self.calls += 1
        going: list[tuple[int, _Beginning]] = []
        for rank, (total, place, token) in enumerate(candidates):
            if len(going) == width:
                break
            before = self.live[place]
            tokens, guard, ended = [*before.tokens, token], before.guard, "eos"
            if token != eos:
                guard = guard.copy()
                ended = "guard" if guard.push(token) else "cap" if len(tokens) >= self.cap else ""
            if not ended:
                going.append((place, _Beginning(tokens, total, guard)))
            elif rank < width:
                self._end(tokens, total, ended, alpha)
        if self._settled(max((beginning.total for _, beginning in going), default=-math.inf), width, alpha):
            going = []
        return self._place(going)

    def _end(self, tokens: list[int], total: float, ended: str, alpha: float) -> None:
        score = total / penalty(len(tokens) - self.prefix, alpha)
        self.complete += ended == "eos"
        best = self.best
        if best is None or (ended == "eos", score) > (best.ended == "eos", best.score):
            self.best = Found(tokens, score, total, ended)

    def _settled(self, most: float, width: int, alpha: float) -> bool:
        """Whether nothing of log probability `most` or less can become better than the best."""
        if self.complete >= width:
            return True
        if self.best is None or self.best.ended != "eos":
            return False
        # probabilities only fall, and no length has a larger penalty than the cap
        return most / penalty(self.cap - self.prefix, alpha) <= self.best.score

    def _place(self, going: Sequence[tuple[int, _Beginning]]) -> list[int]:
        """Each beginning's first continuation stays at its place, so that little is moved in the cache."""
        kept: dict[int, tuple[int, _Beginning]] = {}
        others = []
        for parent, beginning in going:
            if parent < len(going) and parent not in kept:
                kept[parent] = (parent, beginning)
            else:
                others.append((parent, beginning))
        places = [kept[place] if place in kept else others.pop(0) for place in range(len(going))]
        self.live = [beginning for _, beginning in places]
        return [parent for parent, _ in places]


@dataclass
class BeamSearch:
    """The searches of texts that are decoded together; they join at any step, and leave when they are done.

    width: beginnings of a text that go on. length_penalty: alpha. frame_rate: tokens a second, for caps that follow
    from a text's length and for the guard, which ends what repeats itself for ever.

    A text is done when `width` utterances have ended by themselves, when nothing goes on, or when nothing that goes on
    can become better than the best. What ended by itself is preferred to what was cut off. So a beam as wide as the
    space finds the best utterance that there is.

    Raises:
        ConfigError: a width or a penalty that cannot be used.
    """

    target: Target
    width: int
    length_penalty: float = LENGTH_PENALTY
    frame_rate: float = FRAME_RATE
    _texts: list[_Text] = field(default_factory=list, init=False, repr=False)
    _admitted: int = field(default=0, init=False, repr=False)
    _whole: bool = field(default=True, init=False, repr=False)

    def __post_init__(self) -> None:
        check_beam(self.width, self.length_penalty)
        self._runtime = EagerRuntime(self.target)

    @property
    def running(self) -> bool:
        """Whether any text is not done."""
        return bool(self._texts)

    def admit(self, requests: Sequence[Request]) -> list[int]:
        """Texts join; returns their numbers. Of a request's sampling only the guidance is heard.

        Raises:
            TextError: text ids that the target does not know. ConfigError: a request that cannot be decoded.
        """
        self._check_whole()
        if not requests:
            return []
        if any(request.whole is not None for request in requests):
            raise ConfigError("a beam search draws nothing again: leave complete off")
        caps = caps_of(self.target, requests, self.frame_rate)
        guided = [request.sampling.guidance != 1 for request in requests]
        memory = encode(self.target, [request.ids for request in requests])
        if any(guided) and not memory.null_slots:
            raise ConfigError("this transformer knows no text-free lane: leave guidance at 1")
        self._whole = False
        with exact_math(self.target):
            self._runtime.admit(memory, guided, [request.prefix for request in requests])
        numbers = list(range(self._admitted, self._admitted + len(requests)))
        self._admitted += len(requests)
        for number_, request, cap in zip(numbers, requests, caps):
            guard = Guard(self.frame_rate)
            for token in request.prefix:
                guard.push(token)
            first = _Beginning(list(request.prefix), 0.0, guard)
            self._texts.append(_Text(number_, cap, len(request.prefix), request.sampling.guidance, [first]))
        self._whole = True
        return numbers

    def step(self) -> list[tuple[int, Found]]:
        """One call of the target, a token more for every beginning; the texts that are done, by number.

        Raises:
            NumericsError: the model produced NaN or infinity. ContractError: nothing runs, or an earlier step was
                broken off.
        """
        self._check_whole()
        if not self._texts:
            raise ContractError("nothing runs in this search: admit a request first")
        self._whole = False
        with exact_math(self.target):
            done: list[tuple[int, Found]] = []
            stay: list[_Text] = []
            rows: list[int] = []
            first, moved = 0, False
            for text, candidates in zip(self._texts, self._candidates()):
                before = len(text.live)
                parents = text.go_on(candidates, self.width, self.length_penalty, self.target.eos_id)
                if parents:
                    stay.append(text)
                    rows += [first + parent for parent in parents]
                else:
                    assert text.best is not None, "a text is not done before something has ended"
                    done.append((text.number, replace(text.best, calls=text.calls)))
                moved |= len(parents) != before
                first += before
            self._texts = stay
            if stay:
                self._runtime.branch(rows, texts=moved)
            else:
                self._runtime.leave([])
        self._whole = True
        return done

    def _candidates(self) -> list[list[_Candidate]]:
        """Of each text the best continuations of its beginnings: so many that as many as the beam is wide go on, though
        every beginning may end, and some by the guard.
        """
        texts, runtime, device = self._texts, self._runtime, self.target.device
        rows = [(at, place, beginning) for at, text in enumerate(texts) for place, beginning in enumerate(text.live)]
        start = self.target.start_id
        newest = [beginning.tokens[-1] if beginning.tokens else start for _, _, beginning in rows]
        logits = runtime.score(newest, [[] for _ in rows])[:, 0]
        runtime.keep([1] * len(rows))
        mixed = runtime.lanes.mix(logits, [texts[at].guidance for at, _, _ in rows]).double()
        if not math.isfinite(mixed.sum().item()):
            raise NumericsError
        totals = torch.tensor([beginning.total for _, _, beginning in rows], dtype=torch.float64, device=device)
        scores = torch.log_softmax(mixed, -1) + totals[:, None]
        most, vocabulary = max(len(text.live) for text in texts), scores.shape[-1]
        table = scores.new_full((len(texts), most, vocabulary), -torch.inf)
        table[[at for at, _, _ in rows], [place for _, place, _ in rows]] = scores
        stuck = max(sum(len(beginning.guard.fatal) for beginning in text.live) for text in texts)
        best = table.flatten(1).topk(min(2 * self.width + stuck, most * vocabulary))
        return [
            # ties are settled here, not by topk
            sorted(
                ((value, *divmod(index, vocabulary)) for value, index in zip(line, where) if value > -math.inf),
                key=lambda candidate: (-candidate[0], *candidate[1:]),
            )
            for line, where in zip(best.values.tolist(), best.indices.tolist())
        ]

    def _check_whole(self) -> None:
        if not self._whole:
            raise ContractError("an earlier step of this search was broken off: start a new one")


def check_beam(width: object, length_penalty: object = LENGTH_PENALTY) -> None:
    """Refuse what is no beam.

    Raises:
        ConfigError: a width that is no whole number of 1 to `WIDEST_BEAM`; a penalty that is no number of 0 to 10.
    """
    whole("beam", width, 1, WIDEST_BEAM)
    number("length_penalty", length_penalty, 0, 10)


def beam_search(
    target: Target,
    texts: Sequence[Sequence[int]],
    *,
    width: int,
    length_penalty: float = LENGTH_PENALTY,
    cap: int | Sequence[int] | None = None,
    guidance: float = 1.0,
    together: int = 16,
    frame_rate: float = FRAME_RATE,
) -> list[Found]:
    """The best utterance of each text that a beam of this width finds, in the order of the texts.

    Args:
        texts: text ids of each, without an end token.
        length_penalty: alpha, see the module.
        cap: most tokens, the end token included, of all texts or of each; None: it follows from the text's length.
        guidance: weight of the text against none, see `SamplingConfig`.
        together: most texts in one call of the target; each has up to `width` rows. The next one joins as soon as one
            is done.
        frame_rate: see `BeamSearch`.

    Raises:
        TextError: text ids that the target does not know. ConfigError: a setting that cannot be used. NumericsError:
        the model produced NaN or infinity.
    """
    whole("together", together, 1, 4096)
    caps = [cap] * len(texts) if cap is None or isinstance(cap, int) else list(cap)
    if len(caps) != len(texts):
        raise ConfigError(f"cap must name one number for each of the {len(texts)} texts, not {len(caps)}")
    sampling = SamplingConfig(guidance=guidance)
    waiting = [Request(ids, sampling=sampling, cap=most) for ids, most in zip(texts, caps)]
    search = BeamSearch(target, width, length_penalty, frame_rate)
    found: dict[int, Found] = {}
    joined = 0
    while len(found) < len(waiting):
        joined += len(search.admit(waiting[joined : len(found) + together]))
        found.update(search.step())
    return [found[at] for at in range(len(waiting))]
