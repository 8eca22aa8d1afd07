"""Lines with the voice of a prompt: of the run, and of a line."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from spear_spec import TTS
from spear_spec.acoustic.provenance import read_provenance
from spear_spec.bulk import run as driver
from spear_spec.bulk.choir import Choir, Spoken
from spear_spec.bulk.folder import check_folder
from spear_spec.bulk.lines import Line, parse_lines
from spear_spec.bulk.settings import Settings
from spear_spec.bulk.worker import Worker
from spear_spec.cli import main
from spear_spec.errors import AudioError, SpearSpecError
from tests.bulk.conftest import Inline
from tests.stubs.hearing import hearing_voice
from tests.stubs.schemas import check
from tests.stubs.speech import RATE, chords, speech


@pytest.fixture(autouse=True)
def _inline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "_crew", lambda settings, folder, workers, ray: Inline(Worker(settings, str(folder))))


@pytest.fixture(scope="module")
def voice(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(hearing_voice(Path(str(settings.voice)), tmp_path_factory.mktemp("voices") / "hearing"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "prompts").mkdir()
    soundfile.write(tmp_path / "prompts/one.wav", speech()[: 3 * RATE], RATE)
    soundfile.write(tmp_path / "prompts/two.wav", speech()[2 * RATE :], RATE)
    soundfile.write(tmp_path / "prompts/music.wav", chords(), RATE)
    lines: list[dict[str, Any]] = [
        {"text": "Yes.", "id": "plain"},
        {"text": "Yes.", "id": "two", "prompt": "prompts/two.wav"},
        {"text": "Yes.", "id": "music", "prompt": "prompts/music.wav"},
    ]
    (tmp_path / "big.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return tmp_path


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_run_and_a_line(voice: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = ["--file", str(folder / "big.jsonl"), "--out-dir", str(folder / "out")]
    options = ["--voice", voice, "--device", "cpu", "--max-tokens", "20", "--shard-lines", "1"]
    asked = ["say", *files, *options, "--voice-prompt", str(folder / "prompts/one.wav")]
    assert main([*asked, "--json"]) == 2  # music is no prompt; the others are kept
    result = json.loads(capsys.readouterr().out)
    check(result, "bulk/1")
    one, two = (digest(folder / f"prompts/{name}.wav") for name in ("one", "two"))
    assert result["settings"]["prompt_sha256"] == one and "prompt" not in result["settings"]
    records = {r["id"]: r for r in map(json.loads, (folder / "out/manifest.jsonl").read_text().splitlines())}
    assert [records[name].get("prompt_sha256") for name in ("plain", "two", "music")] == [one, two, None]
    assert "holds music" in records["music"]["error"]
    check_folder(folder / "out")
    tts = TTS.load(voice, "cpu", drafter="none")
    for name, prompt in (("plain", "one"), ("two", "two")):
        path = folder / "out" / records[name]["file"]
        told = read_provenance(path)
        assert told is not None and told["prompt-sha256"] == digest(folder / f"prompts/{prompt}.wav")
        alone = tts.synthesize("Yes.", voice=folder / f"prompts/{prompt}.wav", max_tokens=20)
        np.testing.assert_allclose(soundfile.read(path, dtype="float32")[0], alone.samples, atol=2 / 32768)
    # the same command goes on; with another prompt it does not
    assert main(asked) == 2
    assert "3 lines were there" in capsys.readouterr().err
    soundfile.write(folder / "prompts/one.wav", speech()[RATE:], RATE)
    assert main(asked) == 2
    assert "prompt_sha256" in capsys.readouterr().err


def test_without_provenance(voice: str, folder: Path) -> None:
    (folder / "big.jsonl").write_text('{"text": "Yes.", "id": "a", "prompt": "prompts/one.wav"}\n')
    asked = ["--file", str(folder / "big.jsonl"), "--voice", voice, "--device", "cpu", "--max-tokens", "20"]
    for value, told in (("off", False), ("on", True)):
        assert main(["say", *asked, "--out-dir", str(folder / value), "--provenance", value]) == 0
        assert (read_provenance(folder / value / "shards/00000/a.wav") is not None) == told


def test_a_prompt_that_changes_under_way(voice: str, settings: Settings, folder: Path) -> None:
    given = Settings.from_dict({**settings.to_dict(), "voice": voice})
    text = json.dumps({"text": "Yes.", "prompt": "one.wav"})
    [line] = parse_lines(text, jsonl=True, base=folder / "prompts")
    assert line.prompt == str(folder / "prompts/one.wav") and Line(**line.to_dict()) == line
    choir = Choir(TTS.load(voice, "cpu", **settings.spec), given)
    soundfile.write(folder / "prompts/one.wav", speech()[RATE:], RATE)
    [(_, result)] = choir.speak([line])
    assert isinstance(result, AudioError) and "is not the one that this run began with" in str(result)
    [line] = parse_lines(text, jsonl=True, base=folder / "prompts")
    [(_, result)] = choir.speak([line])
    assert isinstance(result, Spoken)


def test_mistakes(voice: str, settings: Settings, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for prompt, what in (
        ("none.wav", "line 1: cannot read the prompt .*none.wav"),
        (7, "prompt must be the name of a file"),
    ):
        with pytest.raises(SpearSpecError, match=what):
            parse_lines(json.dumps({"text": "Yes.", "prompt": prompt}), jsonl=True, base=folder)
    asked = ["say", "--file", str(folder / "big.jsonl"), "--out-dir", str(folder / "out"), "--device", "cpu"]
    for more, what in (
        (["--voice", voice, "--voice-prompt", str(folder / "prompts/music.wav")], "holds music"),
        (["--voice", str(settings.voice), "--voice-prompt", str(folder / "prompts/one.wav")], "prompt"),
    ):
        assert main([*asked, *more]) == 2
        assert what in capsys.readouterr().err
