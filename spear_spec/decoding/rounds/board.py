"""All that the device has of the rows of one engine after the other: buffers, and the rounds that run on them."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import cast

import torch

from spear_spec.config import SamplingConfig
from spear_spec.decoding.drafters.base import Drafter
from spear_spec.decoding.loop import Gamma
from spear_spec.decoding.rounds.draft_rows import DraftRows, longest_draft
from spear_spec.decoding.rounds.fused import ops
from spear_spec.decoding.rounds.laws import Kinds
from spear_spec.decoding.rounds.prefill import Prefill, pack
from spear_spec.decoding.rounds.round import Round
from spear_spec.decoding.rounds.rows import Rows, rounds_a_pool
from spear_spec.decoding.verifiers.base import SettlingVerifier, Verifier
from spear_spec.errors import ConfigError
from spear_spec.models.contract import Target
from spear_spec.models.memory import Memory
from spear_spec.models.spear_tts import TextToSemantic
from spear_spec.runtime.graphs import Graphs, Message, send
from spear_spec.runtime.static import StaticRuntime, bucket

LEAST = 64  # positions of the smallest view of the caches
MOST_ROWS = 4096  # for how many rows a draft length is asked


class Board:
    """Made for a target, a drafter and a rule; one session at a time has it, and it is as good as new after `clear`.

    Buffers grow when rows are admitted that need more (`room`). Rounds are made for buckets: rows and positions by
    powers of two, draft length, whether anybody is guided, which kinds of sampling there are.
    """

    def __init__(
        self,
        target: Target,
        drafter: Drafter | None,
        verifier: Verifier | None,
        gamma: Gamma,
        *,
        fused: bool | None = None,
    ) -> None:
        """drafter None: the autoregressive loop's rounds. gamma: see `Speculative`. fused: see `Round`; None: where
        there is Triton for the device.

        Raises:
            ConfigError: a target, drafter or rule that does not run on tensors alone.
        """
        if drafter is not None and not hasattr(verifier, "settle"):
            raise ConfigError(
                f"verifier {getattr(verifier, 'name', None)} has no form on tensors alone: use runtime eager"
            )
        self.target = target
        of = (lambda rows: gamma) if isinstance(gamma, int) else gamma
        most = None if drafter is None else longest_draft(drafter)
        # a round cannot pass over a draft: it would read nothing of what was settled
        self.gamma_at: Callable[[int], int] = (
            (lambda rows: 0) if drafter is None else (lambda rows: max(1, min(of(rows), most or of(rows))))
        )
        self.gamma = max(map(self.gamma_at, range(1, MOST_ROWS + 1)))  # room is made for the longest
        self.rule = None if drafter is None else cast(SettlingVerifier, verifier)
        self.runtime = StaticRuntime(target)
        self.fused = ops.available(target.device, target.vocab_size) if fused is None else fused
        self.drafts = None if drafter is None else DraftRows(drafter, target, self.gamma, fused=self.fused)
        self.runtime.features = () if self.drafts is None else tuple(self.drafts.layers)
        self.graphs = Graphs(target.device, self.quiet)
        self.made: dict[Hashable, Round] = {}
        self.begins: dict[Hashable, Prefill] = {}
        self.rows: Rows
        self.prepared = 0  # functions that were made so far; each is captured when it is run for the first time
        self._version = 0
        self._pool = 0  # rounds that the uniforms still last for

    def clear(self) -> None:
        """Nobody is here any more."""
        self.graphs.follow()
        if self._version:
            self.rows.active.fill_(False)
        self.runtime.leave([])

    # --- rows come and go -------------------------------------------------------------------------------------------

    def room(self, memory: Memory, samplings: Sequence[SamplingConfig], caps: Sequence[int]) -> None:
        """See to it that the rows of a memory find room."""
        runtime, target = self.runtime, self.target
        self.graphs.follow()
        runtime.room(memory, self.positions(caps), any(sampling.guidance != 1 for sampling in samplings))
        if runtime.version == self._version:
            return
        # buffers have grown: those of the draft and the rows' own follow, and nothing that was captured holds any more
        self.graphs.forget()
        self.made.clear()
        self.begins.clear()
        if self.drafts is not None:
            self.drafts.room(memory, runtime.rows, runtime.positions, runtime.slots_of_text)
        fed = 0 if self.drafts is None else self.drafts.fed
        rows = Rows.empty(runtime.rows, self.gamma + 1, fed, target.dtype, target.device)
        if self._version:
            rows.take(self.rows)
        self.rows, self._version = rows, runtime.version

    def open(
        self,
        samplings: Sequence[SamplingConfig],
        seeds: Sequence[int],
        caps: Sequence[int],
        prefixes: Sequence[Sequence[int]],
    ) -> None:
        """Write the rows that the runtime has just admitted; from the next round on they are in it."""
        arrived, rows, device = self.runtime.arrived, self.rows, self.target.device
        assert arrived is not None
        start, width = self.target.start_id, rows.fresh.shape[1]
        at = torch.tensor(arrived.slots, dtype=torch.int64, device=device)
        whole = {  # 64 bits of a seed as they are
            rows.seed: [seed - 2**64 if seed >= 2**63 else seed for seed in seeds],
            rows.cap: caps,
            rows.kept: [len(prefix) for prefix in prefixes],
            rows.how.top_k: [sampling.top_k for sampling in samplings],
        }
        real = {
            rows.how.temperature: [sampling.temperature for sampling in samplings],
            rows.how.top_p: [sampling.top_p for sampling in samplings],
            rows.how.guidance: [sampling.guidance for sampling in samplings],
        }
        for group, dtype in ((whole, torch.int64), (real, torch.float64)):
            lines = torch.tensor(list(group.values()), dtype=dtype, device=device)
            for store, line in zip(group, lines):
                store.index_copy_(0, at, line)
        newest = [[prefix[-1] if prefix else start, *[0] * (width - 1)] for prefix in prefixes]
        rows.fresh.index_copy_(0, at, torch.tensor(newest, dtype=torch.int64, device=device))
        rows.count.index_fill_(0, at, 1)
        rows.drawn.index_fill_(0, at, 0)
        rows.features.index_fill_(0, at, 0.0)
        if self.drafts is not None:
            rows.features[:, 0].index_copy_(0, at, self.drafts.admit(arrived))
        rows.active.index_fill_(0, at, True)
        self._pool = 0
        self.runtime.arrived = None

    def positions(self, caps: Sequence[int]) -> int:
        """Positions that rows of these caps need.

        Behind the last kept token a whole draft may still be written, and the draft itself is one token ahead.
        """
        return max(caps) + self.gamma + 2

    def takes(self, texts: Sequence[Sequence[int]], samplings: Sequence[SamplingConfig], caps: Sequence[int]) -> bool:
        """Whether rows without prefix can begin without the host: a target that is known, buffers that are there."""
        guided = any(sampling.guidance != 1 for sampling in samplings)
        slots = max(map(len, texts)) + 1
        fits = self._version > 0 and self.runtime.fits(len(texts), self.positions(caps), slots, guided)
        return fits and isinstance(self.target, TextToSemantic)

    def begin(
        self,
        texts: Sequence[Sequence[int]],
        samplings: Sequence[SamplingConfig],
        seeds: Sequence[int],
        caps: Sequence[int],
    ) -> None:
        """Rows of these texts, with their end tokens, take the lowest free slots; where `takes` says so."""
        runtime, device = self.runtime, self.target.device
        slots = runtime.free(len(texts))
        batch, guided = bucket(len(texts)), any(sampling.guidance != 1 for sampling in samplings)
        width = min(bucket(max(map(len, texts)) + 1, LEAST), runtime.slots_of_text) - 1
        numbers, reals = pack(texts, slots, seeds, caps, samplings, batch, width)
        key = ("begin", batch, width, guided)
        if key not in self.begins:
            there = (numbers.to(device), reals.to(device))
            table = self.target.positions(width)  # type: ignore[attr-defined]
            self.begins[key] = Prefill(runtime, self.drafts, self.rows, *there, guided, table)
            self.prepared += 1
        prefill = self.begins[key]
        self.graphs.follow()
        for store, given in ((prefill.numbers, numbers), (prefill.reals, reals)):
            store.copy_(given.pin_memory() if device.type == "cuda" else given, non_blocking=True)
        self.graphs.run(key, prefill)
        runtime.slots += slots

    def close(self, slots: Sequence[int]) -> None:
        """These rows are not in the next round."""
        self.graphs.follow()
        for slot in slots:
            self.rows.active[slot : slot + 1].fill_(False)

    # --- rounds -----------------------------------------------------------------------------------------------------

    def round(self, samplings: Sequence[SamplingConfig], longest: int) -> Message:
        """Run a round and say what `Rows.told` is behind it.

        Args:
            samplings: of the rows that may be in it. longest: most tokens that any of them may have kept before it.
        """
        runtime = self.runtime
        rows = min(bucket(max(runtime.slots) + 1), runtime.rows)
        positions = min(bucket(longest + self.gamma + 2, LEAST), runtime.positions)
        guided = any(sampling.guidance != 1 for sampling in samplings)
        key = (rows, positions, self.gamma_at(len(samplings)), guided, Kinds.of(samplings))
        if not self._pool:
            self.graphs.run("uniforms", self.rows.refill)
            self._pool = rounds_a_pool(self.gamma)
        self._pool -= 1
        if key not in self.made:
            self.made[key] = self._make(*key)
            self.prepared += 1
        self.graphs.run(key, self.made[key])
        return send(self.rows.told[:rows])

    def _make(self, rows: int, positions: int, gamma: int, guided: bool, kinds: Kinds) -> Round:
        eos = self.target.eos_id
        draft = None if self.drafts is None else self.drafts.view(rows, positions, eos)
        step = self.runtime.view(rows, positions, guided)
        return Round(self.rows.first(rows), step, draft, self.rule, gamma, eos, kinds, self.fused)

    @contextmanager
    def quiet(self) -> Iterator[None]:
        """No row is active: a round changes nothing that counts. Uniforms are made anew, the same ones."""
        active = self.rows.active.clone()
        self.rows.active.fill_(False)
        try:
            yield
        finally:
            self.rows.active.copy_(active)
