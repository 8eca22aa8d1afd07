"""The one place where a command line becomes a loaded voice."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from spear_spec.cli.options import sampling_overrides, spec_overrides
from spear_spec.config import SamplingConfig
from spear_spec.errors import DeviceError

if TYPE_CHECKING:
    from spear_spec.pipeline import TTS


def load_tts(args: argparse.Namespace) -> TTS:
    """Check what can be checked without torch, then load.

    Raises:
        SpearSpecError: an option, the device or the voice cannot be used.
    """
    SamplingConfig(**sampling_overrides(args))
    if args.device is not None and args.device.split(":")[0] not in ("cpu", "cuda"):
        raise DeviceError(f"unknown device {args.device!r}: cpu, cuda or cuda:N")
    from spear_spec.pipeline import TTS

    return TTS.load(args.voice, device=args.device, dtype=args.dtype or "float32", threads=args.threads, **spec_overrides(args))
