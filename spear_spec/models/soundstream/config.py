"""The shape of a SoundStream."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from spear_spec.config import DEEPEST, MOST_HEADS, MOST_IDS, WIDEST, WIDEST_HEAD, Strict, require, shown, whole, wholes

PADS = ("reflect", "constant", "replicate")
MOST_BLOCKS, MOST_QUANTIZERS, LONGEST_WINDOW = 12, 64, 2**14


@dataclass(frozen=True)
class SoundStreamConfig(Strict):
    """Its shape, in the order of a sample's way.

    channels: of the first convolution and behind each of the encoder's blocks, so one more than strides; the decoder
    has the same the other way round. strides: samples that become one, block by block. dim: of a frame. depth, heads,
    dim_head, inner: of the local attention of encoder and decoder (depth 0: none); window: frames of its buckets, a
    frame sees as many behind it; decay: of its scores with distance (the package's `attn_xpos_scale_base`), in frames.
    codebook: codes of a quantizer; quantizers: of a group; groups: parts of a frame with quantizers of their own.
    encoder_dilations, decoder_dilations: of the residual units of a block. pad: what stands before the first sample.
    """

    sample_rate: int
    channels: tuple[int, ...]
    strides: tuple[int, ...]
    dim: int
    codebook: int
    quantizers: int
    groups: int = 1
    depth: int = 1
    heads: int = 8
    dim_head: int = 64
    inner: int = 1
    window: int = 128
    decay: int = 64
    encoder_dilations: tuple[int, ...] = (1, 3, 9)
    decoder_dilations: tuple[int, ...] = (1, 3, 9)
    pad: str = "reflect"

    def __post_init__(self) -> None:
        whole("sample_rate", self.sample_rate, 1000, 384_000)
        wholes("channels", self.channels, 1, WIDEST, MOST_BLOCKS + 1)
        wholes("strides", self.strides, 2, 64, MOST_BLOCKS)
        require(
            len(self.channels) == len(self.strides) + 1 > 1,
            f"channels must be one more than strides, not {len(self.channels)} and {len(self.strides)}",
        )
        for name, low, high in (
            ("dim", 1, WIDEST),
            ("codebook", 2, MOST_IDS),
            ("quantizers", 1, MOST_QUANTIZERS),
            ("groups", 1, MOST_QUANTIZERS),
            ("depth", 0, DEEPEST),
            ("heads", 1, MOST_HEADS),
            ("dim_head", 2, WIDEST_HEAD),
            ("inner", 1, 64 * WIDEST),
            ("window", 1, LONGEST_WINDOW),
            ("decay", 1, LONGEST_WINDOW),
        ):
            whole(name, getattr(self, name), low, high)
        whole("hop", prod(self.strides), 2, 2**16)
        require(self.dim % self.groups == 0, f"dim ({self.dim}) must be a multiple of groups ({self.groups})")
        require(self.dim_head % 2 == 0, f"dim_head must be even (rotary pairs), not {self.dim_head}")
        for name in ("encoder_dilations", "decoder_dilations"):
            wholes(name, getattr(self, name), 1, 1024, 3)
            require(len(getattr(self, name)) == 3, f"{name} must be three, one for each unit of a block")
        require(self.pad in PADS, f"pad must be one of {', '.join(PADS)}, not {shown(self.pad)}")

    @property
    def hop(self) -> int:
        """Samples of a frame."""
        return prod(self.strides)

    @property
    def codes(self) -> int:
        """Codes of a frame: groups * quantizers."""
        return self.groups * self.quantizers

    @property
    def least(self) -> int:
        """Frames that its convolutions need: a mirrored beginning must be shorter than what there is."""
        units = 6 * max(*self.encoder_dilations, *self.decoder_dilations)
        return max(7, units // self.strides[-1] + 1)
