"""What a stage's result depends on, as a key: the hash of its settings and of the files that it reads."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from spear_spec.audio import write_atomically

MISSING = "missing"


def write_json(path: Path, values: Any) -> None:
    """Write an object so that it is either whole or not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, (json.dumps(values, indent=1, ensure_ascii=False) + "\n").encode())


def read_json(path: Path) -> Any:
    """What `write_json` wrote; None where there is nothing usable."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def digest(path: Path) -> str:
    """Hash of a file's bytes. Of a folder (a corpus, an encoder): of the names, sizes and times of its files, since
    reading hours of audio at each start would take minutes.
    """
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    if not path.is_dir():
        return MISSING
    known = hashlib.sha256()
    for folder, folders, files in os.walk(path):
        folders.sort()
        for name in sorted(files):
            about = os.stat(os.path.join(folder, name))
            known.update(f"{os.path.relpath(folder, path)}/{name} {about.st_size} {about.st_mtime_ns}\n".encode())
    return known.hexdigest()


def key_of(settings: Mapping[str, Any], reads: Iterable[Path], out: Path) -> dict[str, Any]:
    """Settings, the digest of each input (by its path, under `out` where it lies there), and the hash of both."""
    inputs = {os.path.relpath(p, out) if p.is_relative_to(out) else str(p.resolve()): digest(p) for p in reads}
    plain = json.loads(json.dumps({"settings": settings, "reads": inputs}, sort_keys=True))
    return {"key": hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest(), **plain}


def difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """In a few words: what changed between two keys."""
    changed = []
    for part in ("settings", "reads"):
        old, new = _flat(before.get(part, {})), _flat(now[part])
        changed += sorted(name for name in {*old, *new} if old.get(name) != new.get(name))
    return ", ".join(changed[:3]) + (f" and {len(changed) - 3} more" if len(changed) > 3 else "") + " changed"


def _flat(values: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(values, Mapping):
        return {prefix: values}
    return {
        path: value
        for key, item in values.items()
        for path, value in _flat(item, f"{prefix}.{key}" if prefix else str(key)).items()
    }


def without(settings: Mapping[str, Any], paths: Sequence[str]) -> dict[str, Any]:
    """Settings but for these ("training.steps"): those that only say how long a run goes on."""
    out = {key: dict(value) if isinstance(value, Mapping) else value for key, value in settings.items()}
    for path in paths:
        section, _, key = path.rpartition(".")
        (out.get(section, {}) if section else out).pop(key, None)
    return out


def claim(owner: Path, key: Mapping[str, Any], work: Sequence[Path], *, adopt: bool = True) -> None:
    """Work that a cut-off or longer run goes on from must be of the same settings and inputs; other work is set aside,
    under its name with ".before" behind it.

    Args:
        owner: where it is noted whose the work is. adopt: whether work of which nothing is noted is ours.
    """
    known = read_json(owner)
    if known is None and adopt:
        write_json(owner, key)
        return
    if known is None or known.get("key") != key["key"]:
        for path in work:
            if path.exists():
                _set_aside(path)
        write_json(owner, key)


def _set_aside(path: Path) -> None:
    aside = path.with_name(path.name + ".before")
    if aside.is_dir() and not aside.is_symlink():
        shutil.rmtree(aside)
    else:
        aside.unlink(missing_ok=True)
    os.replace(path, aside)
    print(f"{path} is of other settings or inputs: kept as {aside.name}, and begun anew", flush=True)
