"""The vocoder's kernel under AddressSanitizer and UndefinedBehaviorSanitizer: `sanitised_vocoder.c` calls it.

Inside a stream's memory the kernel itself marks what lies between two arrays (`take` in vocoder.c).
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.kernels.sanitiser import KERNELS, program, run, shared

VOCODER = f"{KERNELS}/vocoder.c"
SOURCES = (
    *(f"{KERNELS}/{name}.c" for name in ("product", "team", "tiles")),
    VOCODER,
    "tests/kernels/sanitised_vocoder.c",
)
# arrays of which one element less must be noticed where the kernel reads or writes it
ARRAYS = [
    *("embedding", "who", "gain", "shift", "taps", "up", "up bias", "down bias", "scale", "window"),
    *("prosody", "head", "head bias", "noise", "samples"),
]  # fmt: skip


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the vectors that every machine has."""
    return program(tmp_path_factory.mktemp("narrow"), shared(tmp_path_factory), SOURCES, "-DWIDER=0")


def caught(done: subprocess.CompletedProcess[str]) -> bool:
    """Memory misused in a function of the kernel, not in the program that calls it."""
    report = done.stderr.partition("ERROR: AddressSanitizer: ")[2].partition("\n\n")[0]
    places = [line for line in report.splitlines() if line.strip().startswith("#")]
    first = next((line for line in places if "_lanes.h" in line or "vocoder.c" in line or "sanitised" in line), "")
    return done.returncode != 0 and "sanitised" not in first and first != ""


def test_nothing_is_read_or_written_outside(narrow: Path) -> None:
    done = run(narrow)
    assert (done.returncode, done.stdout) == (0, "walked\n"), done.stderr[-4000:]


def test_nor_with_the_vectors_of_this_machine(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    # -O0 takes a third of the time
    done = run(program(tmp_path, shared(tmp_path_factory), SOURCES, "-O0", "-DTILES=0"))
    assert (done.returncode, done.stdout) == (0, "walked\n"), done.stderr[-4000:]


@pytest.mark.parametrize("name", ARRAYS)
def test_an_array_that_is_too_short_is_caught(name: str, narrow: Path) -> None:
    done = run(narrow, name)
    assert caught(done), done.stderr[-4000:]


@pytest.mark.parametrize(
    "fault",
    [
        ("at->frames = take(stream, &used, (read + parts) * dim);", "at->frames = take(stream, &used, dim);"),
        ("(frames_at(frames + late, rate) + 2 * parts + 2) * hop", "(frames + late + 2 * parts + 2) * hop"),
    ],
)
def test_an_array_in_a_stream_that_is_too_small_is_caught(
    fault: tuple[str, str], tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    done = run(program(tmp_path, shared(tmp_path_factory), SOURCES, "-DWIDER=0", fault=(VOCODER, *fault)))
    assert caught(done), done.stderr[-4000:]
