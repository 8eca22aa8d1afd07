"""Samples to codes and codes to samples."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spear_spec.errors import AudioError
from spear_spec.models.soundstream.attention import LocalTransformer
from spear_spec.models.soundstream.config import SoundStreamConfig
from spear_spec.models.soundstream.convolution import TAPS, Causal, narrowing, widening
from spear_spec.models.soundstream.quantizer import ResidualQuantizer


class SoundStream(nn.Module):
    """SoundStream (arXiv 2107.03312) with a layer of local attention on either side of its quantiser.

    Frames depend on what came before them, but at the very beginning, which is mirrored: less than `least` frames are
    filled up (codes with the last one, samples with silence), and what was filled up is cut off again.
    """

    def __init__(self, cfg: SoundStreamConfig) -> None:
        super().__init__()
        self.cfg = cfg
        sizes = list(zip(cfg.channels, cfg.channels[1:], cfg.strides))
        self.encoder = nn.Sequential(
            Causal(1, cfg.channels[0], TAPS, pad=cfg.pad),
            *(narrowing(one, two, stride, cfg.encoder_dilations, cfg.pad) for one, two, stride in sizes),
            Causal(cfg.channels[-1], cfg.dim, 3, pad=cfg.pad),
        )
        self.encoder_attn = LocalTransformer(cfg)
        self.quantizer = ResidualQuantizer(cfg.dim, cfg.codebook, cfg.quantizers, cfg.groups)
        self.decoder_attn = LocalTransformer(cfg)
        self.decoder = nn.Sequential(
            Causal(cfg.dim, cfg.channels[-1], TAPS, pad=cfg.pad),
            *(widening(two, one, stride, cfg.decoder_dilations, cfg.pad) for one, two, stride in reversed(sizes)),
            Causal(cfg.channels[0], 1, TAPS, pad=cfg.pad),
        )

    def frames(self, samples: Tensor) -> Tensor:
        """What is quantised of samples [B, T] at its rate: [B, T / hop, D]; what is no whole frame is left out.

        Raises:
            AudioError: they are shorter than a frame.
        """
        cfg = self.cfg
        count = samples.shape[-1] // cfg.hop
        if not count:
            raise AudioError(f"a clip must have {cfg.hop} samples at {cfg.sample_rate} Hz at least")
        samples = samples[:, : count * cfg.hop]
        samples = F.pad(samples, (0, max(cfg.least - count, 0) * cfg.hop))
        return self.encoder_attn(self.encoder(samples[:, None]).transpose(1, 2))[:, :count]  # type: ignore[no-any-return]

    def encode(self, samples: Tensor) -> Tensor:
        """Samples [B, T] at its rate -> codes int64 [B, T / hop, groups * quantizers].

        Raises:
            AudioError: see `frames`.
        """
        return self.quantizer.encode(self.frames(samples))

    def decode(self, codes: Tensor) -> Tensor:
        """Codes int64 [B, F, groups * quantizers] -> samples [B, F * hop]."""
        count = codes.shape[1]
        fill = max(self.cfg.least - count, 0)
        if fill:
            codes = torch.cat((codes, codes[:, -1:].expand(-1, fill, -1)), 1)
        x = self.decoder_attn(self.quantizer.decode(codes))
        return self.decoder(x.transpose(1, 2))[:, 0, : count * self.cfg.hop]  # type: ignore[no-any-return]

    def forward(self, codes: Tensor) -> Tensor:
        """See `decode`: what a stage asks of a codec."""
        return self.decode(codes)
