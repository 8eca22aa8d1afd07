"""Programs of the kernels' sources under sanitizers, linked of objects that all tests of a session share.

An object is known by its preprocessed text and flags: what is the same for two programs, or for a program and one with
a fault in another file, is compiled once, by whoever comes first (a lock lets the other worker wait for it).
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
KERNELS = "spear_spec/kernels"
SANITISERS = ("-O1", "-g1", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined")
Fault = tuple[str, str, str]  # name of a file, its text, another text in that place


def built_with() -> tuple[list[str], list[str], list[str]]:
    """What pyproject.toml says of the library: sources, headers, flags."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["ext-modules"][0]
    return settings["sources"], settings["depends"], settings["extra-compile-args"]


def shared(factory: pytest.TempPathFactory) -> Path:
    """A folder of this session, with xdist of all its workers."""
    base = factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "objects"
    folder.mkdir(exist_ok=True)
    return folder


def program(folder: Path, objects: Path, names: tuple[str, ...], *flags: str, fault: Fault | None = None) -> Path:
    """Sources (names relative to the root) and what they include, compiled in `folder` with the sanitizers."""
    sources, depends, usual = built_with()
    assert {name for name in names if name.startswith(KERNELS)} <= set(sources)
    for name in (*names, *depends):
        text = (ROOT / name).read_text()
        if fault is not None and name == fault[0]:
            assert text.count(fault[1]) == 1
            text = text.replace(fault[1], fault[2])
        (folder / Path(name).name).write_text(text)
    options = [*usual, *SANITISERS, *flags]
    parts = [compiled(folder, objects, Path(name).name, options) for name in names]
    gcc(folder, *options, *map(str, parts), "-lm", "-lpthread", "-o", "sanitised")
    return folder / "sanitised"


def compiled(folder: Path, objects: Path, name: str, options: list[str]) -> Path:
    text = gcc(folder, *options, "-E", "-fno-working-directory", name)  # the same text in every folder
    kept = [option for option in options if not option.startswith("-D")]  # the text says what these decide
    key = hashlib.sha256("\0".join([text, *kept]).encode()).hexdigest()
    done = objects / f"{key}.o"
    with open(objects / f"{key}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            gcc(folder, *options, "-c", name, "-o", f"{key}.o")
            (folder / f"{key}.o").replace(done)
    return done


def gcc(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["gcc", *arguments], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def run(program: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(program), *arguments], capture_output=True, text=True, timeout=300)
