"""LibriTTS through lhotse: the same as lhotse gives of a sound folder, and what is left of a damaged one."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import soundfile

from spear_spec.errors import ConfigError, MissingExtraError
from spear_spec.training.data.corpus import detect, open_corpus
from tests.stubs.libritts import READERS, SENTENCES, make_libritts, make_part


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_libritts(tmp_path_factory.mktemp("libritts") / "LibriTTS")


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """One reader, one chapter, eight sentences."""
    return make_part(tmp_path / "dev-clean", ("84",), SENTENCES[:8]) / "84" / "1084"


def name(number: int) -> str:
    return f"84_1084_{number:06d}_000000"


def ids(folder: Path) -> list[str]:
    return [clip.id.rpartition("/")[2] for clip in open_corpus(folder).clips]


@pytest.mark.parametrize("part", READERS)
def test_the_same_as_lhotse(corpus: Path, part: str) -> None:
    from lhotse.recipes.libritts import prepare_libritts

    wanted = prepare_libritts(corpus, dataset_parts=[part])[part]
    found, skipped = open_corpus(corpus / part)
    assert skipped == []
    assert {(clip.id, clip.speaker, clip.text, clip.audio) for clip in found} == {
        (f"{part}/{s.id}", s.speaker, s.text, str(Path(wanted["recordings"][s.recording_id].sources[0].source)))
        for s in wanted["supervisions"]
    }
    assert [clip.audio for clip in found] == sorted(clip.audio for clip in found)
    assert {clip.speaker for clip in found} == set(READERS[part])
    assert {clip.text for clip in found} <= set(SENTENCES)
    assert not any(clip.phonemes or clip.frames for clip in found)


def test_all_parts_at_once(corpus: Path, tmp_path: Path) -> None:
    assert detect(corpus) == detect(corpus / "dev-clean") == "libritts"
    before = sorted(corpus.rglob("*"))
    assert len(open_corpus(corpus, scratch=tmp_path / "scratch").clips) == 32
    assert sorted(corpus.rglob("*")) == before
    assert list((tmp_path / "scratch").iterdir()) == []


def test_what_is_wrong_is_left_out_with_the_reason(damaged: Path) -> None:
    (damaged / f"{name(0)}.wav").write_bytes(b"junk")
    (damaged / f"{name(1)}.wav").unlink()
    (damaged / f"._{name(2)}.wav").write_bytes(b"of a Mac")
    soundfile.write(damaged / f"{name(99)}.wav", [0.0] * 999, 24000)
    table = damaged / "84_1084.trans.tsv"
    lines = table.read_text().splitlines()
    lines[3] = lines[3].replace("\t", " ")
    lines[4] = f"{name(4)}\tSHE\u2028SAW.\tShe\x85saw."  # separators that are no ends of lines
    lines[5] = f"{name(5)}\tTHEY.\t  "
    table.write_text("\n".join(lines) + "\n\n", encoding="utf-8")
    (damaged / "84_1084.book.tsv").write_text("no numbers here\n\n" + f"{name(4)} 1 2.5\n")
    found, skipped = open_corpus(damaged.parents[1])
    assert [clip.id for clip in found] == [f"dev-clean/{name(n)}" for n in (2, 4, 6, 7)]
    assert found[1].text == "She saw."
    told = {key.rpartition("/")[2]: reason for key, reason in skipped}
    assert told.pop(name(0)).startswith("audio: unreadable")
    assert told.pop(name(1)) == "no audio file"
    assert told.pop(name(99)) == "no text"
    assert told.pop(name(3)) == "no text"  # listed as a damaged line, too
    assert told.pop(name(5)) == "no text"
    assert any("line 4: not id, original, normalised" in reason for reason in told.values())
    assert ("dev-clean/" + name(5), "its text is empty") in skipped


def test_an_id_twice(damaged: Path) -> None:
    other = make_part(damaged.parents[1] / "again", ("84",), SENTENCES[:2])
    found, skipped = open_corpus(damaged.parents[1])
    assert len(found) == 8
    assert {reason.startswith("the same id as") for _, reason in skipped} == {True}
    assert len(skipped) == 2
    assert other.exists()


def test_tables_that_are_missing(damaged: Path) -> None:
    (damaged / "84_1084.book.tsv").unlink()
    assert len(ids(damaged.parents[1])) == 8
    (damaged / "84_1084.trans.tsv").unlink()
    found = open_corpus(damaged.parents[1]).clips
    assert [clip.text for clip in found] == SENTENCES[:8]
    (damaged.parents[2] / "SPEAKERS.txt").write_text(";ID|SEX\nnonsense\n84 | F | dev-clean | 0 | x\n")
    assert len(ids(damaged.parents[1])) == 8
    for path in damaged.glob("*.normalized.txt"):
        path.unlink()
    with pytest.raises(ConfigError, match="no corpus that can be read"):
        open_corpus(damaged.parents[1])
    with pytest.raises(ConfigError, match="holds no clips; the first reason is: no text"):
        open_corpus(damaged.parents[1], "libritts")


def test_without_lhotse(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lhotse.recipes.libritts", None)
    with pytest.raises(MissingExtraError, match=r"\[train\]"):
        open_corpus(corpus / "dev-clean")
    with pytest.raises(ConfigError, match="no such"):
        open_corpus(corpus / "none", "libritts")
