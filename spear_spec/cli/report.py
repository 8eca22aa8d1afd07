"""Where results go: `--json` to standard output (or standard error, when that carries audio), `--json=FILE` to a
file.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from spear_spec.audio import write_atomically
from spear_spec.errors import ConfigError


def check_json_target(target: str | None) -> None:
    """Refuse a target that cannot be written before any work is done.

    Raises:
        ConfigError: the folder is missing, or standard output is closed.
    """
    if target not in (None, "-") and not Path(str(target)).parent.is_dir():
        raise ConfigError(f"cannot write --json={target}: the folder is missing")
    if target == "-" and sys.stdout is None:
        raise ConfigError("cannot write --json: standard output is closed; name a file with --json=FILE")


def write_json(result: dict[str, Any], target: str | None, *, stdout_taken: bool = False) -> None:
    """One JSON object on one line; nothing when `target` is None.

    Raises:
        AudioError: the file cannot be written.
    """
    if target is None:
        return
    line = json.dumps(result, ensure_ascii=False, allow_nan=False) + "\n"
    if target != "-":
        write_atomically(Path(target), line.encode())
    else:
        stream = sys.stderr if stdout_taken else sys.stdout
        stream.flush()
        stream.buffer.write(line.encode())
        stream.flush()


class Status:
    """Where a long run stands: one line that is rewritten on a terminal, a line every ten seconds elsewhere."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._shown = time.monotonic()

    def __call__(self, message: str) -> None:
        if self._terminal:
            print(f"\r\x1b[K{message}", end="", file=sys.stderr, flush=True)
        elif time.monotonic() - self._shown > 10:
            self._shown = time.monotonic()
            note(message)

    def close(self) -> None:
        """Clear the line."""
        if self._terminal:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def note(message: str) -> None:
    """Progress, for people: standard error."""
    print(message, file=sys.stderr, flush=True)
