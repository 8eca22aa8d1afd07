"""The trained drafts of a voice, by the name of the drafter that draws with them.

Read when they are asked for, not before.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from spear_spec.config import DraftConfig, T2SConfig
from spear_spec.errors import BundleError, ConfigError
from spear_spec.models.drafts.decoder import DraftDecoder
from spear_spec.models.drafts.layer_skip import LayerSkipConfig
from spear_spec.models.drafts.medusa import MedusaConfig, MedusaHeads
from spear_spec.voice.bundle import Bundle, uninitialised


def build_draft(name: str, config: Mapping[str, Any], target: T2SConfig) -> nn.Module:
    """An untrained draft of this shape.

    Raises:
        ConfigError: the shape is not one, or does not fit the target.
    """
    if name == "medusa":
        medusa = MedusaConfig.from_dict(config)
        if medusa.dim != target.dim:
            raise ConfigError(f"the heads share the target's: their dim must be {target.dim}, not {medusa.dim}")
        return MedusaHeads(medusa)
    return DraftDecoder(DraftConfig.from_dict(config), target)


class Drafts(Mapping[str, Any]):
    """What a bundle holds to draft with, on the device and in the dtype of the target."""

    def __init__(
        self, bundle: Bundle, target: T2SConfig, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> None:
        self._bundle, self._target, self._device, self._dtype = bundle, target, device, dtype
        self._known: dict[str, Any] = {}

    def __iter__(self) -> Iterator[str]:
        return iter(self._bundle.config.drafts)

    def __len__(self) -> int:
        return len(self._bundle.config.drafts)

    def __contains__(self, name: object) -> bool:
        return name in self._bundle.config.drafts

    def __getitem__(self, name: str) -> Any:
        """The draft of this name.

        Raises:
            BundleError: its weights are damaged or do not fit. KeyError: the voice has none of this name.
        """
        if name not in self._known:
            part, config = self._bundle.config.drafts[name]
            try:
                if name == "layer_skip":  # nothing trained: switches of the target's own sublayers
                    return self._known.setdefault(
                        name, LayerSkipConfig.from_dict(config).skip(self._target.target_depth)
                    )
                with uninitialised():
                    module = build_draft(name, config, self._target)
            except ConfigError as error:
                raise BundleError(f"{self._bundle.path / 'config.json'}: {name}: {error}") from None
            self._bundle.load_into(module, part)
            self._known[name] = module.to(device=self._device, dtype=self._dtype)
        return self._known[name]
