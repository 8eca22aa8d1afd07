"""audiolm-pytorch's SoundStream as a decoder of codes, run by the package itself (the [lucidrains] extra)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from spear_spec.errors import BundleError
from spear_spec.interop.audiolm import read_checkpoint
from spear_spec.interop.shims import import_spear_tts

_EMA = "ema_model."
_AT_LEAST = 64  # frames: its convolutions mirror their beginning and fail where there is less; they look back alone


def soundstream_decoder(path: str | Path, **shape: Any) -> Callable[[Tensor], Tensor]:
    """Codes int64 [B, frames, quantizers] to samples float32 [B, 1, T], by the weights of a SoundStream checkpoint.

    Args:
        path: a file that the package's `SoundStream.save` or its trainer writes; the running mean of the weights where
            it has one. Read with weights_only=True.
        shape: the keyword arguments of `SoundStream`. The file has them too, but pickled: they are not read.

    Raises:
        MissingExtraError: the package is not installed. BundleError: the file is damaged, or of another shape.
    """
    import_spear_tts()
    from audiolm_pytorch import SoundStream

    held = read_checkpoint(Path(path))
    if not isinstance(held, Mapping) or not isinstance(held.get("model"), Mapping):
        raise BundleError(f"{path}: weights expected; is it a SoundStream of audiolm-pytorch?")
    state = held["model"]
    if isinstance(held.get("ema_model"), Mapping):
        state = {name[len(_EMA) :]: value for name, value in held["ema_model"].items() if name.startswith(_EMA)}
    codec = SoundStream(**shape)
    try:
        codec.load_state_dict(state)
    except RuntimeError as error:
        lines = str(error).splitlines()
        raise BundleError(f"{path}: not of this shape: {lines[min(1, len(lines) - 1)].strip()[:150]}") from None
    codec.eval().requires_grad_(False)

    def decode(codes: Tensor) -> Tensor:
        frames = codes.shape[1]
        if frames < _AT_LEAST:
            codes = torch.cat((codes, codes[:, -1:].expand(-1, _AT_LEAST - frames, -1)), 1)
        with torch.inference_mode():
            samples: Tensor = codec.decode_from_codebook_indices(codes)
        return samples[..., : samples.shape[-1] // codes.shape[1] * frames]

    return decode
