"""What stands once: file names, rates and speakers are in one place each, not in the trainers."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import spear_spec

PACKAGE = Path(spear_spec.__file__).parent
RECIPES = PACKAGE.parent / "recipes"
PREPARED = {"utterances.jsonl", "tokens.safetensors", "durations.safetensors", "speakers.json", "dropped.tsv"}
RECIPE = {"centroids.safetensors", "ctc.safetensors", "sampling.json", "drafters.md", "evaluation.json", "prepared"}
RATES = {25, 960, 240, 24000}


def constants(path: Path) -> Iterator[tuple[int, object]]:
    """(line, value) of every literal that is no docstring."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    texts = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef))
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and id(node) not in texts:
            yield node.lineno, node.value


def stray(paths: list[Path], wrong: set[object], but: set[str]) -> list[str]:
    return [
        f"{path}:{line}: {value!r}"
        for path in paths
        if path.name not in but
        for line, value in constants(path)
        if type(value) in (int, float, str) and value in wrong
    ]


def test_files_of_a_prepared_corpus_and_of_a_recipe_are_known_in_one_place_each() -> None:
    paths = [*(PACKAGE / "training").rglob("*.py"), RECIPES / "gpu.py"]
    assert stray(paths, set(PREPARED), {"prepared.py"}) == []
    # `prepare` and `dev` are names of stages and folders of a corpus too
    assert stray(paths, set(RECIPE), {"layout.py"}) == []
    assert len(stray(paths, set(PREPARED | RECIPE), set())) >= 10


def test_rates_come_from_the_clock() -> None:
    paths = [*(PACKAGE / "training").rglob("*.py"), RECIPES / "gpu.py", *(RECIPES / "default_voice").glob("*.py")]
    assert stray(paths, set(RATES), {"plan.py"}) == []
    assert len(stray(paths, set(RATES), set())) == 3  # the one clock


def test_no_speaker_has_a_name_in_code() -> None:
    paths = [*PACKAGE.rglob("*.py"), *RECIPES.glob("*.py"), *(RECIPES / "default_voice").glob("*.py")]
    for path in paths:
        text = path.read_text(encoding="utf-8")
        assert "af_heart" not in text and "am_michael" not in text, path
