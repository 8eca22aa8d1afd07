"""Token trees: parents to attention mask and positions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Tree:
    """Nodes of a draft in topological order.

    mask [B, N, N] is True where a node sees another (its ancestors and itself); depth [B, N] counts from 0.
    """

    mask: Tensor
    depth: Tensor

    @classmethod
    def from_parents(cls, parents: Tensor, valid: Tensor | None = None) -> Tree:
        """parents [B, N]: index of each node's parent, -1 for a root; a parent stands before its children.

        Nodes that are not `valid` [B, N] see their ancestors and themselves, and nobody else sees them.

        Raises:
            ValueError: a parent that does not stand before its child.
        """
        tree = cls.from_lists(parents.tolist(), parents.device)
        if valid is not None:
            nodes = parents.shape[1]
            return cls(
                tree.mask & valid[:, None, :] | torch.eye(nodes, dtype=torch.bool, device=parents.device), tree.depth
            )
        return tree

    @classmethod
    def from_lists(cls, parents: Sequence[Sequence[int]], device: torch.device | str = "cpu") -> Tree:
        """The same from lists, which may differ in length: missing nodes see themselves alone, and nobody sees them.

        Raises:
            ValueError: a parent that does not stand before its child.
        """
        nodes = max(len(row) for row in parents)
        # numpy, row by row: a tree is built for every target call, and a tensor operation costs ten times as much
        mask = np.zeros((len(parents), nodes, nodes), dtype=np.bool_)
        depth = np.zeros((len(parents), nodes), dtype=np.int64)
        mask[:, np.arange(nodes), np.arange(nodes)] = True
        for seen, level, row in zip(mask, depth, parents):
            for node, parent in enumerate(row):
                if not -1 <= parent < node:
                    raise ValueError("parents must stand before their children, -1 marks a root")
                if parent >= 0:
                    seen[node] |= seen[parent]
                    level[node] = level[parent] + 1
        return cls(torch.from_numpy(mask).to(device), torch.from_numpy(depth).to(device))

    def repeat(self, times: int) -> Tree:
        """The same trees once more for each further copy of the batch."""
        return Tree(self.mask.repeat(times, 1, 1), self.depth.repeat(times, 1))
