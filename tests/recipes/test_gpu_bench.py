"""`recipes/gpu.sh bench` rehearsed: it must not fail for a silly reason where a GPU is lent for minutes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from spear_spec import TTS
from spear_spec.exactness.verify import SENTENCES

ROOT = Path(__file__).parents[2]
# what the machine's Python does not have
MISSING = ("soundfile", "soxr", "misaki", "spacy", "num2words", "addict", "gruut_lang_en", "pycrfsuite", "anyascii")


def test_the_whole_command_on_a_cpu(tmp_path: Path) -> None:
    """Without the packages that are missing there, and without the kernels in C."""
    stubs, out = tmp_path / "stubs", tmp_path / "out"
    stubs.mkdir()
    out.mkdir()
    for name in MISSING:
        (stubs / f"{name}.py").write_text(f"raise ImportError('no {name} on that machine')\n")
    env = {**os.environ, "PYTHON": sys.executable, "OMP_NUM_THREADS": "1", "DEVICE": "cpu", "OUT": str(out)}
    env |= {"PYTHONPATH": str(stubs), "SPEAR_SPEC_NATIVE": "0"}
    command = [str(ROOT / "recipes/gpu.sh"), "bench"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=1200, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert {path.name for path in out.iterdir()} == {"tests.log", "rounds.jsonl"}
    log = (out / "tests.log").read_text()
    assert log.count(" passed") == 2 and "failed" not in log and "skipped" not in log
    rows = [json.loads(line) for line in (out / "rounds.jsonl").read_text().splitlines()]
    assert [row["case"] for row in rows][:3] == [
        "machine", "10M float32 batch 1 none graphs", "10M float32 batch 1 none eager"
    ]  # fmt: skip
    assert not any("error" in row or "left_out" in row for row in rows), rows
    measured = [row for row in rows if "us_round" in row]
    assert len(measured) == 17 and all(row["bound_us"] > 0 and row["tokens"] > 0 for row in measured)
    assert any("over_loop" in row for row in measured) and any("graphs_faster" in row for row in measured)
    assert {"10M float32 batch 1 block graphs", "10M float32 batch 1 eagle graphs-torch"} <= {
        r["case"] for r in measured
    }
    assert any("fused_faster" in row for row in measured) and any("chain_faster" in row for row in measured)
    assert [row["most"] for name, row in rows[5].items() if name in ("none", "eagle")]


def test_the_text_ids_are_the_voices() -> None:
    """There is no front end on that machine: its texts are ids, which must be those of the voice as it is."""
    kept = json.loads((ROOT / "recipes/benchmark/ids.json").read_text())
    tts = TTS.load(threads=1)
    assert (kept["voice"], kept["speaker"], kept["texts"]) == (tts.name, tts.speakers[0], list(SENTENCES))
    assert kept["ids"] == tts.texts(list(SENTENCES))
