"""A step of the target in eager PyTorch: one call for all rows, caches that are cropped, trees of any shape."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from spear_spec.models.contract import Cache, Target
from spear_spec.models.memory import DecoderOutput, Memory
from spear_spec.nn.tree import Tree
from spear_spec.runtime.lanes import Lanes


class EagerRuntime:
    """See `Runtime`. Equal prefixes of a tree are scored once: `_slots[b][n]` is the position of row b's node n."""

    def __init__(self, target: Target, *, on_tensors: bool | None = None) -> None:
        """on_tensors: see `Runtime`; by default on anything but a CPU, where the lists are several times as fast."""
        self.target = target
        self.on_tensors = target.device.type != "cpu" if on_tensors is None else on_tensors
        self.features: tuple[int, ...] = ()
        self.lanes = Lanes()
        self.memory: Memory
        self.cache: Cache
        self.output: DecoderOutput | None = None
        self.depths: list[int] | None = None
        self._base: list[int] = []
        self._slots: list[list[int]] | None = None

    def admit(self, memory: Memory, guided: Sequence[bool], prefixes: Sequence[Sequence[int]]) -> None:
        lanes = Lanes.of(guided)
        if not lanes.plain:
            memory = memory.select(lanes.places).without_text(lanes.free)
        cache = self.target.new_cache(len(lanes.places))
        output = self._read(memory, cache, lanes.spread(prefixes)) if any(prefixes) else None
        if not self.lanes.places:
            self.lanes, self.memory, self.cache, self.output = lanes, memory, cache, output
            return
        if self.output is not None or output is not None:
            here = self._nothing(len(self.lanes.places)) if self.output is None else self.output
            self.output = here.join(self._nothing(len(lanes.places)) if output is None else output)
        self.memory = self.memory.trimmed().join(memory)
        self.cache.join(cache)
        self.lanes = self.lanes.join(lanes)

    def _read(self, memory: Memory, cache: Cache, prefixes: Sequence[Sequence[int]]) -> DecoderOutput:
        """Prefixes but for their last token, into an empty cache; position i of the result predicted token i of
        start and prefix, so the first, which nothing predicted, is zero.
        """
        longest = max(len(prefix) for prefix in prefixes)
        start = self.target.start_id
        rows = [[start, *prefix[:-1], *[0] * (longest - len(prefix) + (not prefix))][:longest] for prefix in prefixes]
        out = self.target(self._ids(rows), memory, cache, features=self.features)
        cache.crop([len(prefix) for prefix in prefixes])

        def behind(x: Tensor) -> Tensor:
            return torch.cat((torch.zeros_like(x[:, :1]), x), 1)

        return DecoderOutput(behind(out.logits), behind(out.hidden), [behind(x) for x in out.features])

    def _nothing(self, lanes: int) -> DecoderOutput:
        """What the target has said of rows that have only begun."""
        target = self.target

        def zeros(width: int) -> Tensor:
            return torch.zeros(lanes, 1, width, dtype=target.dtype, device=target.device)

        return DecoderOutput(zeros(target.vocab_size), zeros(target.dim), [zeros(target.dim) for _ in self.features])

    def score(
        self,
        newest: Sequence[int],
        drafts: Sequence[Sequence[int]],
        parents: Sequence[Sequence[int]] | None = None,
        below: tuple[int, Tensor] | None = None,
    ) -> Tensor:
        self._base = list(self.cache.lengths)
        self._slots = self.depths = None
        if parents is None:
            longest = max(len(row) for row in drafts)
            rows = [[first, *row, *[0] * (longest - len(row))] for first, row in zip(newest, drafts)]
            return self.run(rows, None, below)
        layouts = [_lay_out(first, row, above) for first, row, above in zip(newest, drafts, parents)]
        self._slots = [slots for _, _, slots in layouts]
        written = max(len(ids) for ids, _, _ in layouts)
        tree = Tree.from_lists([above for _, above, _ in layouts], self.target.device)
        self.depths = tree.depth.amax(1).tolist()
        logits = self.run([[*ids, *[0] * (written - len(ids))] for ids, _, _ in layouts], tree, None)
        width = max(len(row) for row in drafts) + 1
        index = [[0, *slots, *[0] * (width - 1 - len(slots))] for slots in self._slots]
        if all(row == list(range(written)) for row in index):
            return logits
        return logits[self._ids([[lane] for lane in range(len(logits))]), self._ids(self.lanes.spread(index))]

    def run(self, rows: list[list[int]], tree: Tree | None, below: tuple[int, Tensor] | None) -> Tensor:
        """The call of the target: logits [lanes, n, V] after each of these tokens [B][n]."""
        if tree is not None and not self.lanes.plain:
            tree = tree.select(self.lanes.places)
        ids = self._ids(self.lanes.spread(rows))
        self.output = self.target(ids, self.memory, self.cache, tree=tree, features=self.features, below=below)
        return self.output.logits

    def scored(self, output: DecoderOutput) -> None:
        """Others have run the target on a chain of each row, and will advance the cache: the step to be kept now."""
        self._base, self._slots, self.depths = list(self.cache.lengths), None, None
        self.output = output

    def keep(self, counts: Sequence[int], paths: Sequence[Sequence[int]] | None = None) -> None:
        base, lanes = self._base, self.lanes
        if self._slots is None:
            self.cache.crop([start + count for start, count in zip(base, lanes.spread(counts))])
            return
        assert paths is not None, "a verifier of trees says which nodes it accepted"
        kept = [[0, *[slots[node] for node in path]][:count] for slots, path, count in zip(self._slots, paths, counts)]
        self.cache.keep(base, lanes.spread(kept))
        longest = max(len(path) for path in kept)
        places = self._ids(lanes.spread([[*path, *[0] * (longest - len(path))] for path in kept]))
        assert self.output is not None
        self.output = self.output.at(places)

    def leave(self, stay: Sequence[int]) -> None:
        lanes = self.lanes.leave(stay)
        if not stay:
            self.output = None
            return
        self.memory = self.memory.select(lanes)
        self.cache.select(lanes)
        if self.output is not None:
            self.output = self.output.select(lanes)

    def branch(self, places: Sequence[int], *, texts: bool = True) -> None:
        """The rows at these places go on, in this order, a row more than once where its beam forks; `output` is gone.

        texts: whether a place's text may be another one now; there is nothing to move where it is not.
        """
        lanes = self.lanes.branch(places)
        if texts:
            self.memory = self.memory.select(lanes)
        self.cache.select(lanes)
        self.output = None

    def _ids(self, rows: list[list[int]]) -> Tensor:
        return torch.tensor(rows, dtype=torch.int64, device=self.target.device)


def _lay_out(newest: int, tokens: Sequence[int], parents: Sequence[int]) -> tuple[list[int], list[int], list[int]]:
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
