"""Utterances being decoded together: kept tokens, and who has ended. Modules hold weights, sessions hold state."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from spear_spec.config import SamplingConfig
from spear_spec.decoding.chance import Chance, Shared, Uniforms
from spear_spec.decoding.limits import FRAME_RATE, Guard, default_cap
from spear_spec.decoding.proposal import DecodeStats, Proposal, Verdict
from spear_spec.decoding.request import Request, capped, caps_of, check_cap, encode
from spear_spec.decoding.sampling import probabilities
from spear_spec.errors import ConfigError, ContractError
from spear_spec.models.contract import Cache, Target
from spear_spec.models.memory import DecoderOutput, Memory
from spear_spec.runtime.contract import Runtime
from spear_spec.runtime.eager import EagerRuntime
from spear_spec.runtime.lanes import Lanes


class Session:
    """State of the utterances that are decoded together. They join at any step, and leave when they end or are
    released.

    Indexed by row number (a row has one from `admit` to `forget`): `tokens` (kept ids, a prefix and the end token
    included), `ended` (None, "eos", "cap", "guard", "cancelled"), `stats`. Indexed by place in the batch that runs:
    `rows` (row numbers), `samplings`, `fresh` (ids of each row that the target has not read, or that it has only now
    settled: the draft reads them).

    A step happens whole or not at all: one that an exception ended leaves caches ahead of tokens, and the session then
    refuses to go on.
    """

    def __init__(
        self,
        model: Target,
        memory: Memory | None = None,
        sampling: SamplingConfig | None = None,
        *,
        generator: torch.Generator | None = None,
        chance: Chance | None = None,
        max_tokens: int | Sequence[int] | None = None,
        runtime: Runtime | None = None,
        frame_rate: float = FRAME_RATE,
    ) -> None:
        """Empty, or with the rows of a memory of B encoded texts, whose randomness comes from `chance`, or from
        `generator` (its state is read once).

        max_tokens: the cap for all these rows or for each; by default it follows from the length of the text.

        Raises:
            ConfigError: rows with neither or both of generator and chance; a cap below 1.
        """
        self.model = model
        self.runtime: Runtime = EagerRuntime(model) if runtime is None else runtime
        self.chance: Chance = Uniforms() if chance is None else chance
        self.frame_rate = frame_rate
        self.rows: list[int] = []
        self.samplings: list[SamplingConfig] = []
        self.fresh: list[list[int]] = []
        self.caps: list[int] = []
        self.tokens: list[list[int]] = []
        self.ended: list[str | None] = []
        self.stats: list[DecodeStats] = []
        self._guards: list[Guard] = []
        self._free: list[int] = []
        self._whole = True
        if memory is None:
            return
        if (generator is None) == (chance is None):
            raise ConfigError("decoding needs an explicit generator (or a source of chance), exactly one of them")
        batch = memory.batch
        seeds = [0] * batch
        if generator is not None:
            drawn = torch.randint(0, 2**62, (batch,), generator=generator, device=generator.device, dtype=torch.int64)
            seeds = drawn.tolist()
        if max_tokens is None:
            caps = [default_cap(int(n), frame_rate) for n in memory.mask.sum(1).tolist()]
        else:
            caps = [max_tokens] * batch if isinstance(max_tokens, int) else [int(n) for n in max_tokens]
        if len(caps) != batch:
            raise ConfigError(f"max_tokens must name one number for each of the {batch} texts, not {len(caps)}")
        for cap in caps:
            check_cap(cap)
        self._begin(memory, [sampling or SamplingConfig()] * batch, seeds, capped(self.model, caps), [()] * batch)

    def admit(self, requests: Sequence[Request]) -> list[int]:
        """Rows join behind those that run; returns their numbers.

        Raises:
            TextError: text ids that the target does not know. ConfigError: a prefix that leaves nothing to decode.
        """
        self._check_whole()
        if not requests:
            return []
        caps = caps_of(self.model, requests, self.frame_rate)
        memory = encode(self.model, [request.ids for request in requests])
        with self._step():
            return self._begin(
                memory,
                [request.sampling for request in requests],
                [request.seed for request in requests],
                caps,
                [tuple(request.prefix) for request in requests],
            )

    def _begin(
        self,
        memory: Memory,
        samplings: Sequence[SamplingConfig],
        seeds: Sequence[int],
        caps: Sequence[int],
        prefixes: Sequence[tuple[int, ...]],
    ) -> list[int]:
        guided = [sampling.guidance != 1 for sampling in samplings]
        if any(guided) and not memory.null_slots:
            raise ConfigError("this transformer knows no text-free lane: leave guidance at 1")
        with exact_math(self.model):
            self.runtime.admit(memory, guided, prefixes)
        return self._enter(samplings, seeds, caps, prefixes)

    def _enter(
        self,
        samplings: Sequence[SamplingConfig],
        seeds: Sequence[int],
        caps: Sequence[int],
        prefixes: Sequence[tuple[int, ...]],
    ) -> list[int]:
        """Numbers for rows that the runtime has admitted."""
        rows = []
        for seed, cap, prefix in zip(seeds, caps, prefixes):
            row = self._free.pop() if self._free else len(self.tokens)
            at = slice(row, row + 1)  # a number that is free, or the next one
            self.tokens[at], self.ended[at], self.stats[at] = [list(prefix)], [None], [DecodeStats()]
            self.caps[at], self._guards[at] = [cap], [Guard(self.frame_rate)]
            for token in prefix:
                self._guards[row].push(token)
            self.chance.open(row, seed)
            self.fresh.append([self.model.start_id, *prefix])
            rows.append(row)
        self.rows = [*self.rows, *rows]
        self.samplings = [*self.samplings, *samplings]
        return rows

    @property
    def running(self) -> bool:
        return bool(self.rows)

    @property
    def remaining(self) -> list[int]:
        """Tokens that each running row may still keep."""
        return [self.caps[row] - len(self.tokens[row]) for row in self.rows]

    # --- what drafters read -----------------------------------------------------------------------------------------

    @property
    def lanes(self) -> Lanes:
        """Rows with guidance are scored twice, with their text and without."""
        return self.runtime.lanes

    @property
    def cache(self) -> Cache:
        """The target's, by lane."""
        return self.runtime.cache

    @property
    def scored(self) -> Memory:
        """The encoded texts, by lane."""
        return self.runtime.memory

    @property
    def lane_output(self) -> DecoderOutput | None:
        """What the target computed of the last step, by lane; None before the first."""
        return self.runtime.output

    @property
    def memory(self) -> Memory:
        """The encoded texts, by place."""
        return self.scored if self.lanes.plain else self.scored.select(self.lanes.texts)

    @property
    def output(self) -> DecoderOutput | None:
        """What the target computed with the text in the last step, by place: position i predicted fresh token i."""
        out = self.lane_output
        return out if out is None or self.lanes.plain else out.select(self.lanes.texts)

    @property
    def begun(self) -> list[bool]:
        """By place: whether the target has said anything of the row."""
        start = self.model.start_id
        return [fresh != [start] for fresh in self.fresh]

    def want(self, features: Sequence[int]) -> None:
        """Layers of the target whose output the draft wants to see from now on."""
        self.runtime.features = tuple(features)

    def laws_of(self, logits: Tensor, lanes: Lanes | None = None) -> Tensor:
        """Laws [B, ..., V] of logits by lane: guidance, then each row's own filters. lanes: a draft's own."""
        mixed = (lanes or self.lanes).mix(logits, [sampling.guidance for sampling in self.samplings])
        return probabilities(mixed, self.samplings)

    @contextmanager
    def drafting(self, shares: bool) -> Iterator[None]:
        """While drafts are drawn; shares: with the numbers that the rule will use, see `Verifier`."""
        chance = self.chance
        self.chance = Shared(chance) if shares else chance
        try:
            yield
        finally:
            self.chance = chance

    # --- a step -----------------------------------------------------------------------------------------------------

    def score(self, proposal: Proposal | None = None) -> Tensor:
        """The target's logits [lanes, N + 1, V] after each row's newest token and after each of its draft tokens."""
        newest = [fresh[-1] for fresh in self.fresh]
        if proposal is None:
            return self.runtime.score(newest, [[] for _ in newest])
        return self.runtime.score(newest, proposal.tokens, proposal.parents, proposal.below)

    def laws(self, proposal: Proposal | None = None) -> Tensor:
        """The target's laws [B, N + 1, V] after each row's newest token and then after each of its draft tokens."""
        return self.laws_of(self.score(proposal))

    def commit(self, verdict: Verdict) -> Verdict:
        """Keep what the verdict says: cut at an end token, guard or cap, roll the caches back, let ended rows leave.

        Returns the verdict as it was kept. `verdict.rows` must be the running rows in order.
        """
        verdict.ended = []
        depths = self.runtime.depths
        for place, row in enumerate(self.rows):
            kept, ended = self._keep(row, verdict.tokens[place])
            verdict.tokens[place] = kept
            accepted = min(verdict.num_accepted[place], len(kept))
            verdict.num_accepted[place] = accepted
            verdict.ended.append(ended)
            self.ended[row] = ended
            depth = None if depths is None else depths[place]
            self.stats[row].count(len(kept), verdict.num_drafted[place], accepted, depth)
        self.fresh = [list(kept) for kept in verdict.tokens]
        self.runtime.keep([len(kept) for kept in verdict.tokens], verdict.paths)
        if any(verdict.ended):
            self._leave([place for place, ended in enumerate(verdict.ended) if ended is None])
        return verdict

    def _keep(self, row: int, tokens: list[int]) -> tuple[list[int], str | None]:
        store, guard, cap, eos = self.tokens[row], self._guards[row], self.caps[row], self.model.eos_id
        for count, token in enumerate(tokens, 1):
            store.append(token)
            ended = "eos" if token == eos else "guard" if guard.push(token) else "cap" if len(store) >= cap else None
            if ended:
                return tokens[:count], ended
        return tokens, None

    def _leave(self, stay: Sequence[int]) -> None:
        self.rows = [self.rows[place] for place in stay]
        self.samplings = [self.samplings[place] for place in stay]
        self.fresh = [self.fresh[place] for place in stay]
        self.runtime.leave(stay)

    def speech(self, row: int) -> list[int]:
        """The kept semantic tokens of a row, without the end token."""
        tokens = self.tokens[row]
        return tokens[:-1] if self.ended[row] == "eos" else list(tokens)

    # --- leaving ----------------------------------------------------------------------------------------------------

    def release(self, rows: Sequence[int]) -> list[int]:
        """Rows that still run leave at once, ended as "cancelled"; returns the places of those that stay."""
        self._check_whole()
        gone = set(rows)
        stay = [place for place, row in enumerate(self.rows) if row not in gone]
        with self._step(), exact_math(self.model):
            for row in gone.intersection(self.rows):
                self.ended[row] = "cancelled"
            self._leave(stay)
        return stay

    def forget(self, row: int) -> None:
        """An ended row's tokens are no longer wanted; its number goes to a row that joins later."""
        if row in self.rows:
            raise ContractError(f"row {row} is still running: release it first")
        self.tokens[row], self.stats[row] = [], DecodeStats()
        self._free.append(row)

    # --- whole steps ------------------------------------------------------------------------------------------------

    @contextmanager
    def _step(self) -> Iterator[None]:
        self._whole = False
        yield
        self._whole = True

    def step(self) -> Any:
        """A context in which one step happens: whole, or the session refuses to go on.

        Raises:
            ContractError: an earlier step did not come to its end.
        """
        self._check_whole()
        return self._step()

    def _check_whole(self) -> None:
        if not self._whole:
            raise ContractError(
                "an earlier step of this session was broken off (an exception or an interrupt): "
                "its caches are ahead of its tokens, start a new one"
            )


@contextmanager
def exact_math(model: Target) -> Iterator[None]:
    """No process-wide setting of torch may change what a step computes: no gradients, no autocast."""
    kind = model.device.type
    with torch.inference_mode():
        if not torch.is_autocast_enabled(kind):  # to switch it off costs a quarter of a millisecond
            yield
            return
        with torch.autocast(kind, enabled=False):
            yield
