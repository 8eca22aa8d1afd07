"""A voice of which nothing that decodes or sounds is ours: target, stage, drafter and rule each come from one file of
this folder, installed beside the package. The command line speaks with it, races it, tunes it and verifies it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from spear_spec.cli import main
from spear_spec.config import SamplingConfig, SpecConfig
from spear_spec.decoding import DRAFTERS, VERIFIERS
from spear_spec.engine import Engine, Request
from spear_spec.errors import BundleError, ConfigError
from spear_spec.exactness.verify import verify_drafter
from spear_spec.pipeline import TTS
from spear_spec.text import PhonemeTokenizer
from spear_spec.voice.bundle import Bundle
from spear_spec.voice.drafts import build_draft
from spear_spec.voice.registry import STAGES, TARGETS
from spear_spec.voice.save import save_voice
from tests.stubs.packages import install, installable
from tests.stubs.schemas import check

TOKENS, RATE, DIM = 12, 8000, 16
SMALL = {"dim": DIM, "heads": 2, "dim_head": 8, "depth": 1}
POINTS = {
    "spear_spec.drafters": {"repeat": "repeat_drafter:KIND"},
    "spear_spec.verifiers": {"compare": "compare_rule:KIND"},
    "spear_spec.targets": {"gru": "gru_target:build"},
    "spear_spec.stages": {"sines": "sine_stage:build"},
}
TEXT = "Good morning. The road is long."


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch) -> None:
    installable(monkeypatch)


@pytest.fixture
def outside(tmp_path: Path, tables: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = tmp_path / "site-packages"
    folder.mkdir()
    install(folder, monkeypatch, POINTS)
    yield folder
    for line in POINTS.values():
        for value in line.values():
            sys.modules.pop(value.partition(":")[0], None)


@pytest.fixture
def voice(outside: Path, tmp_path: Path) -> Bundle:
    """Random weights; a plain draft is trained for nothing, but there."""
    front = PhonemeTokenizer(("one", "two"))
    torch.manual_seed(0)
    shape = {"text_ids": len(front.vocab), "dim": DIM}
    needed: Any = SimpleNamespace(semantic={"k": TOKENS})  # what this builder reads of a voice
    target: Any = TARGETS.get("gru")(shape, needed)
    with torch.no_grad():
        target.token_emb.weight.mul_(2)
    draft = build_draft("small", SMALL, target)
    return save_voice(
        tmp_path / "outsider",
        name="outsider",
        licence="CC0-1.0",
        origin="random weights, for tests",
        sample_rate=RATE,
        speakers=["one", "two"],
        text=front.to_dict(),
        semantic={"encoder": "none", "layer": 0, "rate": 25, "k": TOKENS},
        sampling=SamplingConfig(temperature=1.0, top_p=0.95),
        spec=SpecConfig(drafter="repeat", verifier="compare", gamma=2),
        configs={"t2s": shape, "vocoder": {}, "small": SMALL},
        weights={"t2s": target.state_dict(), "small": draft.state_dict()},
        kinds={"t2s": "gru", "vocoder": "sines"},
    )


@pytest.fixture
def run(voice: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """The command line on that voice: its exit status, and the JSON that it wrote."""
    monkeypatch.chdir(tmp_path)
    Path("lines.txt").write_text("Good morning.\nThe road is long.\n")

    def go(command: str, *args: str) -> tuple[int, dict[str, Any]]:
        shared = ("--voice", str(voice.path), "--device", "cpu", "--threads", "1", "--json")
        status = main([command, *args, *shared])
        captured = capsys.readouterr()
        assert captured.out, captured.err
        result = json.loads(captured.out.splitlines()[-1])
        check(result, f"{command}/1")
        return status, result

    return go


def test_it_speaks(run: Any) -> None:
    status, result = run("say", TEXT, "-o", "a.wav", "--max-tokens", "30")
    assert status == 0
    assert (result["drafter"], result["verifier"], result["lossless"]) == ("repeat", "compare", True)
    item = result["items"][0]
    assert item["drafted"] > 0
    samples, rate = soundfile.read("a.wav")
    assert rate == RATE
    ours = item["tokens"] - 2  # two end tokens, unless a sentence was cut off
    assert len(samples) >= ours * RATE // 25
    assert abs(samples).max() == pytest.approx(0.3, abs=0.01)


def test_its_sound_is_its_tokens(voice: Bundle) -> None:
    """Sample for sample, whatever drafted and however many rows stood beside it."""
    tts = TTS.load(voice, "cpu")
    whole = tts.synthesize(TEXT, seed=3, max_tokens=40)
    assert np.array_equal(tts.synthesize(TEXT, seed=3, max_tokens=40, batch=2).samples, whole.samples)
    [ids] = tts.texts(["Good morning."])
    spoken = Engine(tts.target).run([Request(ids, seed=5, sampling=tts.sampling, cap=30)])[0].speech
    turns = np.arange(RATE // 25, dtype=np.float32) / RATE * 2 * np.pi
    wanted = np.concatenate([0.3 * np.sin(turns * (200 + 50 * token)) for token in spoken])
    stream = tts.stage.open("one", 1.0, None)
    heard = np.concatenate([stream.push(torch.tensor([token])).numpy() for token in spoken])
    np.testing.assert_allclose(heard, wanted, atol=1e-3)


def test_it_races(run: Any) -> None:
    options = ("--runs", "1", "--text", "lines.txt", "--max-tokens", "12")
    status, result = run("bench", "--drafters", "all", *options)
    assert status == 0
    rows = {(row["drafter"], row["verifier"], row["tree"]) for row in result["rows"]}
    assert {("none", None, None), ("repeat", "compare", None), ("small", "block", None)} <= rows
    assert {entry["drafter"] for entry in result["left_out"]} >= {"eagle", "medusa", "early_exit"}
    assert all(row["tokens_per_s"]["median"] > 0 for row in result["rows"])


def test_it_is_tuned(run: Any, voice: Bundle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SPEAR_SPEC_CONFIG", str(tmp_path / "own"))
    status, result = run("tune", "--seconds", "5", "--max-tokens", "12")
    assert status == 0
    tried = {candidate["drafter"]: candidate["error"] for candidate in result["candidates"]}
    assert {"none", "repeat", "small", "ngram"} <= set(tried)
    assert not any(tried.values())
    assert Path(result["file"]).is_file()
    status, said = run("say", "Good morning.", "--max-tokens", "12")
    assert (status, said["drafter"]) == (0, result["drafter"])
    assert said["tuned"] is not None


@pytest.mark.parametrize(
    "settings",
    [
        (),
        ("--drafter", "ngram", "--batch", "3"),
        ("--drafter", "small", "--verifier", "compare", "--batch", "3", "--guidance", "2"),
        ("--drafter", "small", "--tree", "2-2", "--batch", "3"),
        ("--drafter", "small", "--tree", "dynamic"),
    ],
    ids=" ".join,
)
def test_it_is_verified(run: Any, settings: tuple[str, ...]) -> None:
    status, result = run("verify", "--text", "lines.txt", "--samples", "1000", "--max-tokens", "20", *settings)
    assert result["pass"], result["checks"]
    assert status == 0


def test_a_rule_that_is_not_exact_is_found(
    run: Any, tables: None, outside: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    """Although it says that it is lossless."""
    more = tmp_path / "more"
    more.mkdir()
    install(more, monkeypatch, {"spear_spec.verifiers": {"likely": "likely_rule:KIND"}}, name="further")
    settings = ("--verifier", "likely", "--text", "lines.txt", "--samples", "1000", "--max-tokens", "20")
    status, result = run("verify", *settings)
    assert status == 1
    assert result["lossless"]
    assert not result["pass"]


def test_the_target_alone_is_verified(voice: Bundle) -> None:
    """An outside target without a voice around it, and with objects of one's own."""
    from compare_rule import CompareVerifier
    from repeat_drafter import RepeatDrafter

    target = TTS.load(voice, "cpu").target
    texts = [[3, 1, 4], [2, 7, 1, 8], [5]]
    options: dict[str, Any] = {"texts": texts, "samples": 1200, "max_tokens": 20, "batch": 2, "gamma": 3}
    assert verify_drafter(target, RepeatDrafter(), CompareVerifier(), **options)["pass"]


def test_drafts_that_need_layers_are_refused(voice: Bundle) -> None:
    """One clear line, not a missing attribute in the middle of a sentence."""
    with pytest.raises(ConfigError, match="early_exit"):
        TTS.load(voice, "cpu", drafter="early_exit")


def test_the_voice_says_who_brings_its_parts(voice: Bundle, outside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the package it is one line that says what to install."""
    assert voice.config.packages == {"gru": "outside", "sines": "outside"}
    monkeypatch.setattr(
        sys, "path", [path for path in sys.path if not path.endswith("site-packages") or ".venv" in path]
    )
    for registry in (TARGETS, STAGES):
        monkeypatch.setattr(registry, "_known", {})
    with pytest.raises(BundleError, match="install the package outside, which brings it"):
        TTS.load(voice, "cpu", drafter="none")


def test_its_rows_come_and_go(voice: Bundle) -> None:
    """A cache that is not ours: what a row says does not depend on who stands beside it."""
    tts = TTS.load(voice, "cpu", drafter="small", tree="3-2")
    law = tts.sampling.changed(guidance=2.0)
    requests = [
        Request([3 + n, 1, 4][: 1 + n % 3], seed=n, sampling=law if n % 2 else tts.sampling, cap=12) for n in range(6)
    ]

    def alone(request: Request) -> list[int]:
        return tts.decoder.engine().run([request])[0].tokens

    engine = tts.decoder.engine()
    spoken = engine.admit(requests[:3])
    engine.step()
    engine.release(spoken[1:2])
    spoken += engine.admit(requests[3:])
    while engine.running:
        engine.step()
    for n, utterance in enumerate(spoken):
        if n != 1:
            assert utterance.tokens == alone(requests[n]), n


def test_the_tables_are_as_they_were() -> None:
    assert "repeat" not in DRAFTERS
    assert "compare" not in VERIFIERS
    assert "gru" not in TARGETS
    assert "sines" not in STAGES
