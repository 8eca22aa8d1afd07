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

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from spear_spec.config import SamplingConfig, SpecConfig
from spear_spec.decoding.chance import Chance
from spear_spec.decoding.decode import Parts
from spear_spec.decoding.drafters.base import Drafter
from spear_spec.decoding.limits import FRAME_RATE
from spear_spec.decoding.loop import Gamma, Plain, Speculative
from spear_spec.decoding.proposal import DecodeStats, Verdict
from spear_spec.decoding.request import Request
from spear_spec.decoding.session import Session
from spear_spec.decoding.verifiers.base import Verifier
from spear_spec.errors import ContractError
from spear_spec.models.contract import Target
from spear_spec.runtime.contract import Runtime


@dataclass(eq=False)
class Utterance:
    """A request in the engine: its tokens grow while it runs, and stay when it has left.

    tokens: kept ids, a prefix and the end token included. ended: None while it runs, then "eos", "cap", "guard" or
    "cancelled".
    """

    request: Request
    row: int | None
    tokens: list[int]
    stats: DecodeStats
    ended: str | None = None

    @property
    def speech(self) -> list[int]:
        """The semantic tokens, without the end token."""
        return self.tokens[:-1] if self.ended == "eos" else self.tokens


@dataclass
class Engine:
    """Decodes requests together.

    drafter None: the autoregressive loop. runtime: who runs a step; None: eager PyTorch. chance: None: every row draws
    from the stream of its request's seed. frame_rate: semantic tokens a second, for caps and the guard.
    """

    target: Target
    drafter: Drafter | None = None
    verifier: Verifier | None = None
    gamma: Gamma = 5
    runtime: Runtime | None = None
    chance: Chance | None = None
    frame_rate: float = FRAME_RATE
    session: Session = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.session = Session(self.target, chance=self.chance, runtime=self.runtime, frame_rate=self.frame_rate)
        self._loop: Plain | Speculative
        if self.drafter is None:
            self._loop = Plain(self.session)
        else:
            assert self.verifier is not None, "a drafter goes with a rule"
            self._loop = Speculative(self.session, self.drafter, self.verifier, self.gamma)
        self._running: dict[int, Utterance] = {}

    @property
    def running(self) -> bool:
        """Whether any utterance has not ended."""
        return self.session.running

    def admit(self, requests: Sequence[Request]) -> list[Utterance]:
        """Utterances join the batch; they are in the next step.

        Raises:
            TextError: text ids that the target does not know. ConfigError: a request that cannot be decoded.
        """
        rows = self._loop.admit(requests)
        session = self.session
        admitted = [
            Utterance(request, row, session.tokens[row], session.stats[row]) for request, row in zip(requests, rows)
        ]
        self._running.update(zip(rows, admitted))
        return admitted

    def step(self) -> Verdict:
        """One call of the target for every running row.

        Raises:
            NumericsError: the model produced NaN or infinity. ContractError: nothing runs, an object that is not ours
                broke its contract, or an earlier step was broken off.
        """
        if not self.running:
            raise ContractError("nothing runs in this engine: admit a request first")
        verdict = self._loop.step()
        for row, ended in zip(verdict.rows, verdict.ended):
            if ended is not None:
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

    def _finish(self, row: int, ended: str) -> None:
        utterance = self._running.pop(row)
        utterance.ended, utterance.row = ended, None
        self.session.forget(row)


@dataclass(frozen=True)
class Decoder:
    """What an engine is made of: a transformer, what drafts for it and by which rule, and the sampling it is used with.

    What measures and tests decoding (bench, tune, verify) needs no more of a voice than this.
    """

    target: Target
    parts: Parts
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    frame_rate: float = FRAME_RATE

    def engine(self) -> Engine:
        """A new engine, with nothing in it.

        Raises:
            ConfigError: the settings cannot be decoded with.
        """
        if self.parts.plain:
            return Engine(self.target, frame_rate=self.frame_rate)
        return Engine(self.target, *self.parts.made, self.parts.spec.gamma_at, frame_rate=self.frame_rate)

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
            "sampling": self.sampling.to_dict(),
        }
