"""One decoder layer fed with the target's features (EAGLE's scheme, arXiv 2401.15077, 2406.16858, 2503.01840)."""

from __future__ import annotations

from spear_spec.decoding.drafters.decoder import DecoderChain


class EagleDrafter(DecoderChain):
    """Three target layers fused, at the position that predicted each token; ahead of the target its own output stands
    in.

    A chain here; `tree.py` grows the dynamic tree of EAGLE-2 from the same decoder.
    """

    name = needs = "eagle"
