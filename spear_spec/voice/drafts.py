"""The trained drafts of a voice, by the name of the drafter that draws with them.

Read when they are asked for, not before.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch

from spear_spec.decoding.drafters import DRAFTERS
from spear_spec.errors import BundleError, ConfigError
from spear_spec.models.contract import Geometry
from spear_spec.voice.bundle import Bundle
from spear_spec.voice.registry import DRAFTS


def build_draft(name: str, shape: Mapping[str, Any], target: Geometry) -> Any:
    """What the drafter of this name draws with, untrained. The part "draft" is a decoder, whoever draws with it.

    Raises:
        ConfigError: there is no such drafter, it draws with nothing, or the shape does not fit the target.
    """
    if name == "draft":
        return DRAFTS.get("decoder")(shape, target)
    trained = DRAFTERS.find(name).trained
    if trained is None:
        raise ConfigError(f"the drafter {name} draws with nothing that is trained")
    return DRAFTS.get(trained.builder)(shape, target)


class Drafts(Mapping[str, Any]):
    """What a bundle holds to draft with, on the device and in the dtype of the target."""

    def __init__(
        self, bundle: Bundle, target: Geometry, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> None:
        self._bundle, self._device, self._dtype = bundle, device, dtype
        self._target: Geometry = target
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
            part, shape = self._bundle.config.drafts[name]
            if name not in DRAFTERS:
                whence = self._bundle.config.whence(name, tuple(DRAFTERS))
                raise BundleError(f"voice {self._bundle.config.name!r}: unknown drafter {name[:80]!r}; {whence}")
            try:
                draft = self._bundle.build(
                    lambda: build_draft(name, shape, self._target), part, device=self._device, dtype=self._dtype
                )
            except ConfigError as error:
                raise BundleError(f"{self._bundle.path / 'config.json'}: {name}: {error}") from None
            self._known.setdefault(name, draft)  # another thread may have been first
        return self._known[name]
