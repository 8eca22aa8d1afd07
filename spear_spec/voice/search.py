"""Where voices are found."""

from __future__ import annotations

import os
from pathlib import Path

from spear_spec.errors import BundleError

DEFAULT_VOICE = "kokoro-duo"
INSTALLED = Path(__file__).parents[1] / "voices"
SEARCH_VARIABLE = "SPEAR_SPEC_VOICES"


def search_path() -> list[Path]:
    """Folders that hold voices: the package's own, those of $SPEAR_SPEC_VOICES, then the user's."""
    extra = os.environ.get(SEARCH_VARIABLE, "")
    own = _users()
    return [
        INSTALLED,
        *(Path(os.path.expanduser(p)) for p in extra.split(os.pathsep) if p),
        *([] if own is None else [own]),
    ]


def pulled_path() -> Path:
    """Where voices that are fetched go: the first folder of $SPEAR_SPEC_VOICES, or else spear_spec/voices under
    $XDG_DATA_HOME or ~/.local/share.

    Raises:
        BundleError: there is no home folder.
    """
    if len(found := search_path()) == 1:
        raise BundleError(f"there is no home folder for voices: name one in ${SEARCH_VARIABLE}")
    return found[1]


def _users() -> Path | None:
    shared = Path(os.environ.get("XDG_DATA_HOME", ""))
    try:
        return (shared if shared.is_absolute() else Path.home() / ".local" / "share") / "spear_spec" / "voices"
    except RuntimeError:
        return None


def list_voices() -> list[Path]:
    """Every voice folder on the search path, in order of search; folders that cannot be read hold none."""
    return [folder for root in search_path() for folder in _folders(root) if is_voice(folder)]


def _folders(root: Path) -> list[Path]:
    try:
        return sorted(root.iterdir())
    except OSError:
        return []


def is_voice(folder: Path) -> bool:
    """Whether a folder calls itself one: nothing of it is read."""
    return os.path.isfile(folder / "config.json")


def find_voice(voice: str | os.PathLike[str] | None = None) -> Path:
    """The folder of a voice, given by name or path; None is the default voice.

    Raises:
        BundleError: there is no such voice, or what was given is neither a name nor a path.
    """
    if voice is not None and not isinstance(voice, (str, os.PathLike)):
        raise BundleError(f"a voice is given by its name or its folder, not by a {type(voice).__name__}")
    name = os.fsdecode(DEFAULT_VOICE if voice is None else voice)
    is_name = bool(name) and Path(name).name == name and name not in (".", "..")
    if is_name:
        for root in search_path():
            if is_voice(root / name):
                return root / name
    folder = Path(os.path.expanduser(name))
    if name and os.path.isdir(folder):
        if is_voice(folder):
            return folder
        raise BundleError(f"{folder} is not a voice: it has no config.json")
    if name and os.path.exists(folder):
        raise BundleError(f"{folder} is a file; a voice is a folder with config.json")
    known = ", ".join(path.name for path in list_voices()) or "none"
    raise BundleError(
        f"no voice {name[:100]!r}: installed are {known}; a folder's path and ${SEARCH_VARIABLE} work too"
    )
