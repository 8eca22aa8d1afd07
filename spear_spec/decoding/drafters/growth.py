"""A tree of draft tokens, grown level by level with a draft decoder: what every tree-shaped draft shares."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from spear_spec.decoding.drafters.decoder import DecoderState
from spear_spec.decoding.proposal import Proposal
from spear_spec.decoding.session import Session
from spear_spec.nn.tree import Tree


class Growth:
    """The trees of all rows of a batch while they grow.

    Nodes are numbered in the order of `add`, each row for itself. `laws` [B, S, V] holds what the draft says after the
    prefix (index 0) and after each expanded node; `law_at[b][n]` is the index of row b's node n in it, -1 until it is
    expanded. Rows may hold different trees: a level is as wide as its widest row, the others are padded.
    """

    def __init__(self, session: Session, state: DecoderState, root: Tensor) -> None:
        """root [lanes, 1, D]: the draft's hidden state at each row's newest kept token."""
        rows = len(session.rows)
        self.session, self.state = session, state
        self.tokens: list[list[int]] = [[] for _ in range(rows)]
        self.parents: list[list[int]] = [[] for _ in range(rows)]
        self.law_at: list[list[int]] = [[] for _ in range(rows)]
        self._hidden = root
        self.laws = state.laws(root, session)
        self._seen = np.zeros((rows, 0, 0), dtype=np.bool_)  # which written node sees which
        self._depth = np.zeros((rows, 0), dtype=np.int64)

    def add(self, place: int, token: int, parent: int) -> int:
        """A node behind `parent` (-1: the prefix) of row `place`; returns its number."""
        self.tokens[place].append(token)
        self.parents[place].append(parent)
        self.law_at[place].append(-1)
        return len(self.tokens[place]) - 1

    def law_index(self, place: int, parent: int) -> int:
        """Where in `laws` the law stands that children of `parent` are drawn from."""
        return 0 if parent < 0 else self.law_at[place][parent]

    def expand(self, frontier: Sequence[Sequence[int]]) -> None:
        """Run the draft on these nodes of each row, whose parents have been expanded; `laws` then has their laws.

        Nodes that spell the same tokens have the same law: the draft runs once for all of them.
        """
        rows, before = self._depth.shape
        ids: list[list[int]] = []
        above: list[list[int]] = []  # index in `laws` of what each new token follows
        for place, nodes in enumerate(frontier):
            known: dict[tuple[int, int], int] = {}
            for node in nodes:
                key = (self.law_index(place, self.parents[place][node]), self.tokens[place][node])
                self.law_at[place][node] = known.setdefault(key, before + len(known) + 1)
            ids.append([token for _, token in known])
            above.append([at for at, _ in known])
        width = max(len(line) for line in ids)
        for filled in (*ids, *above):
            filled += [0] * (width - len(filled))
        index = np.array(above)
        seen = np.zeros((rows, before + width, before + width), dtype=np.bool_)
        seen[:, :before, :before] = self._seen
        depth = np.concatenate((self._depth, np.zeros((rows, width), dtype=np.int64)), 1)
        for place in range(rows):
            for at, parent in enumerate(index[place] - 1, before):
                if parent >= 0:
                    seen[place, at] = seen[place, parent]
                    depth[place, at] = depth[place, parent] + 1
                seen[place, at, at] = True
        self._seen, self._depth = seen, depth
        device, lanes = self.session.model.device, self.state.lanes
        tree = Tree(torch.from_numpy(seen).to(device), torch.from_numpy(depth).to(device))
        follows = lanes.expand(torch.from_numpy(index).to(device))
        features = self._hidden[torch.arange(len(follows), device=device)[:, None], follows]
        hidden = self.state.step(torch.tensor(ids, dtype=torch.int64, device=device), features, tree)
        self._hidden = torch.cat((self._hidden, hidden), 1)
        self.laws = torch.cat((self.laws, self.state.laws(hidden, self.session)), 1)

    def proposal(self, *, points: bool = False) -> Proposal:
        """What has grown, with the law that each node was drawn from (none for point masses)."""
        if points or not any(self.tokens):
            return Proposal(self.tokens, None, self.parents)
        index = [[self.law_index(place, parent) for parent in parents] for place, parents in enumerate(self.parents)]
        longest = max(len(row) for row in index)
        places = torch.tensor(
            [[*row, *[0] * (longest - len(row))] for row in index], dtype=torch.int64, device=self.laws.device
        )
        laws = self.laws[torch.arange(len(index), device=places.device)[:, None], places]
        return Proposal(self.tokens, laws, self.parents)
