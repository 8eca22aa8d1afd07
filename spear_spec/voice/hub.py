"""Voices from and to the Hugging Face hub, or a folder: fetched whole, checked like any stranger's, then put in place.

The layout is that of a voice's folder, with a README.md. What is fetched is what config.json lists and nothing else.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from spear_spec.errors import BundleError, ConfigError, MissingExtraError, SpearSpecError
from spear_spec.voice.bundle import CONFIG_BYTES, Bundle, open_voice
from spear_spec.voice.card import model_card
from spear_spec.voice.files import open_regular
from spear_spec.voice.search import INSTALLED, is_voice, pulled_path, search_path

CONFIG, CARD, REFERENCE = "config.json", "README.md", "speaker_reference.json"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
_CHUNK = 2**20


@dataclass(frozen=True)
class Place:
    """Where a voice is fetched from or brought to: a folder, or a repository of the hub, at a revision."""

    folder: Path | None = None
    repo: str | None = None
    revision: str | None = None

    @classmethod
    def of(cls, where: str, revision: str | None = None) -> Place:
        """A path that is there or begins with `/`, `.` or `~` is a folder; `owner/name` is of the hub.

        Raises:
            ConfigError: it is neither, or a revision of a folder.
        """
        path = Path(os.path.expanduser(where))
        if where and (where[0] in "/.~" or path.is_dir()):
            if revision is not None:
                raise ConfigError("a folder has no --revision")
            return cls(folder=path)
        parts = where.split("/")
        if len(parts) != 2 or not all(_NAME.fullmatch(part) and ".." not in part for part in parts):
            raise ConfigError(f"{where[:100]!r} is no folder, and no voice of the hub: these are called OWNER/NAME")
        return cls(repo=where, revision=revision)

    def __str__(self) -> str:
        return str(self.folder) if self.repo is None else f"{self.repo} on the hub"


def check_name(name: str) -> str:
    """The name of a voice's folder.

    Raises:
        ConfigError: it is none that can be given: letters, digits, `.`, `_` and `-`.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(f"{name[:100]!r} cannot be the name of a voice: letters, digits, ., _ and - (--as NAME)")
    return name


def look(place: Place) -> Bundle:
    """The configuration of a voice that may be far; no weights are fetched.

    Raises:
        BundleError: there is none, it cannot be reached, or its configuration cannot be used. MissingExtraError: no
        huggingface_hub.
    """
    if place.folder is not None:
        return open_voice(place.folder.absolute())
    return open_voice(_fetched(place, CONFIG).parent)


def check_whole(bundle: Bundle) -> None:
    """Read everything that a voice holds, as for speaking with it.

    Raises:
        BundleError: a file is missing, damaged or altered, or a part is not what the configuration says.
    """
    from spear_spec.voice.drafts import Drafts
    from spear_spec.voice.parts import load_parts

    _, target, _ = load_parts(bundle)
    drafts = Drafts(bundle, target)
    for name in drafts:
        drafts[name]
    for part in bundle.config.files:
        if part == "centroids":
            bundle.centroids()
        else:
            bundle.tensors(part)


def pull(
    place: Place, name: str | None = None, *, force: bool = False, told: Callable[[Bundle], None] | None = None
) -> Bundle:
    """Fetch a voice into `search.pulled_path`, whole or not at all.

    Args:
        name: of its folder; the voice's own if left out. force: in place of a voice of this name.
        told: is given the configuration before any weights are fetched, to show its licence.

    Raises:
        BundleError: see `look` and `check_whole`; or there is a voice of this name. ConfigError: a wrong name.
    """
    source = look(place)
    name = check_name(source.config.name if name is None else name)
    root = pulled_path()
    _check_free(name, root, force)
    if told is not None:
        told(source)
    if place.repo is not None:  # all files of the same commit
        place = Place(repo=place.repo, revision=source.path.name)
    with _writing(root):
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=root, prefix=".pull-") as scratch:
            staged = Path(scratch) / "voice"
            staged.mkdir(mode=0o755)
            _copy(source, place, staged)
            check_whole(open_voice(staged))
            _swap(staged, root / name, Path(scratch) / "before")
    return open_voice(root / name)


def push(
    bundle: Bundle, place: Place, *, force: bool = False, public: bool = False, message: str | None = None
) -> None:
    """Bring a voice to the hub, or into a folder, with a model card; it is checked whole first.

    Args:
        force: in place of a voice that is in the folder. public: a new repository is one that everybody sees.
        message: of the commit.

    Raises:
        BundleError: the voice is damaged; the folder holds something; the hub cannot be reached or refuses.
        MissingExtraError: no huggingface_hub.
    """
    hub = None if place.repo is None else _hub()
    check_whole(bundle)
    card = model_card(bundle.config, place.repo).encode()
    if hub is None:
        target = Path(os.path.abspath(place.folder or ""))
        if os.path.lexists(target) and not (force and is_voice(target) and not target.is_symlink()):
            hint = ": --force puts this one in its place" if is_voice(target) else ""
            raise BundleError(f"{target} is there already{hint}")
        with _writing(target.parent), tempfile.TemporaryDirectory(dir=target.parent, prefix=".push-") as scratch:
            staged = Path(scratch) / "voice"
            staged.mkdir(mode=0o755)
            _copy(bundle, Place(folder=bundle.path), staged)
            (staged / CARD).write_bytes(card)
            _swap(staged, target, Path(scratch) / "before")
        return
    with tempfile.TemporaryDirectory(prefix="spear-spec-push-") as scratch:
        staged = Path(scratch)
        _copy(bundle, Place(folder=bundle.path), staged)
        (staged / CARD).write_bytes(card)
        with _reaching(place):
            api = hub.HfApi()
            api.create_repo(place.repo, repo_type="model", private=not public, exist_ok=True)
            api.upload_folder(
                repo_id=place.repo,
                folder_path=staged,
                repo_type="model",
                revision=place.revision,
                commit_message=message or f"Voice {bundle.config.name}",
            )


def remove(name: str) -> tuple[Path, list[str]]:
    """Delete an installed voice: the files that its configuration lists, and its folder if nothing else is in it.

    Returns:
        Where it was, and the names of what was left there.

    Raises:
        BundleError: it ships with the package, is no voice that can be read, or cannot be deleted. ConfigError: a path.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"{name[:100]!r} is not the name of an installed voice: a folder of your own is yours to delete"
        )
    if is_voice(INSTALLED / name):
        raise BundleError(f"{name} ships with the package: it stays")
    found = [root / name for root in search_path()[1:] if is_voice(root / name)]
    if not found:
        raise BundleError(f"no voice {name!r} is installed")
    folder = found[0]
    if folder.is_symlink():
        raise BundleError(f"{folder} is a link: the voice is elsewhere, and stays")
    bundle = open_voice(folder.absolute())
    with _writing(folder):
        (folder / CONFIG).unlink()  # first: what is half removed is no voice
        for part in bundle.config.files:
            for shard in bundle.config.shards(part):
                (folder / shard.file).unlink(missing_ok=True)
        for extra in (CARD, REFERENCE):
            (folder / extra).unlink(missing_ok=True)
        left = sorted(path.name for path in folder.iterdir())
        if not left:
            folder.rmdir()
    return folder, left


def _check_free(name: str, root: Path, force: bool) -> None:
    if os.path.lexists(INSTALLED / name):
        raise BundleError(f"{name} is the name of a voice that ships with the package: give another with --as NAME")
    there = next((folder / name for folder in search_path()[1:] if os.path.lexists(folder / name)), None)
    if there is None:
        return
    if there.parent != root or not is_voice(there) or there.is_symlink():
        raise BundleError(f"{there} is there already: give another name with --as NAME")
    if not force:
        raise BundleError(f"a voice {name} is installed already: --force fetches it again, --as NAME names this one")


def _copy(bundle: Bundle, place: Place, target: Path) -> None:
    """The files of a voice, of the sizes that its configuration says, and what judges compare its speakers with."""
    shards = [shard for part in bundle.config.files for shard in bundle.config.shards(part)]
    for file, size in [(shard.file, shard.bytes) for shard in shards] + [(CONFIG, None)]:
        _copy_file(_fetched(place, file), target / file, size)
    with contextlib.suppress(_Absent):
        _copy_file(_fetched(place, REFERENCE), target / REFERENCE, None)


def _copy_file(source: Path, target: Path, size: int | None) -> None:
    with open_regular(source) as (file, there), target.open("xb") as copy:
        if there != size if size is not None else there > CONFIG_BYTES:
            wanted = f"instead of {size}" if size is not None else f"of at most {CONFIG_BYTES}"
            raise BundleError(f"{source} is damaged: {there} bytes {wanted}")
        left = there
        while left and (data := file.read(min(left, _CHUNK))):
            copy.write(data)
            left -= len(data)


class _Absent(BundleError):
    """A file is not there, or not in the cache; not every voice has all."""


def _fetched(place: Place, file: str) -> Path:
    if place.folder is not None:
        path = place.folder / file
        if not os.path.lexists(path):
            raise _Absent(f"{path} is missing")
        return path
    hub = _hub()
    with _reaching(place, file):
        return Path(hub.hf_hub_download(place.repo, file, revision=place.revision))


def _swap(staged: Path, target: Path, before: Path) -> None:
    """Put a folder in place; another voice that is there is back if that fails."""
    if os.path.lexists(target):
        os.rename(target, before)
    try:
        os.rename(staged, target)
    except OSError:
        if os.path.lexists(before):
            os.rename(before, target)
        raise


def _hub() -> ModuleType:
    try:
        import huggingface_hub
    except ImportError:
        raise MissingExtraError(
            "the hub needs huggingface_hub: pip install 'spear_spec[hub]' (a folder's path works without)"
        ) from None
    return huggingface_hub


@contextlib.contextmanager
def _writing(where: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BundleError(f"cannot write in {where}: {error.strerror or error}") from None


@contextlib.contextmanager
def _reaching(place: Place, file: str | None = None) -> Iterator[None]:
    """What huggingface_hub may raise, in one line of ours."""
    from huggingface_hub import errors

    outside: Any = (OSError, ValueError, RuntimeError, errors.EntryNotFoundError, *_transport())
    try:
        yield
    except SpearSpecError:
        raise
    except outside as error:
        repo, what = place.repo, str(error).strip().partition("\n")[0]
        if isinstance(error, errors.GatedRepoError):
            line = f"{repo} is gated: accept its terms on https://huggingface.co/{repo}, and log in (hf auth login)"
        elif isinstance(error, errors.RepositoryNotFoundError):
            line = f"there is no {repo} on the hub, or it is private: hf auth login"
        elif isinstance(error, errors.RevisionNotFoundError):
            line = f"{repo} has no revision {place.revision}"
        elif isinstance(error, errors.LocalEntryNotFoundError | errors.OfflineModeIsEnabled):
            asked = "HF_HUB_OFFLINE is set" if os.environ.get("HF_HUB_OFFLINE") else "the hub cannot be reached"
            raise _Absent(f"{asked}, and {file or 'what is asked'} of {repo} is not in the cache") from None
        elif isinstance(error, errors.EntryNotFoundError):
            raise _Absent(f"{repo} on the hub is no voice of spear_spec, or not whole: it has no {file}") from None
        elif isinstance(error, errors.HfHubHTTPError):
            line = f"the hub refused {repo}: {what}"
        else:
            line = f"the hub cannot be reached for {repo}: {what}"
        raise BundleError(line) from None


def _transport() -> tuple[type[Exception], ...]:
    """What the library under huggingface_hub raises without a network."""
    try:
        import httpx
    except ImportError:
        return ()
    return (httpx.HTTPError,)
