"""What a measurement was made with: commit, source, processor."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import time
from pathlib import Path

import torch

PACKAGE = Path(__file__).parents[1]


def commit() -> str:
    """The git commit of the package's source, with -dirty where it was changed; "unknown" outside a repository."""
    command = ["git", "-C", str(PACKAGE), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return done.stdout.strip() or "unknown"


def source_digest() -> str:
    """Changes with every line of the package's code: two states of the tree may both be called -dirty."""
    digest = hashlib.sha256()
    for path in sorted(path for pattern in ("*.py", "*.c") for path in PACKAGE.rglob(pattern)):
        digest.update(str(path.relative_to(PACKAGE)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def now(device: torch.device) -> float:
    """Seconds on a clock that waits for what the device still has to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def hardware(device: torch.device) -> str:
    """Processor, cores and, where it is used, GPU."""
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), name)
        cores = sum(line.startswith("processor") for line in lines)
    except OSError:
        cores = os.cpu_count() or 1
    gpu = f"; {torch.cuda.get_device_name(device)}" if device.type == "cuda" else ""
    return f"{name}, {cores} cores{gpu}"
