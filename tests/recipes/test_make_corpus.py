"""The corpus that the teacher speaks: who reads what, and where it lies. No teacher is needed for these parts."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import soundfile

from spear_spec.training.data.corpus import open_corpus

ROOT = Path(__file__).parents[2]
VOICES = [f"{kind}_{name}" for kind in ("af", "am", "bf", "bm") for name in "abcdefg"]
VOICES = sorted([*VOICES[:24], "af_kore", "bm_lewis", "am_liam", "bf_emma"])


@pytest.fixture(scope="module")
def made() -> Any:
    spec = importlib.util.spec_from_file_location("make_corpus", ROOT / "recipes/libritts/make_corpus.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["make_corpus"] = module  # its dataclass looks itself up
    spec.loader.exec_module(module)
    yield module
    del sys.modules["make_corpus"]


@pytest.fixture(scope="module")
def people(made: ModuleType) -> list[Any]:
    return made.readers(VOICES, 72, 0)


def test_the_four_unseen_voices_are_never_trained_on(made: ModuleType, people: list[Any]) -> None:
    assert len(people) == 28 + 72
    assert Counter(reader.subset for reader in people) == {"train-clean-100": 96, "dev-clean": 2, "test-clean": 2}
    trained = {voice for reader in people if reader.subset.startswith("train") for voice, _ in reader.shares}
    assert trained == set(VOICES) - set(made.UNSEEN)
    for reader in people:
        if any(voice in made.UNSEEN for voice, _ in reader.shares):
            [(voice, share)] = reader.shares
            assert (reader.subset, share) == (made.UNSEEN[voice], 1.0)


def test_readers_are_numbered_and_the_same_each_time(made: ModuleType, people: list[Any]) -> None:
    assert len({reader.number for reader in people}) == 100
    assert people == made.readers(VOICES, 72, 0) == made.readers(VOICES[::-1], 0, 0) + people[28:]
    assert people != made.readers(VOICES, 72, 1)
    assert made.readers(VOICES, 9, 0) == people[:37]  # more mixtures do not change those that are there
    for reader in people[28:]:
        assert sum(share for _, share in reader.shares) == pytest.approx(1)
        assert 2 <= len({voice for voice, _ in reader.shares}) == len(reader.shares) <= 3
    assert {reader.gender for reader in people} == {"F", "M"}
    assert people[0].gender == VOICES[0][1].upper()


def test_readers_of_other_languages_and_beyond_the_voices(made: ModuleType, people: list[Any]) -> None:
    others = ["zm_yunxi", "ef_dora", "hm_psi"]
    more = made.readers(VOICES, 72, 0, others, 40)
    assert more[:100] == people
    assert [reader.name for reader in more[100:103]] == sorted(others)
    beyond = more[103:]
    assert len(beyond) == 40
    assert len({reader.number for reader in more}) == 143
    for reader in beyond:
        (one, most), (other, least) = reader.shares
        assert most + least == pytest.approx(1)
        assert 1.15 <= most <= 1.4
        assert one != other
        assert not {one, other} & set(made.UNSEEN)
    assert {reader.subset for reader in more[100:]} == {"train-clean-100"}
    assert {voice for reader in beyond for voice, _ in reader.shares} & set(others)


def test_everybody_reads_in_turn_until_the_minutes_are_full(made: ModuleType, people: list[Any]) -> None:
    few = [people[0], people[1], people[28]]
    texts = [f"This is sentence {n:04d}." for n in range(500)]  # 22 letters: 1.93 s as they are guessed
    asked = made.schedule(few, texts, 20.0, 6.0)
    assert [text for *_, text in asked] == texts[: len(asked)]
    count = Counter(reader.number for reader, *_ in asked)
    assert count == {few[0].number: 11, few[1].number: 11, few[2].number: 4}
    for first in range(0, 12, 3):
        assert [reader for reader, *_ in asked[first : first + 3]] == few
    for reader in few:
        assert [n for who, n, _ in asked if who == reader] == list(range(count[reader.number]))
    assert len(made.schedule(few, texts[:7], 20.0, 6.0)) == 7


def test_places_are_those_of_libritts(made: ModuleType, people: list[Any]) -> None:
    places = [made.key(reader, number) for reader in people for number in range(45)]
    assert len(set(places)) == len(places)
    for place in places:
        subset, reader, chapter, name = place.split("/")
        assert subset in ("train-clean-100", "dev-clean", "test-clean")
        one, two, paragraph, sentence = name.split("_")
        assert (one, two) == (reader, chapter) and len(paragraph) == len(sentence) == 6
    chapters = Counter((place.split("/")[2], place.split("/")[1]) for place in places)
    assert set(chapters.values()) == {20, 5}
    assert len({chapter for chapter, _ in chapters}) == len(chapters)  # a chapter is of one reader


def test_the_tables_are_read_by_lhotse(made: ModuleType, people: list[Any], tmp_path: Path) -> None:
    texts = {made.key(people[n], k): f"Reader {n} says {k}." for n in (0, 1, 40) for k in range(22)}
    out = tmp_path / "LibriTTS"
    parts: list[list[str]] = [[], []]
    for number, (place, text) in enumerate(texts.items()):
        (out / place).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(out / f"{place}.wav", np.zeros(2400), 24000)
        parts[number % 2].append(json.dumps({"id": place, "text": text}) + "\n")
    for number, lines in enumerate(parts):
        (out / f"meta.{number}.jsonl").write_text("".join(lines))
    made.finish(out, people)
    found = {}
    for part in {place.split("/")[0] for place in texts}:
        clips, skipped = open_corpus(out / part, "libritts")
        assert skipped == []
        found |= {clip.id.rpartition("/")[2]: (clip.speaker, clip.text) for clip in clips}
    assert found == {p.rpartition("/")[2]: (p.split("/")[1], text) for p, text in texts.items()}
    lines = (out / "SPEAKERS.txt").read_text().splitlines()
    assert [line.split("|")[0].strip() for line in lines[1:]] == [str(reader.number) for reader in people]
