"""recipes/benchmark/prompts.py: its figures against readers whose embeddings are known; what a stop leaves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recipes.benchmark.prompts import SHIPPED, Reader, Rows, real_clips, similarities, summary, table
from spear_spec.acoustic.prompt import Prompt


def axis(at: int, lean: float = 0.0, to: int = 0) -> Any:
    """A unit vector that leans to another axis: its cosine with that one is `lean`."""
    vector = np.zeros(8, dtype=np.float32)
    vector[at] = np.sqrt(1 - lean**2)
    vector[to] += lean
    return vector


def reader(name: str, at: int, split: str = "test-clean") -> Reader:
    prompt = Prompt(np.zeros(1, dtype=np.float32), 24_000, 3.0, f"sha of {name}")
    return Reader(name, split, [prompt], [axis(at)], [axis(at), axis(at, 0.6, 7)], axis(at))


def row(name: str | None, embedding: Any, wer: list[int]) -> dict[str, Any]:
    arm = SHIPPED if name is None else "prompt"
    return {"arm": arm, "reader": name, "prompt": f"sha of {name}", "embedding": embedding.tolist(), "wer": wer,
            "cer": wer, "mos": 4.0, "ended": "eos", "rtf": 0.1}  # fmt: skip


UNSEEN = [reader("a", 0), reader("b", 1)]
ALL = [*UNSEEN, reader("c", 2, "train-clean-100")]
ROWS = [
    row("a", axis(0), [1, 10]),  # as its prompt
    row("a", axis(0, 0.9, 2), [0, 10]),  # nearer to somebody of the other splits
    row("b", axis(1, 0.8, 0), [2, 10]),  # nearer to the other unseen reader
    row("b", axis(1, 0.6, 0), [1, 10]),
    row(None, axis(5), [1, 20]),
    row(None, axis(5), [0, 20]),
]


def test_similarities() -> None:
    found = similarities(ROWS[:4], ALL, UNSEEN)
    own = [1.0, np.sqrt(1 - 0.81), 0.6, 0.8]
    assert [one["prompt"] for one in found] == pytest.approx(own)
    assert [one["own"] for one in found] == pytest.approx(own)
    assert [one["nearer"] for one in found] == [True, True, False, True]
    assert [one["nearer_all"] for one in found] == [True, False, False, True]


def test_summary_and_table() -> None:
    found = summary(ROWS, ALL, UNSEEN)
    assert found["unseen"]["wer"]["value"] == pytest.approx(0.1)
    assert found["shipped"]["wer"]["value"] == pytest.approx(0.025)
    asked = found["asked"]
    assert asked["wer_above"] == {"value": pytest.approx(0.075), "asked": 0.06, "aim": 0.02, "kept": False}
    assert asked["nearer"]["value"] == 0.75 and not asked["nearer"]["kept"]
    assert asked["similarity"]["value"] == pytest.approx((1 + np.sqrt(0.19) + 1.4) / 4, abs=1e-4)
    assert found["by_reader"]["test-clean/b"]["nearer"]["value"] == 0.5
    told = table(found)
    assert told.count("MISSED") == 3 and "| shipped voice |" in told and "test-clean/a" in told
    better = [{**one, "wer": [0, 10]} for one in ROWS]
    assert summary(better, ALL, UNSEEN)["asked"]["wer_above"]["kept"]


def test_real_clips() -> None:
    found = real_clips(UNSEEN)
    assert found["same_reader"]["value"] == pytest.approx((1 + 0.8) / 2, abs=1e-4)
    assert found["other_reader"]["value"] == pytest.approx(0.0, abs=1e-4)
    assert found["nearer"]["value"] == 1.0


def test_rows_are_kept(tmp_path: Path) -> None:
    path, made = tmp_path / "rows.jsonl", []

    def make() -> dict[str, Any]:
        made.append(1)
        return {"wer": [len(made), 10]}

    rows = Rows(path)
    first = rows.get({"text": "a"}, make)
    rows.get({"text": "b"}, make)
    assert rows.get({"text": "a"}, make) == first and len(made) == 2
    with path.open("a") as file:
        file.write(json.dumps(first)[:20])  # a stop in the middle of a line
    again = Rows(path)
    assert again.get({"text": "a"}, make) == first and len(made) == 2
    again.get({"text": "c"}, make)
    assert len(made) == 3
    assert [Rows(path).get({"text": text}, make)["wer"][0] for text in "abc"] == [1, 2, 3]
