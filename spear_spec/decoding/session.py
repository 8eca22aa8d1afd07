"""A batch of utterances being decoded: caches, kept tokens, and who has ended.

Modules hold weights, sessions hold state.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from spear_spec.config import SamplingConfig
from spear_spec.decoding.chance import Chance, GeneratorChance
from spear_spec.decoding.limits import Guard, default_cap
from spear_spec.decoding.proposal import DecodeStats, Proposal, Verdict
from spear_spec.decoding.sampling import guide, probabilities
from spear_spec.errors import ConfigError
from spear_spec.models.spear_tts import DecoderOutput, Memory, TextToSemantic
from spear_spec.nn.tree import Tree


class Session:
    """State of one batch. Rows finish by themselves and then leave the batch.

    Indexed by the session's own row number (0 to B - 1, whole life): `tokens` (kept ids, end token included), `ended`
    (None, "eos", "cap", "guard"), `stats`. Indexed by place in the batch that still runs: `rows` (row numbers),
    `fresh` (ids of each row that the target has not read, or that it has only now settled: the draft reads them).
    """

    def __init__(
        self,
        model: TextToSemantic,
        memory: Memory,
        sampling: SamplingConfig | None = None,
        *,
        generator: torch.Generator | None = None,
        chance: Chance | None = None,
        max_tokens: int | Sequence[int] | None = None,
    ) -> None:
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
            raise ConfigError(
                f"max_tokens must be a whole number above 0 (or one for each of the {batch} texts), not {max_tokens!r}"
            )
        self.memory = memory
        # with guidance every row is there twice, with its text and (behind all those) without: one call scores both
        self.arms = 1 if self.sampling.guidance == 1 else 2
        self.scored = memory if self.arms == 1 else memory.guided()
        self.cache = model.new_cache(self.arms * batch)
        self.rows = list(range(batch))
        self.fresh: list[list[int]] = [[model.start_id] for _ in range(batch)]
        self.features: tuple[int, ...] = ()  # layers whose output the draft wants to see
        self.output: DecoderOutput | None = None
        self.null_output: DecoderOutput | None = None
        self._base: list[int] = [0] * batch
        self._slots: list[list[int]] | None = None
        self._depths: list[int] | None = None
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

    def score(self, tokens: Tensor, tree: Tree | None = None, below: tuple[int, Tensor] | None = None) -> Tensor:
        """Guided logits [B, n, V] after each of tokens [B, n], which are written behind every row of the cache.

        `output` is what the target computed with the text; `null_output` without, where there is guidance.
        below: what the first layers said of them in the draft, see `TextToSemantic.forward`.
        """
        if self.arms == 1:
            self.output = self.model(tokens, self.memory, self.cache, tree=tree, features=self.features, below=below)
            return self.output.logits
        both = self.model(
            tokens.repeat(2, 1),
            self.scored,
            self.cache,
            tree=None if tree is None else tree.repeat(2),
            features=self.features,
            below=below,
        )
        self.output, self.null_output = both.split(len(tokens))
        return guide(self.output.logits, self.null_output.logits, self.sampling.guidance)

    def laws(self, proposal: Proposal | None = None) -> Tensor:
        """The target's laws [B, N + 1, V] after the newest token of each row and then after each of its draft tokens.

        Equal prefixes of a tree are scored once: `_slots[b][n]` is the written position of row b's node n.
        """
        self._base = self.cache.lengths[: len(self.rows)]
        self._slots = self._depths = None
        drafts = [[] for _ in self.fresh] if proposal is None else proposal.tokens
        if proposal is None or proposal.parents is None:
            longest = max(len(row) for row in drafts)
            rows = [[fresh[-1], *row, *[0] * (longest - len(row))] for fresh, row in zip(self.fresh, drafts)]
            below = None if proposal is None else proposal.below
            return probabilities(self.score(torch.tensor(rows, device=self.model.device), below=below), self.sampling)
        layouts = [
            _lay_out(fresh[-1], tokens, parents)
            for fresh, tokens, parents in zip(self.fresh, proposal.tokens, proposal.parents)
        ]
        self._slots = [slots for _, _, slots in layouts]
        written = max(len(ids) for ids, _, _ in layouts)
        rows = [[*ids, *[0] * (written - len(ids))] for ids, _, _ in layouts]
        tree = Tree.from_lists([parents for _, parents, _ in layouts], self.model.device)
        self._depths = tree.depth.amax(1).tolist()
        laws = probabilities(self.score(torch.tensor(rows, device=self.model.device), tree), self.sampling)
        width = proposal.longest + 1
        index = [[0, *slots, *[0] * (width - 1 - len(slots))] for slots in self._slots]
        if all(row == list(range(written)) for row in index):
            return laws
        places = torch.tensor(index, device=laws.device)
        return laws[torch.arange(len(index), device=laws.device)[:, None], places]

    def commit(self, verdict: Verdict) -> Verdict:
        """Keep what the verdict says: cut at an end token, guard or cap, roll the caches back, let ended rows leave.

        Returns the verdict as it was kept. `verdict.rows` must be the running rows in order.
        """
        verdict.ended = []
        paths = []  # written positions that are kept: the newest token's, then those of the accepted draft tokens
        for place, row in enumerate(self.rows):
            kept, ended = self._keep(row, verdict.tokens[place])
            verdict.tokens[place] = kept
            accepted = min(verdict.num_accepted[place], len(kept))
            verdict.num_accepted[place] = accepted
            verdict.ended.append(ended)
            self.ended[row] = ended
            self.stats[row].count(
                len(kept), verdict.num_drafted[place], accepted, None if self._depths is None else self._depths[place]
            )
            paths.append(self._positions(place, verdict, len(kept)))
        self.fresh = [list(kept) for kept in verdict.tokens]
        self._roll_back(paths)
        if any(verdict.ended):
            self._leave([place for place, ended in enumerate(verdict.ended) if ended is None])
        return verdict

    def _positions(self, place: int, verdict: Verdict, kept: int) -> list[int]:
        if self._slots is None:
            return list(range(kept))
        assert verdict.paths is not None, "a verifier of trees says which nodes it accepted"
        slots = self._slots[place]
        return [0, *[slots[node] for node in verdict.paths[place]]][:kept]

    def _roll_back(self, paths: list[list[int]]) -> None:
        """Keep these written positions in the cache, and the target's output in the order of the kept tokens."""
        base = self._base
        if self._slots is None:
            self.cache.crop([start + len(path) for start, path in zip(base, paths)] * self.arms)
            return
        self.cache.keep(base * self.arms, paths * self.arms)
        longest = max(len(path) for path in paths)
        places = torch.tensor([[*path, *[0] * (longest - len(path))] for path in paths], device=self.model.device)
        for name in ("output", "null_output"):
            if (out := getattr(self, name)) is not None:
                setattr(self, name, out.at(places))

    def _keep(self, row: int, tokens: list[int]) -> tuple[list[int], str | None]:
        store, guard, cap, eos = self.tokens[row], self._guards[row], self.caps[row], self.model.eos_id
        for count, token in enumerate(tokens, 1):
            store.append(token)
            ended = "eos" if token == eos else "guard" if guard.push(token) else "cap" if len(store) >= cap else None
            if ended:
                return tokens[:count], ended
        return tokens, None

    def _leave(self, stay: list[int]) -> None:
        count = len(self.rows)
        self.rows = [self.rows[place] for place in stay]
        self.fresh = [self.fresh[place] for place in stay]
        if not stay:
            return
        self.memory = self.memory.select(stay)
        scored = [place + arm * count for arm in range(self.arms) for place in stay]
        self.scored = self.memory if self.arms == 1 else self.scored.select(scored)
        self.cache.select(scored)
        for name in ("output", "null_output"):
            if (out := getattr(self, name)) is not None:
                setattr(self, name, out.select(stay))


def _lay_out(newest: int, tokens: list[int], parents: list[int]) -> tuple[list[int], list[int], list[int]]:
    """The ids and parents that are written for one row, newest kept token first, and the position of each draft node.

    Nodes that spell the same tokens share a position: duplicate siblings and shared beginnings of paths cost nothing.
    """
    ids, above = [newest], [-1]
    slots: list[int] = []
    known: dict[tuple[int, int], int] = {}
    for token, parent in zip(tokens, parents):
        at = 0 if parent < 0 else slots[parent]
        slot = known.setdefault((at, token), len(ids))
        if slot == len(ids):
            ids.append(token)
            above.append(at)
        slots.append(slot)
    return ids, above, slots
