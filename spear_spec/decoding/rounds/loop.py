"""Both loops by whole rounds: the device goes on by itself, the host reads later what was kept.

Rounds are asked for ahead of those that have been read. The host knows then only that a row has not ended as far as it
has read, so it may ask for rounds in which a row has ended: in these the row is idle. What the host alone decides (the
runaway guard, a row that is cancelled) cuts a row's tokens where it would have cut them in the other loops, and what
the device has kept behind is dropped: a row's chance is its own, so nobody else can tell.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

import torch

from spear_spec.config import SamplingConfig
from spear_spec.decoding.drafters.base import Drafter
from spear_spec.decoding.limits import FRAME_RATE
from spear_spec.decoding.proposal import Verdict
from spear_spec.decoding.request import Request
from spear_spec.decoding.rounds.draft import DraftRows
from spear_spec.decoding.rounds.laws import filters
from spear_spec.decoding.rounds.round import Round
from spear_spec.decoding.rounds.rows import ACCEPTED, CAP, DRAFTED, ENDED, EOS, FINE, KEPT, TOLD, Rows, rounds_a_pool
from spear_spec.decoding.session import Session, exact_math
from spear_spec.decoding.verifiers.base import SettlingVerifier, Verifier
from spear_spec.errors import ConfigError, NumericsError
from spear_spec.models.contract import Target
from spear_spec.models.memory import Memory
from spear_spec.runtime.graphs import Graphs, Message, send
from spear_spec.runtime.static import StaticRuntime, bucket

LEAST = 64  # positions of the smallest view of the caches
_ENDINGS = {EOS: "eos", CAP: "cap"}


@dataclass(frozen=True)
class Asked:
    """A round that was asked for: who had which slot then (slot, row, number of the stay), and what it will say."""

    rows: list[tuple[int, int, int]]
    message: Message


class RoundSession(Session):
    """State of the rows as the host knows it: some rounds behind the device.

    Host side as in every session; on the device a row is what `Rows` has of it, at its slot of the runtime.
    """

    runtime: StaticRuntime

    def __init__(
        self,
        model: Target,
        drafter: Drafter | None = None,
        verifier: Verifier | None = None,
        gamma: int = 5,
        *,
        frame_rate: float = FRAME_RATE,
        ahead: int | None = None,
    ) -> None:
        """ahead: most rounds that are asked for and not read; by default 2 on CUDA, so that the device need not wait
        for the host, else 1.

        Raises:
            ConfigError: a target, drafter or rule that does not run on tensors alone.
        """
        if verifier is not None and drafter is not None and not hasattr(verifier, "settle"):
            raise ConfigError(f"verifier {verifier.name} has no form on tensors alone: use runtime eager")
        runtime = StaticRuntime(model)
        super().__init__(model, runtime=runtime, frame_rate=frame_rate)
        self.gamma = 0 if drafter is None else gamma
        self.rule = None if drafter is None else cast(SettlingVerifier, verifier)
        self.drafts = None if drafter is None else DraftRows(drafter, model, gamma)
        self.ahead = (2 if model.device.type == "cuda" else 1) if ahead is None else ahead
        self.graphs = Graphs(model.device, self._quiet)
        runtime.features = () if self.drafts is None else tuple(self.drafts.layers)
        self._board: Rows
        self._made: dict[Hashable, Round] = {}
        self._asked: deque[Asked] = deque()
        self._stays: dict[int, int] = {}  # by row: number of its stay, as a row's number is used again
        self._count = self._version = 0
        self._pool = 0  # rounds that the uniforms still last for

    # --- rows come and go -------------------------------------------------------------------------------------------

    def _begin(
        self,
        memory: Memory,
        samplings: Sequence[SamplingConfig],
        seeds: Sequence[int],
        caps: Sequence[int],
        prefixes: Sequence[tuple[int, ...]],
    ) -> list[int]:
        with exact_math(self.model):
            # behind the last kept token a whole draft may still be written, and the draft itself is one token ahead
            positions = max(caps) + self.gamma + 2
            self.runtime.room(memory, positions, any(sampling.guidance != 1 for sampling in samplings))
            if self.runtime.version != self._version:
                self._make_room(memory)
            rows = super()._begin(memory, samplings, seeds, caps, prefixes)
            self._open(samplings, seeds, caps, prefixes)
        for row in rows:
            self._count += 1
            self._stays[row] = self._count
        return rows

    def _make_room(self, memory: Memory) -> None:
        """Buffers have grown: those of the draft and the rows' own follow, and nothing captured holds any more."""
        runtime, model = self.runtime, self.model
        self.graphs.forget()
        self._made.clear()
        if self.drafts is not None:
            self.drafts.room(memory, runtime.rows, runtime.positions, runtime.slots_of_text)
        fed = 0 if self.drafts is None else self.drafts.fed
        board = Rows.empty(runtime.rows, self.gamma + 1, fed, model.dtype, model.device)
        if self._version:
            board.take(self._board)
        self._board, self._version = board, runtime.version

    def _open(
        self,
        samplings: Sequence[SamplingConfig],
        seeds: Sequence[int],
        caps: Sequence[int],
        prefixes: Sequence[tuple[int, ...]],
    ) -> None:
        """Write the rows that have just been admitted."""
        arrived, board, device = self.runtime.arrived, self._board, self.model.device
        assert arrived is not None
        start, width = self.model.start_id, board.fresh.shape[1]
        at = torch.tensor(arrived.slots, dtype=torch.int64, device=device)
        whole = {  # 64 bits of a seed as they are
            board.seed: [seed - 2**64 if seed >= 2**63 else seed for seed in seeds],
            board.cap: caps,
            board.kept: [len(prefix) for prefix in prefixes],
            board.how.top_k: [sampling.top_k for sampling in samplings],
        }
        real = {
            board.how.temperature: [sampling.temperature for sampling in samplings],
            board.how.top_p: [sampling.top_p for sampling in samplings],
            board.how.guidance: [sampling.guidance for sampling in samplings],
        }
        for group, dtype in ((whole, torch.int64), (real, torch.float64)):
            lines = torch.tensor(list(group.values()), dtype=dtype, device=device)
            for store, line in zip(group, lines):
                store.index_copy_(0, at, line)
        newest = [[prefix[-1] if prefix else start, *[0] * (width - 1)] for prefix in prefixes]
        board.fresh.index_copy_(0, at, torch.tensor(newest, dtype=torch.int64, device=device))
        board.count.index_fill_(0, at, 1)
        board.drawn.index_fill_(0, at, 0)
        board.features.index_fill_(0, at, 0.0)
        if self.drafts is not None:
            board.features[:, 0].index_copy_(0, at, self.drafts.admit(arrived))
        board.active.index_fill_(0, at, True)
        self._pool = 0
        self.runtime.arrived = None

    def _leave(self, stay: Sequence[int]) -> None:
        gone = set(range(len(self.rows))).difference(stay)
        for slot in [self.runtime.slots[place] for place in gone]:
            self._board.active[slot : slot + 1].fill_(False)
        for row in [self.rows[place] for place in gone]:
            del self._stays[row]
        super()._leave(stay)

    # --- rounds -----------------------------------------------------------------------------------------------------

    def ask(self) -> None:
        """Ask for a round of all running rows."""
        slots, lengths = self.runtime.slots, [len(self.tokens[row]) for row in self.rows]
        # what may have been kept by now, as far as is known here, and what this round writes
        unread = sum(1 for asked in self._asked) * (self.gamma + 1)
        most = max(min(length + unread, self.caps[row]) for row, length in zip(self.rows, lengths)) + self.gamma + 2
        rows = min(bucket(max(slots) + 1), self.runtime.rows)
        positions = min(bucket(most, LEAST), self.runtime.positions)
        guided = any(sampling.guidance != 1 for sampling in self.samplings)
        key = (rows, positions, guided, any(map(filters, self.samplings)))
        if not self._pool:
            self.graphs.run("uniforms", self._board.refill)
            self._pool = rounds_a_pool(self.gamma)
        self._pool -= 1
        if key not in self._made:
            self._made[key] = self._make(*key)
        self.graphs.run(key, self._made[key])
        told = send(self._board.told[:rows])
        stays = [(slot, row, self._stays[row]) for slot, row in zip(slots, self.rows)]
        self._asked.append(Asked(stays, told))

    def _make(self, rows: int, positions: int, guided: bool, filtered: bool) -> Round:
        draft = None if self.drafts is None else self.drafts.view(rows, positions, self.model.eos_id)
        step = self.runtime.view(rows, positions, guided)
        return Round(self._board.first(rows), step, draft, self.rule, self.gamma, self.model.eos_id, filtered)

    @contextmanager
    def _quiet(self) -> Iterator[None]:
        """No row is active: a round changes nothing that counts. Uniforms are made anew, the same ones."""
        active = self._board.active.clone()
        self._board.active.fill_(False)
        yield
        self._board.active.copy_(active)

    def round(self) -> Verdict:
        """The oldest round that was not read and in which anybody was: what it kept, by row.

        Raises:
            NumericsError: the model produced NaN or infinity.
        """
        while True:
            while len(self._asked) < self.ahead:
                self.ask()
            asked = self._asked.popleft()
            present = [(slot, row) for slot, row, stay in asked.rows if self._stays.get(row) == stay]
            if present:
                return self._read([row for _, row in present], asked.message.read(), [slot for slot, _ in present])

    def _read(self, rows: list[int], told: list[list[int]], slots: list[int]) -> Verdict:
        verdict = Verdict(rows, [], [], [])
        for row, slot in zip(rows, slots):
            line = told[slot]
            if not line[FINE]:
                raise NumericsError
            kept, ended = self._keep(row, line[TOLD : TOLD + line[KEPT]])
            assert kept and (ended == "guard" or ended == _ENDINGS.get(line[ENDED])), "host and device disagree"
            accepted = min(line[ACCEPTED], len(kept))
            verdict.tokens.append(kept)
            verdict.num_accepted.append(accepted)
            verdict.num_drafted.append(line[DRAFTED])
            verdict.ended.append(ended)
            self.ended[row] = ended
            self.stats[row].count(len(kept), line[DRAFTED], accepted)
        if any(verdict.ended):
            self._leave([place for place, row in enumerate(self.rows) if self.ended[row] is None])
        if not self.rows:
            self._asked.clear()  # nobody is in what was asked for beyond the end
        return verdict


class Rounds:
    """The loop on such a session: see `Plain` and `Speculative`, whose place it takes."""

    def __init__(self, session: RoundSession) -> None:
        self.session = session

    def admit(self, requests: Sequence[Request]) -> list[int]:
        """See `Session.admit`."""
        return self.session.admit(requests)

    def release(self, rows: Sequence[int]) -> None:
        """See `Session.release`."""
        self.session.release(rows)

    def step(self) -> Verdict:
        """The tokens of one round.

        Raises:
            NumericsError: the model produced NaN or infinity.
        """
        session = self.session
        with session.step(), exact_math(session.model):
            return session.round()
