"""The sparse tree of Medusa heads, found on what the target said (arXiv 2401.10774, section 2.3.3)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch

from spear_spec.models.drafts.medusa import MedusaHeads
from spear_spec.models.spear_tts import TextToSemantic
from spear_spec.training.checkpoint import load_export, save_export
from spear_spec.training.drafts.observed import Seen


@torch.no_grad()
def rank_paths(
    heads: MedusaHeads, model: TextToSemantic, data: Sequence[Seen], ranks: int = 10
) -> Counter[tuple[int, ...]]:
    """How often the tokens that followed were these choices of the heads: counts of every path of ranks below
    `ranks`.
    """
    counts: Counter[tuple[int, ...]] = Counter()
    deepest = heads.cfg.heads
    for seen in data:
        length = len(seen.tokens)
        if length < 2:
            continue
        # [K, T, V]; head k at position i: the law of token i + 1 + k
        logits = model.logits(heads(seen.hidden.float().to(model.device)))
        best = logits.topk(min(ranks, logits.shape[-1]), -1).indices.cpu()
        for at in range(length - 2):
            path: tuple[int, ...] = ()
            for k in range(1, min(deepest, length - 2 - at) + 1):
                found = (best[k - 1, at] == seen.tokens[at + 1 + k]).nonzero()
                if not len(found):
                    break
                path = (*path, int(found[0, 0]))
                counts[path] += 1
    return counts


def best_tree(counts: Counter[tuple[int, ...]], nodes: int) -> list[list[int]]:
    """The paths that were followed most, most first: the tree of so many nodes that keeps most tokens on that text.

    A path is never followed more often than its beginning, and beginnings go first where counts are equal, so that any
    beginning of the list is a tree too.
    """
    order = sorted(counts, key=lambda path: (-counts[path], len(path), path))
    return [list(path) for path in order[:nodes]]


def find_tree(heads: MedusaHeads, model: TextToSemantic, data: Sequence[Seen], nodes: int = 64) -> list[list[int]]:
    """Both in one."""
    return best_tree(rank_paths(heads, model, data), nodes)


def give_tree(export: Path, heads: MedusaHeads, model: TextToSemantic, seen: Sequence[Seen], nodes: int) -> None:
    """Find Medusa's sparse tree on the target's samples and write it into the export."""
    about, weights = load_export(export, "medusa")
    about["medusa"]["tree"] = find_tree(heads, model, seen, nodes)
    save_export(export, "medusa", about, weights)
