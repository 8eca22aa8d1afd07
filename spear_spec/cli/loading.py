"""The one place where a command line becomes a loaded voice."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from spear_spec.cli.front_end import FrontEndProcess
from spear_spec.cli.options import sampling_overrides, spec_overrides
from spear_spec.cli.report import note
from spear_spec.config import SamplingConfig, SpecConfig
from spear_spec.errors import ConfigError, DeviceError, SpearSpecError
from spear_spec.text import Reading
from spear_spec.tuning.store import Tuned, fingerprint, read_tuned
from spear_spec.voice.bundle import choose_speaker, open_voice

if TYPE_CHECKING:
    from spear_spec.pipeline import TTS


def load_tts(args: argparse.Namespace, texts: Sequence[str] | None = None, reading: Reading | None = None) -> TTS:
    """Check what can be checked without torch, then load.

    Args:
        texts: what will be spoken, in order, if that is known: on a cold start a second process then turns it into
            phonemes while this one imports torch.
        reading: how they are read.

    Raises:
        SpearSpecError: an option, the device or the voice cannot be used.
    """
    began = time.perf_counter()
    SamplingConfig().changed(**sampling_overrides(args))
    if args.device is not None and args.device.split(":")[0] not in ("cpu", "cuda"):
        raise DeviceError(f"unknown device {args.device!r}: cpu, cuda or cuda:N")
    bundle = open_voice(args.voice)
    speaker = choose_speaker(bundle, args.speaker)
    ahead = (
        FrontEndProcess(
            texts, speaker, bundle.config.text, reading, words=getattr(args, "timestamps", None) is not None
        )
        if texts is not None and FrontEndProcess.useful(bundle.config.text)
        else None
    )
    try:
        from spear_spec.pipeline import TTS

        tts = TTS.load(
            bundle,
            device=args.device,
            dtype=args.dtype or "float32",
            threads=args.threads,
            runtime=getattr(args, "runtime", "eager"),  # not every command has a say
            acoustic=getattr(args, "acoustic", None),
            **spec_overrides(args),
        )
    except BaseException:
        if ahead is not None:
            ahead.close()
        raise
    tts.load_s = time.perf_counter() - began
    if ahead is not None:
        tts.front_end = ahead
    return tts


def load_tuned(
    args: argparse.Namespace, texts: Sequence[str] | None = None, reading: Reading | None = None
) -> tuple[TTS, Tuned | None]:
    """As `load_tts`, with the setting that `spear-spec tune` found for this voice and machine, and its entry.

    None, and the voice's own setting, where there is no such entry, where speculation was asked for otherwise, or
    (a line on standard error says why) where the entry cannot be used.
    """
    tts = load_tts(args, texts, reading)
    if args.untuned or spec_overrides(args):
        return tts, None
    try:
        entry = find_tuned(tts, getattr(args, "batch", None) or 1)
        return (tts, None) if entry is None else (use_tuned(tts, entry), entry)
    except SpearSpecError as error:
        note(f"spear-spec: {error}; speaking as the voice ships")
        return tts, None


def find_tuned(tts: TTS, batch: int) -> Tuned | None:
    """What was found for this very voice, on this hardware, device and number of threads, with this dtype and runtime
    and for this batch: measured with it, else with the largest smaller one that draft lengths were measured behind.

    Raises:
        ConfigError: the user's file is damaged.
    """
    entries = read_tuned()
    if not any(entry.voice == tts.name for entry in entries):
        return None  # looking at the hardware takes a moment
    key = setup_key(tts, batch)
    del key["batch"]
    found = [
        entry
        for entry in entries
        if entry.holds_for(batch) and all(getattr(entry, name) == value for name, value in key.items())
    ]
    return max(found, key=lambda entry: entry.batch, default=None)


def setup_key(tts: TTS, batch: int) -> dict[str, Any]:
    """The fields of `Tuned` that say what an entry holds for."""
    from spear_spec.bench.machine import hardware

    described = tts.describe(batch=batch)
    return {"voice": tts.name, "fingerprint": fingerprint(tts.bundle.path), "hardware": hardware(tts.target.device),
            **{name: described[name] for name in ("device", "threads", "dtype", "runtime", "batch")}}  # fmt: skip


def use_tuned(tts: TTS, entry: Tuned) -> TTS:
    """The voice with the setting of an entry.

    Raises:
        ConfigError: it is not one that this version can use, or it is lossy: nobody asked for that.
    """
    from spear_spec.decoding import is_lossless

    try:
        spec = SpecConfig.from_dict(entry.spec)
        tuned = tts.using(**spec.to_dict())
    except (SpearSpecError, TypeError, ValueError) as error:
        raise ConfigError(
            f"what was tuned for {tts.name} cannot be used any more ({error}): run spear-spec tune again"
        ) from None
    if not is_lossless(tuned.spec):
        raise ConfigError(f"what was tuned for {tts.name} is lossy ({spec.verifier}): run spear-spec tune again")
    return tuned
