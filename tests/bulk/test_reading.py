"""Lines with pauses, a lexicon, SSML, several takes, another stage: each as `synthesize` makes it alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from spear_spec import TTS
from spear_spec.acoustic import takes
from spear_spec.acoustic.takes import JUDGES
from spear_spec.audio import FloatArray
from spear_spec.bulk import run as driver
from spear_spec.bulk.choir import Choir, Spoken
from spear_spec.bulk.lines import Line, parse_lines
from spear_spec.bulk.settings import Settings, digest
from spear_spec.bulk.worker import Worker
from spear_spec.cli import main
from spear_spec.errors import BundleError, ConfigError, SpearSpecError, TextError
from spear_spec.text import Lexicon
from spear_spec.voice.bundle import open_voice
from tests.bulk.conftest import Inline
from tests.stubs.audiolm import RATE, make_stage
from tests.stubs.schemas import check
from tests.stubs.voice import make_voice

TEXT = "Mr. Nguyen came. He left."
WORDS = {"nguyen": "/nwɪn/"}
DOCUMENT = '<speak>Nguyen <break time="300ms"/> <sub alias="two">2</sub> cats.</speak>'
OWN = {
    "plain": {"text": TEXT},
    "pause": {"text": TEXT, "pause": [0.3, 0.9]},
    "words": {"text": TEXT, "lexicon": {"nguyen": "win", "left": "/ɹæn/"}},
    "ssml": {"text": DOCUMENT, "ssml": True, "seed": 8, "speed": 1.25},
}


@pytest.fixture(autouse=True)
def _inline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "_crew", lambda settings, folder, workers, ray: Inline(Worker(settings, str(folder))))


@pytest.fixture
def lexicon(tmp_path: Path) -> Path:
    path = tmp_path / "own.tsv"
    path.write_text("nguyen\t/nwɪn/\n")
    return path


@pytest.fixture
def judge(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """One that listens: the more silence, the better."""

    class Silence:
        name = "silence 1"

        def score(self, samples: FloatArray, sample_rate: int) -> float:
            return float((abs(samples) < 0.01).mean())

    monkeypatch.setattr(takes, "JUDGED_S", 0.2)
    JUDGES.register("silence", Silence)
    yield "silence"
    JUDGES._known.pop("silence")


def own(lines: dict[str, dict[str, Any]]) -> list[Line]:
    return parse_lines("".join(json.dumps({"id": name, **line}) + "\n" for name, line in lines.items()), jsonl=True)


def test_as_alone(worker: Worker, settings: Settings, lexicon: Path) -> None:
    told = digest(Lexicon.of(WORDS).to_json())  # type: ignore[union-attr]
    pauses = {"cut": 0.1, "sentence": 0.5, "line": 0.5, "paragraph": 0.5}
    given = replace(settings, pauses=pauses, lexicon=str(lexicon), lexicon_sha256=told)
    assert Settings.from_dict(json.loads(json.dumps(given.to_dict()))) == given
    tts, house = worker.choir.tts, {"seed": 3, "pause": 0.5, "lexicon": WORDS, "max_tokens": 40}
    found = {line.id: (line, result) for line, result in Choir(tts, given).speak(own(OWN))}
    assert len(found) == len(OWN)
    for name, (line, result) in found.items():
        assert isinstance(result, Spoken)
        assert Line(**json.loads(json.dumps(line.to_dict()))) == line  # as a worker gets it
        alone = tts.synthesize(**{**house, **OWN[name]})
        assert result.audio.samples.tobytes() == alone.samples.tobytes()
    plain = tts.synthesize(TEXT, seed=3, max_tokens=40)
    assert plain.samples.tobytes() != found["plain"][1].audio.samples.tobytes()  # type: ignore[union-attr]
    with pytest.raises(ConfigError, match=r"own\.tsv is not the one that this run began with"):
        Choir(tts, replace(given, lexicon_sha256="0"))


@pytest.mark.parametrize("name", ["likelihood", "silence"])
def test_the_best_of_three(worker: Worker, settings: Settings, judge: str, name: str) -> None:
    lines = own({**OWN, "greedy": {"text": TEXT, "temperature": 0}})
    given = replace(settings, best_of=3, judge=name, batch=4)
    found = {line.id: result for line, result in Choir(worker.choir.tts, given).speak(lines)}
    refused = found.pop("greedy")
    assert isinstance(refused, ConfigError) and "temperature above 0" in str(refused)
    numbers, judges = set(), set()
    for key, result in found.items():
        assert isinstance(result, Spoken)
        options = {"seed": 3, "max_tokens": 40, "best_of": 3, "judge": name, **OWN[key]}
        alone = worker.choir.tts.synthesize(**options)
        assert result.audio.samples.tobytes() == alone.samples.tobytes()
        assert [one.to_dict() for one in result.chosen] == alone.stats["best_of"]["sentences"]
        assert (result.stats.tokens, result.ended) == (alone.stats["tokens"], alone.stats["ended"])
        numbers |= {one.chosen for one in result.chosen}
        judges |= {one.judge for one in result.chosen}
    assert len(numbers) > 1
    assert judges <= {"likelihood", "silence 1"} and ("silence 1" in judges) == (name == "silence")  # short ones


def test_the_command(settings: Settings, tmp_path: Path, lexicon: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stage = make_stage(tmp_path / "stage", open_voice(settings.voice))
    (tmp_path / "big.jsonl").write_text(json.dumps({"text": DOCUMENT, "id": "a"}) + "\n")
    asked = ["say", "--voice", str(settings.voice), "--device", "cpu", "--max-tokens", "20", "--ssml", "--pause", ".2"]
    asked += ["--file", str(tmp_path / "big.jsonl"), "--out-dir", str(tmp_path / "out"), "--lexicon", str(lexicon)]
    asked += ["--best-of", "2", "--judge", "likelihood", "--acoustic", str(stage)]
    assert main([*asked, "--json"]) == 0, capsys.readouterr().err
    captured = capsys.readouterr()
    result = json.loads(captured.out)
    check(result, "bulk/1")
    told = result["settings"]
    assert (told["ssml"], told["best_of"], told["judge"]) == (True, 2, "likelihood")
    assert told["pauses"]["sentence"] == 0.2 and not {"lexicon", "acoustic"} & set(told)
    [record] = map(json.loads, (tmp_path / "out/manifest.jsonl").read_text().splitlines())
    tts = TTS.load(settings.voice, "cpu", drafter="none", acoustic=stage)
    options: dict[str, Any] = {"best_of": 2, "judge": "likelihood", "max_tokens": 20}
    alone = tts.synthesize(DOCUMENT, ssml=True, pause=0.2, lexicon=WORDS, **options)
    assert record["best_of"] == alone.stats["best_of"]["sentences"] and record["sample_rate"] == RATE
    assert (tmp_path / "out" / record["file"]).read_bytes() == alone.encode(".wav")
    assert f"{alone.seconds:.0f} s of speech" in captured.err
    lexicon.write_text("# another remark\nnguyen\t/nwɪn/\n")
    assert main(asked) == 0
    assert "1 lines were there" in capsys.readouterr().err
    lexicon.write_text("nguyen\twin\n")
    assert main(asked) == 2
    assert "lexicon_sha256" in capsys.readouterr().err
    given = Settings.from_dict({**settings.to_dict(), "acoustic": str(stage), "acoustic_fingerprint": "0"})
    with pytest.raises(BundleError, match=r"the stage .* is not the one that this run began with"):
        Worker(given, "nowhere")


def test_mistakes(settings: Settings, lexicon: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for line, what in (
        ({"pause": 99}, "pause: sentence must be a number of seconds from 0 to 60, not 99"),
        ({"pause": "x"}, "pause must be seconds between sentences"),
        ({"ssml": 1}, "ssml must be True or False, not 1"),
        ({"lexicon": "own.tsv"}, "lexicon must be an object of words and pronunciations, not 'own.tsv'"),
        ({"lexicon": {"a": "/?/"}}, "lexicon, entry 1"),
    ):
        with pytest.raises(SpearSpecError, match=what):
            own({"a": {"text": "Yes.", **line}})
    tts = TTS.load(settings.voice, "cpu", drafter="none")
    [(_, result)] = Choir(tts, settings).speak(own({"a": {"text": "Yes & no.", "ssml": True}}))
    assert isinstance(result, TextError) and "SSML, line 1" in str(result)
    (tmp_path / "big.jsonl").write_text('{"text": "Yes."}')
    asked = ["say", "--voice", str(settings.voice), "--device", "cpu", "--file", str(tmp_path / "big.jsonl")]
    for more, what in (
        (["--lexicon", "none.tsv"], "cannot read the lexicon none.tsv"),
        (["--best-of", "2", "--judge", "nobody"], "there is no judge 'nobody'"),
        (["--best-of", "2", "--judge", "likelihood", "--temperature", "0"], "temperature above 0"),
        (["--acoustic", "none"], "has no acoustic stage 'none'"),
        (["--play"], "leave --play out"),
    ):
        assert main([*asked, "--out-dir", str(tmp_path / "out"), *more]) == 2
        assert what in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("how", ["on", "stream"])
def test_lines_that_leave_out_words_are_drawn_again(how: str, settings: Settings, tmp_path: Path) -> None:
    tts = TTS.load(make_voice(tmp_path / "deep", depth=3).path, "cpu", drafter="none")
    lines = own({"a": {"text": "A letter came; nobody read it.", "seed": 1}, "b": {"text": "One.", "seed": 2}})
    given = replace(settings, complete=how, batch=4, max_tokens=None)
    found = {line.id: result for line, result in Choir(tts, given).speak(lines)}
    redrawn = 0
    for line in lines:
        result = found[line.id]
        assert isinstance(result, Spoken)
        alone = tts.synthesize(line.text, seed=line.seed or 0, complete=how)
        assert result.audio.samples.tobytes() == alone.samples.tobytes()
        assert result.redrawn == alone.stats["redrawn"]
        redrawn += result.redrawn
    assert redrawn > 0


def test_complete_of_the_command(settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    voice = str(make_voice(tmp_path / "deep", depth=3).path)
    (tmp_path / "big.jsonl").write_text(json.dumps({"text": "A letter came; nobody read it.", "id": "a"}) + "\n")
    asked = ["say", "--voice", voice, "--device", "cpu", "--file", str(tmp_path / "big.jsonl")]
    assert main([*asked, "--out-dir", str(tmp_path / "out"), "--complete", "on", "--workers", "1", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    check(result, "bulk/1")
    assert result["settings"]["complete"] == "on"
    [record] = map(json.loads, (tmp_path / "out/manifest.jsonl").read_text().splitlines())
    alone = TTS.load(voice, "cpu", drafter="none").synthesize("A letter came; nobody read it.", complete=True)
    assert record["redrawn"] == alone.stats["redrawn"] > 0
    assert (tmp_path / "out" / record["file"]).read_bytes() == alone.encode(".wav")
