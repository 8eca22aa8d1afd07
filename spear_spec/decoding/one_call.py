"""Whole steps of the two loops as one call into C (`kernels/round.py`), where all that takes part in them is ours.

Between two calls of C a step in Python costs as much as half a call of the target. What a whole step computes is what
the parts would, token for token: they share their state, and either may take the next step.
"""

from __future__ import annotations

from typing import Any

import torch

from spear_spec.decoding.chance import Uniforms
from spear_spec.decoding.drafters.base import Drafter
from spear_spec.decoding.drafters.decoder import DecoderChain, DecoderState
from spear_spec.decoding.proposal import Verdict
from spear_spec.decoding.session import Session
from spear_spec.decoding.verifiers.base import Verifier
from spear_spec.decoding.verifiers.block import BlockVerifier
from spear_spec.decoding.verifiers.rejection import RejectionVerifier
from spear_spec.kernels.round import NativeRound, Past, Reading, Round
from spear_spec.kernels.step import NativeStack
from spear_spec.models.drafts.runner import FEW
from spear_spec.models.memory import DecoderOutput
from spear_spec.models.spear_tts import TextToSemantic
from spear_spec.nn.cache import KVCache
from spear_spec.runtime.eager import EagerRuntime

_RULES = (BlockVerifier, RejectionVerifier)


class Scored(DecoderOutput):
    """What a round computed, as tensors when somebody asks for them."""

    def __init__(self, found: Round) -> None:
        self.round = found

    def __getattr__(self, name: str) -> Any:
        if name not in ("logits", "hidden", "features"):
            raise AttributeError(name)
        self.logits, self.hidden, *self.features = self.round.tensors()
        return self.__dict__[name]


class OneCall:
    """Steps of one session, with one drafter and rule or in the plain loop.

    `step` settles nothing where it returns None: then the step has to be taken in parts.
    """

    def __init__(self, session: Session, drafter: Drafter | None = None, rule: Verifier | None = None) -> None:
        self.session = session
        self._drafts = drafter is not None
        self._round: NativeRound | None = None
        self._of: tuple[object, object] = (None, None)  # stack and draft that the round is made of
        runtime, model = session.runtime, session.model
        self._rule = rule.name if rule is not None and type(rule) in _RULES else "rejection"
        self.possible = (
            type(session) is Session
            and type(runtime) is EagerRuntime
            and not runtime.on_tensors
            and type(model) is TextToSemantic
            and runtime.target is model
            and (drafter is None or (_ours(drafter) and type(rule) in _RULES))
        )

    def step(self, state: object = None, limits: list[int] | None = None) -> Verdict | None:
        """What a step settles; state and limits: of the drafter."""
        session, runtime = self.session, self.session.runtime
        assert isinstance(runtime, EagerRuntime)
        cache, chance, rows = runtime.cache, session.chance, session.rows
        stack = getattr(getattr(cache, "native", None), "stack", None)
        if (
            not self.possible
            or not isinstance(cache, KVCache)
            or stack is None
            or type(chance) is not Uniforms
            or not runtime.lanes.plain
        ):
            return None
        steps = 0
        if self._drafts:
            assert isinstance(state, DecoderState) and limits is not None
            steps, count = max(limits), max(map(len, session.fresh))
            if (
                not steps
                or state.stopping is not None
                or state.unread.tokens
                or not state.lanes.plain
                or state.runner.native is None
                or len(rows) * count > FEW
                or (state.runner.fed and runtime.output is not None and not runtime.features)
            ):
                return None
        if torch.is_autocast_enabled("cpu") or torch.is_grad_enabled():
            return None
        found = self._run(stack, state, limits, steps)
        for row, used in zip(rows, found.used):
            chance.passed(row, used)
        runtime.scored(Scored(found))
        cache.advance(found.count)
        tokens = [[*draft[:kept], last] for draft, kept, last in zip(found.drafts, found.accepted, found.last)]
        return Verdict(list(rows), tokens, found.accepted, [len(draft) for draft in found.drafts])

    def _run(self, stack: NativeStack, state: object, limits: list[int] | None, steps: int) -> Round:
        session, runtime = self.session, self.session.runtime
        model, cache, memory = session.model, runtime.cache, runtime.memory
        assert isinstance(model, TextToSemantic) and isinstance(cache, KVCache)
        reading, draft = None, None
        if self._drafts:
            assert isinstance(state, DecoderState) and limits is not None
            draft, runner, own = state.runner.native, state.runner, state.draft
            state.rewind()
            positions = own.cache.longest + max(map(len, session.fresh)) + steps
            own.cache.reserve(positions)
            output, said = runtime.output, None
            if runner.fed and output is not None:
                said = output.round if type(output) is Scored else output.features
            past = Past(own.cache, own.cross, own.cross_mask, runner.angles(positions))
            reading = Reading(limits, session.fresh, said, past)
        if self._round is None or self._of[0] is not stack or self._of[1] is not draft:
            self._round, self._of = NativeRound(stack, draft, self._rule), (stack, draft)
        model.room(steps + 1, cache)
        found = self._round.run(
            [fresh[-1] for fresh in session.fresh],
            session.samplings,
            [session.chance.ahead(row, 2 * steps + 1) or [] for row in session.rows],
            model.eos_id,
            Past(cache, memory.cross, memory.cross_mask, model.positions(cache.longest + steps + 1)),
            runtime.features,
            reading,
        )
        if isinstance(state, DecoderState):
            state.committed = [length + len(fresh) for length, fresh in zip(state.committed, session.fresh)]
            state.draft.cache.lengths = list(state.committed)
        return found


def _ours(drafter: Drafter) -> bool:
    """Whether it is a chain of a decoder that drafts as `DecoderChain` does."""
    kind: type[Any] = type(drafter)
    return (
        isinstance(drafter, DecoderChain)
        and kind.__module__.startswith("spear_spec.")
        and kind.propose is DecoderChain.propose
        and kind.catch_up is DecoderChain.catch_up
    )
