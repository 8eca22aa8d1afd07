"""SoundStream's convolutions: what comes out at a sample depends on it and on those before it, and, where the beginning
is mirrored, for a few samples on the mirrored ones.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

TAPS = 7


class Causal(nn.Module):
    """A convolution over [B, C, T] that looks back alone; with a stride T becomes T / stride."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, *, stride: int = 1, dilation: int = 1, pad: str = "reflect"
    ) -> None:
        super().__init__()
        self.pad, self.before = pad, dilation * (kernel - 1) + 1 - stride
        self.conv = nn.Conv1d(inputs, outputs, kernel, stride, dilation=dilation)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (self.before, 0), mode=self.pad))


class Upsampling(nn.Module):
    """A transposed convolution [B, C, T] -> [B, C', T * stride], cut at its end."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose1d(inputs, outputs, 2 * stride, stride)

    def forward(self, x: Tensor) -> Tensor:
        length = x.shape[-1] * self.conv.stride[0]
        return self.conv(x)[..., :length]


class Unit(nn.Module):
    """A residual unit: a dilated convolution and one of a single tap, an ELU behind each."""

    def __init__(self, channels: int, dilation: int, pad: str) -> None:
        super().__init__()
        self.wide = Causal(channels, channels, TAPS, dilation=dilation, pad=pad)
        self.narrow = nn.Conv1d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + F.elu(self.narrow(F.elu(self.wide(x))))


def units(channels: int, dilations: Sequence[int], pad: str) -> list[nn.Module]:
    """Residual units, one behind the other."""
    return [Unit(channels, dilation, pad) for dilation in dilations]


def narrowing(inputs: int, outputs: int, stride: int, dilations: Sequence[int], pad: str) -> nn.Sequential:
    """A block of the encoder. The package mirrors the beginning of its last convolution whatever `pad` says."""
    return nn.Sequential(*units(inputs, dilations, pad), Causal(inputs, outputs, 2 * stride, stride=stride))


def widening(inputs: int, outputs: int, stride: int, dilations: Sequence[int], pad: str) -> nn.Sequential:
    """A block of the decoder."""
    return nn.Sequential(Upsampling(inputs, outputs, stride), *units(outputs, dilations, pad))
