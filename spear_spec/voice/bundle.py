"""Voice bundles: one folder with `config.json` and safetensors shards. Nothing in it is ever unpickled.

kokoro-duo/config.json        what it is: licence, origin, speakers, model shapes, defaults, size and SHA-256 of every
shard
           t2s-1.safetensors  the text-to-semantic transformer (half precision on disk), in shards of at most 15 MiB
           draft-1.safetensors, vocoder-1.safetensors, centroids-1.safetensors
           small-1.safetensors and the like: further drafts, one part each
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spear_spec.config import SamplingConfig, SpecConfig, Strict
from spear_spec.errors import BundleError, ConfigError

if TYPE_CHECKING:  # a voice is found and its configuration checked before torch is imported
    from torch import Tensor, nn

SCHEMA = "spear-voice/1"
DEFAULT_VOICE = "kokoro-duo"
PARTS = ("t2s", "draft", "vocoder", "centroids")
MORE_DRAFTS = (
    "small",
    "small2",
    "prophet",
    "medusa",
    "eagle",
    "early_exit",
    "layer_skip",
)  # names that `drafters` may hold
SHARD_BYTES = 15 * 2**20
INSTALLED = Path(__file__).parents[1] / "voices"
SEARCH_VARIABLE = "SPEAR_SPEC_VOICES"


@dataclass(frozen=True)
class VoiceConfig(Strict):
    """`config.json` of a voice.

    speakers: the first is the default. text, t2s, draft, vocoder: shapes of the parts (draft null: none in the bundle).
    drafters: shapes of further drafts by the drafter's name; `drafts` has them all.
    sampling, spec: what `say` uses when nothing else is asked for. semantic: encoder, layer, rate and K of the
    semantic tokens. files: for each part its shards, [{"file", "bytes", "sha256"}].
    """

    schema: str
    name: str
    licence: str
    origin: str
    sample_rate: int
    speakers: tuple[str, ...]
    text: dict[str, Any]
    t2s: dict[str, Any]
    vocoder: dict[str, Any]
    semantic: dict[str, Any]
    files: dict[str, list[dict[str, Any]]]
    draft: dict[str, Any] | None = None
    drafters: dict[str, dict[str, Any]] = field(default_factory=dict)
    sampling: dict[str, Any] = field(default_factory=dict)
    spec: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.schema != SCHEMA:
            raise ConfigError(
                f"schema {self.schema!r} is not {SCHEMA!r}: the voice is of another version of spear_spec"
            )
        for name, kind in (
            ("name", str),
            ("licence", str),
            ("origin", str),
            ("text", dict),
            ("t2s", dict),
            ("vocoder", dict),
            ("semantic", dict),
            ("drafters", dict),
            ("files", dict),
            ("sampling", dict),
            ("spec", dict),
        ):
            if not isinstance(getattr(self, name), kind):
                raise ConfigError(f"{name} must be {'a string' if kind is str else 'an object'}")
        if not isinstance(self.sample_rate, int) or self.sample_rate < 1:
            raise ConfigError(f"sample_rate must be a whole number above 0, not {self.sample_rate!r}")
        if not self.speakers or not all(isinstance(s, str) and s for s in self.speakers):
            raise ConfigError("speakers must name at least one speaker")
        if unknown := sorted(set(self.drafters) - set(MORE_DRAFTS)):
            raise ConfigError(f"drafters: unknown name {', '.join(unknown)}; known are {', '.join(MORE_DRAFTS)}")
        SamplingConfig.from_dict(self.sampling)
        SpecConfig.from_dict(self.spec)

    @property
    def drafts(self) -> dict[str, tuple[str, dict[str, Any]]]:
        """For each drafter that has something trained in the bundle: its part and its shape.

        The part "draft" is what the voice ships to draft with: fed with the target's features it is an eagle, else
        small.
        """
        found = {name: (name, shape) for name, shape in self.drafters.items()}
        if self.draft is not None:
            found["eagle" if self.draft.get("target_layers") else "small"] = ("draft", self.draft)
        return found


@dataclass
class Bundle:
    """A voice folder, opened: its configuration is checked, its tensors are read part by part when asked for."""

    path: Path
    config: VoiceConfig

    @property
    def sampling(self) -> SamplingConfig:
        """The sampling that the voice ships with."""
        return SamplingConfig.from_dict(self.config.sampling)

    @property
    def spec(self) -> SpecConfig:
        """The drafter, verifier and gamma that the voice ships with."""
        return SpecConfig.from_dict(self.config.spec)

    def has(self, part: str) -> bool:
        """Whether the bundle holds weights for this part ("t2s", "draft", "vocoder", "centroids")."""
        return part in self.config.files

    def tensors(self, part: str) -> dict[str, Tensor]:
        """Every tensor of a part, as stored (half precision).

        Raises:
            BundleError: a shard is missing, truncated, altered, or not a safetensors file.
        """
        if not self.has(part):
            raise BundleError(f"voice {self.config.name!r} has no {part} weights ({self.path})")
        tensors: dict[str, Tensor] = {}
        for shard in self.config.files[part]:
            tensors.update(_read_shard(self.path, shard))
        return tensors

    def load_into(self, module: nn.Module, part: str) -> nn.Module:
        """Copy a part into a module of the right shape and set it to evaluation.

        Raises:
            BundleError: tensors are missing, unknown, of another shape, or not finite.
        """
        stored = self.tensors(part)
        wanted = module.state_dict()
        where = f"voice {self.config.name!r}: {part}"
        if missing := sorted(set(wanted) - set(stored)):
            raise BundleError(f"{where}: {len(missing)} tensor(s) missing, the first {missing[0]!r}")
        if unknown := sorted(set(stored) - set(wanted)):
            raise BundleError(
                f"{where}: {len(unknown)} tensor(s) that this model does not have, the first {unknown[0]!r}"
            )
        for name, tensor in stored.items():
            if tensor.shape != wanted[name].shape:
                raise BundleError(
                    f"{where}: {name!r} has shape {list(tensor.shape)}, the model needs {list(wanted[name].shape)}"
                )
        module.load_state_dict(stored)
        for name, tensor in module.state_dict().items():
            if tensor.is_floating_point() and not math.isfinite(float(tensor.sum())):  # a sum of halves cannot overflow
                raise BundleError(
                    f"{where}: {name!r} holds NaN or infinity; the weights are damaged, get the voice again"
                )
        return module.eval().requires_grad_(False)

    def centroids(self) -> Tensor:
        """k-means centroids of the semantic tokens, float32 [K, D]."""
        tensors = self.tensors("centroids")
        if (
            set(tensors) != {"centroids"}
            or tensors["centroids"].ndim != 2
            or not bool(tensors["centroids"].isfinite().all())
        ):
            raise BundleError(f"voice {self.config.name!r}: centroids must be one finite matrix named 'centroids'")
        return tensors["centroids"].float()


def _read_shard(folder: Path, shard: Mapping[str, Any]) -> dict[str, Tensor]:
    """One shard, after its size and checksum are found right (22 ms for 40 MB)."""
    if not isinstance(shard, Mapping) or set(shard) != {"file", "bytes", "sha256"}:
        raise BundleError(f"{folder}: a file entry of config.json must hold file, bytes and sha256")
    name = str(shard["file"])
    if Path(name).name != name or not name.endswith(".safetensors"):
        raise BundleError(f"{folder}: {name!r} is not the name of a safetensors file in the folder")
    path = folder / name
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BundleError(f"cannot read {path}: {error.strerror or error}") from None
    if len(data) != shard["bytes"]:
        hint = "; it is a Git LFS pointer, not the file" if data.startswith(b"version https://git-lfs") else ""
        raise BundleError(f"{path} is damaged: {len(data)} bytes instead of {shard['bytes']}{hint}")
    if hashlib.sha256(data).hexdigest() != shard["sha256"]:
        raise BundleError(f"{path} is damaged: its checksum is not the one in config.json")
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        return load(data)
    except (SafetensorError, ValueError) as error:
        raise BundleError(f"{path} is not a safetensors file: {error}") from None


def search_path() -> list[Path]:
    """Folders that hold voices: the package's own, then those of $SPEAR_SPEC_VOICES."""
    extra = os.environ.get(SEARCH_VARIABLE, "")
    return [INSTALLED, *(Path(p).expanduser() for p in extra.split(os.pathsep) if p)]


def list_voices() -> list[Path]:
    """Every voice folder on the search path, in order of search."""
    return [
        folder
        for root in search_path()
        if root.is_dir()
        for folder in sorted(root.iterdir())
        if (folder / "config.json").is_file()
    ]


def find_voice(voice: str | os.PathLike[str] | None = None) -> Path:
    """The folder of a voice, given by name or path; None is the default voice.

    Raises:
        BundleError: there is no such voice.
    """
    name = DEFAULT_VOICE if voice is None else os.fspath(voice)
    is_name = bool(name) and Path(name).name == name and name not in (".", "..")
    if is_name:
        for root in search_path():
            if (root / name / "config.json").is_file():
                return root / name
    folder = Path(name).expanduser()
    if name and folder.is_dir():
        if (folder / "config.json").is_file():
            return folder
        raise BundleError(f"{folder} is not a voice: it has no config.json")
    if name and folder.exists():
        raise BundleError(f"{folder} is a file; a voice is a folder with config.json")
    known = ", ".join(path.name for path in list_voices()) or "none"
    raise BundleError(f"no voice {name!r}: installed are {known}; a folder's path and ${SEARCH_VARIABLE} work too")


def open_voice(voice: str | os.PathLike[str] | None = None) -> Bundle:
    """Find a voice and check its configuration; no weights are read yet.

    Raises:
        BundleError: no such voice, not a voice, of another version, or with a configuration that cannot be used.
    """
    folder = find_voice(voice)
    path = folder / "config.json"
    try:
        values = json.loads(path.read_bytes().decode())
    except OSError as error:
        raise BundleError(f"cannot read {path}: {error.strerror or error}") from None
    except ValueError as error:
        raise BundleError(f"{path} is damaged: {error}") from None
    if not isinstance(values, dict) or not str(values.get("schema", "")).startswith("spear-voice/"):
        raise BundleError(f"{folder} is not a voice of spear_spec: config.json has no schema {SCHEMA!r}")
    try:
        config = VoiceConfig.from_dict(values)
    except ConfigError as error:
        raise BundleError(f"{path}: {error}") from None
    for part in config.files:
        if part not in (*PARTS, *config.drafters) or not isinstance(config.files[part], list):
            raise BundleError(f"{path}: unknown part {part!r}; known are {', '.join(PARTS)} and the voice's drafters")
    needed = [
        "t2s",
        "vocoder",
        *(part for part, _ in config.drafts.values() if part != "layer_skip"),
    ]  # switches are no weights
    if absent := [part for part in needed if part not in config.files]:
        raise BundleError(f"{path}: no files for {', '.join(absent)}")
    return Bundle(folder, config)


def choose_speaker(bundle: Bundle, speaker: str | None) -> str:
    """The speaker asked for, or the voice's first.

    Raises:
        ConfigError: the voice has no such speaker.
    """
    known = bundle.config.speakers
    if speaker is None:
        return known[0]
    if speaker not in known:
        raise ConfigError(
            f"voice {bundle.config.name!r} has no speaker {speaker!r}; its speakers are {', '.join(known)}"
        )
    return speaker


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
    shard_bytes: int = SHARD_BYTES,
) -> Bundle:
    """Write a voice folder; `config.json` comes last, so that a folder cut short is never taken for a voice.

    Args:
        configs: "t2s", "vocoder" and, where they are there, "draft" and further drafts: the parts' shapes as JSON
            objects.
        weights: the same parts and "centroids": their tensors; floating ones are stored in half precision.

    Raises:
        BundleError: a tensor is not finite in half precision, or the folder cannot be written.
    """
    from safetensors.torch import save

    folder = Path(folder)
    files: dict[str, list[dict[str, Any]]] = {}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for old in [folder / "config.json", *folder.glob("*.safetensors")]:
            old.unlink(missing_ok=True)
        for part, tensors in weights.items():
            if part not in (*PARTS, *MORE_DRAFTS):
                raise BundleError(f"unknown part {part!r}; known are {', '.join((*PARTS, *MORE_DRAFTS))}")
            files[part] = []
            for shard in _shards(_stored(part, tensors), shard_bytes):
                data = save(shard)
                file = f"{part}-{len(files[part]) + 1}.safetensors"
                (folder / file).write_bytes(data)
                files[part].append({"file": file, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()})
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
            vocoder=configs["vocoder"],
            drafters={name: shape for name, shape in configs.items() if name in MORE_DRAFTS},
            semantic=semantic,
            sampling=sampling.to_dict(),
            spec=spec.to_dict(),
            files=files,
        )
        partial = folder / "config.json.partial"
        partial.write_text(json.dumps(config.to_dict(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        partial.replace(folder / "config.json")
    except OSError as error:
        raise BundleError(f"cannot write the voice {folder}: {error.strerror or error}") from None
    return open_voice(folder.absolute())


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


def _shards(tensors: Mapping[str, Tensor], limit: int) -> Iterator[dict[str, Tensor]]:
    """Split in order so that each file, header included, stays within `limit` bytes where tensors allow."""
    room = limit - 64 * 1024
    shard: dict[str, Tensor] = {}
    size = 0
    for name, tensor in tensors.items():
        if shard and size + tensor.nbytes > room:
            yield shard
            shard, size = {}, 0
        shard[name] = tensor
        size += tensor.nbytes
    yield shard


@contextlib.contextmanager
def uninitialised() -> Iterator[None]:
    """Modules built inside skip the random initialisation of their layers: the weights are about to be overwritten."""
    from torch import nn

    names = (
        "uniform_",
        "normal_",
        "trunc_normal_",
        "kaiming_uniform_",
        "kaiming_normal_",
        "xavier_uniform_",
        "xavier_normal_",
    )
    saved = {name: getattr(nn.init, name) for name in names}

    def skip(tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return tensor

    try:
        for name in names:
            setattr(nn.init, name, skip)
        yield
    finally:
        for name, function in saved.items():
            setattr(nn.init, name, function)
