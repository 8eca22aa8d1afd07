"""The parts of a voice, built by their kinds and filled from the bundle."""

from __future__ import annotations

import logging
import os
from typing import Any

import torch
from torch import Tensor

from spear_spec.acoustic.contract import AcousticStage
from spear_spec.acoustic.unit.prompt import PromptConfig, PromptEncoder
from spear_spec.acoustic.unit.stage import HearingStage, UnitStage
from spear_spec.config import SpecConfig, require
from spear_spec.decoding import complete, needs
from spear_spec.decoding.verifiers import needs_embedding
from spear_spec.errors import BundleError, ConfigError, TextError
from spear_spec.models.contract import Target
from spear_spec.registry import Registry
from spear_spec.text import FrontEnd
from spear_spec.voice.bundle import Bundle
from spear_spec.voice.listening import Listening
from spear_spec.voice.registry import FRONT_ENDS, STAGES, TARGETS

log = logging.getLogger("spear_spec")


def load_front_end(bundle: Bundle) -> FrontEnd:
    """The voice's text front end.

    Raises:
        BundleError: its kind is not installed, or its object is not one of that kind.
    """
    build = _builder(bundle, "text", FRONT_ENDS)
    try:
        front: FrontEnd = build(bundle.config.text)
    except (ConfigError, TextError) as error:
        raise _damaged(bundle, error) from None
    return front


def load_target(bundle: Bundle, device: torch.device | str = "cpu", dtype: torch.dtype | None = None) -> Any:
    """The text-to-semantic transformer, on this device and in this dtype (float32 if left out).

    Raises:
        BundleError: its kind is not installed, it is damaged, or it does not fit the voice.
    """
    return _load(bundle, "t2s", TARGETS, device, dtype)


def load_stage(bundle: Bundle, device: torch.device | str = "cpu") -> AcousticStage:
    """The acoustic stage, on this device, in float32.

    Raises:
        BundleError: its kind is not installed, it is damaged, or it does not fit the voice.
    """
    stage: AcousticStage = _load(bundle, "vocoder", STAGES, device, torch.float32)
    if getattr(stage, "tokenizer", stage) is None:  # it hears prompts by semantic tokens
        stage.tokenizer = Listening(bundle)  # type: ignore[attr-defined]
    stage = _hearing(bundle, stage, device)
    if isinstance(stage, UnitStage):
        stage.rounded = bundle.config.rounded
    return stage


def _hearing(bundle: Bundle, stage: AcousticStage, device: torch.device | str) -> AcousticStage:
    """The stage with the voice's prompt encoder, if it has one."""
    shape = bundle.config.prompt
    if shape is None:
        return stage
    if not isinstance(stage, UnitStage):
        kind = bundle.config.kinds["vocoder"]
        raise BundleError(f"{bundle.path / 'config.json'}: a stage {kind[:80]!r} takes no prompt encoder")
    width = 2 * stage.module.cfg.dim

    def build() -> PromptEncoder:
        cfg = PromptConfig.from_dict(shape)
        require(
            cfg.vector == width, f"prompt: vector is {cfg.vector}, the vocoder's speaker vectors have {width} numbers"
        )
        return PromptEncoder(cfg)

    try:
        encoder: PromptEncoder = bundle.build(build, "prompt", device=device)
    except ConfigError as error:
        raise _damaged(bundle, error) from None
    return HearingStage(stage.module, stage.speakers, encoder)


def load_parts(
    bundle: Bundle,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
    acoustic: str | os.PathLike[str] | None = None,
) -> tuple[FrontEnd, Target, AcousticStage]:
    """Text front end, target and acoustic stage of a voice, which fit each other.

    Args:
        dtype: of the target; float32 if left out.
        acoustic: another stage than the voice's own, see `load_acoustic`.

    Raises:
        BundleError: a part is damaged, does not fit, or is of a kind that is not installed.
    """
    front = load_front_end(bundle)
    target: Target = load_target(bundle, device, dtype)
    if front.num_token_ids != target.text_ids:
        raise BundleError(
            f"{bundle.path / 'config.json'}: the front end has {front.num_token_ids} symbols, "
            f"the transformer reads {target.text_ids}"
        )
    if acoustic is None:
        return front, target, load_stage(bundle, device)
    from spear_spec.voice.acoustic import load_acoustic

    return front, target, load_acoustic(bundle, acoustic, device)


def choose_spec(bundle: Bundle, drafter: str | None, given: dict[str, Any]) -> SpecConfig:
    """The voice's speculation settings with those that were asked for; without a draft decoder a default falls back
    to none.

    Raises:
        ConfigError: a setting that cannot be used.
    """
    default = bundle.spec
    part = needs(default.drafter, default.options)
    if drafter is None and part is not None and part not in bundle.config.drafts:
        name = bundle.config.name
        log.warning("voice %r has nothing to draft with as %s does: decoding autoregressively", name, default.drafter)
        drafter = "none"
    return complete(default, given if drafter is None else {**given, "drafter": drafter})


def embedding_for(spec: SpecConfig, bundle: Bundle) -> Tensor | None:
    """Vectors of the semantic tokens, where the verifier groups them by sound: the voice's k-means centroids."""
    return bundle.centroids() if needs_embedding(spec.verifier) else None


def _load(
    bundle: Bundle, part: str, registry: Registry[Any], device: torch.device | str, dtype: torch.dtype | None
) -> Any:
    build = _builder(bundle, part, registry)
    shape = getattr(bundle.config, part)
    try:
        return bundle.build(lambda: build(shape, bundle.config), part, device=device, dtype=dtype)
    except ConfigError as error:
        raise _damaged(bundle, error) from None


def _builder(bundle: Bundle, part: str, registry: Registry[Any]) -> Any:
    kind = bundle.config.kinds[part]
    try:
        return registry.get(kind)
    except ConfigError as error:
        if kind in registry:  # it is installed and cannot be imported
            raise BundleError(f"voice {bundle.config.name!r}: {error}") from error
        whence = bundle.config.whence(kind, registry.names())
        raise BundleError(f"voice {bundle.config.name!r}: unknown {registry.what} {kind[:80]!r}; {whence}") from None


def _damaged(bundle: Bundle, error: Exception) -> BundleError:
    return BundleError(f"{bundle.path / 'config.json'}: {error}")
