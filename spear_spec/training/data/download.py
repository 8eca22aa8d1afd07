"""LibriTTS from OpenSLR (60, CC BY 4.0): gone on with where it was cut off, checked, unpacked whole or not at all.

lhotse and torchaudio have downloaders, too. The first checks nothing, appends a whole archive to a part of one where
the server knows no ranges, and removes a folder that it has not made; the second does not resume. Hence this one.
"""

from __future__ import annotations

import contextlib
import fcntl
import gzip
import hashlib
import http.client
import os
import shutil
import tarfile
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import IO

from tqdm import tqdm

from spear_spec.audio import replacing
from spear_spec.errors import ConfigError, SpearSpecError

MIRRORS = (
    "https://www.openslr.org/resources/60",
    "https://us.openslr.org/resources/60",
    "https://openslr.elda.org/resources/60",
)
CHECKSUMS = {  # SHA-256, as torchaudio publishes them
    "dev-clean": "da0864e1bd26debed35da8a869dd5c04dfc27682921936de7cff9c8a254dbe1a",
    "dev-other": "d413eda26f3a152ac7c9cf3658ef85504dfb1b625296e5fa83727f5186cca79c",
    "test-clean": "234ea5b25859102a87024a4b9b86641f5b5aaaf1197335c95090cde04fe9a4f5",
    "test-other": "33a5342094f3bba7ccc2e0500b9e72d558f72eb99328ac8debe1d9080402f10d",
    "train-clean-100": "c5608bf1ef74bb621935382b8399c5cdd51cd3ee47cec51f00f885a64c6c7f6b",
    "train-clean-360": "ce7cff44dcac46009d18379f37ef36551123a1dc4e5c8e4eb73ae57260de4886",
    "train-other-500": "e35f7e34deeb2e2bdfe4403d88c8fdd5fbf64865cae41f027a185a6965f0a5df",
}
KINDS = {32: "md5", 64: "sha256"}  # hexadecimal digits of a checksum
TIMEOUT_S = 30.0
TRIES = 4  # rounds of all mirrors without a byte more
BLOCK = 2**16
AGAIN = "delete it and run the same command again"
# a mirror that gives a page in place of the archive, or breaks off, is one of these
BROKEN = (OSError, http.client.HTTPException)


class DownloadError(SpearSpecError):
    """What was asked for cannot be had from any mirror, or is not what it should be."""


def download(
    data: Path,
    parts: Sequence[str],
    *,
    mirrors: Sequence[str] = MIRRORS,
    checksums: Mapping[str, str] | None = None,
    keep: bool = False,
    progress: bool = True,
    pause_s: float = 2.0,
) -> list[str]:
    """Bring those subsets into the folder `data` that it lacks; one that is there is used as it is.

    Args:
        data: the folder called LibriTTS, in which the subsets lie.
        checksums: SHA-256 or MD5 by subset, besides those of LibriTTS itself. keep: leave the archives there.
        pause_s: between two rounds of the mirrors.

    Returns:
        The subsets that were fetched.

    Raises:
        ConfigError: a subset is neither there nor known. DownloadError: no mirror gives it, or it is damaged; what has
        come stays, and the next call goes on with it.
    """
    known = {**CHECKSUMS, **(checksums or {})}
    wanted = [part for part in dict.fromkeys(parts) if not is_there(data / part)]
    for part in wanted:
        if part not in known:
            raise ConfigError(
                f"{data / part}: no such corpus folder, and {part!r} is no subset of LibriTTS that could be fetched; "
                f"those are {', '.join(CHECKSUMS)} (for another one, name its checksum in download.checksums)"
            )
    for part in wanted:
        archive = data / f"{part}.tar.gz"
        try:
            data.mkdir(parents=True, exist_ok=True)
            with _alone(data / f".{part}.lock"):
                if is_there(data / part):
                    continue
                if archive.exists():
                    if difference := _difference(archive, known[part]):
                        raise DownloadError(f"{archive} is not the archive that it should be ({difference}): {AGAIN}")
                else:
                    urls = [f"{mirror.rstrip('/')}/{archive.name}" for mirror in mirrors]
                    fetch(urls, archive, known[part], progress=progress, pause_s=pause_s)
                unpack(archive, data, part, progress=progress)
        except OSError as error:
            raise DownloadError(f"cannot write to {data}: {error.strerror or error}") from None
        if not keep:
            archive.unlink()
    return wanted


def is_there(folder: Path) -> bool:
    """Whether a folder holds audio or tables."""
    return folder.is_dir() and any(next(folder.rglob(ending), None) for ending in ("*.wav", "*.trans.tsv"))


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """One process at a time; the lock is gone with its process, however that ends."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise DownloadError(f"another process is fetching into {path.parent}; wait for it, or stop it") from None
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def fetch(urls: Sequence[str], target: Path, checksum: str, *, progress: bool = True, pause_s: float = 2.0) -> None:
    """Fetch a file from the first mirror that gives it, in as many pieces as it takes, and check it.

    What has come lies in `target` with ".part" behind it until it is whole.

    Raises:
        DownloadError: no mirror gives it, or what came is not the file of this checksum (it is deleted then).
    """
    part = target.with_name(target.name + ".part")
    reason, idle = "no mirror is named", 0
    while idle < TRIES:
        before = _size(part)
        for url in urls:
            try:
                if _fetch_some(url, part, progress):
                    _check(part, checksum, url)
                    os.replace(part, target)
                    return
                reason = f"{url} broke off"
            except _Full as error:
                raise DownloadError(f"cannot write {part}: {error}; what has come stays") from None
            except BROKEN as error:
                reason = f"{url}: {_why(error)}"
        idle = 0 if _size(part) > before else idle + 1
        time.sleep(pause_s if idle else 0)
    kept = f"; {_size(part)} bytes have come and stay ({part})" if _size(part) else ""
    raise DownloadError(
        f"cannot fetch {target.name}: {reason}{kept}. With a network, run the same command again to go on; without, "
        f"unpack the archive yourself into {target.parent}"
    )


class _Full(Exception):
    """The disk would not take it."""


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _why(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"the server answers {error.code} {error.reason}"
    reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
    return " ".join(str(reason).split()) or type(error).__name__


def _fetch_some(url: str, part: Path, progress: bool) -> bool:
    """Add to what has come; whether it is all there now."""
    have = _size(part)
    request = urllib.request.Request(url, headers={"User-Agent": "spear_spec", "Accept-Encoding": "identity"})
    if have:
        request.add_header("Range", f"bytes={have}-")
    try:
        answer = urllib.request.urlopen(request, timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        if error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise
        total = str(error.headers.get("Content-Range", "")).rpartition("/")[2]
        if total != str(have):
            part.unlink()  # longer than the file is
        return total == str(have)
    with answer:
        if answer.status == http.HTTPStatus.PARTIAL_CONTENT:
            span, _, total = str(answer.headers.get("Content-Range", "")).partition("/")
            if not total.isdecimal() or span != f"bytes {have}-{int(total) - 1}":
                raise OSError(f"the server gives another range than it was asked for ({span})")
            whole: int | None = int(total)
        else:  # it knows no ranges, or there was nothing to go on from
            have = 0
            length = answer.headers.get("Content-Length")
            whole = int(length) if length and length.isdecimal() else None
        with (
            part.open("ab") as file,
            tqdm(total=whole, initial=have, unit="B", unit_scale=True, desc=part.stem, disable=not progress) as bar,
        ):
            file.truncate(have)
            if whole is not None and shutil.disk_usage(part.parent).free < whole - have:
                raise _Full(f"{(whole - have) / 1e9:.1f} GB are to come and the disk has not so much room")
            while block := answer.read(BLOCK):
                try:
                    file.write(block)
                except OSError as error:
                    raise _Full(error.strerror or str(error)) from None
                bar.update(len(block))
    return _size(part) == whole if whole is not None else True


def _check(part: Path, checksum: str, url: str) -> None:
    if difference := _difference(part, checksum):
        part.unlink()
        raise DownloadError(
            f"{url} is not the archive that it should be ({difference}): deleted. Run the same command again, or name "
            "other mirrors (download.mirrors)"
        )


def _difference(path: Path, checksum: str) -> str:
    """How a file's checksum differs from the one that it should have; empty: it does not."""
    kind = KINDS.get(len(checksum))
    if kind is None:
        raise DownloadError(f"{checksum!r} is neither a SHA-256 nor an MD5")
    with path.open("rb") as file:
        found = hashlib.file_digest(file, kind).hexdigest()
    return "" if found == checksum.lower() else f"{kind} {found}, not {checksum}"


def unpack(archive: Path, data: Path, part: str, *, progress: bool = True) -> None:
    """Unpack one subset so that its folder is whole or not there; tables beside the subset are kept if there are none.

    Only files and folders of this subset are taken, as plain files that their owner may write: no links, no devices, no
    path that leads elsewhere.

    Raises:
        DownloadError: the archive is damaged or holds anything else; nothing of it stays.
    """
    staging = data / f".{part}.unpacking"
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir()
    try:
        with gzip.open(archive) as stream, tarfile.open(fileobj=stream, mode="r|") as tar:
            for member in tqdm(tar, desc=f"unpack {part}", unit="file", disable=not progress):
                place = _place(member, part, archive)
                if member.isdir() or place is None:
                    continue
                target = staging / place
                target.parent.mkdir(parents=True, exist_ok=True)
                source = tar.extractfile(member)
                assert source is not None  # it is a file
                with source, target.open("xb") as file:
                    _copy(source, file, member, archive)
            while stream.read(BLOCK):  # to its end, where the sum of it stands
                pass
        if not is_there(staging / part):
            raise DownloadError(f"{archive} holds no {part}")
        for path in staging.iterdir():
            if path.is_file() and not (data / path.name).exists():
                with replacing(data / path.name) as file, path.open("rb") as source:
                    shutil.copyfileobj(source, file)
        with contextlib.suppress(OSError):
            (data / part).rmdir()  # an empty folder
        os.replace(staging / part, data / part)
    except (tarfile.TarError, EOFError, FileExistsError, zlib.error) as error:
        raise DownloadError(
            f"{archive} cannot be unpacked ({error}): delete it and run the same command again"
        ) from None
    except OSError as error:
        if error.errno is None:  # of the decompressor, not of the disk
            raise DownloadError(f"{archive} is damaged ({error}): {AGAIN}") from None
        raise
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _copy(source: IO[bytes], file: IO[bytes], member: tarfile.TarInfo, archive: Path) -> None:
    shutil.copyfileobj(source, file)
    if file.tell() != member.size:
        raise DownloadError(f"{archive} is cut off: {AGAIN}")


def _place(member: tarfile.TarInfo, part: str, archive: Path) -> PurePosixPath | None:
    """Where a member goes, under the folder of the subsets; None for that folder itself.

    Raises:
        DownloadError: it is of another subset, or anything but a file or a folder.
    """
    name = member.name
    path = PurePosixPath(name)
    inside = path.parts[1:]  # without LibriTTS/
    plain = not path.is_absolute() and ".." not in path.parts and "\\" not in name and name.isprintable()
    ours = not inside or inside[0] == part or (len(inside) == 1 and member.isreg())
    if not (plain and ours and (member.isreg() or member.isdir())):
        raise DownloadError(f"{archive} holds {name!r}, which is no file of {part}: nothing of it was taken")
    return PurePosixPath(*inside) if inside else None
