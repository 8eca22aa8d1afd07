"""What a run leaves on disk. Whatever is stopped at whatever moment: a shard stands there whole, or not at all.

bulk.json          what the work is: settings, digest of the lines; another run is refused by it
shards/00000/      a shard's files and its record, shard.json; made in .work, brought to disk, then renamed
manifest.jsonl     a line for each line of the input, in order
manifest.json      totals and the checksum of manifest.jsonl: the run is complete
SHA256SUMS         for `sha256sum -c`
.lock              held by the driver while it lives
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import secrets
import shutil
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from spear_spec.bulk.settings import Settings, digest
from spear_spec.bulk.shards import Shard
from spear_spec.errors import AudioError, ConfigError

SCHEMA = "bulk/1"
RECORD, CLAIM, MANIFEST, TOTALS, SUMS = "shard.json", "bulk.json", "manifest.jsonl", "manifest.json", "SHA256SUMS"
TAR = "audio.tar"


@contextlib.contextmanager
def _writing(what: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise AudioError(f"cannot write {what}: {error.strerror or error}") from None


def _sync(folder: Path) -> None:
    """What was renamed in a folder is on disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _write(path: Path, data: bytes) -> None:
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _replace(path: Path, data: Iterator[bytes]) -> str:
    """A file, whole or not at all, on disk when this returns; its SHA-256.

    Raises:
        AudioError: it cannot be written.
    """
    part, found = path.with_name(f".{secrets.token_hex(8)}.part"), hashlib.sha256()
    with _writing(path):
        try:
            with part.open("xb") as file:
                for piece in data:
                    found.update(piece)
                    file.write(piece)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, path)
            _sync(path.parent)
        finally:
            part.unlink(missing_ok=True)
    return found.hexdigest()


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, allow_nan=False).encode() + b"\n"


@dataclass
class Draft:
    """A shard that is being made, where nobody looks: files one by one, then all of it at once."""

    folder: Path
    path: Path
    shard: Shard
    packing: str

    def add(self, name: str, data: bytes) -> dict[str, Any]:
        """Write a file; its part of the record.

        Raises:
            AudioError: the disk is full, or the folder cannot be written.
        """
        with _writing(self.folder / "shards" / self.shard.name / name):
            _write(self.path / name, data)
        where = {"file": f"shards/{self.shard.name}/{name if self.packing == 'files' else TAR}"}
        if self.packing == "tar":
            where["member"] = name
        return {**where, "sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}

    def publish(self, lines: Sequence[dict[str, Any]]) -> None:
        """Bring it to disk, with its record, and under its name. If another worker was first, its files stay: they are
        the same.

        Raises:
            AudioError: the disk is full, or the folder cannot be written.
        """
        place = self.folder / "shards" / self.shard.name
        with _writing(place):
            files = self._pack(lines) if self.packing == "tar" else {}
            _write(self.path / RECORD, _json({"schema": SCHEMA, "key": self.shard.key, **files, "lines": list(lines)}))
            _sync(self.path)
            try:
                os.rename(self.path, place)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
                shutil.rmtree(self.path)
            _sync(place.parent)

    def _pack(self, lines: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """All files in one, in order, without dates or owners."""
        names = [line["member"] for line in lines if line["error"] is None]
        with (self.path / TAR).open("x+b") as file:
            with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
                for name in names:
                    member = tarfile.TarInfo(name)
                    member.size = (self.path / name).stat().st_size
                    with (self.path / name).open("rb") as source:
                        tar.addfile(member, source)
                    (self.path / name).unlink()
            file.flush()
            os.fsync(file.fileno())
            size = file.tell()
            file.seek(0)
            return {"tar": {"sha256": hashlib.file_digest(file, "sha256").hexdigest(), "bytes": size}}


@dataclass(frozen=True)
class Folder:
    """The folder of a run. Drivers `claim` it; workers only make shards in it."""

    path: Path

    @contextlib.contextmanager
    def claim(self, settings: Settings, shards: Sequence[Shard]) -> Iterator[None]:
        """Take the folder for this work and nobody else; what was left half-done is swept away.

        Raises:
            AudioError: it cannot be written, or another run is at it. ConfigError: it holds the work of other settings
            or other lines.
        """
        with _writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as stack:
            with _writing(self.path):
                lock = stack.enter_context((self.path / ".lock").open("w"))
            self._lock(lock)
            self._check_claim(settings, shards)
            with _writing(self.path):
                shutil.rmtree(self.path / ".work", ignore_errors=True)
                for name in (".work", "shards"):
                    (self.path / name).mkdir(exist_ok=True)
                for part in self.path.glob(".*.part"):
                    part.unlink()
                _sync(self.path)
            try:
                yield
            finally:
                shutil.rmtree(self.path / ".work", ignore_errors=True)

    def _lock(self, lock: IO[str]) -> None:
        """Until the process ends, however it ends."""
        try:
            import fcntl
        except ImportError:  # another system: no protection from a second run
            return
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AudioError(
                f"another run is writing into {self.path}: wait for it, or take another --out-dir"
            ) from None
        except OSError:  # a file system without locks
            return

    def _check_claim(self, settings: Settings, shards: Sequence[Shard]) -> None:
        lines = digest([line.to_dict() for shard in shards for line in shard.lines])
        ours = {"schema": SCHEMA, "settings": settings.heard(), "lines_sha256": lines}
        path = self.path / CLAIM
        try:
            theirs = json.loads(path.read_bytes())
        except FileNotFoundError:
            if (self.path / "shards").is_dir() and any((self.path / "shards").iterdir()):
                raise ConfigError(f"{self.path} has shards and no {CLAIM}: take another --out-dir") from None
            _replace(path, iter([_json(ours)]))
            return
        except OSError as error:
            raise AudioError(f"cannot read {path}: {error.strerror or error}") from None
        except ValueError:
            theirs = None
        if not isinstance(theirs, dict) or not isinstance(theirs.get("settings"), dict):
            raise ConfigError(f"{path} is damaged or of another version: take another --out-dir")
        # as JSON has it: a tuple comes back as a list
        ours = json.loads(_json(ours))
        if ours == theirs:
            return
        names = sorted(ours["settings"].keys() | theirs["settings"].keys())
        pairs = [(name, theirs["settings"].get(name), ours["settings"].get(name)) for name in names]
        other = [f"{name} {a!r:.60}, not {b!r:.60}" for name, a, b in pairs if a != b] or ["other lines"]
        raise ConfigError(
            f"{self.path} holds the work of other settings ({'; '.join(other[:4])}): take another --out-dir, or the "
            "settings and the file that it was begun with"
        )

    def has(self, shard: Shard) -> bool:
        """Whether a shard is done. One that is damaged or of another key is thrown away."""
        place = self.path / "shards" / shard.name
        if not place.exists():
            return False
        if self._sound(shard, place):
            return True
        with _writing(place):
            gone = self.path / ".work" / f"{shard.name}.{secrets.token_hex(4)}.bad"
            os.rename(place, gone)
        shutil.rmtree(gone, ignore_errors=True)
        return False

    def _sound(self, shard: Shard, place: Path) -> bool:
        try:
            record = self.record(shard)
            files = {line["file"]: line["bytes"] for line in record["lines"] if line["error"] is None}
            if record.get("tar"):
                files = dict.fromkeys(files, record["tar"]["bytes"])
            return record["key"] == shard.key and all(
                (self.path / file).stat().st_size == size for file, size in files.items()
            )
        except (OSError, ValueError, KeyError, TypeError):
            return False

    def record(self, shard: Shard) -> dict[str, Any]:
        """shard.json."""
        found: dict[str, Any] = json.loads((self.path / "shards" / shard.name / RECORD).read_bytes())
        return found

    @contextlib.contextmanager
    def draft(self, shard: Shard, packing: str) -> Iterator[Draft]:
        """A shard to be made; when something is raised nothing of it stays.

        Raises:
            AudioError: the folder cannot be written.
        """
        path = self.path / ".work" / f"{shard.name}.{secrets.token_hex(8)}"
        with _writing(path):
            path.mkdir()
        try:
            yield Draft(self.path, path, shard, packing)
        finally:
            shutil.rmtree(path, ignore_errors=True)  # unless it was renamed

    def finish(self, settings: Settings, shards: Sequence[Shard]) -> dict[str, Any]:
        """Write the manifest from the records of all shards; the totals, which are manifest.json.

        Raises:
            AudioError: it cannot be written.
        """
        totals = {"lines": 0, "spoken": 0, "failed": 0, "cut_off": 0, "samples": 0, "tokens": 0, "bytes": 0}
        sums: dict[str, str] = {}

        def told() -> Iterator[bytes]:
            for shard in shards:
                record = self.record(shard)
                if "tar" in record:
                    sums[f"shards/{shard.name}/{TAR}"] = record["tar"]["sha256"]
                for line in record["lines"]:
                    totals["lines"] += 1
                    totals["failed" if line["error"] is not None else "spoken"] += 1
                    if line["error"] is None:
                        totals["cut_off"] += line["ended"] != "eos"
                        for name in ("samples", "tokens", "bytes"):
                            totals[name] += line[name]
                        if "tar" not in record:
                            sums[line["file"]] = line["sha256"]
                    yield _json(line)

        manifest = _replace(self.path / MANIFEST, told())
        sums[MANIFEST] = manifest
        _replace(self.path / SUMS, (f"{sum_}  {name}\n".encode() for name, sum_ in sums.items()))
        result = {"schema": SCHEMA, "settings": settings.heard(), "shards": len(shards), **totals, MANIFEST: manifest}
        _replace(self.path / TOTALS, iter([_json(result)]))
        return result


def check_folder(path: Path) -> dict[str, Any]:
    """Read everything that a manifest names, and compare checksums; manifest.json.

    Raises:
        AudioError: the run is not complete, or a file is missing, altered, or not in the manifest.
    """
    try:
        totals: dict[str, Any] = json.loads((path / TOTALS).read_bytes())
        manifest = (path / MANIFEST).read_bytes()
        if hashlib.sha256(manifest).hexdigest() != totals[MANIFEST]:
            raise AudioError(f"{path / MANIFEST} is not the one of {TOTALS}")
        named: set[Path] = set()
        for line in map(json.loads, manifest.splitlines()):
            if line["error"] is not None:
                continue
            file = path / line["file"]
            if (file, line.get("member")) in named:
                raise AudioError(f"{file} is named twice")
            named.add(file)
            if "member" in line:
                with tarfile.open(file) as tar:
                    member = tar.extractfile(line["member"])
                    data = b"" if member is None else member.read()
            else:
                data = file.read_bytes()
            if hashlib.sha256(data).hexdigest() != line["sha256"]:
                raise AudioError(f"{file} was altered: it has another checksum than in {MANIFEST}")
        there = {file for file in (path / "shards").glob("*/*") if file.name != RECORD}
        if there != named:
            raise AudioError(f"{path} has {len(there)} files of sound, its manifest names {len(named)}")
    except (OSError, ValueError, KeyError, tarfile.TarError) as error:
        raise AudioError(f"{path} is not complete or damaged: {error}") from None
    return totals
