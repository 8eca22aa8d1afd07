"""Reading what a stranger wrote: regular files of the size they should have, JSON of bounded depth, shard headers."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from spear_spec.config import Strict, require, shown, whole, words
from spear_spec.errors import BundleError

if TYPE_CHECKING:
    from torch import Tensor

DEEPEST_JSON = 32
HEADER_BYTES = 2**20
VOICE_BYTES = 2**31  # of all shards of a voice together: a thousand million halves
ITEM_BYTES = {"F16": 2, "BF16": 2, "F32": 4}
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)


@dataclass(frozen=True)
class Shard(Strict):
    """A safetensors file of a voice: its name in the folder, its size, its SHA-256."""

    file: str
    bytes: int
    sha256: str

    def __post_init__(self) -> None:
        words("file", self.file, 200)
        plain = Path(self.file).name == self.file and self.file.endswith(".safetensors")
        require(plain, f"{shown(self.file)} is not the name of a safetensors file in the folder")
        whole("bytes", self.bytes, 8, VOICE_BYTES)
        ok = isinstance(self.sha256, str) and re.fullmatch("[0-9a-f]{64}", self.sha256) is not None
        require(ok, f"sha256 must be 64 digits of 0-9 and a-f, not {shown(self.sha256)}")


@dataclass(frozen=True)
class Slot:
    """What a shard's header says of a tensor: dtype as safetensors names it, and shape."""

    dtype: str
    shape: tuple[int, ...]


@contextlib.contextmanager
def open_regular(path: Path) -> Iterator[tuple[IO[bytes], int]]:
    """A file to read, and its size in bytes.

    Raises:
        BundleError: it cannot be read, or is no regular file (a pipe would block, a device may never end).
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise BundleError(f"cannot read {path}: it is not a regular file")
        # another file may stand there by now: open without waiting, and look again
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        with os.fdopen(handle, "rb") as file:
            status = os.fstat(handle)
            if not stat.S_ISREG(status.st_mode):
                raise BundleError(f"cannot read {path}: it is not a regular file")
            yield file, status.st_size
    except OSError as error:
        raise BundleError(f"cannot read {path}: {error.strerror or error}") from None


def parse_json(data: bytes) -> Any:
    """JSON of bounded depth, without NaN, infinity, or a key given twice.

    Raises:
        ValueError: it is none of that; the message says why.
    """
    depth = 0
    for bracket in re.findall(rb"[\[\]{}]", _STRING.sub(b"", data)):
        depth += 1 if bracket in b"[{" else -1
        if depth > DEEPEST_JSON:
            raise ValueError(f"it is nested more than {DEEPEST_JSON} levels deep")

    def strict(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ValueError("a key is given twice")
        return found

    def refuse(name: str) -> Any:
        raise ValueError(f"{name} is not a number of JSON")

    try:
        return json.loads(data.decode(), object_pairs_hook=strict, parse_constant=refuse)
    except RecursionError:  # the caller stands at the end of the stack already
        raise ValueError("it is nested too deeply") from None


def read_header(folder: Path, shard: Shard) -> dict[str, Slot]:
    """Names, dtypes and shapes of a shard's tensors; of the file, no more than the header is read.

    Raises:
        BundleError: the file is missing, not regular, of another size, or its header cannot be right.
    """
    path = folder / shard.file
    with open_regular(path) as (file, size):
        start = file.read(64)
        if size != shard.bytes:
            hint = "; it is a Git LFS pointer, not the file" if start.startswith(b"version https://git-lfs") else ""
            raise BundleError(f"{path} is damaged: {size} bytes instead of {shard.bytes}{hint}")
        length = int.from_bytes(start[:8], "little")
        room = size - 8 - length
        if room < 0 or length > HEADER_BYTES:
            raise BundleError(f"{path} is not a safetensors file: its header cannot have {length} bytes")
        file.seek(8)
        raw = file.read(length)
    try:
        return _slots(parse_json(raw), room)
    except ValueError as error:
        raise BundleError(f"{path} is not a safetensors file: {error}") from None


def _slots(header: Any, room: int) -> dict[str, Slot]:
    """Check a parsed header: the tensors fill the `room` bytes behind it without gap or overlap."""
    if not isinstance(header, dict):
        raise ValueError("its header is not an object")
    found, spans = {}, []
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
            raise ValueError(f"its header does not describe {shown(name)}")
        dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
        if not isinstance(dtype, str) or dtype not in ITEM_BYTES:
            raise ValueError(f"{shown(name)} has dtype {shown(dtype)}; read are {', '.join(ITEM_BYTES)}")
        for numbers in (shape, offsets):
            if not isinstance(numbers, list) or len(numbers) > 8 or not all(type(i) is int and i >= 0 for i in numbers):
                raise ValueError(f"its header does not describe {shown(name)}")
        if len(offsets) != 2 or math.prod(shape) * ITEM_BYTES[dtype] != offsets[1] - offsets[0]:
            raise ValueError(f"{shown(name)} has shape {shown(shape)} and offsets {shown(offsets)}")
        found[name] = Slot(dtype, tuple(shape))
        spans.append(offsets)
    end = 0
    for first, last in sorted(spans):
        if first != end:
            raise ValueError("its tensors overlap or leave a gap")
        end = last
    if end != room:
        raise ValueError(f"its tensors have {end} bytes, the file holds {room}")
    return found


def read_shard(folder: Path, shard: Shard) -> dict[str, Tensor]:
    """The tensors of one shard, as stored, on the CPU; size and checksum are found right first (22 ms for 40 MB).

    Raises:
        BundleError: the file is missing, altered, or not a safetensors file.
    """
    path = folder / shard.file
    with open_regular(path) as (file, size):
        data = file.read(shard.bytes + 1) if size == shard.bytes else b""
    if len(data) != shard.bytes:
        raise BundleError(f"{path} is damaged: {size} bytes instead of {shard.bytes}")
    if hashlib.sha256(data).hexdigest() != shard.sha256:
        raise BundleError(f"{path} is damaged: its checksum is not the one in config.json")
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        return load(data)
    except (SafetensorError, ValueError, RuntimeError) as error:
        raise BundleError(f"{path} is not a safetensors file: {error}") from None
