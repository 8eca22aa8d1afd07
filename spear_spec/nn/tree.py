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
    def from_lists(cls, parents: Sequence[Sequence[int]], device: torch.device | str = "cpu") -> Tree:
        """Index of each node's parent by row, -1 for a root; a parent stands before its children.

        Rows may differ in length: missing nodes see themselves alone, and nobody sees them.

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

    def select(self, rows: Sequence[int]) -> Tree:
        """These rows, in this order; a row may come more than once."""
        index = torch.tensor(list(rows), dtype=torch.int64, device=self.mask.device)
        return Tree(self.mask[index], self.depth[index])
