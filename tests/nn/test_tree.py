"""Tree masks and depths against a walk up the parents."""

from __future__ import annotations

import random

import pytest
import torch

from spear_spec.nn.tree import Tree


def ancestors(parents: list[int], node: int) -> list[int]:
    """The node, its parent, ... up to a root."""
    path = [node]
    while parents[path[-1]] >= 0:
        path.append(parents[path[-1]])
    return path


@pytest.mark.parametrize("seed", range(8))
def test_random_trees(seed: int) -> None:
    rng = random.Random(seed)
    batch, nodes = rng.randint(1, 4), rng.randint(1, 12)
    parents = [[rng.randint(-1, node - 1) for node in range(nodes)] for _ in range(batch)]
    parents = [line[: rng.randint(1, nodes)] for line in parents]
    tree = Tree.from_lists(parents)
    again = tree.select([batch - 1, 0, 0])
    for b in range(batch):
        for i in range(tree.mask.shape[-1]):
            path = ancestors(parents[b], i) if i < len(parents[b]) else [i]  # what a row lacks sees itself alone
            assert tree.depth[b, i] == len(path) - 1
            assert tree.mask[b, i].nonzero().flatten().tolist() == sorted(path)
    assert torch.equal(again.mask, tree.mask[[-1, 0, 0]]) and torch.equal(again.depth, tree.depth[[-1, 0, 0]])


def test_a_chain_is_causal() -> None:
    tree = Tree.from_lists([list(range(-1, 6))] * 2)
    assert torch.equal(tree.mask, torch.ones(2, 7, 7, dtype=torch.bool).tril())
    assert tree.depth.tolist() == [list(range(7))] * 2


@pytest.mark.parametrize("parents", [[0], [-1, 1], [-1, 2, 0], [-2]])
def test_a_parent_that_does_not_stand_before_its_child_is_refused(parents: list[int]) -> None:
    with pytest.raises(ValueError, match="before"):
        Tree.from_lists([parents])
