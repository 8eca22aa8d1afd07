"""The pages that say how something is added: their code runs, and does what they say. On a tiny voice."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

import spear_spec
from spear_spec.decoding import DRAFTERS, VERIFIERS
from tests.stubs.voice import make_voice

DOCS = Path(__file__).parents[2] / "docs"
PAGES = sorted(path.name for path in DOCS.glob("adding_*.md"))
LONGEST = 50  # lines: a page of thirty with its frame


def blocks(page: str, language: str) -> list[str]:
    text = (DOCS / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.M | re.S)


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch) -> None:
    for table in (DRAFTERS, VERIFIERS):
        monkeypatch.setattr(table, "known", dict(table.known))


@pytest.fixture(scope="module")
def voice(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_voice(tmp_path_factory.mktemp("voices") / "tiny").path)


@pytest.fixture
def run(tables: None, voice: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs the Python of a page from top to bottom; returns what it has defined."""
    load = spear_spec.TTS.load
    monkeypatch.setattr(spear_spec.TTS, "load", lambda *args, **kwargs: load(voice, "cpu"))

    def go(page: str) -> dict[str, Any]:
        names: dict[str, Any] = {"__name__": "page"}
        for block in blocks(page, "python"):
            exec(compile(block, page, "exec"), names)
        return names

    return go


def test_the_pages_are_there() -> None:
    assert {"adding_a_drafter.md", "adding_a_rule.md"} <= set(PAGES)


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
    [points] = [tomllib.loads(block)["project"]["entry-points"] for block in blocks(page, "toml")]
    [(group, entries)] = points.items()
    assert group == table.group
    assert [*entries] == [name]


def test_a_page_that_is_wrong_is_found(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rule that does not claim to be exact does not pass the page's own test."""
    page = "adding_a_rule.md"
    wrong = [block.replace('"compare", True', '"compare", False') for block in blocks(page, "python")]
    monkeypatch.setitem(globals(), "blocks", lambda *_: wrong)
    with pytest.raises(AssertionError):
        run(page)
