"""The vocoder's kernel under AddressSanitizer and UndefinedBehaviorSanitizer: `sanitised_vocoder.c` calls it.

Inside a stream's memory the kernel itself marks what lies between two arrays (`take` in vocoder.c).
"""

from __future__ import annotations

import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
KERNELS = ROOT / "spear_spec" / "kernels"
SANITISERS = ["-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]
# arrays of which one element less must be noticed where the kernel reads or writes it
ARRAYS = [
    *("embedding", "who", "gain", "shift", "taps", "up", "up bias", "down bias", "scale", "window"),
    *("prosody", "head", "head bias", "noise", "samples"),
]  # fmt: skip


def build(folder: Path, *flags: str, fault: tuple[str, str] | None = None) -> Path:
    """The program, compiled as pyproject.toml says and with the sanitizers; fault: text of vocoder.c, another text."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["ext-modules"][0]
    names = [f"spear_spec/kernels/{name}.c" for name in ("product", "team", "tiles", "vocoder")]
    assert set(names) <= set(settings["sources"])
    for name in (*names, *settings["depends"], "tests/kernels/sanitised_vocoder.c"):
        text = (ROOT / name).read_text()
        if fault is not None and name.endswith("/vocoder.c"):
            assert text.count(fault[0]) == 1
            text = text.replace(*fault)
        (folder / Path(name).name).write_text(text)
    sources = ["product.c", "team.c", "tiles.c", "vocoder.c", "sanitised_vocoder.c"]
    command = [
        "gcc",
        *settings["extra-compile-args"],
        *SANITISERS,
        *flags,
        *sources,
        "-lm",
        "-lpthread",
        "-o",
        "sanitised",
    ]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / "sanitised"


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the vectors that every machine has."""
    return build(tmp_path_factory.mktemp("narrow"), "-DWIDER=0")


def run(program: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(program), *arguments], capture_output=True, text=True, timeout=300)


def caught(done: subprocess.CompletedProcess[str]) -> bool:
    """Memory misused in a function of the kernel, not in the program that calls it."""
    report = done.stderr.partition("ERROR: AddressSanitizer: ")[2].partition("\n\n")[0]
    places = [line for line in report.splitlines() if line.strip().startswith("#")]
    first = next((line for line in places if "_lanes.h" in line or "vocoder.c" in line or "sanitised" in line), "")
    return done.returncode != 0 and "sanitised" not in first and first != ""


def test_nothing_is_read_or_written_outside(narrow: Path) -> None:
    done = run(narrow)
    assert (done.returncode, done.stdout) == (0, "walked\n"), done.stderr[-4000:]


def test_nor_with_the_vectors_of_this_machine(tmp_path: Path) -> None:
    done = run(build(tmp_path, "-O0", "-DTILES=0"))  # takes a third of the time
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
def test_an_array_in_a_stream_that_is_too_small_is_caught(fault: tuple[str, str], tmp_path: Path) -> None:
    done = run(build(tmp_path, "-DWIDER=0", fault=fault))
    assert caught(done), done.stderr[-4000:]
