"""A target with caches against the same target without."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from spear_spec.nn.tree import Tree


def check_caches(
    model: Any, encode: Callable[[Sequence[list[int]]], Any], given: Sequence[list[int]], rng: random.Random
) -> None:
    """Chains and trees of three texts' rows, which advance and roll back by themselves; one leaves, one joins."""
    texts = list(given)
    memory = encode(texts)
    cache, kept = model.new_cache(len(texts), capacity=2), [[model.start_id] for _ in texts]
    model(torch.tensor(kept), memory, cache)

    def whole(row: int, tokens: list[int]) -> Tensor:
        logits: Tensor = model(torch.tensor([tokens]), encode([texts[row]])).logits
        return logits[0, -1]

    for turn in range(10):
        count, base = rng.randint(1, 4), list(cache.lengths)
        new = [[rng.randrange(7) for _ in range(count)] for _ in kept]
        parents = [[rng.randint(-1, node - 1) if turn % 2 else node - 1 for node in range(count)] for _ in kept]
        tree = Tree.from_lists(parents) if turn % 2 else None
        logits = model(torch.tensor(new), memory, cache, tree=tree).logits
        paths = []
        for row, above in enumerate(parents):
            for node in range(count):
                path = [node]
                while above[path[0]] >= 0:
                    path.insert(0, above[path[0]])
                expected = whole(row, [*kept[row], *(new[row][i] for i in path)])
                assert torch.allclose(logits[row, node], expected, atol=1e-11)
            path = path[: rng.randint(0, len(path))]
            kept[row] += [new[row][i] for i in path]
            paths.append(path)
        cache.keep(base, paths)
        if turn == 5:
            cache.select([0, 2])
            memory, kept, texts = memory.select([0, 2]), [kept[0], kept[2]], [texts[0], texts[2]]
        if turn == 7:  # a row joins
            other, fresh = encode([given[1]]), model.new_cache(1, 2)
            model(torch.tensor([[model.start_id]]), other, fresh)
            cache.join(fresh)
            memory, kept, texts = memory.join(other), [*kept, [model.start_id]], [*texts, given[1]]
