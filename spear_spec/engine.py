"""The engine: requests in, semantic tokens out, in one batch that utterances join and leave at any step.

Made once for a transformer, a drafter and a rule; it knows nothing of text, phonemes or sound.

    engine = Engine(target, drafter, verifier, gamma=10)
    one, two = engine.admit([Request(ids, seed=1), Request(other, seed=2)])
    while engine.running:
        engine.step()                      # one call of the target for all rows
        three = engine.admit([...])        # joins; the others do not notice
    one.tokens, one.ended, one.stats
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from spear_spec.config import SamplingConfig, SpecConfig, shown
from spear_spec.decoding.beam import LENGTH_PENALTY, BeamSearch
from spear_spec.decoding.chance import Chance
from spear_spec.decoding.completeness import Misses, Tried, Tries, check_whole, missed
from spear_spec.decoding.decode import Parts
from spear_spec.decoding.drafters.base import Drafter
from spear_spec.decoding.limits import FRAME_RATE
from spear_spec.decoding.loop import Gamma, Plain, Speculative
from spear_spec.decoding.proposal import DecodeStats, Verdict
from spear_spec.decoding.request import Request
from spear_spec.decoding.rounds.board import Board
from spear_spec.decoding.rounds.loop import Rounds, RoundSession
from spear_spec.decoding.session import Session
from spear_spec.decoding.verifiers.base import Verifier
from spear_spec.errors import ConfigError, ContractError
from spear_spec.models.alignment import Letters
from spear_spec.models.contract import Target
from spear_spec.runtime.contract import Runtime

RUNTIMES = ("eager", "graphs", "auto")


def check_runtime(name: object) -> None:
    """Refuse a name that is none.

    Raises:
        ConfigError: it is not one of `RUNTIMES`.
    """
    if name not in RUNTIMES:
        raise ConfigError(f"there is no runtime {shown(name)}; available: {', '.join(RUNTIMES)}")


@dataclass(eq=False)
class Utterance:
    """A request in the engine: its tokens grow while it runs, and stay when it has left.

    tokens: kept ids, a prefix and the end token included; where the request wants it whole, those that are settled.
    ended: None while it runs, then "eos", "cap", "guard" or "cancelled". stats: of all tries. redrawn: how often it was
    begun anew, or went back. looked: what was looked at before it was settled.
    """

    request: Request
    row: int | None
    tokens: list[int]
    stats: DecodeStats
    ended: str | None = None
    redrawn: int = 0
    looked: Sequence[Tried] = ()

    @property
    def speech(self) -> list[int]:
        """The semantic tokens, without the end token."""
        return self.tokens[:-1] if self.ended == "eos" else self.tokens


@dataclass
class Engine:
    """Decodes requests together.

    drafter None: the autoregressive loop. runtime: who runs a step; None is eager PyTorch; a board, which must be made
    of the same target, drafter, rule and gamma, runs whole rounds on the device. chance: None: every row draws from the
    stream of its request's seed. frame_rate: semantic tokens a second, for caps and the guard.

    Raises:
        ConfigError: a board with a chance of one's own.
    """

    target: Target
    drafter: Drafter | None = None
    verifier: Verifier | None = None
    gamma: Gamma = 5
    runtime: Runtime | Board | None = None
    chance: Chance | None = None
    frame_rate: float = FRAME_RATE
    misses: Misses = missed  # words that an utterance leaves out
    session: Session = field(init=False, repr=False)

    def __post_init__(self) -> None:
        assert self.drafter is None or self.verifier is not None, "a drafter goes with a rule"
        self._loop: Plain | Speculative | Rounds
        if isinstance(self.runtime, Board):
            if self.chance is not None:
                raise ConfigError("runtime graphs draws from the rows' own streams: leave chance out")
            self.session = session = RoundSession(self.runtime, frame_rate=self.frame_rate)
            self._loop = Rounds(session)
        else:
            self.session = Session(self.target, chance=self.chance, runtime=self.runtime, frame_rate=self.frame_rate)
            if self.drafter is None or self.verifier is None:
                self._loop = Plain(self.session)
            else:
                self._loop = Speculative(self.session, self.drafter, self.verifier, self.gamma)
        self._running: dict[int, Utterance] = {}
        self._tries: dict[int, Tries] = {}  # of rows whose requests want to be whole

    @property
    def running(self) -> bool:
        """Whether any utterance has not ended."""
        return self.session.running

    def admit(self, requests: Sequence[Request]) -> list[Utterance]:
        """Utterances join the batch; they are in the next step.

        Raises:
            TextError: text ids that the target does not know. ConfigError: a request that cannot be decoded.
        """
        for request in requests:
            check_whole(self.target, request)
        rows = self._loop.admit(requests)
        session = self.session
        admitted = [
            Utterance(
                request, row, session.tokens[row] if request.whole is None else list(request.prefix), session.stats[row]
            )
            for request, row in zip(requests, rows)
        ]
        self._running.update(zip(rows, admitted))
        self._tries.update((row, Tries(request)) for request, row in zip(requests, rows) if request.whole is not None)
        return admitted

    def step(self) -> Verdict:
        """One call of the target for every running row.

        A row that is drawn again goes on under the same number, whether it ended in the verdict or not.

        Raises:
            NumericsError: the model produced NaN or infinity. ContractError: nothing runs, an object that is not ours
                broke its contract, or an earlier step was broken off.
        """
        if not self.running:
            raise ContractError("nothing runs in this engine: admit a request first")
        verdict = self._loop.step()
        for row, ended in zip(verdict.rows, verdict.ended):
            if row in self._tries:
                self._look(row, ended)
            elif ended is not None:
                self._finish(row, ended)
        return verdict

    def release(self, utterances: Sequence[Utterance]) -> None:
        """Cancel utterances: they leave at once and the others do not notice; those that have ended stay so."""
        rows = [utterance.row for utterance in utterances if utterance.row is not None]
        if rows:
            self._loop.release(rows)
            for row in rows:
                self._finish(row, "cancelled")

    def run(self, requests: Sequence[Request]) -> list[Utterance]:
        """Admit requests and decode until nothing runs any more.

        Raises:
            See `admit` and `step`.
        """
        utterances = self.admit(requests)
        while self.running:
            self.step()
        return utterances

    def _look(self, row: int, ended: str | None) -> None:
        """A row that wants to be whole has more tokens: what is due is looked at, settled, or drawn again."""
        session, utterance, tries = self.session, self._running[row], self._tries[row]
        while (due := tries.due(session.tokens[row], ended)) is not None:
            tokens, how = due
            speech = tokens[:-1] if how == "eos" else tokens
            letters = tries.letters = tries.letters or Letters(self.target, utterance.request.ids)
            misses = self.misses(letters, utterance.request, speech, tries.kept, how is not None)
            stays = tries.settle(tokens, how, misses)
            if stays is None:
                self._anew(row, ended, tokens[: tries.kept])
                return
            if stays.ended is not None:
                self._leave(row, ended)
                self._finish(row, stays.ended, stays.tokens)
                return
            utterance.tokens.extend(stays.tokens[len(utterance.tokens) : tries.kept])
            if stays.tokens is not tokens:
                self._anew(row, ended, stays.tokens)
                return

    def _anew(self, row: int, ended: str | None, tokens: Sequence[int]) -> None:
        """A row goes on behind these of its tokens, under the same number."""
        session, utterance, tries = self.session, self._running.pop(row), self._tries.pop(row)
        self._leave(row, ended)
        utterance.stats = utterance.stats + session.stats[row] if utterance.redrawn else session.stats[row]
        session.forget(row)  # the number that is free last is taken first
        [again] = self._loop.admit([tries.anew(tokens)])
        utterance.row, utterance.redrawn = again, tries.number
        self._running[again], self._tries[again] = utterance, tries

    def _leave(self, row: int, ended: str | None) -> None:
        if ended is None:
            self._loop.release([row])

    def _finish(self, row: int, ended: str, tokens: list[int] | None = None) -> None:
        """tokens: of one that wanted to be whole; else they grew in the session."""
        utterance, tries = self._running.pop(row), self._tries.pop(row, None)
        if utterance.redrawn:
            utterance.stats = utterance.stats + self.session.stats[row]
        if tokens is not None:
            utterance.tokens = tokens
        if tries is not None:
            utterance.looked = tries.looked
        utterance.ended, utterance.row = ended, None  # whoever looks on from another thread finds the tokens there
        self.session.forget(row)


class Beams:
    """An engine whose utterances are searched for and not drawn (`decoding/beam.py`): each comes whole, when its search
    is done. There is no drafter, and of a request neither the seed nor, but for the guidance, the sampling is heard.
    """

    def __init__(self, search: BeamSearch) -> None:
        """search: nobody else's."""
        self.search = search
        self._running: dict[int, Utterance] = {}

    @property
    def running(self) -> bool:
        """Whether any utterance has not ended."""
        return self.search.running

    def admit(self, requests: Sequence[Request]) -> list[Utterance]:
        """Utterances join; see `BeamSearch.admit`."""
        numbers = self.search.admit(requests)
        admitted = [Utterance(request, number, [], DecodeStats()) for request, number in zip(requests, numbers)]
        self._running.update(zip(numbers, admitted))
        return admitted

    def step(self) -> None:
        """One call of the target for every beginning of every utterance; see `BeamSearch.step`."""
        for number, found in self.search.step():
            utterance = self._running.pop(number)
            written = len(found.tokens) - len(utterance.request.prefix)
            utterance.tokens, utterance.stats = found.tokens, DecodeStats(found.calls, written)
            utterance.ended, utterance.row = found.ended, None  # last, see `Engine`


@dataclass(frozen=True)
class Decoder:
    """What an engine is made of: a transformer, what drafts for it and by which rule, and the sampling it is used with.

    What measures and tests decoding (bench, tune, verify) needs no more of a voice than this.

    runtime: who runs the steps, one of `RUNTIMES`: "eager" PyTorch; "graphs", whole rounds on the device, captured as
    CUDA graphs where there is CUDA; "auto" takes these on CUDA where they know how to run the target, drafter and rule.
    """

    target: Target
    parts: Parts
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    frame_rate: float = FRAME_RATE
    runtime: str = "eager"
    # what was captured is used again by the next engine, when nobody has the one before any more
    _boards: list[tuple[weakref.ref[Engine], Board]] = field(
        default_factory=list, init=False, repr=False, compare=False
    )

    def engine(self) -> Engine:
        """A new engine, with nothing in it.

        Raises:
            ConfigError: the settings cannot be decoded with, or not by this runtime.
        """
        check_runtime(self.runtime)
        drafter, verifier = (None, None) if self.parts.plain else self.parts.made
        gamma, board = self.parts.spec.gamma_at, None
        if self.runtime == "graphs" or (self.runtime == "auto" and self.target.device.type == "cuda"):
            try:
                board = self._board(drafter, verifier, gamma)
            except ConfigError:
                if self.runtime == "graphs":
                    raise
        drafts = self.parts.spec.gamma_at if board is None else gamma
        engine = Engine(self.target, drafter, verifier, drafts, board, frame_rate=self.frame_rate)
        if board is not None:
            self._boards.append((weakref.ref(engine), board))
        return engine

    def chosen(self) -> str:
        """The runtime that engines have: "eager" or "graphs", whatever `runtime` leaves open.

        Raises:
            ConfigError: as `engine`.
        """
        return "eager" if self.runtime == "eager" or self.engine().runtime is None else "graphs"

    def beams(self, width: int, length_penalty: float = LENGTH_PENALTY) -> Beams:
        """A new engine that searches with beams of this width, see `decoding/beam.py`.

        Raises:
            ConfigError: a width or a penalty that cannot be used, or runtime "graphs".
        """
        if self.runtime == "graphs":
            raise ConfigError("a beam search does not run as graphs: take runtime eager or auto")
        return Beams(BeamSearch(self.target, width, length_penalty, self.frame_rate))

    def _board(self, drafter: Drafter | None, verifier: Verifier | None, gamma: Gamma) -> Board:
        for entry in self._boards:
            if entry[0]() is None:
                self._boards.remove(entry)
                return entry[1]
        return Board(self.target, drafter, verifier, gamma)

    def alone(self) -> Decoder:
        """The same transformer in the autoregressive loop."""
        return replace(self, parts=Parts(SpecConfig(drafter="none")))

    def describe(self, *, batch: int = 1, seed: int = 0) -> dict[str, Any]:
        """The settings that every JSON result carries (CFG in the documentation).

        Drafter "none" has no verifier and gamma 0.
        """
        spec, plain = self.parts.spec, self.parts.plain
        drafter, verifier = self.parts.made
        return {
            "drafter": drafter.name,
            "verifier": None if plain else verifier.name,
            "lossless": plain or verifier.lossless,
            "gamma": 0 if plain else spec.gamma_at(batch),
            "gammas": {} if plain else dict(spec.gammas),
            "num_drafts": spec.num_drafts,
            "tree": spec.tree,
            "options": dict(spec.options),
            "batch": batch,
            "seed": seed,
            "device": str(self.target.device),
            "threads": torch.get_num_threads(),
            "dtype": str(self.target.dtype).removeprefix("torch."),
            "runtime": self.runtime,
            "sampling": self.sampling.to_dict(),
        }
