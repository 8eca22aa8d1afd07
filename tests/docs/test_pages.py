"""The pages that say how something is added: their code runs, and does what they say. On a tiny voice."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

import spear_spec
from spear_spec.config import SpecConfig
from spear_spec.decoding import DRAFTERS, VERIFIERS
from spear_spec.voice.bundle import open_voice
from spear_spec.voice.registry import STAGES, TARGETS
from spear_spec.voice.save import save_voice
from tests.stubs.voice import make_voice

LOAD = spear_spec.TTS.load
DOCS = Path(__file__).parents[2] / "docs"
PAGES = sorted(path.name for path in DOCS.glob("adding_*.md"))
LONGEST = 76  # lines: code of thirty to forty, with its frame


def blocks(page: str, language: str) -> list[str]:
    text = (DOCS / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.M | re.S)


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch) -> None:
    for table in (DRAFTERS, VERIFIERS):
        monkeypatch.setattr(table, "known", dict(table.known))
    for registry in (STAGES, TARGETS):
        monkeypatch.setattr(registry, "_known", dict(registry._known))


@pytest.fixture(scope="module")
def voice(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_voice(tmp_path_factory.mktemp("voices") / "tiny").path)


@pytest.fixture
def run(tables: None, voice: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs the Python of a page from top to bottom; returns what it has defined."""
    monkeypatch.setattr(spear_spec.TTS, "load", lambda *args, **kwargs: LOAD(voice, "cpu"))

    def go(page: str) -> dict[str, Any]:
        names: dict[str, Any] = {"__name__": "page"}
        for block in blocks(page, "python"):
            exec(compile(block, page, "exec"), names)
        return names

    return go


def test_the_pages_are_there() -> None:
    assert [f"adding_a_{what}.md" for what in ("drafter", "rule", "stage", "target")] == PAGES


@pytest.mark.parametrize("page", PAGES)
def test_a_page_is_short(page: str) -> None:
    lines = (DOCS / page).read_text(encoding="utf-8").splitlines()
    assert len(lines) <= LONGEST
    assert all(len(line) <= 120 for line in lines)
    assert blocks(page, "python")


@pytest.mark.parametrize(
    ("page", "table", "name"),
    [("adding_a_drafter.md", DRAFTERS, "repeat"), ("adding_a_rule.md", VERIFIERS, "compare")],
)
def test_its_code_runs(run: Any, page: str, table: Any, name: str) -> None:
    names = run(page)
    assert table[name] is names["KIND"]
    assert name in (names["tts"].spec.drafter, names["tts"].spec.verifier)
    assert entry_points(page) == (table.group, {name})


def entry_points(page: str) -> tuple[str, set[str]]:
    """What the page's package brings: the group, and the names in it."""
    [points] = [tomllib.loads(block)["project"]["entry-points"] for block in blocks(page, "toml")]
    [(group, entries)] = points.items()
    return group, set(entries)


def test_the_stage_speaks(run: Any, voice: str, tmp_path: Path) -> None:
    """A voice that names it, as the page says."""
    page = "adding_a_stage.md"
    names = run(page)
    assert entry_points(page) == (STAGES.group, {"tones"})
    copy = tmp_path / "tones"
    shutil.copytree(voice, copy)
    path = copy / "config.json"
    [given] = blocks(page, "json")
    path.write_text(json.dumps({**json.loads(path.read_text()), **json.loads(given)}))
    tts = LOAD(open_voice(copy))
    assert isinstance(tts.stage, names["Tones"])
    audio = tts.synthesize("Yes.", max_tokens=30)
    spoken = audio.stats["tokens"] - (audio.stats["ended"] == "eos")
    assert len(audio.samples) == spoken * tts.bundle.config.clock.token_samples
    assert abs(audio.samples).max() == pytest.approx(0.1, abs=0.01)


def test_the_target_speaks(run: Any, voice: str, tmp_path: Path) -> None:
    """Written into a voice and loaded again."""
    page = "adding_a_target.md"
    names = run(page)
    assert entry_points(page) == (TARGETS.group, {"bigram"})
    TARGETS.register("bigram", names["build"])
    old = open_voice(voice)
    shape = {"text_ids": spear_spec.TTS.load().front_end.num_token_ids}
    saved = save_voice(
        tmp_path / "bigram",
        name="bigram",
        licence="CC0-1.0",
        origin="random",
        sample_rate=old.config.sample_rate,
        speakers=list(old.config.speakers),
        text=old.config.text,
        semantic=old.config.semantic,
        sampling=old.sampling,
        spec=SpecConfig("ngram", "rejection"),
        configs={"t2s": shape, "vocoder": old.config.vocoder},
        weights={
            "t2s": names["build"](shape, old.config).state_dict(),
            "vocoder": old.tensors("vocoder"),
            "centroids": old.tensors("centroids"),
        },
        kinds={"t2s": "bigram"},
    )
    tts = LOAD(saved)
    assert isinstance(tts.target, names["Bigram"])
    assert tts.synthesize("Yes. No.", batch=2, max_tokens=30).stats["drafted"] > 0


def test_its_file_has_a_place_in_this_repository(tmp_path: Path) -> None:
    """A copy of the package with each page's file in the room that the page names, and its line in the table there."""
    package = tmp_path / "spear_spec"
    shutil.copytree(DOCS.parent / "spear_spec", package, ignore=shutil.ignore_patterns("voices", "__pycache__"))
    for page, file in (("drafter", "repeat"), ("rule", "compare")):
        [room] = re.findall(r"the file goes into `(decoding/\w+/)`", (DOCS / f"adding_a_{page}.md").read_text("utf-8"))
        (package / room / f"{file}.py").write_text(blocks(f"adding_a_{page}.md", "python")[0])
        table = package / room / "__init__.py"
        text = table.read_text().replace(" import (\n", f" import (\n    {file},\n", 1)
        table.write_text(text.replace("    (\n", f"    (\n        {file}.KIND,\n", 1))
    registry = package / "voice" / "registry.py"
    for page in ("stage", "target"):
        text = (DOCS / f"adding_a_{page}.md").read_text("utf-8")
        [(name, module)] = re.findall(r'`"(\w+)": "(spear_spec[\w.]+):build"`', text)
        [code] = re.findall(r"(?s)^.*return [^\n]*\n", blocks(f"adding_a_{page}.md", "python")[0])  # without the test
        (tmp_path / f"{module.replace('.', '/')}.py").write_text(code)
        line = f'    "spear_spec.{page}s",\n    {{'
        assert registry.read_text().count(line) == 1
        registry.write_text(registry.read_text().replace(line, f'{line}"{name}": "{module}:build", '))
    asked = (
        "from spear_spec.decoding import DRAFTERS, VERIFIERS; from spear_spec.voice.registry import STAGES, TARGETS\n"
        "print(DRAFTERS['repeat'].name, VERIFIERS['compare'].name, *(r.get(n).__module__ for r, n in "
        "((STAGES, 'tones'), (TARGETS, 'bigram'))))"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    told = subprocess.run([sys.executable, "-c", asked], env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert told.stdout == "repeat compare spear_spec.acoustic.tones spear_spec.models.bigram\n", told.stderr


def test_a_page_that_is_wrong_is_found(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rule that does not claim to be exact does not pass the page's own test."""
    page = "adding_a_rule.md"
    wrong = [block.replace('"compare", True', '"compare", False') for block in blocks(page, "python")]
    monkeypatch.setitem(globals(), "blocks", lambda *_: wrong)
    with pytest.raises(AssertionError):
        run(page)
