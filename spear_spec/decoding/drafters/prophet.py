"""Prophet: from the target's last hidden state, the next n tokens (after ProphetNet, arXiv 2001.04063)."""

from __future__ import annotations

import torch
from torch import Tensor

from spear_spec.decoding.drafters.decoder import DecoderChain, DecoderState, at
from spear_spec.decoding.drafters.shapes import decoder_with
from spear_spec.decoding.kinds import DrafterKind, Trained, chains
from spear_spec.decoding.session import Session


class ProphetDrafter(DecoderChain):
    """Starts anew at each call: its history is the target's last hidden state and what it has drafted since.

    Nothing of the settled tokens is read again, so rows that accept different counts need no padding.
    """

    name = needs = "prophet"

    def catch_up(self, session: Session, state: DecoderState) -> Tensor:
        """The hidden state [lanes, 1, D] at each row's newest token, read in an empty window."""
        fresh, device, cache = session.fresh, session.model.device, state.draft.cache
        cache.crop([0] * cache.batch)
        newest = torch.tensor([[row[-1]] for row in fresh], dtype=torch.int64, device=device)
        features = self._features(session, state)
        assert features is not None
        return state.step(newest, at(features, [len(row) - 1 for row in state.lanes.spread(fresh)]))

    def put_off(self, session: Session, state: DecoderState) -> None:
        """Nothing is read later: a window begins at the newest token."""


KIND = DrafterKind(
    ProphetDrafter,
    "one layer that starts anew from the transformer's last hidden state",
    trained=Trained("decoder", decoder_with(lambda target, sizes: {"target_layers": [target.depth], "window": True})),
    raced=chains((2, 4, 6, 8, 10)),
)
