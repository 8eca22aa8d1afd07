"""The kernels under AddressSanitizer and UndefinedBehaviorSanitizer: `sanitised.c` calls all of them.

What Python hands over is checked in `pointers.py` (test_contract.py); here every array is as long as the headers say.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.kernels.sanitiser import built_with, program, run, shared

# vocoder.c is test_asan_vocoder.py's
SOURCES = (*(name for name in built_with()[0] if not name.endswith("/vocoder.c")), "tests/kernels/sanitised.c")
NARROW = ("-DWIDER=0", "-DTILES=0")
# arrays of which one element less must be noticed where the kernel reads or writes it
ARRAYS = {
    "encoder": [
        *("encoder qkv", "encoder kv", "encoder null", "encoder angles", "encoded", "read keys", "symbols", "texts"),
        *("text counts", "gain", "up_bias"),
    ],
    "rounds": [
        *(
            f"round {name}"
            for name in ("u", "tokens", "features", "kept", "hidden", "logits", "keys", "values", "fuse")
        ),
        *("fresh", "down"),
    ],
    "uniforms": ["uniforms"],
    "laws": ["laws"],
    "draft": [
        *("enter", "head", "to_qkv", "up_bias", "down_bias", "text keys", "text values", "table", "angles"),
        *("keys", "values", "features", "hidden", "newest", "made", "chain laws", "fuse", "fused 1", "fed"),
    ],
    "products": ["matrix", "x", "y", "bias", "scale"],
    "target": [
        *("head of the target", "gain", "last gain", "stream", "feature"),
        *(f"target {name}" for name in ("qkv", "down", "up_bias", "down_bias", "text keys", "text values", "table")),
        *(f"target {name}" for name in ("angles", "keys", "values", "hidden", "logits")),
    ],
    "judge": ["drafted laws", "target's laws", "judged"],
    "block": [
        *(
            f"block {name}"
            for name in ("enter", "head", "gate", "after", "past", "qkv", "down", "up_bias", "down_bias")
        ),
        *(f"block {name}" for name in ("text keys", "text values", "table", "angles", "keys", "values", "features")),
        *(f"block {name}" for name in ("logits", "newest")),
        *("byte scale", "positions", "gate_bias", "contexts", "gates", "sure", "followed"),
    ],
}


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


# what tiles alone read to its end
TILED = ("block after", "block down")


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the vectors that every machine has."""
    return program(tmp_path_factory.mktemp("narrow"), shared(tmp_path_factory), SOURCES, *NARROW)


@pytest.fixture(scope="module")
def tiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With tiles written out, which takes twice as long."""
    return program(tmp_path_factory.mktemp("tiled"), shared(tmp_path_factory), SOURCES, "-DWIDER=0", "-DTILES=2")


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


def test_nor_with_the_vectors_of_this_machine(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Without its tiles, which a sanitizer does not see."""
    # -O0 takes a third of the time
    done = run(program(tmp_path, shared(tmp_path_factory), SOURCES, "-O0", "-DTILES=0"))
    assert (done.returncode, done.stdout) == (0, "walked\n"), done.stderr[-4000:]


@pytest.mark.parametrize(("part", "name"), [(part, name) for part, names in ARRAYS.items() for name in names])
def test_an_array_that_is_too_short_is_caught(part: str, name: str, narrow: Path, tiled: Path) -> None:
    """The walk is that of the part that has the array."""
    done = run(tiled if name in TILED else narrow, part, name)
    assert caught(done), done.stderr[-4000:]


def test_a_scratch_that_is_too_small_is_caught(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A fault in C: room for two lists where there are three."""
    fault = (
        "spear_spec/kernels/draft.c",
        "(size_t)batch * 3 * sizeof(int64_t)",
        "(size_t)batch * 2 * sizeof(int64_t)",
    )
    done = run(program(tmp_path, shared(tmp_path_factory), SOURCES, *NARROW, fault=fault), "draft")
    assert caught(done), done.stderr[-4000:]
