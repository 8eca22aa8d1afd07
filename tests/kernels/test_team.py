"""Threads that share work in C: every part once, no races, also from two callers and behind a fork."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def build(folder: Path, *flags: str, fault: tuple[str, str] | None = None) -> Path:
    text = (ROOT / "spear_spec/kernels/team.c").read_text()
    if fault is not None:
        assert text.count(fault[0]) == 1
        text = text.replace(*fault)
    (folder / "team.c").write_text(text)
    for name in ("spear_spec/kernels/team.h", "spear_spec/kernels/common.h", "tests/kernels/teamwork.c"):
        (folder / Path(name).name).write_text((ROOT / name).read_text())
    command = ["gcc", "-std=gnu11", "-O1", "-g", *flags, "team.c", "teamwork.c", "-lm", "-lpthread", "-o", "teamwork"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / "teamwork"


def run(program: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(program), *arguments], capture_output=True, text=True, timeout=120)


def test_every_part_is_done_once(tmp_path: Path) -> None:
    done = run(build(tmp_path), "fork")
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stdout + done.stderr


def test_there_is_no_race(tmp_path: Path) -> None:
    done = run(build(tmp_path, "-fsanitize=thread"))
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr[-4000:]


@pytest.mark.parametrize(
    "fault",
    [
        ("    for (int64_t looks = 0; atomic_load(&team.active);) rest(looks++);\n", ""),  # the caller does not wait
        ("if (threads < 2 || parts < 2 || pthread_mutex_trylock(&team.taken))", "if (threads < 2 || parts < 2)"),
    ],
    ids=["no waiting", "two callers at once"],
)
def test_a_fault_is_seen(fault: tuple[str, str], tmp_path: Path) -> None:
    program = build(tmp_path, "-fsanitize=thread", fault=fault)
    try:
        done = subprocess.run([str(program)], capture_output=True, text=True, timeout=40)
    except subprocess.TimeoutExpired:
        return
    assert done.returncode != 0
