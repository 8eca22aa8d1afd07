"""The stage as a voice's configuration describes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from spear_spec.acoustic.audiolm.stage import Prompt
from spear_spec.config import SamplingConfig, SpecConfig, Strict, require, shown, words
from spear_spec.models.audiolm.coarse import CoarseConfig
from spear_spec.models.audiolm.fine import FineConfig
from spear_spec.models.soundstream import SoundStreamConfig

MOST_PROMPTS = 10_000


@dataclass(frozen=True)
class AudioLMConfig(Strict):
    """coarse, fine, codec: shapes of the two transformers and of SoundStream. draft: shape of what drafts for the
    coarse transformer, as the drafter that `spec` names wants it; null: that drafter needs nothing trained. sampling:
    of both. prompts: by speaker `{"semantic": [...], "codes": [[...], ...]}`.
    """

    coarse: dict[str, Any]
    fine: dict[str, Any]
    codec: dict[str, Any]
    draft: dict[str, Any] | None = None
    spec: dict[str, Any] = field(default_factory=lambda: {"drafter": "none"})
    sampling: dict[str, Any] = field(default_factory=dict)
    prompts: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("coarse", "fine", "codec", "spec", "sampling", "prompts"):
            require(isinstance(getattr(self, name), dict), f"{name} must be an object")
        require(self.draft is None or isinstance(self.draft, dict), "draft must be an object or null")
        one, two, codec = self.shapes
        require(
            codec.codebook == one.codebook and codec.codes == one.quantizers + two.quantizers,
            f"the codec has {codec.codes} quantizers of {codec.codebook} codes, the transformers write "
            f"{one.quantizers} and {two.quantizers} of {one.codebook}",
        )
        assert self.settings is not None and self.law is not None  # made here once, so that their checks have passed
        require(len(self.prompts) <= MOST_PROMPTS, f"prompts: {len(self.prompts)}; a stage has at most {MOST_PROMPTS}")
        for name in self.prompts:
            words("prompts: a name", name, 100)
        assert self.heard is not None

    @property
    def shapes(self) -> tuple[CoarseConfig, FineConfig, SoundStreamConfig]:
        """Of the transformers and the codec."""
        return (
            CoarseConfig.from_dict(self.coarse),
            FineConfig.from_dict(self.fine),
            SoundStreamConfig.from_dict(self.codec),
        )

    @property
    def settings(self) -> SpecConfig:
        """How the coarse transformer is drafted for."""
        return SpecConfig.from_dict(self.spec)

    @property
    def law(self) -> SamplingConfig:
        """The sampling."""
        return SamplingConfig.from_dict(self.sampling)

    @property
    def heard(self) -> dict[str, Prompt]:
        """The prompts.

        Raises:
            ConfigError: one is none.
        """
        return {name: _prompt(name, value) for name, value in self.prompts.items()}


class AudioLMModule(nn.Module):
    """What a bundle's weights go into. draft: None, or no module: it has no weights."""

    def __init__(self, coarse: nn.Module, fine: nn.Module, codec: nn.Module, draft: Any = None) -> None:
        super().__init__()
        self.coarse, self.fine, self.codec = coarse, fine, codec
        if isinstance(draft, nn.Module):
            self.draft = draft


def prompt_to_dict(prompt: Prompt) -> dict[str, Any]:
    """The JSON object of a prompt."""
    return {"semantic": list(prompt.semantic), "codes": [list(frame) for frame in prompt.codes]}


def _prompt(name: str, value: Any) -> Prompt:
    whole = isinstance(value, Mapping) and set(value) == {"semantic", "codes"}
    lists = whole and _ids(value["semantic"]) and isinstance(value["codes"], list) and all(map(_ids, value["codes"]))
    require(lists, f"prompts: {shown(name)} must hold semantic, a list of tokens, and codes, a list of frames of codes")
    return Prompt(tuple(value["semantic"]), tuple(map(tuple, value["codes"])))


def _ids(value: Any) -> bool:
    return isinstance(value, list) and all(type(one) is int for one in value)
