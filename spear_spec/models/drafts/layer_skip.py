"""Which sublayers of a target a self-speculative draft leaves out (Draft & Verify, arXiv 2309.08168)."""

from __future__ import annotations

from dataclasses import dataclass

from spear_spec.config import DEEPEST, Strict, require, shown, wholes
from spear_spec.errors import ConfigError
from spear_spec.models.memory import Skip


@dataclass(frozen=True)
class LayerSkipConfig(Strict):
    """The sublayers that are left out, by layer (0 is the first); self- and cross-attention of a layer count as one."""

    attention: tuple[int, ...] = ()
    feed_forward: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for name in ("attention", "feed_forward"):
            layers = getattr(self, name)
            wholes(name, layers, 0, DEEPEST - 1, DEEPEST)
            require(len(set(layers)) == len(layers), f"{name} names a layer twice: {shown(layers)}")
            object.__setattr__(self, name, tuple(sorted(layers)))

    @property
    def skipped(self) -> int:
        """Number of sublayers that are left out."""
        return len(self.attention) + len(self.feed_forward)

    def skip(self, target_depth: int) -> Skip:
        """The same for `TextToSemantic.forward`, checked against a target of so many layers.

        Raises:
            ConfigError: it names a layer that the target has not, or keeps none.
        """
        foreign = sorted(i for i in {*self.attention, *self.feed_forward} if i >= target_depth)
        if foreign:
            raise ConfigError(
                f"layer_skip names layer {foreign[0]}, but the target has layers 0 to {target_depth - 1}; "
                "search its switches again"
            )
        if self.skipped == 2 * target_depth:
            raise ConfigError("layer_skip leaves every sublayer out; keep at least one")
        return Skip(frozenset(self.attention), frozenset(self.feed_forward))
