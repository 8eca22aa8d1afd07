"""A batch of utterances being decoded: caches, kept tokens, and who has ended. Modules hold weights, sessions hold state."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from spear_spec.config import SamplingConfig
from spear_spec.decoding.chance import Chance, GeneratorChance
from spear_spec.decoding.limits import Guard, default_cap
from spear_spec.decoding.proposal import DecodeStats, Verdict
from spear_spec.decoding.sampling import guide, probabilities
from spear_spec.errors import ConfigError
from spear_spec.models.text_to_semantic import DecoderOutput, Memory, TextToSemantic


class Session:
    """State of one batch. Rows finish by themselves and then leave the batch.

    Indexed by the session's own row number (0 to B - 1, whole life): `tokens` (kept ids, end token included), `ended`
    (None, "eos", "cap", "guard"), `stats`. Indexed by place in the batch that still runs: `rows` (row numbers),
    `fresh` (ids of each row that the target has not read, or that it has only now settled: the draft reads them).
    """

    def __init__(self, model: TextToSemantic, memory: Memory, sampling: SamplingConfig | None = None, *,
                 generator: torch.Generator | None = None, chance: Chance | None = None,
                 max_tokens: int | Sequence[int] | None = None) -> None:
        """memory: of B encoded texts. Randomness comes from `chance`, or from `generator` (its state is read once).

        max_tokens: the cap for all rows or for each; by default it follows from the length of the text.

        Raises:
            ConfigError: neither or both of generator and chance; a cap below 1.
        """
        if (generator is None) == (chance is None):
            raise ConfigError("decoding needs an explicit generator (or a source of chance), exactly one of them")
        batch = memory.batch
        self.model, self.sampling = model, sampling or SamplingConfig()
        if chance is None:
            assert generator is not None
            chance = GeneratorChance.from_generator(generator, batch)
        self.chance: Chance = chance
        if max_tokens is None:
            self.caps = [default_cap(int(n)) for n in memory.mask.sum(1).tolist()]
        else:
            self.caps = [int(max_tokens)] * batch if isinstance(max_tokens, int) else [int(n) for n in max_tokens]
        if len(self.caps) != batch or min(self.caps, default=1) < 1:
            raise ConfigError(f"max_tokens must be a whole number above 0 (or one for each of the {batch} texts), not {max_tokens!r}")
        self.memory = memory
        self.cache = model.new_cache(batch)
        guided = self.sampling.guidance != 1
        self.null_memory = memory.unconditional() if guided else None
        self.null_cache = model.new_cache(batch) if guided else None
        self.rows = list(range(batch))
        self.fresh: list[list[int]] = [[model.start_id] for _ in range(batch)]
        self.output: DecoderOutput | None = None
        self.tokens: list[list[int]] = [[] for _ in range(batch)]
        self.ended: list[str | None] = [None] * batch
        self.stats = [DecodeStats() for _ in range(batch)]
        self._guards = [Guard() for _ in range(batch)]

    @property
    def running(self) -> bool:
        return bool(self.rows)

    @property
    def remaining(self) -> list[int]:
        """Tokens that each running row may still keep."""
        return [self.caps[row] - len(self.tokens[row]) for row in self.rows]

    def speech(self, row: int) -> list[int]:
        """The kept semantic tokens of a row, without the end token."""
        tokens = self.tokens[row]
        return tokens[:-1] if self.ended[row] == "eos" else list(tokens)

    def score(self, tokens: Tensor) -> Tensor:
        """Guided logits [B, n, V] after each of tokens [B, n], which are written behind every row of the cache(s)."""
        self.output = self.model(tokens, self.memory, self.cache)
        logits = self.output.logits
        if self.null_cache is not None:
            assert self.null_memory is not None
            null = self.model(tokens, self.null_memory, self.null_cache).logits
            logits = guide(logits, null, self.sampling.guidance)
        return logits

    def laws(self, drafts: list[list[int]] | None = None) -> Tensor:
        """The target's laws [B, N + 1, V] after the newest token of each row and then after each of its draft tokens."""
        if drafts is None:
            ids = [[fresh[-1]] for fresh in self.fresh]
        else:
            longest = max(len(row) for row in drafts)
            ids = [[fresh[-1], *row, *[0] * (longest - len(row))] for fresh, row in zip(self.fresh, drafts)]
        return probabilities(self.score(torch.tensor(ids, device=self.model.device)), self.sampling)

    def commit(self, verdict: Verdict) -> Verdict:
        """Keep what the verdict says: cut at an end token, guard or cap, roll the caches back, let ended rows leave.

        Returns the verdict as it was kept. `verdict.rows` must be the running rows in order.
        """
        base = self.cache.lengths
        width = self._written()
        verdict.ended = []
        lengths = []
        for place, row in enumerate(self.rows):
            kept, ended = self._keep(row, verdict.tokens[place])
            verdict.tokens[place] = kept
            accepted = min(verdict.num_accepted[place], len(kept))
            verdict.num_accepted[place] = accepted
            verdict.ended.append(ended)
            self.ended[row] = ended
            self.stats[row].count(len(kept), verdict.num_drafted[place], accepted)
            lengths.append(base[place] - width + len(kept))
        self.fresh = [list(kept) for kept in verdict.tokens]
        for cache in (self.cache, self.null_cache):
            if cache is not None:
                cache.crop(lengths)
        if any(verdict.ended):
            self._leave([place for place, ended in enumerate(verdict.ended) if ended is None])
        return verdict

    def _written(self) -> int:
        """Positions that the last target call wrote."""
        assert self.output is not None
        return self.output.logits.shape[1]

    def _keep(self, row: int, tokens: list[int]) -> tuple[list[int], str | None]:
        store, guard, cap, eos = self.tokens[row], self._guards[row], self.caps[row], self.model.eos_id
        for count, token in enumerate(tokens, 1):
            store.append(token)
            ended = "eos" if token == eos else "guard" if guard.push(token) else "cap" if len(store) >= cap else None
            if ended:
                return tokens[:count], ended
        return tokens, None

    def _leave(self, stay: list[int]) -> None:
        self.rows = [self.rows[place] for place in stay]
        self.fresh = [self.fresh[place] for place in stay]
        if not stay:
            return
        self.memory = self.memory.select(stay)
        self.cache.select(stay)
        if self.null_cache is not None:
            self.null_memory = self.memory.unconditional()
            self.null_cache.select(stay)
        assert self.output is not None
        index = torch.tensor(stay, device=self.model.device)
        out = self.output
        self.output = DecoderOutput(out.logits[index], out.hidden[index], [feature[index] for feature in out.features])
