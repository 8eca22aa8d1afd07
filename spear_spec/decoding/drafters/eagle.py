"""One decoder layer fed with the target's features (EAGLE's scheme, arXiv 2401.15077, 2406.16858, 2503.01840)."""

from __future__ import annotations

from spear_spec.decoding.drafters.decoder import DecoderChain
from spear_spec.decoding.drafters.shapes import decoder_with
from spear_spec.decoding.kinds import DrafterKind, Trained, chains, trees


class EagleDrafter(DecoderChain):
    """Three target layers fused, at the position that predicted each token; ahead of the target its own output stands
    in.

    A chain here; `tree.py` grows the dynamic tree of EAGLE-2 from the same decoder.
    """

    name = needs = "eagle"


KIND = DrafterKind(
    EagleDrafter,
    "one decoder layer fed with the transformer's features",
    grows=True,
    trained=Trained(
        "decoder",
        decoder_with(lambda target, sizes: {"target_layers": sorted({-(-target.depth * i // 3) for i in (1, 2, 3)})}),
        stage="draft",
    ),
    raced=(
        *chains((2, 4, 6, 8, 10, 12)),
        *chains((12,), stop="adaedl"),
        *chains((12,), stop="acceptance"),
        *trees(("recursive", "4-2-2-1-1-1"), ("recursive_wor", "4-2-2-1-1-1"), ("recursive", "dynamic"), gamma=6),
    ),
)
