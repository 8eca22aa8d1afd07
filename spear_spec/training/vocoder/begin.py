"""A vocoder that begins as another voice's, with other speakers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from spear_spec.acoustic.unit.vocoder import UnitVocoder
from spear_spec.training.speakers import rows_for
from spear_spec.voice.bundle import Bundle

TABLES = ("speaker_embedding.weight", "frame_speaker.weight")


def begin_with(model: UnitVocoder, bundle: Bundle, names: Sequence[str] | None = None) -> None:
    """Copy a voice's vocoder into the model, to train it further; names: of the model's speakers, in the order of its
    tables (None: they are the voice's).

    Raises:
        BundleError: it has another shape, or is damaged.
    """
    theirs = bundle.config.speakers
    if names is None or list(names) == list(theirs):
        bundle.load_into(model, "vocoder").train().requires_grad_(True)
        return
    with torch.random.fork_rng(devices=[]):  # what the caller draws later does not depend on it
        other = UnitVocoder(replace(model.cfg, num_speakers=len(theirs)))
    bundle.load_into(other, "vocoder")
    weights = other.state_dict()
    for name in TABLES:
        weights[name] = rows_for(weights[name], theirs, names)
    model.load_state_dict(weights)
