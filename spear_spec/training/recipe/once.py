"""A stage that is done once for its key (`keys.py`), and again when its settings or inputs have changed."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from spear_spec.training.recipe.keys import difference, read_json, write_json


def once(
    label: str,
    marker: Path,
    key: Mapping[str, Any],
    there: Callable[[], bool],
    work: Callable[[], None],
    *,
    may: Callable[[], None] = lambda: None,
    main: bool = True,
) -> None:
    """Do the work, unless its marker has this key and what it leaves is there. Its marker goes before it begins.

    Args:
        label: what it is called in the lines that tell of it. key: of `key_of`. may: raises where it must not be done
            now. main: whether this process writes the marker and tells; in the others the work alone is done.
    """

    def tell(line: str) -> None:
        if main:
            print(line, flush=True)

    before = read_json(marker)
    if before is not None and before.get("key") == key["key"] and there():
        tell(f"{label}: done before (delete {marker} to run it again)")
        return
    may()
    tell(label if before is None else f"{label}: again, {difference(before, key)}")
    began = time.monotonic()
    if main:
        marker.unlink(missing_ok=True)
    work()
    if main:
        write_json(marker, key)
    tell(f"{label}: done in {time.monotonic() - began:.0f} s")
