"""Configuration files of `spear-spec train`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from spear_spec.cli import main
from spear_spec.errors import ConfigError
from spear_spec.training.recipe.plan import STAGES, Plan, read_file, set_value
from spear_spec.training.recipe.stages.sampling import choose

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    "name",
    ["default_voice/config", "low_resource/config", *(f"libritts/conf/{size}" for size in ("base", "small", "tiny"))],
)
def test_the_recipes_own_files_are_valid(name: str) -> None:
    values = read_file(ROOT / "recipes" / f"{name}.toml")
    plan = Plan.from_dict({"out": "x", **values, "prepare": {"corpora": ["c"], **values.get("prepare", {})}})
    assert plan.stages == STAGES


def test_assignments() -> None:
    values: dict = {"t2s": {"dim": 8}}
    for assignment in (
        "out=runs/x",
        "t2s.dim=16",
        "t2s.training.steps=3",
        'prepare.corpora=["a"]',
        "tokenize.centroids=null",
    ):
        set_value(values, assignment)
    assert values == {
        "out": "runs/x",
        "t2s": {"dim": 16, "training": {"steps": 3}},
        "prepare": {"corpora": ["a"]},
        "tokenize": {"centroids": None},
    }
    for bad in ("out", "out.x=1"):
        with pytest.raises(ConfigError):
            set_value(values, bad)


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"out": "x"},
        {"out": "x", "prepare": {}},
        {"out": "x", "prepare": {"corpora": ["c"], "colour": 1}},
        {"out": "x", "prepare": {"corpora": ["c"]}, "stages": ["dance"]},
        {"out": "x", "prepare": {"corpora": ["c"]}, "extra": 1},
        {"out": "x", "prepare": {"corpora": ["c"]}, "align": {"method": "guess"}},
        {"out": "x", "prepare": {"corpora": ["c"]}, "sampling": {"candidates": [[0.2, 0.95]]}},
        {"out": "x", "prepare": {"corpora": ["c"]}, "t2s": 3},
    ],
)
def test_bad_files_end_with_status_2_before_anything_runs(
    values: dict, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps(values))
    assert main(["train", str(path)]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
    assert not (tmp_path / "x").exists()


def test_unreadable_files(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("a = [")
    (tmp_path / "a.json").write_text("[1]")
    for name in ("a.toml", "a.json", "none.json"):
        with pytest.raises(ConfigError):
            read_file(tmp_path / name)


def test_sampling_is_chosen_by_words_then_by_sound() -> None:
    def row(wer: float, lo: float, mos: float, error: float) -> dict:
        return {"wer": {"value": wer, "lo": lo}, "mos": {"value": mos}, "ctc_phoneme_error": error}

    clear, nice, bad = row(0.05, 0.03, 4.0, 0.2), row(0.06, 0.04, 4.3, 0.1), row(0.20, 0.15, 4.5, 0.0)
    assert choose([clear, nice, bad]) is nice
    assert choose([clear, bad]) is clear
    assert choose([{"ctc_phoneme_error": 0.2}, {"ctc_phoneme_error": 0.1}])["ctc_phoneme_error"] == 0.1
