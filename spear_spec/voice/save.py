"""Writing a voice folder."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spear_spec.audio import write_atomically
from spear_spec.config import SamplingConfig, SpecConfig, require
from spear_spec.errors import AudioError, BundleError, ConfigError
from spear_spec.registry import Registry, package_of
from spear_spec.voice.bundle import CONFIG_BYTES, Bundle, open_voice
from spear_spec.voice.config import PARTS, SCHEMA, VoiceConfig
from spear_spec.voice.files import parse_json
from spear_spec.voice.registry import DEFAULT_KINDS, FRONT_ENDS, STAGES, TARGETS

if TYPE_CHECKING:
    from torch import Tensor

SHARD_BYTES = 15 * 2**20


def save_voice(
    folder: str | os.PathLike[str],
    *,
    name: str,
    licence: str,
    origin: str,
    sample_rate: int,
    speakers: list[str],
    text: dict[str, Any],
    semantic: dict[str, Any],
    sampling: SamplingConfig,
    spec: SpecConfig,
    configs: Mapping[str, dict[str, Any]],
    weights: Mapping[str, Mapping[str, Tensor]],
    kinds: Mapping[str, str] | None = None,
    complete: bool = False,
    rounded: bool = False,
    shard_bytes: int = SHARD_BYTES,
) -> Bundle:
    """Write a voice folder, in place of a voice that is there: of other files in it, none is touched.

    Everything is written under other names first; then the old `config.json` goes, the files change places, and the new
    `config.json` comes last. So a folder cut short is never taken for a voice, and one that cannot be written whole
    leaves the old voice as it was.

    Args:
        configs: "t2s", "vocoder" and, where they are there, "prompt", "draft" and further drafts: the parts' shapes as
            JSON objects.
        weights: the same parts, "centroids" and "supervised": their tensors; floating ones are stored in half
            precision.
        kinds: of "t2s" and "vocoder", where they are not what ships. complete, rounded: see `VoiceConfig`.

    Raises:
        BundleError: a tensor is not finite in half precision, the voice is none that could be opened again, or the
            folder cannot be written.
    """
    folder = Path(folder)
    kinds = {**DEFAULT_KINDS, "text": text.get("kind", DEFAULT_KINDS["text"]), **(kinds or {})}
    with writing(f"the voice {folder}"):
        for part in weights:
            if part not in (*PARTS, *configs):
                raise BundleError(f"unknown part {part!r}; known are {', '.join((*PARTS, *configs))}")
        with write_parts(folder, weights, shard_bytes, SCHEMA) as files:
            config = VoiceConfig(
                schema=SCHEMA,
                name=name,
                licence=licence,
                origin=origin,
                sample_rate=sample_rate,
                speakers=tuple(speakers),
                text=text,
                t2s=configs["t2s"],
                draft=configs.get("draft"),
                prompt=configs.get("prompt"),
                vocoder=configs["vocoder"],
                drafters={part: shape for part, shape in configs.items() if part not in PARTS},
                semantic=semantic,
                sampling=sampling.to_dict(),
                spec=spec.to_dict(),
                complete=complete,
                rounded=rounded,
                files=files,
                kinds=kinds,
                packages=_packages(kinds, [part for part in configs if part not in PARTS]),
            )
            data = config_bytes(config.to_dict(), indent=1)
        write_atomically(folder / "config.json", data)
    return open_voice(folder.absolute())


def config_bytes(values: Mapping[str, Any], indent: int | None = None) -> bytes:
    """A folder's `config.json`.

    Raises:
        ConfigError: it would be larger than what is read.
    """
    data = (json.dumps(values, indent=indent, ensure_ascii=False) + "\n").encode()
    require(len(data) <= CONFIG_BYTES, f"config.json would have {len(data)} bytes, over {CONFIG_BYTES}")
    return data


@contextlib.contextmanager
def writing(what: str) -> Iterator[None]:
    """Tell in one way why a voice or a stage cannot be written."""
    try:
        yield
    except OSError as error:
        raise BundleError(f"cannot write {what}: {error.strerror or error}") from None
    except (AudioError, ConfigError) as error:
        raise BundleError(f"cannot write {what}: {error}") from None


@contextlib.contextmanager
def write_parts(
    folder: Path, weights: Mapping[str, Mapping[str, Tensor]], shard_bytes: int, schema: str
) -> Iterator[dict[str, list[dict[str, Any]]]]:
    """Write the tensors of parts into a folder; gives the entries of `config.json`. When the block ends without an
    error, an earlier `config.json` of this schema goes, its shards and the new ones change places, and the caller
    writes the new one; after an error the folder is as it was.

    Raises:
        BundleError: a tensor is not finite in half precision, or the folder holds something else. OSError.
    """
    folder.mkdir(parents=True, exist_ok=True)
    earlier = _listed(folder / "config.json", schema)
    with _partials(folder) as partials:
        files: dict[str, list[dict[str, Any]]] = {}
        for part, tensors in weights.items():
            files[part] = []
            named = dict(sorted(tensors.items()))  # a file gives them in any order; the same voice is the same bytes
            for shard in shards(_stored(part, named), shard_bytes - HEADER_BYTES):
                file = _free(folder, f"{part}-{len(files[part]) + 1}", earlier)
                files[part].append(_write(folder, file, shard, partials))
        yield files
        for old in ("config.json", *earlier):
            (folder / old).unlink(missing_ok=True)
        for file, partial in partials.items():
            partial.rename(folder / file)


def _listed(path: Path, schema: str) -> list[str]:
    """The shards that an earlier `config.json` of this schema, whatever its version, names: what may be deleted.

    Raises:
        BundleError: there is a `config.json` of something else.
    """
    if not os.path.lexists(path):
        return []
    try:
        values = parse_json(path.read_bytes())
        ours = str(values["schema"]).startswith(schema.partition("/")[0] + "/")
        named = [str(entry["file"]) for entries in values["files"].values() for entry in entries]
    except (ValueError, TypeError, LookupError, AttributeError):
        ours, named = False, []
    if not ours:
        what = schema.partition("/")[0].removeprefix("spear-")
        raise BundleError(f"{path} is not of a {what}: it stays as it is; give the {what} a folder of its own")
    return [file for file in named if Path(file).name == file and file.endswith(".safetensors")]


def _free(folder: Path, stem: str, earlier: list[str]) -> str:
    """A name for a shard: the usual one, unless a file that is not the voice's has it."""
    names = (f"{stem}{suffix}.safetensors" for suffix in ("", *(f"-{n}" for n in range(2, 1000))))
    return next(file for file in names if file in earlier or not os.path.lexists(folder / file))


@contextlib.contextmanager
def _partials(folder: Path) -> Iterator[dict[str, Path]]:
    """Files under way: by the name that each will have. What was not renamed by the end is deleted."""
    partials: dict[str, Path] = {}
    try:
        yield partials
    finally:
        for partial in partials.values():
            partial.unlink(missing_ok=True)


def _write(folder: Path, file: str, shard: Mapping[str, Tensor], partials: dict[str, Path]) -> dict[str, Any]:
    """Write one shard under another name; its entry of `config.json`."""
    from safetensors.torch import save

    data = save(dict(shard))
    partials[file] = folder / f".{secrets.token_hex(8)}.part"
    partials[file].write_bytes(data)
    return {"file": file, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def _packages(kinds: Mapping[str, str], drafters: list[str]) -> dict[str, str]:
    """For each kind and drafter of an installed package: the package's name."""
    registries: dict[str, Registry[Any]] = {"text": FRONT_ENDS, "t2s": TARGETS, "vocoder": STAGES}
    found = {kind: registries[part].package(kind) for part, kind in kinds.items()}
    found |= {name: package_of("spear_spec.drafters", name) for name in drafters}
    return {kind: package for kind, package in found.items() if package is not None}


def _stored(part: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors as they go to disk: contiguous, on the CPU, floating ones rounded."""
    import torch

    stored = {}
    for name, tensor in tensors.items():
        tensor = tensor.detach().cpu()
        if tensor.is_floating_point():
            tensor = tensor.to(torch.float16)
            if not bool(tensor.isfinite().all()):
                raise BundleError(f"{part}: {name!r} holds NaN or values too large for half precision")
        stored[name] = tensor.clone().contiguous()  # safetensors refuses tensors that share memory
    return stored


HEADER_BYTES = 64 * 1024  # of a file, kept free for its header


def shards(tensors: Mapping[str, Tensor], room: int) -> Iterator[dict[str, Tensor]]:
    """Split in order so that each file has at most `room` bytes of tensors, where they allow."""
    shard: dict[str, Tensor] = {}
    size = 0
    for name, tensor in tensors.items():
        if shard and size + tensor.nbytes > room:
            yield shard
            shard, size = {}, 0
        shard[name] = tensor
        size += tensor.nbytes
    yield shard
