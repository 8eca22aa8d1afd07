"""A prepared corpus, which every trainer reads. This file alone knows what lies where in its folder:

utterances.jsonl       id, speaker, text, phonemes, frames (or null), audio (absolute path), seconds
tokens.safetensors     semantic tokens, int16, by id
durations.safetensors  `frames` of the clips that brought none, by id (the align stage)
speakers.json          names, in the order of the models' tables
dropped.tsv            id and reason of every clip that was left out
doubtful.tsv           id and reason of every clip whose text seems not to be what is said (the align stage)
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from spear_spec.errors import BundleError, ConfigError
from spear_spec.training.data.corpus import Clip, speakers_of


@dataclass(frozen=True)
class Prepared:
    """The folder of a prepared corpus, or of samples that a target spoke in its form."""

    folder: Path

    @property
    def utterances(self) -> Path:
        return self.folder / "utterances.jsonl"

    @property
    def tokens(self) -> Path:
        return self.folder / "tokens.safetensors"

    @property
    def durations(self) -> Path:
        return self.folder / "durations.safetensors"

    @property
    def speakers(self) -> Path:
        return self.folder / "speakers.json"

    @property
    def dropped(self) -> Path:
        return self.folder / "dropped.tsv"

    @property
    def doubtful(self) -> Path:
        return self.folder / "doubtful.tsv"

    @property
    def files(self) -> tuple[Path, ...]:
        """Those that are there."""
        every = (self.utterances, self.tokens, self.durations, self.speakers, self.dropped, self.doubtful)
        return tuple(path for path in every if path.exists())

    def write(
        self, clips: Sequence[Clip], speakers: Sequence[str] = (), dropped: Sequence[tuple[str, str]] = ()
    ) -> None:
        """Write clips, speakers (none named: those of the clips) and what was left out; the clips come last."""
        self.folder.mkdir(parents=True, exist_ok=True)
        _write(self.dropped, "".join(f"{name}\t{reason}\n" for name, reason in dropped))
        _write(self.speakers, json.dumps(list(speakers or speakers_of(clips)), ensure_ascii=False) + "\n")
        self.write_clips(clips)

    def write_clips(self, clips: Iterable[Clip]) -> None:
        """Write the clips alone."""
        self.folder.mkdir(parents=True, exist_ok=True)
        _write(self.utterances, "".join(json.dumps(asdict(clip), ensure_ascii=False) + "\n" for clip in clips))

    def clips(self) -> list[Clip]:
        """Its clips; those without durations of their own have the ones that were found for them.

        Raises:
            ConfigError: there is no such folder, or it is damaged.
        """
        try:
            lines = self.utterances.read_text(encoding="utf-8").splitlines()
            clips = [Clip(**json.loads(line)) for line in lines if line.strip()]
        except (OSError, ValueError, TypeError) as error:
            raise ConfigError(f"{self.utterances} holds no utterances ({error}); run the prepare stage first") from None
        found = load_rows(self.durations) if self.durations.exists() else {}
        return [
            replace(clip, frames=found[clip.id].tolist()) if clip.frames is None and clip.id in found else clip
            for clip in clips
        ]

    def names(self) -> list[str]:
        """Speakers, in the order of the models' tables.

        Raises:
            ConfigError: the folder has none.
        """
        try:
            return list(json.loads(self.speakers.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise ConfigError(f"{self.speakers} names no speakers ({error}); run the prepare stage first") from None

    def left_out(self) -> list[tuple[str, str]]:
        """Id and reason of the clips that were left out."""
        pairs = (line.partition("\t") for line in self.dropped.read_text(encoding="utf-8").splitlines())
        return [(name, reason) for name, _, reason in pairs]

    def doubted(self) -> set[str]:
        """Ids of the clips whose text is taken to be another than what is said; none before the align stage."""
        try:
            lines = self.doubtful.read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return set()
        return {line.partition("\t")[0] for line in lines}

    def write_doubted(self, clips: Iterable[tuple[str, str]]) -> None:
        """Write (id, reason) of those clips."""
        _write(self.doubtful, "".join(f"{name}\t{reason}\n" for name, reason in clips))


def _write(path: Path, text: str) -> None:
    """By rename, so that the file is never half there."""
    partial = path.with_name(path.name + ".part")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)


def load_rows(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Tokens or durations by clip, as stored (int16).

    Raises:
        BundleError: the file is missing or damaged.
    """
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise BundleError(f"cannot read tokens from {path}: {error}") from None


def save_rows(path: Path, rows: Mapping[str, Tensor]) -> None:
    """Write tokens or durations as int16, by rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".part")
    save_file({key: value.to(torch.int16).contiguous() for key, value in rows.items()}, partial)
    partial.chmod(0o644)
    os.replace(partial, path)


def given_rows(sources: Iterable[tuple[str, str | os.PathLike[str]]]) -> dict[str, Tensor]:
    """Rows of clips (tokens, pitch) that exist already, under the ids that `read_corpus` gives: (corpus folder,
    file) pairs.
    """
    out: dict[str, Tensor] = {}
    for folder, path in sources:
        prefix = Path(folder).resolve().name
        out |= {f"{prefix}/{key}": value for key, value in load_rows(path).items()}
    return out
