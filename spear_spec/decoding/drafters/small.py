"""Independent small decoders on the target's encoder memory: one layer, or two.

They see tokens and text, not the target.
"""

from __future__ import annotations

from spear_spec.decoding.drafters.decoder import DecoderChain


class SmallDrafter(DecoderChain):
    """The plain draft model of speculative sampling (arXiv 2211.17192, 2302.01318), distilled from the target."""

    name = needs = "small"


class Small2Drafter(SmallDrafter):
    """The same with a second layer: better guesses for twice the time."""

    name = needs = "small2"
