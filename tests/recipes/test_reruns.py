"""A change of a setting or an input runs again what depends on it, and nothing else. The stages' own declarations, with
stand-ins for what they do; that the declarations are whole, `test_stages.py` shows.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from spear_spec.training.recipe import keys, stages
from spear_spec.training.recipe.layout import Layout
from spear_spec.training.recipe.plan import STAGES, Plan
from spear_spec.training.recipe.run import run_plan

ALL = list(STAGES)
AFTER_TOKENS = ALL[1:]
BEHIND_PACK = ["evaluate", "benchmark", "push"]
BEHIND_T2S = ["t2s", "sampling", "draft", "drafters", "pack", *BEHIND_PACK]


class Recipe:
    """A recipe whose stages write, in place of what they make, the key of what they were made from."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ran: list[str] = []
        for name in ("corpus", "dev"):
            (folder / name).mkdir()
            (folder / name / "metadata.csv").write_text("a|b|c\n")
        (folder / "centroids").write_text("centroids")
        (folder / "texts.txt").write_text("Hello.\n")
        self.values: dict[str, Any] = {
            "out": str(folder / "out"),
            "prepare": {"corpora": [str(folder / "corpus")], "dev": [str(folder / "dev")]},
            "tokenize": {"centroids": str(folder / "centroids")},
            "evaluate": {"text": str(folder / "texts.txt")},
        }
        monkeypatch.setattr(stages, "TABLE", tuple(replace(s, run=self.stand_in(s)) for s in stages.TABLE))

    def stand_in(self, stage: Any) -> Any:
        def run(plan: Plan) -> None:
            self.ran.append(stage.name)
            for path in stage.writes(plan, Layout(plan.out)):
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(f"{path.name} {stage.key(plan)['key']}")

        return run

    def __call__(self, *assignments: tuple[str, Any]) -> list[str]:
        """Run it with these settings over the others; what ran."""
        self.ran.clear()
        for path, value in assignments:
            *sections, key = path.split(".")
            at = self.values
            for section in sections:
                at = at.setdefault(section, {})
            at[key] = value
        run_plan(Plan.from_dict(copy.deepcopy(self.values)))
        return list(self.ran)


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recipe:
    made = Recipe(tmp_path, monkeypatch)
    assert made() == ALL
    assert made() == []
    return made


@pytest.mark.parametrize(
    ("setting", "value", "again"),
    [
        ("prepare.longest", 20.0, ALL),
        ("tokenize.layer", 3, AFTER_TOKENS),
        ("align.dim", 64, ["align", *BEHIND_T2S]),
        ("t2s.dim", 128, BEHIND_T2S),
        ("t2s.training.lr", 1e-3, BEHIND_T2S),
        ("vocoder.training.steps", 9, ["vocoder", "sampling", "draft", "drafters", "pack", *BEHIND_PACK]),
        ("vocoder.shape.dim", 64, ["vocoder", "sampling", "draft", "drafters", "pack", *BEHIND_PACK]),
        ("sampling.sentences", 3, ["sampling", "draft", "drafters", "pack", *BEHIND_PACK]),
        ("draft.training.rollout", 2, ["draft", "drafters", "pack", *BEHIND_PACK]),
        ("drafters.own.medusa.lr", 3e-3, ["drafters", "pack", *BEHIND_PACK]),
        ("pack.gamma", 7, ["pack", *BEHIND_PACK]),
        ("evaluate.sentences", 9, ["evaluate"]),
        ("seed", 1, ALL),
        ("device", "cuda", ["benchmark"]),
        ("threads", 2, ["benchmark"]),
        ("benchmark.runs", 4, ["benchmark"]),
        ("push.to", "there", ["push"]),
        ("progress", False, []),
    ],
)
def test_a_setting_runs_again_what_depends_on_it(recipe: Recipe, setting: str, value: Any, again: list[str]) -> None:
    assert recipe((setting, value)) == again
    assert recipe() == []


def test_without_listeners_sampling_does_not_depend_on_the_vocoder(recipe: Recipe) -> None:
    recipe(("sampling.judges", []))
    assert recipe(("vocoder.training.steps", 9)) == ["vocoder", "pack", *BEHIND_PACK]


@pytest.mark.parametrize(
    ("name", "again"),
    [("corpus/metadata.csv", ALL), ("dev/metadata.csv", ALL), ("centroids", AFTER_TOKENS), ("texts.txt", ["evaluate"])],
)
def test_an_input_runs_its_readers_again(recipe: Recipe, tmp_path: Path, name: str, again: list[str]) -> None:
    (tmp_path / name).write_text("something else\n")
    assert recipe() == again


def test_an_output_that_is_gone_is_made_again_and_changes_nothing_when_it_is_the_same(recipe: Recipe) -> None:
    at = Layout(Path(recipe.values["out"]))
    at.target[1].unlink()
    assert recipe() == ["t2s"]
    at.sampling.write_text("by hand")
    assert recipe() == ["draft", "drafters", "pack", *BEHIND_PACK]


def test_only_the_stages_that_were_asked_for_run(recipe: Recipe) -> None:
    assert recipe(("stages", ["draft", "evaluate"]), ("t2s.dim", 128)) == []
    assert recipe(("stages", ALL)) == BEHIND_T2S


@pytest.mark.parametrize(("dim", "again"), [(256, ["t2s"]), (128, BEHIND_T2S)], ids=["before", "now"])
def test_a_stage_that_failed_is_done_with_no_settings(
    dim: int, again: list[str], recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither with those before, for its outputs may be half the other ones, nor with those that it failed with."""
    table = stages.TABLE

    def fail(plan: Plan) -> None:
        raise RuntimeError

    monkeypatch.setattr(stages, "TABLE", tuple(replace(s, run=fail) if s.name == "t2s" else s for s in table))
    with pytest.raises(RuntimeError):
        recipe(("t2s.dim", 128))
    monkeypatch.setattr(stages, "TABLE", table)
    assert recipe(("t2s.dim", dim)) == again


def test_it_says_why(recipe: Recipe, capsys: pytest.CaptureFixture[str]) -> None:
    recipe(("t2s.training.lr", 1e-3), ("t2s.dim", 128))
    out = capsys.readouterr().out
    assert "stage 3, t2s: again, dim, training.lr changed" in out
    assert "stage 5, sampling: again, t2s/export/t2s.json, t2s/export/t2s.safetensors changed" in out
    assert "stage 4, vocoder: done before" in out


def test_a_folder_is_its_names_sizes_and_times(tmp_path: Path) -> None:
    def now() -> str:
        return keys.digest(tmp_path)

    (tmp_path / "a").mkdir()
    first = now()
    (tmp_path / "a/x.wav").write_bytes(b"12")
    second = now()
    (tmp_path / "a/x.wav").rename(tmp_path / "a/y.wav")
    third = now()
    (tmp_path / "a/y.wav").write_bytes(b"123")
    assert len({first, second, third, now()}) == 4
    assert keys.digest(tmp_path / "none") == keys.MISSING


def test_work_of_others_is_set_aside_and_our_own_is_gone_on_with(tmp_path: Path) -> None:
    owner, work = tmp_path / "owner.json", tmp_path / "work"
    (tmp_path / "in").write_text("1")

    def claim(lr: float, adopt: bool = True) -> bool:
        keys.claim(owner, keys.key_of({"lr": lr}, [tmp_path / "in"], tmp_path), [work], adopt=adopt)
        kept = (work / "checkpoint").exists()
        work.mkdir(exist_ok=True)
        (work / "checkpoint").write_text(str(lr))
        return kept

    assert not claim(1)
    assert claim(1)
    assert not claim(2)
    assert (tmp_path / "work.before" / "checkpoint").read_text() == "1"
    assert claim(2)
    (tmp_path / "in").write_text("2")
    assert not claim(2)
    owner.unlink()
    assert claim(3)
    owner.unlink()
    assert not claim(3, adopt=False)
    left = keys.without({"every": 1, "training": {"steps": 2, "lr": 3}}, ("every", "training.steps", "no.such"))
    assert left == {"training": {"lr": 3}}
