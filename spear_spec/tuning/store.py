"""What `spear-spec tune` found out, in the user's config folder: tune.json, one entry for each voice and machine.

Only the command line reads it, and there only `say`; the library does what it is told.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spear_spec.audio import write_atomically
from spear_spec.config import Strict, wholes
from spear_spec.errors import AudioError, ConfigError

SCHEMA = "tuned/1"
FOLDER_VARIABLE = "SPEAR_SPEC_CONFIG"
_TEXTS = ("voice", "fingerprint", "hardware", "device", "dtype", "measured", "version", "runtime")
_KEY = ("voice", "fingerprint", "hardware", "device", "threads", "dtype", "runtime", "batch")


@dataclass(frozen=True)
class Tuned(Strict):
    """The fastest setting that was measured, and what it holds for.

    voice and fingerprint: its name and `fingerprint`; hardware, device, threads, dtype, runtime and batch: the speed of
    these. batches: larger batch sizes that draft lengths were measured for (`spec`'s gammas).
    spec: the fields of `SpecConfig`; this version may not know them all, so they are checked when they are used.
    tokens_per_s, speedup (over the autoregressive loop): medians. measured: the date. version: of the package, with
    commit.
    """

    voice: str
    fingerprint: str
    hardware: str
    device: str
    threads: int
    dtype: str
    batch: int
    spec: dict[str, Any]
    tokens_per_s: float
    speedup: float
    measured: str
    version: str
    runtime: str = "eager"
    batches: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        kinds: dict[str, Any] = {**dict.fromkeys(_TEXTS, str), **dict.fromkeys(("threads", "batch"), int), "spec": dict,
                                 **dict.fromkeys(("tokens_per_s", "speedup"), (int, float))}  # fmt: skip
        if wrong := [name for name, kind in kinds.items() if not isinstance(getattr(self, name), kind)]:
            raise ConfigError(f"{wrong[0]} cannot be {getattr(self, wrong[0])!r}")
        wholes("batches", self.batches, 1, 10**6, 32)

    @property
    def key(self) -> tuple[Any, ...]:
        """What must be the same for the entry to be of use; of batch see `holds_for`."""
        return tuple(getattr(self, name) for name in _KEY)

    def holds_for(self, batch: int) -> bool:
        """Whether it says what to do where so many rows are decoded together."""
        return batch == self.batch or (bool(self.batches) and batch > self.batch)

    @property
    def lengths(self) -> dict[str, int]:
        """The measured draft lengths by the number of rows, from 1 on; none where only one size was measured, or the
        spec has none.
        """
        gamma, table = self.spec.get("gamma"), self.spec.get("gammas")
        if not self.batches or not isinstance(gamma, int) or not isinstance(table, dict):
            return {}
        return {"1": gamma, **table}


def fingerprint(voice: Path) -> str:
    """SHA-256 of a voice's config.json, which in turn holds those of its weights: another for any other voice.

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        return hashlib.sha256((voice / "config.json").read_bytes()).hexdigest()
    except OSError as error:
        raise ConfigError(f"cannot read {voice / 'config.json'}: {error.strerror or error}") from None


def tune_file() -> Path:
    """$SPEAR_SPEC_CONFIG/tune.json, or else in spear_spec under $XDG_CONFIG_HOME or ~/.config.

    Raises:
        ConfigError: there is no home folder.
    """
    if own := os.environ.get(FOLDER_VARIABLE):
        return Path(own) / "tune.json"
    shared = Path(os.environ.get("XDG_CONFIG_HOME", ""))
    try:
        return (shared if shared.is_absolute() else Path.home() / ".config") / "spear_spec" / "tune.json"
    except RuntimeError:
        raise ConfigError(
            f"no home folder was found; name a folder for the configuration in ${FOLDER_VARIABLE}"
        ) from None


def read_tuned() -> list[Tuned]:
    """Every entry; none where there is no file.

    Raises:
        ConfigError: the file is damaged, of another version, or cannot be read.
    """
    path = tune_file()
    try:
        values = json.loads(path.read_bytes().decode())
        if not isinstance(values, dict) or not isinstance(values.get("entries"), list):
            raise ConfigError(f"it has no schema {SCHEMA!r}")
        if values.get("schema") != SCHEMA:
            raise ConfigError(f"schema {values.get('schema')!r} is not {SCHEMA!r}")
        return [Tuned.from_dict(entry) for entry in values["entries"]]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror or error}") from None
    except (ValueError, RecursionError, ConfigError) as error:
        raise ConfigError(f"{path} is damaged ({error}); spear-spec tune writes it anew") from None


def write_tuned(entries: list[Tuned]) -> Path:
    """Write the file, whole or not at all; returns its path.

    Raises:
        ConfigError: the folder is not writable, or the disk is full.
    """
    path = tune_file()
    text = json.dumps(
        {"schema": SCHEMA, "entries": [entry.to_dict() for entry in entries]}, indent=1, ensure_ascii=False
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, (text + "\n").encode())
    except OSError as error:
        raise _unwritable(path, error.strerror or str(error)) from None
    except AudioError as error:
        raise _unwritable(path, str(error).rpartition(": ")[2]) from None
    return path


def check_writable() -> None:
    """Refuse, before minutes are spent, a folder that the result could not be written to.

    Raises:
        ConfigError: it is not writable.
    """
    path = tune_file()
    try:
        there = next(folder for folder in path.parents if folder.exists())
        if not there.is_dir():
            raise _unwritable(path, f"{there} is not a folder")
        if not os.access(there, os.W_OK | os.X_OK):
            raise _unwritable(path, f"no permission in {there}")
        if path.is_dir():
            raise _unwritable(path, "it is a folder")
    except OSError as error:
        raise _unwritable(path, error.strerror or str(error)) from None


def _unwritable(path: Path, why: str) -> ConfigError:
    return ConfigError(f"cannot write {path}: {why}; name another folder in ${FOLDER_VARIABLE}")
