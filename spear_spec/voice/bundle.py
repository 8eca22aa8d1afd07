"""Voice bundles: one folder with `config.json` and safetensors shards. Nothing in it is ever unpickled.

kokoro-duo/config.json        what it is: licence, origin, speakers, model shapes, defaults, size and SHA-256 of every
                              shard
           t2s-1.safetensors  the text-to-semantic transformer (half precision on disk), in shards of at most 15 MiB
           draft-1.safetensors, vocoder-1.safetensors, centroids-1.safetensors
           prompt-1.safetensors  the encoder that hears a voice in a clip, where it has one
           supervised-1.safetensors  the tokenizer's supervised encoder, where it has one
           small-1.safetensors and the like: further drafts, one part each

A folder may come from anyone. Nothing of it is believed before it is checked: first the configuration alone, then the
sizes of the files and the shapes in their headers against the model's, and only then are tensors read.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spear_spec.config import WIDEST, SamplingConfig, SpecConfig
from spear_spec.errors import BundleError, ConfigError
from spear_spec.voice.config import SCHEMA, VoiceConfig
from spear_spec.voice.files import Slot, open_regular, parse_json, read_header, read_shard
from spear_spec.voice.search import find_voice

if TYPE_CHECKING:  # a voice is found and its configuration checked before torch is imported
    import torch
    from torch import Tensor, nn

CONFIG_BYTES = 2**20


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
        """Whether the bundle holds weights for this part (see `config.PARTS`)."""
        return part in self.config.files

    def slots(self, part: str) -> dict[str, Slot]:
        """dtype and shape of every tensor of a part, from the headers of its shards.

        Raises:
            BundleError: a shard is missing, truncated, or not a safetensors file; a tensor is in two of them.
        """
        if not self.has(part):
            raise BundleError(f"voice {self.config.name!r} has no {part} weights ({self.path})")
        found: dict[str, Slot] = {}
        for shard in self.config.shards(part):
            header = read_header(self.path, shard)
            if twice := sorted(found.keys() & header.keys()):
                raise BundleError(f"{self.path / shard.file}: {twice[0][:80]!r} stands in an earlier shard too")
            found |= header
        return found

    def tensors(self, part: str) -> dict[str, Tensor]:
        """Every tensor of a part, as stored (half precision), on the CPU.

        Raises:
            BundleError: a shard is missing, truncated, altered, or not a safetensors file.
        """
        return self._read(part, self.slots(part))

    def build(
        self,
        make: Callable[[], Any],
        part: str,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype | None = None,
    ) -> Any:
        """What `make` makes, with the weights of a part, set to evaluation; without gradients.

        `make` runs in a `Blueprint`: nothing is allocated or drawn before the shapes are found right, and no setting
        of the process (default dtype or device, grad and inference mode) has a say. What is no module, and has none as
        its `module`, has no weights.

        Args:
            dtype: of the floating tensors; float32 if left out.

        Raises:
            BundleError: tensors are missing, unknown, of another shape, or not finite. ConfigError: from `make`.
        """
        import torch
        from torch import nn

        from spear_spec.voice.blueprint import Blueprint

        with torch.inference_mode(False), torch.no_grad():
            with Blueprint():
                built = make()
            module = built if isinstance(built, nn.Module) else getattr(built, "module", None)
            if not isinstance(module, nn.Module):
                return built
            tensors = self._checked(part, module.state_dict(keep_vars=True), dtype or torch.float32)
            module.load_state_dict({name: tensor.to(device) for name, tensor in tensors.items()}, assign=True)
            if left := [name for name, buffer in module.named_buffers() if buffer.is_meta]:
                raise ConfigError(f"{part}: the buffer {left[0]!r} is not stored, so it must be made when it is used")
            module.eval().requires_grad_(False)
            return built

    def load_into(self, module: nn.Module, part: str) -> nn.Module:
        """Copy a part into a module that is there already, to train it further; it is set to evaluation.

        Raises:
            BundleError: tensors are missing, unknown, of another shape, or not finite.
        """
        import torch

        module.load_state_dict(self._checked(part, module.state_dict(), torch.float32))
        return module.eval().requires_grad_(False)

    def centroids(self) -> Tensor:
        """k-means centroids of the semantic tokens, float32 [K, D].

        Raises:
            BundleError: they are missing, damaged, or not one vector for each token.
        """
        import torch

        slots, k = self.slots("centroids"), self.config.semantic["k"]
        shape = slots["centroids"].shape if set(slots) == {"centroids"} else ()
        if len(shape) != 2 or shape[0] != k or not 1 <= shape[1] <= WIDEST:
            raise BundleError(f"voice {self.config.name!r}: centroids must be one matrix of {k} rows, 'centroids'")
        with torch.inference_mode(False), torch.no_grad(), torch.device("cpu"):
            return self._checked("centroids", {"centroids": torch.empty(shape, device="meta")}, torch.float32)[
                "centroids"
            ]

    def _checked(self, part: str, wanted: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
        """The tensors of a part, in memory of their own, after names, shapes and values are found right."""
        where = f"voice {self.config.name!r}: {part}"
        slots = self.slots(part)
        if missing := sorted(set(wanted) - set(slots)):
            raise BundleError(f"{where}: {len(missing)} tensor(s) missing, the first {missing[0]!r}")
        if unknown := sorted(set(slots) - set(wanted)):
            raise BundleError(
                f"{where}: {len(unknown)} tensor(s) that this model does not have, the first {unknown[0][:80]!r}"
            )
        for name, slot in slots.items():
            if slot.shape != tuple(wanted[name].shape):
                raise BundleError(
                    f"{where}: {name!r} has shape {list(slot.shape)}, the model needs {list(wanted[name].shape)}"
                )
        found = {name: tensor.to(dtype, copy=True) for name, tensor in self._read(part, slots).items()}
        for name, tensor in found.items():
            if tensor.numel() and not all(math.isfinite(float(end)) for end in tensor.aminmax()):
                raise BundleError(
                    f"{where}: {name!r} holds NaN or infinity; the weights are damaged, get the voice again"
                )
        return found

    def _read(self, part: str, slots: Mapping[str, Slot]) -> dict[str, Tensor]:
        import torch

        tensors: dict[str, Tensor] = {}
        with torch.device("cpu"):
            for shard in self.config.shards(part):
                tensors |= read_shard(self.path, shard)
        if {name: tuple(tensor.shape) for name, tensor in tensors.items()} != {n: s.shape for n, s in slots.items()}:
            raise BundleError(f"{self.path}: the files of {part} changed while they were read")
        return tensors


def open_voice(voice: str | os.PathLike[str] | None = None) -> Bundle:
    """Find a voice and check its configuration; no weights are read yet.

    Raises:
        BundleError: no such voice, not a voice, of another version, or with a configuration that cannot be used.
    """
    folder = find_voice(voice)
    values = read_config(folder)
    if not isinstance(values, dict) or not str(values.get("schema", "")).startswith("spear-voice/"):
        raise BundleError(f"{folder} is not a voice of spear_spec: config.json has no schema {SCHEMA!r}")
    try:
        return Bundle(folder, VoiceConfig.from_dict(values))
    except ConfigError as error:
        raise BundleError(f"{folder / 'config.json'}: {error}") from None


def read_config(folder: Path) -> Any:
    """What a folder's `config.json` holds: JSON of bounded size and depth.

    Raises:
        BundleError: it is missing or damaged.
    """
    path = folder / "config.json"
    with open_regular(path) as (file, _):
        data = file.read(CONFIG_BYTES + 1)
    if len(data) > CONFIG_BYTES:
        raise BundleError(f"{path} is damaged: it has more than {CONFIG_BYTES} bytes")
    try:
        return parse_json(data)
    except ValueError as error:
        raise BundleError(f"{path} is damaged: {error}") from None


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
