"""Clips for the vocoder: decoded once into one int16 file, with F0, voicing, phase and energy at 100 Hz beside it."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from spear_spec.audio import load_audio
from spear_spec.errors import SpearSpecError

SAMPLE_RATE = 24000
HOP = 240
TOKEN = 960
F0_FLOOR, F0_CEIL = 55.0, 500.0

Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Frames:
    """Features at the centres of frames of 240 samples: f0 (Hz, interpolated where unvoiced), voiced (0/1),
    phase of the fundamental (radians, wrapped), energy (log RMS)."""

    f0: Array
    voiced: Array
    phase: Array
    energy: Array


def analyse(samples: Array) -> Frames:
    """Pitch, voicing, phase and energy of 24 kHz samples [F * 240]: arrays [F].

    F0 by DIO with StoneMask (WORLD; Morise 2016). The phase comes from demodulating the signal with the integral of F0:
    the low-passed angle, unwrapped, is what the integral lacks, so that the excitation of the vocoder can run in step
    with the recording. F0 is then the derivative of that phase.
    """
    import pyworld
    from scipy.signal import fftconvolve

    signal = samples.astype(np.float64)
    count = len(signal) // HOP
    centres = np.arange(count) * HOP + HOP // 2
    raw, times = pyworld.dio(signal, SAMPLE_RATE, f0_floor=F0_FLOOR, f0_ceil=F0_CEIL, frame_period=5.0)
    raw = pyworld.stonemask(signal, raw, times, SAMPLE_RATE)
    voiced_raw = raw > 0
    energy = analyse_energy(signal)
    if voiced_raw.sum() < 4:
        flat = np.full(count, 150.0)
        angle = 2 * np.pi * 150.0 * centres / SAMPLE_RATE
        return Frames(
            flat.astype(np.float32),
            np.zeros(count, np.float32),
            _wrap(angle).astype(np.float32),
            energy.astype(np.float32),
        )
    track = np.interp(np.arange(len(signal)) / SAMPLE_RATE, times[voiced_raw], raw[voiced_raw])
    angle = 2 * np.pi * np.cumsum(track) / SAMPLE_RATE
    lowpass = np.hanning(int(0.03 * SAMPLE_RATE))
    residue = fftconvolve(signal * np.exp(-1j * angle), lowpass / lowpass.sum(), "same")
    voiced = np.interp(centres / SAMPLE_RATE, times, voiced_raw.astype(np.float64)) > 0.75
    correction = np.unwrap(np.angle(residue))[centres]
    if voiced.sum() > 1:
        index = np.flatnonzero(voiced)
        correction = np.interp(np.arange(count), index, correction[index])
    phase = angle[centres] + correction
    step = np.diff(phase)
    f0 = np.empty(count)
    f0[1:-1] = 0.5 * (step[1:] + step[:-1])
    f0[0], f0[-1] = step[0], step[-1]
    f0 = np.clip(f0 * SAMPLE_RATE / (2 * np.pi * HOP), F0_FLOOR * 0.8, F0_CEIL * 1.2)
    return Frames(
        f0.astype(np.float32), voiced.astype(np.float32), _wrap(phase).astype(np.float32), energy.astype(np.float32)
    )


def frames_from_pitch(samples: Array, pitch: Array) -> Frames:
    """Features of 24 kHz samples [F * 240] whose synthesiser told its own F0: `pitch` in Hz at every 300 samples.

    For a corpus spoken by a harmonic-plus-noise network (recipes/default_voice/teacher_pitch.py). Such a source
    counts a
    step of 300 samples as voiced where F0 is above 10 Hz and runs its sine's phase straight from the middle of one
    step to
    the middle of the next, so pitch, voicing and phase are exact. What `analyse` finds is not: its jitter smears the
    upper
    harmonics.
    """
    step = 300
    energy = analyse_energy(samples.astype(np.float64))
    count = len(energy)
    centres = np.arange(count) * HOP + HOP // 2
    curve = pitch.astype(np.float64)
    last = len(curve) - 1
    voiced = (curve > 10)[np.clip(centres // step, 0, last)] & (centres < len(curve) * step)
    phase = np.interp(
        centres, np.arange(len(curve)) * step + (step - 1) / 2, np.cumsum(curve) * (2 * np.pi * step / SAMPLE_RATE)
    )
    speed = curve[np.clip(np.ceil((centres - (step - 1) / 2) / step).astype(np.int64), 0, last)]
    steady = np.flatnonzero(voiced & (speed > 50))
    if len(steady) < 2:
        angle = 2 * np.pi * 150.0 * centres / SAMPLE_RATE
        f0 = np.full(count, 150.0)
    else:
        f0 = np.exp(np.interp(np.arange(count), steady, np.log(speed[steady])))
        # Between voiced stretches the phase is free: F0's integral, bent so that it arrives in step.
        integral = np.concatenate([[0.0], np.cumsum(0.5 * (f0[1:] + f0[:-1]) * (2 * np.pi * HOP / SAMPLE_RATE))])
        rest = np.unwrap(np.mod(phase - integral + np.pi, 2 * np.pi)[steady])
        angle = integral + np.interp(np.arange(count), steady, rest) - np.pi
    return Frames(
        f0.astype(np.float32), voiced.astype(np.float32), _wrap(angle).astype(np.float32), energy.astype(np.float32)
    )


def analyse_energy(signal: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Log RMS under a 40 ms Hann window at the frames' centres."""
    from scipy.signal import fftconvolve

    window = np.hanning(4 * HOP + 1)
    power = fftconvolve(signal**2, window / window.sum(), "same")
    centres = np.arange(len(signal) // HOP) * HOP + HOP // 2
    return 0.5 * np.log(np.maximum(power[centres], 1e-10))


def _wrap(angle: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.mod(angle, 2 * np.pi)


def read_meta(folder: Path) -> Iterator[dict[str, object]]:
    """The lines of every `meta.*.jsonl` of a corpus folder, or of the `utterances.jsonl` of a prepared one."""
    if (folder / "utterances.jsonl").exists():
        for line in (folder / "utterances.jsonl").read_text(encoding="utf-8").splitlines():
            item = json.loads(line)
            yield {**item, "voice": item["speaker"]}
        return
    files = sorted(folder.glob("meta.*.jsonl"))
    if not files:
        raise SpearSpecError(f"no meta.*.jsonl in {folder}: is it a corpus folder?")
    for file in files:
        with file.open(encoding="utf-8") as lines:
            for line in lines:
                if line.strip():
                    yield json.loads(line)


def find_clip(folder: Path, clip: str) -> Path:
    """The audio file of a clip id, whatever its suffix."""
    for suffix in (".ogg", ".flac", ".wav"):
        path = folder / f"{clip}{suffix}"
        if path.exists():
            return path
    raise SpearSpecError(f"no audio for clip {clip} in {folder}")


def prepare(
    sources: Sequence[tuple[Path, Path]],
    out: Path,
    speakers: Sequence[str],
    part: int = 0,
    parts: int = 1,
    pitch: Sequence[Path | None] = (),
) -> int:
    """Decode and analyse every clip of `sources` (corpus folder, token file) into `out`; part `part` of `parts`.

    `pitch` names for each source a safetensors file of the synthesiser's own F0 (see `frames_from_pitch`), or None;
    clips
    that it does not hold are analysed. Writes `audio.<part>.i16` and `frames.<part>.npz`. Returns the number of clips.
    """
    from safetensors.numpy import load_file

    out.mkdir(parents=True, exist_ok=True)
    columns: dict[str, list[npt.NDArray[np.generic]]] = {k: [] for k in ("f0", "voiced", "phase", "energy", "tokens")}
    lengths: list[int] = []
    voices: list[int] = []
    ids: list[str] = []
    partial = out / f"audio.{part}.i16.part"
    with partial.open("wb") as audio:
        number = 0
        for number_of, (folder, token_file) in enumerate(sources):
            tokens = load_file(str(token_file))
            known = pitch[number_of] if number_of < len(pitch) else None
            curves = load_file(str(known)) if known is not None else {}
            for meta in read_meta(folder):
                number += 1
                clip = str(meta["id"])
                if (number - 1) % parts != part or clip not in tokens or str(meta["voice"]) not in speakers:
                    continue
                ids_of_clip = tokens[clip].astype(np.int16)
                wanted = len(ids_of_clip) * TOKEN
                given = meta.get("audio")  # a prepared folder says where the audio lies
                samples = load_audio(Path(str(given)) if given else find_clip(folder, clip), SAMPLE_RATE).samples[
                    :wanted
                ]
                samples = np.pad(samples, (0, wanted - len(samples)))
                frames = frames_from_pitch(samples, curves[clip]) if clip in curves else analyse(samples)
                audio.write((np.clip(samples, -1, 1) * 32767).astype(np.int16).tobytes())
                columns["f0"].append(frames.f0)
                columns["voiced"].append(frames.voiced)
                columns["phase"].append(frames.phase)
                columns["energy"].append(frames.energy)
                columns["tokens"].append(ids_of_clip)
                lengths.append(len(ids_of_clip))
                voices.append(list(speakers).index(str(meta["voice"])))
                ids.append(clip)
    joined = {key: np.concatenate(parts_of) for key, parts_of in columns.items()}
    target = out / f"frames.{part}.npz"
    with (out / f"frames.{part}.part.npz").open("wb") as file:
        np.savez(file, lengths=np.array(lengths), voices=np.array(voices), ids=np.array(ids), **joined)  # type: ignore[arg-type]
    os.replace(partial, out / f"audio.{part}.i16")
    os.replace(out / f"frames.{part}.part.npz", target)
    return len(lengths)


class ClipStore:
    """Every prepared clip, audio memory-mapped. Positions count tokens of the concatenation of one part."""

    def __init__(self, folder: Path) -> None:
        self.parts: list[tuple[npt.NDArray[np.int16], dict[str, npt.NDArray[np.generic]]]] = []
        for file in sorted(folder.glob("frames.[0-9]*.npz")):
            part = file.name.split(".")[1]
            if part == "part":
                continue
            with np.load(file) as data:
                arrays = {key: data[key] for key in data.files}
            audio = np.memmap(folder / f"audio.{part}.i16", dtype=np.int16, mode="r")
            self.parts.append((audio, arrays))
        if not self.parts:
            raise SpearSpecError(f"no prepared clips in {folder}: run the preparation first")
        rows = []
        for number, (_, arrays) in enumerate(self.parts):
            lengths = arrays["lengths"].astype(np.int64)
            starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
            rows.append(np.stack([np.full(len(lengths), number), starts, lengths, arrays["voices"]], axis=1))
        self.clips = np.concatenate(rows).astype(np.int64)  # part, first token, tokens, voice
        self._ends = np.cumsum(self.clips[:, 2])

    @property
    def seconds(self) -> float:
        """Audio in all, in seconds."""
        return float(self._ends[-1]) * TOKEN / SAMPLE_RATE

    def draw(
        self, rng: np.random.Generator, batch: int, tokens: int, left: int, right: int
    ) -> dict[str, npt.NDArray[np.generic]]:
        """`batch` random crops of `tokens` tokens with `left` and `right` tokens of context.

        Returns tokens and valid [B, left + tokens + right], f0, voiced, phase, energy [B, 4 * that], speaker [B], and
        audio float32 [B, tokens * 960] of the crop alone. Outside a clip: token 0, valid False.
        """
        width = left + tokens + right
        out: dict[str, npt.NDArray[np.generic]] = {
            "tokens": np.zeros((batch, width), np.int64),
            "valid": np.zeros((batch, width), np.bool_),
            "speaker": np.zeros(batch, np.int64),
            "audio": np.zeros((batch, tokens * TOKEN), np.float32),
        }
        for key in ("f0", "voiced", "phase", "energy"):
            out[key] = np.zeros((batch, width * 4), np.float32)
        out["f0"][:] = 150.0
        out["energy"][:] = np.log(1e-5)
        for row in range(batch):
            clip = int(np.searchsorted(self._ends, rng.integers(self._ends[-1]), side="right"))
            part, first, length, voice = (int(v) for v in self.clips[clip])
            audio, arrays = self.parts[part]
            start = int(rng.integers(min(0, length - tokens), max(0, length - tokens) + 1)) if length != tokens else 0
            low, high = max(0, start - left), min(length, start + tokens + right)
            at = low - (start - left)
            out["tokens"][row, at : at + high - low] = arrays["tokens"][first + low : first + high]
            out["valid"][row, at : at + high - low] = True
            for key in ("f0", "voiced", "phase", "energy"):
                piece = arrays[key][(first + low) * 4 : (first + high) * 4]
                out[key][row, at * 4 : (at + high - low) * 4] = piece
            low, high = max(0, start), min(length, start + tokens)
            piece = audio[(first + low) * TOKEN : (first + high) * TOKEN].astype(np.float32) / 32767.0
            out["audio"][row, (low - start) * TOKEN : (high - start) * TOKEN] = piece
            out["speaker"][row] = voice
        return out


def main(argv: Sequence[str] | None = None) -> None:
    """Command line of the preparation."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", action="append", type=Path, required=True)
    parser.add_argument("--tokens", action="append", type=Path, required=True)
    parser.add_argument(
        "--pitch", action="append", type=Path, default=[], help="the teacher's own F0, one file a corpus"
    )
    parser.add_argument("--speakers", default="af_heart,am_michael")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--part", default="0/1")
    options = parser.parse_args(argv)
    part, parts = (int(x) for x in options.part.split("/"))
    sources = list(zip(options.corpus, options.tokens, strict=True))
    print(prepare(sources, options.out, options.speakers.split(","), part, parts, options.pitch), "clips")


if __name__ == "__main__":
    main()
