"""What every draft with a decoder of its own shares: its caches, the settled tokens it reads, and the laws it draws
from.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from spear_spec.decoding.chance import GeneratorChance
from spear_spec.decoding.drafters.adaptive import Bounds, make_stopping, staying
from spear_spec.decoding.drafters.chain import ChainDrafter, ChainState
from spear_spec.decoding.proposal import Proposal, Verdict
from spear_spec.decoding.sampling import guided
from spear_spec.decoding.session import Session
from spear_spec.errors import ConfigError
from spear_spec.models.drafts.runner import DraftRunner, runner_for
from spear_spec.nn.tree import Tree

if TYPE_CHECKING:
    from spear_spec.models.drafts.decoder import DraftDecoder, DraftState


@dataclass
class DecoderState(ChainState):
    """The draft's cache and the length that its rows have committed (what lies behind was drafted).

    hidden: of the newest step, for those that run ahead on their own output. arms: 2 where the draft is guided as the
    target is: then every row is there twice, with its text and without.
    """

    runner: DraftRunner
    draft: DraftState
    committed: list[int]
    arms: int = 1
    hidden: Tensor | None = None

    def step(
        self, tokens: Tensor, features: Tensor | None, tree: Tree | None = None, counts: list[int] | None = None
    ) -> Tensor:
        """tokens [B, n]; features and result [arms B, n, D]; counts [B]: tokens of each row, the rest is padding."""
        if self.arms == 2:
            return self.runner.step(
                tokens.repeat(2, 1),
                features,
                self.draft,
                None if tree is None else tree.repeat(2),
                None if counts is None else counts * 2,
            )
        return self.runner.step(tokens, features, self.draft, tree, counts)

    def laws(self, hidden: Tensor, session: Session) -> Tensor:
        """hidden [arms B, n, D] -> laws [B, n, V] of what follows."""
        logits = self.runner.logits(hidden.reshape(-1, hidden.shape[-1])).view(*hidden.shape[:2], -1)
        return guided(logits, self.arms, session.sampling)


class DecoderDrafter:
    """Reads settled tokens, with the target's features of the positions that predicted them where the decoder is fed.

    guided: with guidance the draft runs both arms too and mixes them as the target does; otherwise it drafts from its
    plain law, which is cheaper and guesses less well. Verification is exact either way.
    """

    name = "small"
    stop: str | None = None

    def __init__(self, draft: DraftDecoder, *, guided: bool = False) -> None:
        if not isinstance(guided, bool):
            raise ConfigError(f"guided must be true or false, not {guided!r}")
        self.draft, self.guided = draft, guided

    def start(self, session: Session) -> DecoderState:
        session.features = self.draft.cfg.target_layers
        arms = session.arms if self.guided else 1
        memory = session.memory.guided() if arms == 2 else session.memory
        rows = len(session.rows)
        return DecoderState(
            runner_for(self.draft, session.model),
            self.draft.start(memory),
            [0] * rows,
            arms,
            stopping=make_stopping(self.stop, rows),
        )

    def catch_up(self, session: Session, state: DecoderState) -> Tensor:
        """Read the settled tokens; returns the hidden state [arms B, 1, D] at each row's last one."""
        fresh, device, cache = session.fresh, session.model.device, state.draft.cache
        cache.crop(state.committed * state.arms)
        counts = [len(row) for row in fresh]
        longest = max(counts)
        ids = torch.tensor([[*row, *[0] * (longest - len(row))] for row in fresh], device=device)
        hidden = state.step(ids, self._features(session, state, longest), counts=counts)
        state.committed = [before + count for before, count in zip(state.committed, counts)]
        if min(counts) != longest:  # padding was written behind the shorter rows
            cache.crop(state.committed * state.arms)
            index = torch.tensor([count - 1 for count in counts] * state.arms, device=device)
            return hidden[torch.arange(len(index), device=device), index][:, None]
        return hidden[:, -1:]

    def _features(self, session: Session, state: DecoderState, count: int) -> Tensor | None:
        """The target's fused features of the positions that predicted the fresh tokens, [arms B, count, D]."""
        if not self.draft.cfg.target_layers:
            return None
        if session.output is None:  # the start token was predicted by nothing
            rows = state.arms * len(session.rows)
            return torch.zeros(rows, count, self.draft.cfg.dim, dtype=session.model.dtype, device=session.model.device)
        outputs = [session.output] if state.arms == 1 else [session.output, session.null_output]
        features = zip(*[out.features for out in outputs if out is not None])
        return self.draft.fuse_target([torch.cat(layer)[:, :count] for layer in features])

    def commit(self, session: Session, state: DecoderState, verdict: Verdict) -> None:
        """Let rows that have ended leave."""
        if any(verdict.ended) and (stay := staying(verdict)):
            self.leave(session, state, stay)

    def leave(self, session: Session, state: DecoderState, stay: list[int]) -> None:
        """Only the rows at these places go on."""
        count = len(state.committed)
        state.draft.select([place + arm * count for arm in range(state.arms) for place in stay])
        state.committed = [state.committed[place] for place in stay]


class DecoderChain(ChainDrafter, DecoderDrafter):
    """A chain from a decoder: where it runs ahead it reads its own draft tokens, and its own output in place of
    features.
    """

    leave = DecoderDrafter.leave  # in the order of bases ChainDrafter's, which does nothing yet, comes first

    def __init__(self, draft: DraftDecoder, *, guided: bool = False, stop: str | None = None) -> None:
        """stop: see `adaptive.STOPS`."""
        super().__init__(draft, guided=guided)
        make_stopping(stop, 1)
        self.stop = stop

    def propose(self, session: Session, state: DecoderState, limits: list[int]) -> Proposal:
        rows, chance = session.rows, session.chance
        by_token = state.arms > 1 or max(limits) == 0 or not state.runner.chains(len(rows))
        if by_token or not isinstance(chance, GeneratorChance):  # which can tell what it will draw
            return super().propose(session, state, limits)
        bounds = Bounds()
        if state.stopping is not None:
            limits = state.stopping.limits(limits)
            bounds = state.stopping.bounds()
        hidden = self.catch_up(session, state)
        uniforms = [chance.ahead(row, max(limits)) for row in rows]
        tokens, laws = state.runner.chain(
            hidden, limits, uniforms, session.sampling, session.model.eos_id, state.draft, bounds.entropy, bounds.chance
        )
        for row, drawn in zip(rows, tokens):
            chance.passed(row, len(drawn))
        return Proposal(tokens, laws)

    def begin(self, session: Session, state: DecoderState) -> Tensor:
        state.hidden = self.catch_up(session, state)
        return state.laws(state.hidden, session)[:, 0]

    def advance(self, session: Session, state: DecoderState, tokens: Tensor) -> Tensor:
        state.hidden = state.step(tokens, state.hidden)
        return state.laws(state.hidden, session)[:, 0]
