"""What every draft with a decoder of its own shares: its caches, the settled tokens it reads, and the laws it draws
from.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from spear_spec.decoding.drafters.adaptive import Bounds, make_stopping, staying
from spear_spec.decoding.drafters.chain import ChainDrafter, ChainState
from spear_spec.decoding.proposal import Proposal, Verdict
from spear_spec.decoding.session import Session
from spear_spec.errors import ConfigError
from spear_spec.models.drafts.runner import DraftRunner, runner_for
from spear_spec.nn.tree import Tree
from spear_spec.runtime.lanes import Lanes

if TYPE_CHECKING:
    from spear_spec.models.drafts.decoder import DraftDecoder, DraftState

T = TypeVar("T")


@dataclass
class Unread:
    """Settled tokens that a draft has not read yet, since it was not asked for any draft.

    tokens: by place. fed: by lane, in pieces [n, D], what it is fed with at them.
    """

    tokens: list[list[int]] = field(default_factory=list)
    fed: list[list[Tensor]] = field(default_factory=list)

    def add(self, fresh: list[list[int]], fed: Tensor | None, lanes: Lanes) -> None:
        """The fresh tokens by place, and what comes with them [lanes, n, D]."""
        self.tokens = [[*before, *row] for before, row in zip(self._until(self.tokens, len(fresh)), fresh)]
        if fed is not None:
            pieces = self._until(self.fed, len(fed))
            # a copy: the runtime writes its output over
            self.fed = [[*b, row[:n].clone()] for b, row, n in zip(pieces, fed, lanes.spread([*map(len, fresh)]))]

    @staticmethod
    def _until(lines: list[list[T]], count: int) -> list[list[T]]:
        """Rows that have joined meanwhile have nothing unread."""
        return [*lines, *[list[T]() for _ in range(count - len(lines))]]

    def take(self, fresh: list[list[int]], fed: Tensor | None, lanes: Lanes) -> tuple[list[list[int]], Tensor | None]:
        """All that is to be read, the fresh tokens last; nothing is unread then."""
        if not self.tokens:
            return fresh, fed
        self.add(fresh, fed, lanes)
        whole = None if fed is None else pad_sequence([torch.cat(line) for line in self.fed], batch_first=True)
        tokens, self.tokens, self.fed = self.tokens, [], []
        return tokens, whole

    def leave(self, stay: list[int], lanes: list[int]) -> None:
        """Only these places and lanes go on."""
        self.tokens = [self.tokens[place] for place in stay if place < len(self.tokens)]
        self.fed = [self.fed[lane] for lane in lanes if lane < len(self.fed)]


@dataclass
class DecoderState(ChainState):
    """The draft's cache and the length that its rows have committed (what lies behind was drafted).

    lanes: the draft's own; where it is guided as the target is, rows with guidance are there twice, with their text and
    without. committed: by place. hidden: of the newest step, for those that run ahead on their own output.
    """

    runner: DraftRunner
    draft: DraftState
    lanes: Lanes
    committed: list[int]
    hidden: Tensor | None = None
    unread: Unread = field(default_factory=Unread, kw_only=True)

    def step(
        self, tokens: Tensor, features: Tensor | None, tree: Tree | None = None, counts: list[int] | None = None
    ) -> Tensor:
        """tokens [B, n]; features and result [lanes, n, D]; counts [B]: tokens of each row, the rest is padding."""
        lanes = self.lanes
        if not lanes.plain:
            tokens = lanes.expand(tokens)
            tree = None if tree is None else tree.select(lanes.places)
            counts = None if counts is None else lanes.spread(counts)
        return self.runner.step(tokens, features, self.draft, tree, counts)

    def laws(self, hidden: Tensor, session: Session) -> Tensor:
        """hidden [lanes, n, D] -> laws [B, n, V] of what follows."""
        logits = self.runner.logits(hidden.reshape(-1, hidden.shape[-1])).view(*hidden.shape[:2], -1)
        return session.laws_of(logits, self.lanes)

    def rewind(self) -> None:
        """Forget what was drafted behind the committed tokens."""
        self.draft.cache.crop(self.lanes.spread(self.committed))


class DecoderDrafter:
    """Reads settled tokens, with the target's features of the positions that predicted them where the decoder is fed.

    guided: with guidance the draft runs both lanes too and mixes them as the target does; otherwise it drafts from its
    plain law, which is cheaper and guesses less well. Verification is exact either way.
    """

    name = "small"
    rests = True
    stop: str | None = None
    price: float | None = None  # of a draft token, see `adaptive.Acceptance`

    def __init__(self, draft: DraftDecoder, *, guided: bool = False) -> None:
        if not isinstance(guided, bool):
            raise ConfigError(f"guided must be true or false, not {guided!r}")
        self.draft, self.guided = draft, guided

    def start(self, session: Session) -> DecoderState:
        session.want(self.draft.cfg.target_layers)
        runner = runner_for(self.draft, session.model)
        rows = len(session.rows)
        lanes, draft = self._begin(session, list(range(rows)))
        return DecoderState(runner, draft, lanes, [0] * rows, stopping=make_stopping(self.stop, rows, self.price))

    def _begin(self, session: Session, places: list[int]) -> tuple[Lanes, DraftState]:
        """Lanes, cross-attention and empty cache of the rows at these places."""
        lanes = Lanes.of([self.guided and session.samplings[place].guidance != 1 for place in places])
        if not places:
            return lanes, self.draft.empty()
        memory = session.memory
        if not lanes.plain or len(places) < memory.batch:
            memory = memory.select(lanes.spread(places)).without_text(lanes.free)
        return lanes, self.draft.start(memory)

    def join(self, session: Session, state: DecoderState, places: list[int]) -> None:
        """Rows have joined at these places, the last ones."""
        lanes, draft = self._begin(session, places)
        state.draft.join(draft)
        state.lanes = state.lanes.join(lanes)
        state.committed = [*state.committed, *[0] * len(places)]

    def catch_up(self, session: Session, state: DecoderState) -> Tensor:
        """Read the settled tokens; returns the hidden state [lanes, 1, D] at each row's last one."""
        device = session.model.device
        state.rewind()
        fresh, fed = state.unread.take(session.fresh, self._features(session, state), state.lanes)
        counts = [len(row) for row in fresh]
        longest = max(counts)
        ids = torch.tensor([[*row, *[0] * (longest - len(row))] for row in fresh], dtype=torch.int64, device=device)
        hidden = state.step(ids, fed, counts=counts)
        state.committed = [before + count for before, count in zip(state.committed, counts)]
        if min(counts) != longest:  # padding was written behind the shorter rows
            state.rewind()
            return at(hidden, [count - 1 for count in state.lanes.spread(counts)])
        return hidden[:, -1:]

    def rest(self, session: Session, state: DecoderState) -> Proposal:
        """No draft in this step; what is fresh now is read with the next one."""
        if state.stopping is not None:
            state.stopping.limits([0] * len(session.rows))
        self.put_off(session, state)
        return Proposal([[] for _ in session.rows])

    def put_off(self, session: Session, state: DecoderState) -> None:
        """Keep what is fresh, to read it with the next draft."""
        state.unread.add(session.fresh, self._features(session, state), state.lanes)

    def _features(self, session: Session, state: DecoderState) -> Tensor | None:
        """The target's fused features of the positions that predicted the fresh tokens, [lanes, most of them, D]."""
        if not self.draft.cfg.target_layers:
            return None
        count = max(len(row) for row in session.fresh)
        output = session.output if state.lanes.plain else session.lane_output
        if output is None:  # the start token was predicted by nothing
            model = session.model
            return torch.zeros(len(state.lanes.places), count, model.dim, dtype=model.dtype, device=model.device)
        return state.runner.fuse(self.draft, output.features, count)

    def commit(self, session: Session, state: DecoderState, verdict: Verdict) -> None:
        """Let rows that have ended leave."""
        if any(verdict.ended):
            self.leave(session, state, staying(verdict))

    def admit(self, session: Session, state: DecoderState, count: int) -> None:
        """So many rows have joined, at the session's last places."""
        self.join(session, state, list(range(len(session.rows) - count, len(session.rows))))

    def release(self, session: Session, state: DecoderState, stay: list[int]) -> None:
        """Only the rows that stood at these places go on."""
        self.leave(session, state, stay)

    def leave(self, session: Session, state: DecoderState, stay: list[int]) -> None:
        """Only the rows at these places go on."""
        lanes = state.lanes.leave(stay)
        state.draft.select(lanes)
        state.unread.leave(stay, lanes)
        state.committed = [state.committed[place] for place in stay]


class DecoderChain(ChainDrafter, DecoderDrafter):
    """A chain from a decoder: where it runs ahead it reads its own draft tokens, and its own output in place of
    features.
    """

    # in the order of bases ChainDrafter's, which do nothing, come first
    leave = DecoderDrafter.leave
    join = DecoderDrafter.join

    def __init__(
        self, draft: DraftDecoder, *, guided: bool = False, stop: str | None = None, cost: float | None = None
    ) -> None:
        """stop: see `adaptive.STOPS`. cost: of a draft token, for stop "acceptance"."""
        super().__init__(draft, guided=guided)
        make_stopping(stop, 1, cost)
        self.stop, self.price = stop, cost

    def propose(self, session: Session, state: DecoderState, limits: list[int]) -> Proposal:
        rows, chance = session.rows, session.chance
        if max(limits) == 0:
            return self.rest(session, state)
        if not state.lanes.plain or not state.runner.chains(len(rows)):
            return super().propose(session, state, limits)
        uniforms = [chance.ahead(row, max(limits)) for row in rows]
        if any(line is None for line in uniforms):  # this source cannot tell what it will draw
            return super().propose(session, state, limits)
        bounds = Bounds()
        if state.stopping is not None:
            limits = state.stopping.limits(limits)
            bounds = state.stopping.bounds()
        hidden = self.catch_up(session, state)
        if max(limits) == 0:
            return Proposal([[] for _ in limits])
        tokens, laws = state.runner.chain(
            hidden,
            limits,
            [line[: max(limits)] for line in uniforms if line is not None],
            session.samplings,
            session.model.eos_id,
            state.draft,
            bounds.entropy,
            bounds.chance,
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


def at(x: Tensor, positions: list[int]) -> Tensor:
    """x [R, n, D] at one position of each row: [R, 1, D]."""
    index = torch.tensor(positions, dtype=torch.int64, device=x.device)
    return x[torch.arange(len(positions), device=x.device), index][:, None]
