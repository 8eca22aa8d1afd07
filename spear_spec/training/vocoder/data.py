"""Clips for the vocoder: decoded once into one int16 file, with the features of `analysis.py` beside it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from spear_spec.audio import load_audio
from spear_spec.config import Clock
from spear_spec.errors import SpearSpecError
from spear_spec.training.data.prepared import Prepared, load_rows
from spear_spec.training.vocoder.analysis import REST_F0, Frames, analyse, frames_from_pitch

COLUMNS = ("f0", "voiced", "phase", "energy")


def missing_parts(folder: Path, parts: int) -> list[int]:
    """Of so many parts those that `prepare` has not written."""
    return [part for part in range(parts) if not (folder / f"frames.{part}.npz").exists()]


def prepare(
    source: Prepared, out: Path, *, clock: Clock, part: int = 0, parts: int = 1, pitch: Path | None = None
) -> int:
    """Decode and analyse every clip that has tokens into `out`; part `part` of `parts`.

    pitch: a file of the synthesiser's own F0 by clip (see `frames_from_pitch`); clips that it does not hold are
    analysed. Writes `audio.<part>.i16` and `frames.<part>.npz`.

    Returns:
        The number of clips.

    Raises:
        SpearSpecError: the folder is damaged, or a clip cannot be read.
    """
    out.mkdir(parents=True, exist_ok=True)
    tokens, speakers = load_rows(source.tokens), source.names()
    curves = load_rows(pitch) if pitch is not None else {}
    columns: dict[str, list[npt.NDArray[Any]]] = {k: [] for k in (*COLUMNS, "tokens")}
    lengths, voices, ids = [], [], []
    partial = out / f"audio.{part}.i16.part"
    with partial.open("wb") as audio:
        for clip in source.clips()[part::parts]:
            if clip.id not in tokens or clip.speaker not in speakers:
                continue
            row = tokens[clip.id].numpy().astype(np.int16)
            samples = _exactly(load_audio(clip.audio, clock.sample_rate).samples, len(row) * clock.token_samples)
            curve = curves.get(clip.id)
            frames = analyse(samples, clock) if curve is None else frames_from_pitch(samples, curve.numpy(), clock)
            audio.write((np.clip(samples, -1, 1) * 32767).astype(np.int16).tobytes())
            _append(columns, frames, row)
            lengths.append(len(row))
            voices.append(speakers.index(clip.speaker))
            ids.append(clip.id)
    if not ids:
        raise SpearSpecError(f"{source.folder}: no clip of part {part} has tokens; run the tokenize stage first")
    joined: dict[str, Any] = {key: np.concatenate(rows) for key, rows in columns.items()}
    with (out / f"frames.{part}.part.npz").open("wb") as file:
        np.savez(file, lengths=np.array(lengths), voices=np.array(voices), ids=np.array(ids), **joined)
    os.replace(partial, out / f"audio.{part}.i16")
    os.replace(out / f"frames.{part}.part.npz", out / f"frames.{part}.npz")
    return len(lengths)


def _exactly(samples: npt.NDArray[np.float32], wanted: int) -> npt.NDArray[np.float32]:
    """Cut, or zeros behind."""
    return np.pad(samples[:wanted], (0, max(0, wanted - len(samples))))


def _append(columns: dict[str, list[npt.NDArray[Any]]], frames: Frames, tokens: npt.NDArray[np.int16]) -> None:
    for key in COLUMNS:
        columns[key].append(getattr(frames, key))
    columns["tokens"].append(tokens)


class ClipStore:
    """Every prepared clip, audio memory-mapped. Positions count tokens of the concatenation of one part."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        self.clock = clock
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
        self._own = {int(voice): np.flatnonzero(self.clips[:, 3] == voice) for voice in np.unique(self.clips[:, 3])}

    @property
    def seconds(self) -> float:
        """Audio in all, in seconds."""
        return float(self._ends[-1]) / self.clock.token_rate

    def favour(self, voices: int, share: float) -> None:
        """Let `draw` take a crop from one of the first `voices` speakers with this chance; 0: as much as they have."""
        sizes = self.clips[:, 2].astype(np.float64)
        stored = self.clips[:, 3] < voices
        if share > 0 and stored.any() and not stored.all():
            sizes = np.where(stored, sizes * share / sizes[stored].sum(), sizes * (1 - share) / sizes[~stored].sum())
        self._ends = np.cumsum(sizes)

    def prompts(
        self, rng: np.random.Generator, clips: npt.NDArray[np.int64], shortest: float, longest: float
    ) -> dict[str, npt.NDArray[np.generic]]:
        """For each of these clips a piece of ANOTHER clip of its speaker (the same where there is but one), `shortest`
        to `longest` seconds: prompt float32 [B, T], prompt_mask bool [B, T], prompt_pitch [B] (mean log F0 where it is
        voiced) and prompt_voiced bool [B].
        """
        samples, per, rate = self.clock.token_samples, self.clock.frames_per_token, self.clock.token_rate
        most = int(longest * rate)
        audio = np.zeros((len(clips), most * samples), np.float32)
        mask = np.zeros((len(clips), most * samples), np.bool_)
        pitch, voiced = np.zeros(len(clips), np.float32), np.zeros(len(clips), np.bool_)
        for row, clip in enumerate(clips):
            own = self._own[int(self.clips[clip, 3])]
            others = own[own != clip]
            part, first, length, _ = (int(v) for v in self.clips[rng.choice(others) if len(others) else clip])
            count = min(length, int(rng.integers(int(shortest * rate), most + 1)))
            low = first + int(rng.integers(length - count + 1))
            heard, arrays = self.parts[part]
            piece = heard[low * samples : (low + count) * samples].astype(np.float32) / 32767.0
            audio[row, : len(piece)], mask[row, : len(piece)] = piece, True
            span = slice(low * per, (low + count) * per)
            said = np.asarray(arrays["voiced"][span], np.float32) > 0.5
            voiced[row] = said.sum() > 10
            if voiced[row]:
                pitch[row] = np.log(np.asarray(arrays["f0"][span], np.float32)[said]).mean()
        return {"prompt": audio, "prompt_mask": mask, "prompt_pitch": pitch, "prompt_voiced": voiced}

    def draw(
        self, rng: np.random.Generator, batch: int, tokens: int, left: int, right: int
    ) -> dict[str, npt.NDArray[np.generic]]:
        """`batch` random crops of `tokens` tokens with `left` and `right` tokens of context.

        Returns tokens and valid [B, left + tokens + right], f0, voiced, phase, energy [B, frames a token * that],
        speaker and clip (its number) [B], and audio float32 [B, tokens * token_samples] of the crop alone. Outside a
        clip: token 0, valid False.
        """
        width = left + tokens + right
        samples, per = self.clock.token_samples, self.clock.frames_per_token
        out: dict[str, npt.NDArray[np.generic]] = {
            "tokens": np.zeros((batch, width), np.int64),
            "valid": np.zeros((batch, width), np.bool_),
            "speaker": np.zeros(batch, np.int64),
            "clip": np.zeros(batch, np.int64),
            "audio": np.zeros((batch, tokens * samples), np.float32),
        }
        for key in COLUMNS:
            out[key] = np.zeros((batch, width * per), np.float32)
        out["f0"][:] = REST_F0
        out["energy"][:] = np.log(1e-5)
        for row in range(batch):
            at_random = rng.integers(self._ends[-1]) if self._ends.dtype.kind == "i" else rng.random() * self._ends[-1]
            clip = min(int(np.searchsorted(self._ends, at_random, side="right")), len(self.clips) - 1)
            part, first, length, voice = (int(v) for v in self.clips[clip])
            audio, arrays = self.parts[part]
            start = int(rng.integers(min(0, length - tokens), max(0, length - tokens) + 1)) if length != tokens else 0
            low, high = max(0, start - left), min(length, start + tokens + right)
            at = low - (start - left)
            out["tokens"][row, at : at + high - low] = arrays["tokens"][first + low : first + high]
            out["valid"][row, at : at + high - low] = True
            for key in COLUMNS:
                piece = arrays[key][(first + low) * per : (first + high) * per]
                out[key][row, at * per : (at + high - low) * per] = piece
            low, high = max(0, start), min(length, start + tokens)
            piece = audio[(first + low) * samples : (first + high) * samples].astype(np.float32) / 32767.0
            out["audio"][row, (low - start) * samples : (high - start) * samples] = piece
            out["speaker"][row], out["clip"][row] = voice, clip
        return out
