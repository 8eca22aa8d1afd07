"""Both loops by whole rounds: the device goes on by itself, the host reads later what was kept.

Rounds are asked for ahead of those that have been read. The host knows then only that a row has not ended as far as it
has read, so it may ask for rounds in which a row has ended: in these the row is idle. What the host alone decides (the
runaway guard, a row that is cancelled) cuts a row's tokens where it would have cut them in the other loops, and what
the device has kept behind is dropped: a row's chance is its own, so nobody else can tell.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from spear_spec.config import SamplingConfig
from spear_spec.decoding.limits import FRAME_RATE
from spear_spec.decoding.proposal import Verdict
from spear_spec.decoding.request import Request, caps_of
from spear_spec.decoding.rounds.board import Board
from spear_spec.decoding.rounds.rows import ACCEPTED, CAP, DRAFTED, ENDED, EOS, FINE, KEPT, TOLD
from spear_spec.decoding.session import Session, exact_math
from spear_spec.errors import NumericsError
from spear_spec.models.memory import Memory
from spear_spec.runtime.graphs import Message

_ENDINGS = {EOS: "eos", CAP: "cap"}


@dataclass(frozen=True)
class Asked:
    """A round that was asked for: who had which slot then (slot, row, number of the stay), and what it will say."""

    rows: list[tuple[int, int, int]]
    message: Message


class RoundSession(Session):
    """State of the rows as the host knows it: some rounds behind the device, whose part is a board's."""

    def __init__(self, board: Board, *, frame_rate: float = FRAME_RATE, ahead: int | None = None) -> None:
        """board: nobody else's; whoever was there before is gone. ahead: most rounds that are asked for and not read;
        by default 2 on CUDA, so that the device need not wait for the host, else 1.
        """
        super().__init__(board.target, runtime=board.runtime, frame_rate=frame_rate)
        self.board = board
        self.ahead = (2 if board.target.device.type == "cuda" else 1) if ahead is None else ahead
        self._asked: deque[Asked] = deque()
        self._stays: dict[int, int] = {}  # by row: number of its stay, as a row's number is used again
        self._count = 0
        with exact_math(board.target):
            board.clear()

    def admit(self, requests: Sequence[Request]) -> list[int]:
        """See `Session.admit`. Where there is room and no prefix, the host waits for nothing."""
        self._check_whole()
        if not requests or any(request.prefix for request in requests):
            return super().admit(requests)
        caps = caps_of(self.model, requests, self.frame_rate)
        samplings = [request.sampling for request in requests]
        texts = [self.model.text(request.ids) for request in requests]
        if not self.board.takes(texts, samplings, caps):
            return super().admit(requests)
        seeds, none = [request.seed for request in requests], [()] * len(requests)
        with self._step(), exact_math(self.model):
            self.board.begin(texts, samplings, seeds, caps)
            return self._stay(self._enter(samplings, seeds, caps, none))

    def _stay(self, rows: list[int]) -> list[int]:
        for row in rows:
            self._count += 1
            self._stays[row] = self._count
        return rows

    def _begin(
        self,
        memory: Memory,
        samplings: Sequence[SamplingConfig],
        seeds: Sequence[int],
        caps: Sequence[int],
        prefixes: Sequence[tuple[int, ...]],
    ) -> list[int]:
        with exact_math(self.model):
            self.board.room(memory, samplings, caps)
            rows = super()._begin(memory, samplings, seeds, caps, prefixes)
            self.board.open(samplings, seeds, caps, prefixes)
        return self._stay(rows)

    def _leave(self, stay: Sequence[int]) -> None:
        gone = set(range(len(self.rows))).difference(stay)
        self.board.close([self.board.runtime.slots[place] for place in gone])
        for row in [self.rows[place] for place in gone]:
            del self._stays[row]
        super()._leave(stay)

    def _ask(self) -> None:
        """Ask for a round of all running rows."""
        unread = len(self._asked) * (self.board.gamma + 1)  # tokens that a row may have kept beyond what is known here
        longest = max(min(len(self.tokens[row]) + unread, self.caps[row]) for row in self.rows)
        stays = [(slot, row, self._stays[row]) for slot, row in zip(self.board.runtime.slots, self.rows)]
        self._asked.append(Asked(stays, self.board.round(self.samplings, longest)))

    def round(self) -> Verdict:
        """What the oldest round that was not read has kept, by row; of the rows that were in it and are still here.

        Raises:
            NumericsError: the model produced NaN or infinity.
        """
        while True:
            while len(self._asked) < self.ahead:
                self._ask()
            asked = self._asked.popleft()
            present = [(slot, row) for slot, row, stay in asked.rows if self._stays.get(row) == stay]
            if present:
                return self._read(present, asked.message.read())

    def _read(self, present: list[tuple[int, int]], told: list[list[int]]) -> Verdict:
        verdict = Verdict([row for _, row in present], [], [], [])
        for slot, row in present:
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
