"""Token trees: parents to attention mask and positions."""

from __future__ import annotations

from dataclasses import dataclass

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

        Raises:
            ValueError: a parent that does not stand before its child.
        """
        batch, nodes = parents.shape
        mask = torch.zeros(batch, nodes, nodes, dtype=torch.bool, device=parents.device)
        depth = torch.zeros(batch, nodes, dtype=torch.long, device=parents.device)
        rows = torch.arange(batch, device=parents.device)
        for node in range(nodes):
            parent = parents[:, node]
            if bool((parent >= node).any()) or bool((parent < -1).any()):
                raise ValueError("parents must stand before their children, -1 marks a root")
            has = parent >= 0
            at = parent.clamp(min=0)
            mask[:, node] = mask[rows, at] & has[:, None]
            mask[:, node, node] = True
            depth[:, node] = torch.where(has, depth[rows, at] + 1, torch.zeros_like(parent))
        if valid is not None:
            # invalid nodes see themselves alone, and nobody sees them
            mask = mask & valid[:, None, :] | torch.eye(nodes, dtype=torch.bool, device=parents.device)
        return cls(mask, depth)
