"""The kernels under AddressSanitizer and UndefinedBehaviorSanitizer: `sanitised.c` calls all of them.

What Python hands over is checked in `pointers.py` (test_contract.py); here every array is as long as the headers say.
"""

from __future__ import annotations

import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SANITISERS = ["-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]
# arrays of which one element less must be noticed where the kernel reads or writes it
ARRAYS = [
    "encoder qkv",
    "encoder kv",
    "encoder null",
    "encoder angles",
    "encoded",
    "read keys",
    "symbols",
    "texts",
    "text counts",
    "fresh",
    "round u",
    "round tokens",
    "round features",
    "round kept",
    "round hidden",
    "round logits",
    "round keys",
    "round values",
    "round fuse",
    "uniforms",
    "laws",
    "enter",
    "head",
    "scale",
    "to_qkv",
    "down",
    "up_bias",
    "down_bias",
    "text keys",
    "text values",
    "table",
    "angles",
    "keys",
    "values",
    "features",
    "hidden",
    "newest",
    "made",
    "chain laws",
    "fuse",
    "fused 1",
    "fed",
    "matrix",
    "x",
    "y",
    "bias",
    "head of the target",
    "target qkv",
    "target down",
    "gain",
    "last gain",
    "target up_bias",
    "target down_bias",
    "target text keys",
    "target text values",
    "target table",
    "target angles",
    "target keys",
    "target values",
    "stream",
    "feature",
    "target hidden",
    "target logits",
    "drafted laws",
    "target's laws",
    "judged",
    *(f"block {name}" for name in ("enter", "head", "gate", "after", "past", "qkv", "down", "up_bias", "down_bias")),
    *(f"block {name}" for name in ("text keys", "text values", "table", "angles", "keys", "values", "features")),
    *(f"block {name}" for name in ("logits", "newest")),
    "byte scale",
    "positions",
    "gate_bias",
    "contexts",
    "gates",
    "sure",
    "followed",
]


KERNELS = (
    "attention",
    "attention_lanes",
    "block",
    "bytes",
    "draft",
    "encoder",
    "gate_lanes",
    "judge",
    "lanes",
    "law",
    "law_lanes",
    "layer",
    "philox",
    "product",
    "product_code_lanes",
    "product_codes",
    "product_lanes",
    "round",
    "step",
    "team",
    "tiles",
)


def build(folder: Path, *flags: str, fault: tuple[str, str] | None = None) -> Path:
    """The program, compiled as pyproject.toml says and with the sanitizers; fault: text of draft.c, another text."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["ext-modules"][0]
    sources = []
    for name in (*settings["sources"], *settings["depends"], "tests/kernels/sanitised.c"):
        text = (ROOT / name).read_text()
        if fault is not None and name.endswith("draft.c"):
            assert text.count(fault[0]) == 1
            text = text.replace(*fault)
        (folder / Path(name).name).write_text(text)
        if name.endswith(".c"):
            sources.append(Path(name).name)
    command = [
        "gcc",
        *settings["extra-compile-args"],
        *SANITISERS,
        "-DNEAR=6000",  # chains of few utterances at a time
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


# what tiles alone read to its end
TILED = ("block after", "block down")


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the vectors that every machine has."""
    return build(tmp_path_factory.mktemp("narrow"), "-DWIDER=0", "-DTILES=0")


@pytest.fixture(scope="module")
def tiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With tiles written out, which takes twice as long."""
    return build(tmp_path_factory.mktemp("tiled"), "-DWIDER=0", "-DTILES=2")


def run(program: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(program), *arguments], capture_output=True, text=True, timeout=300)


def caught(done: subprocess.CompletedProcess[str]) -> bool:
    """An overflow in a function of the kernels, not in the program that calls them."""
    report = done.stderr.partition("ERROR: AddressSanitizer: heap-buffer-overflow")[2].partition("\n\n")[0]
    first = next((line for line in report.splitlines() if "#0" in line), "")
    if "interceptor" in first or "memcpy" in first or "memset" in first:
        first = next(line for line in report.splitlines() if "#1" in line)
    return done.returncode != 0 and "sanitised.c" not in first and any(f"{n}." in first for n in KERNELS)


def test_nothing_is_read_or_written_outside(tiled: Path) -> None:
    done = run(tiled)
    assert (done.returncode, done.stdout) == (0, "walked\n"), done.stderr[-4000:]


def test_nor_with_the_vectors_of_this_machine(tmp_path: Path) -> None:
    """Without its tiles, which a sanitizer does not see."""
    done = run(build(tmp_path, "-O0", "-DTILES=0"))  # takes a third of the time
    assert (done.returncode, done.stdout) == (0, "walked\n"), done.stderr[-4000:]


@pytest.mark.parametrize("name", ARRAYS)
def test_an_array_that_is_too_short_is_caught(name: str, narrow: Path, tiled: Path) -> None:
    done = run(tiled if name in TILED else narrow, name)
    assert caught(done), done.stderr[-4000:]


def test_a_scratch_that_is_too_small_is_caught(tmp_path: Path) -> None:
    """A fault in C: room for two lists where there are three."""
    fault = "(size_t)batch * 3 * sizeof(int64_t)", "(size_t)batch * 2 * sizeof(int64_t)"
    done = run(build(tmp_path, "-DWIDER=0", fault=fault))
    assert caught(done), done.stderr[-4000:]
