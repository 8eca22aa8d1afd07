"""The one place where a command line becomes a loaded voice."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from spear_spec.cli.front_end import FrontEndProcess
from spear_spec.cli.options import sampling_overrides, spec_overrides
from spear_spec.config import SamplingConfig
from spear_spec.errors import DeviceError
from spear_spec.voice import choose_speaker, open_voice

if TYPE_CHECKING:
    from spear_spec.pipeline import TTS


def load_tts(args: argparse.Namespace, texts: Sequence[str] | None = None) -> TTS:
    """Check what can be checked without torch, then load.

    Args:
        texts: what will be spoken, in order, if that is known: on a cold start a second process then turns it into
            phonemes while this one imports torch.

    Raises:
        SpearSpecError: an option, the device or the voice cannot be used.
    """
    began = time.perf_counter()
    SamplingConfig(**sampling_overrides(args))
    if args.device is not None and args.device.split(":")[0] not in ("cpu", "cuda"):
        raise DeviceError(f"unknown device {args.device!r}: cpu, cuda or cuda:N")
    bundle = open_voice(args.voice)
    speaker = choose_speaker(bundle, args.speaker)
    ahead = FrontEndProcess(texts, speaker, bundle.config.text) if texts is not None and FrontEndProcess.useful() else None
    try:
        from spear_spec.pipeline import TTS

        tts = TTS.load(bundle, device=args.device, dtype=args.dtype or "float32", threads=args.threads, **spec_overrides(args))
    except BaseException:
        if ahead is not None:
            ahead.close()
        raise
    tts.load_s = time.perf_counter() - began
    if ahead is not None:
        tts.front_end = ahead.read
    return tts
