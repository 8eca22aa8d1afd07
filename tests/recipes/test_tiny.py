"""recipes/libritts/conf: the tiny one for real, from a folder of LibriTTS's shape to a spoken wav; the others as far as
they can be read.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spear_spec.audio import load_audio
from spear_spec.pipeline import TTS
from spear_spec.semantic.supervised import SupervisedEncoder
from spear_spec.training.recipe.layout import Layout
from spear_spec.training.recipe.plan import STAGES, Plan
from spear_spec.training.recipe.stages.tokenize import given_supervised
from spear_spec.voice.bundle import open_voice

ROOT = Path(__file__).parents[2]
CONF = ROOT / "recipes/libritts/conf"

SHORTER = [
    *("t2s.training.steps=40", "t2s.every=20", "draft.training.steps=24", "draft.every=12"),
    *(
        "vocoder.training.steps=16",
        "vocoder.training.gan_start=13",
        "vocoder.training.tail=4",
        "vocoder.training.ramp=2",
    ),
    *(
        "drafters.training.steps=6",
        "drafters.every=6",
        "drafters.skip_trials=1",
        "evaluate.sentences=1",
        "evaluate.cases=2",
    ),
]


def read(name: str) -> dict[str, Any]:
    return tomllib.loads((CONF / f"{name}.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory, spoken_libritts: Path, encoder: Path) -> Path:
    """As a user calls it, with half as many steps; the speech encoder is a stand-in: the real one is 80 MB away."""
    out = tmp_path_factory.mktemp("tiny") / "out"
    settings = [f"out={out}", f"prepare.data={spoken_libritts}", f"tokenize.encoder={encoder}", "tokenize.layer=1"]
    settings += ["progress=false", f"push.to={out.parent / 'pushed'}", *SHORTER]
    command = [sys.executable, "-m", "spear_spec.training.recipe.run", str(CONF / "tiny.toml"), "--set", *settings]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    (out.parent / "log.txt").write_text(done.stdout)
    return out


def test_every_stage_ran(tiny: Path) -> None:
    log = (tiny.parent / "log.txt").read_text()
    for number, name in enumerate(STAGES):
        assert f"stage {number}, {name}: done in" in log


def test_it_learns(tiny: Path) -> None:
    """The transformer, the vocoder and the draft are nearer to their corpus than when they began."""
    at = Layout(tiny)
    t2s, draft = ([json.loads(line) for line in w.log.read_text().splitlines()] for w in (at.t2s, at.draft))
    assert t2s[-1]["nll"] < t2s[0]["nll"] - 0.5
    law = next(key for key in draft[0] if key.startswith("T=1"))
    assert draft[-1][law]["gamma5"] > draft[0][law]["gamma5"]
    assert json.loads(at.evaluation.read_text())["ctc_phoneme_error"] < 1.5


def test_the_voice_speaks(tiny: Path, tmp_path: Path) -> None:
    """The one that was pushed; a wav of some seconds that is neither silent nor cut off at its peaks."""
    voice = TTS.load(tiny.parent / "pushed", device="cpu")
    assert set(voice.speakers) == {"84", "1034", "103"} and voice.spec.drafter == "eagle"
    voice.synthesize("The quick brown fox jumps over the lazy dog.", speaker="84", seed=1, max_tokens=100).save(
        tmp_path / "fox.wav"
    )
    heard = load_audio(tmp_path / "fox.wav")
    assert heard.sample_rate == 24_000 and heard.seconds > 0.3
    assert 1e-4 < float(np.sqrt(np.mean(heard.samples**2))) < 0.5


def test_it_was_evaluated(tiny: Path) -> None:
    found = json.loads((tiny / "evaluation.json").read_text())
    for arm in found["arms"].values():
        for metric in ("wer", "cer", "mos", "speaker_similarity", "rtf", "ttfa_s"):
            assert arm["metrics"][metric] is not None, metric
    assert found["verify"]["pass"]
    unseen = found["unseen"]  # with prompts; a prompt may be refused, since a second of speech is little
    assert set(unseen["readers"]) <= {"61", "908"} and unseen["readers"]
    for arm in unseen["arms"].values():
        assert arm["metrics"]["speaker_similarity"] is not None and arm["metrics"]["cer"] is not None
    assert unseen["nearest_own"] is None or all(0 <= share <= 1 for share in unseen["nearest_own"].values())
    assert {row["drafter"] for row in json.loads((tiny / "benchmark.json").read_text())["rows"]} == {"none", "eagle"}


@pytest.mark.parametrize("name", ["tiny", "small", "base"])
def test_configurations_can_be_read(name: str, tmp_path: Path) -> None:
    """Every section of each, and what must fit each other."""
    plan = Plan.from_dict(read(name) | {"out": str(tmp_path)})
    assert plan.stages == STAGES and plan.prepare.unseen and plan.prepare.test and plan.vocoder.prompts
    assert plan.draft.layers[-1] == plan.t2s.decoder_layers
    assert max(plan.t2s.training.align_layers) < plan.t2s.decoder_layers
    assert plan.t2s.training.warmup < plan.t2s.training.steps
    assert plan.vocoder.training.gan_start < plan.vocoder.training.steps


def test_the_small_one_goes_on_from_the_shipped_voice(tmp_path: Path) -> None:
    plan, voice = Plan.from_dict(read("small") | {"out": str(tmp_path)}), open_voice("kokoro-duo")
    shape = voice.config.t2s
    assert plan.t2s.config(shape["num_text_token_ids"], shape["num_semantic_token_ids"]).to_dict() == shape
    assert {plan.t2s.start, plan.vocoder.start, plan.draft.start, plan.drafters.start, plan.tokenize.centroids} == {
        "kokoro-duo"
    }
    assert (plan.tokenize.encoder, list(plan.tokenize.layers), plan.tokenize.supervised) == (
        voice.config.semantic["encoder"],
        voice.config.semantic["layers"],
        "kokoro-duo",
    )
    file = given_supervised(plan)
    assert file is not None and SupervisedEncoder.load(file).cfg.inputs == 2048
    assert set(plan.drafters.names) <= set(voice.config.drafts) | {"layer_skip"}
