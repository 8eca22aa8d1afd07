"""Corpora in four shapes, and what is left out of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from spear_spec.errors import BundleError, ConfigError, TextError
from spear_spec.training.data import corpus as data
from spear_spec.training.data.prepared import Prepared, load_rows, save_rows


def wav(path: Path, seconds: float = 0.5, rate: int = 16000) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.zeros(int(seconds * rate), np.float32), rate)
    return path


def meta(folder: Path, items: list[dict]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "meta.0.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items), encoding="utf-8")
    return folder


def item(number: int, phonemes: str = "hˈI.", frames: int = 6, voice: str = "ann") -> dict:
    return {
        "id": f"{voice}/{number}",
        "voice": voice,
        "text": f"text {number}",
        "phonemes": phonemes,
        "frames": [1] * frames,
        "seconds": 0.5,
    }


def test_our_form(tmp_path: Path) -> None:
    corpus = meta(tmp_path / "corpus", [item(0), item(1)])
    wav(corpus / "ann/0.flac")
    first, second = data.read_corpus(corpus)
    assert first == data.Clip("corpus/ann/0", "ann", "text 0", str(corpus / "ann/0.flac"), "hˈI.", [1] * 6, 0.5)
    assert second.audio == ""


def test_the_same_id_in_two_corpora_stays_apart(tmp_path: Path) -> None:
    ids = [clip.id for name in ("a", "b") for clip in data.read_corpus(meta(tmp_path / name, [item(0)]))]
    assert ids == ["a/ann/0", "b/ann/0"]


def test_ljspeech_form(tmp_path: Path) -> None:
    (tmp_path / "metadata.csv").write_text('X-1|in 1850|in eighteen fifty\nX-2|"So," he said.|\n\n', encoding="utf-8")
    wav(tmp_path / "wavs/X-1.wav")
    clips = data.read_corpus(tmp_path)
    assert [clip.text for clip in clips] == ["in eighteen fifty", '"So," he said.']
    assert [bool(clip.audio) for clip in clips] == [True, False]
    assert {clip.speaker for clip in clips} == {tmp_path.name}
    assert clips[0].phonemes is None
    assert clips[0].frames is None


def test_lhotse_manifest(tmp_path: Path) -> None:
    from lhotse import CutSet, MonoCut, Recording, SupervisionSegment

    recording = Recording.from_file(wav(tmp_path / "long.wav", seconds=3))
    cuts = [
        MonoCut(
            f"cut-{i}",
            start=float(i),
            duration=1.0,
            channel=0,
            recording=recording,
            supervisions=[SupervisionSegment(f"s{i}", recording.id, 0.0, 1.0, text=f"part {i}", speaker="bob")],
        )
        for i in range(2)
    ]
    CutSet.from_cuts(cuts).to_file(tmp_path / "cuts.jsonl.gz")
    clips = data.read_corpus(tmp_path / "cuts.jsonl.gz", scratch=tmp_path / "audio")
    assert [(clip.id, clip.speaker, clip.text) for clip in clips] == [
        ("cuts/cut-0", "bob", "part 0"),
        ("cuts/cut-1", "bob", "part 1"),
    ]
    assert [soundfile.info(clip.audio).frames for clip in clips] == [16000, 16000]


def test_unknown_forms(tmp_path: Path) -> None:
    for bad in (tmp_path, tmp_path / "none"):
        with pytest.raises(ConfigError):
            data.read_corpus(bad)
    with pytest.raises(ConfigError, match="holds no clips"):
        data.read_corpus(meta(tmp_path / "empty", []))
    (tmp_path / "empty/meta.0.jsonl").write_text('{"id": 3}\n')
    with pytest.raises(ConfigError, match="line 1"):
        data.read_corpus(tmp_path / "empty")
    with pytest.raises(ConfigError, match="unknown corpus form"):
        data.read_corpus(tmp_path, "vctk")


def test_clips_with_other_phonemes_are_left_out(tmp_path: Path) -> None:
    clips = [
        data.Clip("same", "a", "hi", "x.wav", "hˈI.", [1] * 6),
        data.Clip("other", "a", "hi", "x.wav", "hˈA.", [1] * 6),
        data.Clip("lengths", "a", "hi", "x.wav", "hˈI.", [1] * 5),
        data.Clip("bare", "a", "hi", "x.wav"),
        data.Clip("silent", "a", "hi", ""),
        data.Clip("error", "a", "!", "x.wav"),
        data.Clip("empty", "a", "", "x.wav"),
    ]

    def phonemize(text: str) -> str:
        if text == "!":
            raise TextError("cannot")
        return "hˈI." if text else ""

    kept, dropped = data.add_phonemes(clips, phonemize, progress=False)
    assert [clip.id for clip in kept] == ["same", "bare"]
    assert all(clip.phonemes == "hˈI." for clip in kept)
    assert [name for name, _ in dropped] == ["other", "lengths", "silent", "error", "empty"]


def test_prepared_folder_round_trip(tmp_path: Path) -> None:
    clips = [
        data.Clip("b", "y", "t", "x.wav", "p", [1, 2, 3], 0.5),
        data.Clip("a", "x", "t", "x.wav", "p"),
        data.Clip("c", "x", "t", "x.wav", "p"),
    ]
    prepared = Prepared(tmp_path / "prepared")
    prepared.write(clips, dropped=[("d", "why")])
    assert prepared.clips() == clips
    assert prepared.names() == ["x", "y"]
    assert prepared.left_out() == [("d", "why")]
    assert {path.name for path in prepared.files} == {"utterances.jsonl", "speakers.json", "dropped.tsv"}
    for read in (Prepared(tmp_path / "none").clips, Prepared(tmp_path / "none").names):
        with pytest.raises(ConfigError, match="prepare"):
            read()


def test_durations_that_were_found_fill_in_for_those_that_are_missing(tmp_path: Path) -> None:
    prepared = Prepared(tmp_path)
    prepared.write([data.Clip("own", "x", "t", "x.wav", "p", [1, 2, 3]), data.Clip("none", "x", "t", "x.wav", "p")])
    save_rows(prepared.durations, {"none": torch.tensor([4, 5, 6]), "own": torch.tensor([7, 8, 9])})
    assert [clip.frames for clip in prepared.clips()] == [[1, 2, 3], [4, 5, 6]]


def test_rows_and_doubts(tmp_path: Path) -> None:
    prepared = Prepared(tmp_path / "prepared")
    prepared.write([data.Clip("a", "x", "t", "x.wav", "p")])
    assert prepared.doubted() == set()
    prepared.write_doubted([("a", "says\tsomething else")])
    assert prepared.doubted() == {"a"}
    save_rows(prepared.tokens, {"a": torch.tensor([1000, 2])})
    assert load_rows(prepared.tokens)["a"].tolist() == [1000, 2]
    prepared.tokens.write_bytes(b"junk")
    with pytest.raises(BundleError):
        load_rows(prepared.tokens)


def test_readers_that_are_on_both_sides() -> None:
    one, other = ([data.Clip(f"{n}", str(n), "t", "x.wav") for n in numbers] for numbers in (range(9), range(5, 20)))
    data.apart("dev", one[:5], other, "training")
    with pytest.raises(ConfigError, match=r"dev has readers of training: 5, 6, 7 and 1 more\."):
        data.apart("dev", one, other, "training")
