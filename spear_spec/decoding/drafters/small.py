"""Independent small decoders on the target's encoder memory: one layer, or two.

They see tokens and text, not the target.
"""

from __future__ import annotations

from spear_spec.decoding.drafters.decoder import DecoderChain
from spear_spec.decoding.drafters.shapes import decoder, decoder_with
from spear_spec.decoding.kinds import DrafterKind, Trained, chains


class SmallDrafter(DecoderChain):
    """The plain draft model of speculative sampling (arXiv 2211.17192, 2302.01318), distilled from the target."""

    name = needs = "small"


class Small2Drafter(SmallDrafter):
    """The same with a second layer: better guesses for twice the time."""

    name = needs = "small2"


_LENGTHS = (2, 4, 6, 8, 10)
KIND = DrafterKind(
    SmallDrafter,
    "an independent decoder of one layer",
    grows=True,
    trained=Trained("decoder", decoder),
    raced=chains(_LENGTHS),
)
KIND_2 = DrafterKind(
    Small2Drafter,
    "an independent decoder of two layers",
    grows=True,
    trained=Trained("decoder", decoder_with(lambda target, sizes: {"depth": 2})),
    raced=chains(_LENGTHS),
)
