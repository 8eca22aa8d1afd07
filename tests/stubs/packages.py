"""Files of `tests/plugins`, installed as a package's modules would be."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from spear_spec.decoding import DRAFTERS, VERIFIERS
from spear_spec.decoding.kinds import Kinds
from spear_spec.voice.registry import STAGES, TARGETS

HERE = Path(__file__).parents[1] / "plugins"
TABLES: tuple[Kinds[Any], ...] = (DRAFTERS, VERIFIERS)


def installable(patch: pytest.MonkeyPatch) -> None:
    """Tables that load plug-ins anew, and are afterwards as they were."""
    for table in TABLES:
        patch.setattr(table, "known", dict(table.known))
        patch.setattr(table, "_complete", False)
    for registry in (TARGETS, STAGES):
        patch.setattr(registry, "_known", dict(registry._known))


def install(folder: Path, patch: pytest.MonkeyPatch, points: dict[str, dict[str, str]], name: str = "outside") -> None:
    """What a package leaves that pip installs: its modules, and its entry points by group."""
    for module in sorted({value.partition(":")[0] for names in points.values() for value in names.values()}):
        patch.delitem(sys.modules, module, raising=False)
        if (HERE / f"{module}.py").is_file():
            shutil.copy(HERE / f"{module}.py", folder)
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    sections = ((group, "\n".join(f"{k} = {v}" for k, v in names.items())) for group, names in points.items())
    (info / "entry_points.txt").write_text("\n".join(f"[{group}]\n{lines}\n" for group, lines in sections))
    patch.syspath_prepend(str(folder))
