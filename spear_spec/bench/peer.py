"""spear-tts-pytorch's own `generate` on the same weights: what the whole package is there to replace."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Sequence
from importlib import metadata
from typing import Any

import torch
from torch import Tensor

from spear_spec.bench.machine import now
from spear_spec.config import SamplingConfig
from spear_spec.decoding import probabilities
from spear_spec.errors import SpearSpecError
from spear_spec.models.contract import Target
from spear_spec.models.spear_tts import TextToSemantic

PACKAGE = "spear_tts_pytorch"
DISTRIBUTION = "spear-tts-pytorch"


def same_model(target: TextToSemantic) -> Any:
    """spear-tts-pytorch's `TextToSemantic` with our weights, on the same device and in the same dtype.

    Raises:
        MissingExtraError: the package is not installed.
    """
    from spear_spec.interop import to_spear_tts_state_dict
    from spear_spec.interop.shims import import_spear_tts

    package: Any = import_spear_tts()
    sys.modules[f"{PACKAGE}.{PACKAGE}"].tqdm = lambda steps: steps  # type: ignore[attr-defined]  # its bar costs time
    cfg = target.cfg
    model = package.TextToSemantic(
        dim=cfg.dim,
        source_depth=cfg.source_depth,
        target_depth=cfg.target_depth,
        heads=cfg.heads,
        dim_head=cfg.dim_head,
        num_text_token_ids=cfg.num_text_token_ids,
        num_semantic_token_ids=cfg.num_semantic_token_ids,
        target_kv_heads=cfg.kv_heads,
        ff_mult=cfg.ff_mult,
        target_early_exit_layer=cfg.early_exit_layer,
        cond_drop_prob=0.1,
    ).eval()  # it guides only with such a chance
    model.load_state_dict(to_spear_tts_state_dict(target))
    return model.to(device=target.device, dtype=target.dtype)


class Peer:
    """Its `generate` with its key/value cache, batch 1.

    Filters by our `probabilities` and draws at every step; the drawn token is then replaced by the one that our loop
    wrote, so that both write the same tokens whatever was drawn.
    """

    def __init__(self, target: TextToSemantic, law: SamplingConfig) -> None:
        self.model, self.law = same_model(target), law
        self.rates: list[float] = []

    def decode(self, written: Sequence[tuple[list[int], list[int]]], *, keep: bool = True) -> None:
        """Write these tokens for these texts (ids without end token), one after the other."""
        tokens, seconds = 0, 0.0
        for ids, wanted in written:
            text = torch.tensor([ids], device=self.model.device)
            began = now(self.model.device)
            found = self.model.generate(
                text,
                source_type="text",
                target_type="speech",
                filter_logits_fn=self._forced(wanted),
                max_length=len(wanted),
                cond_scale=self.law.guidance,
            )
            seconds += now(self.model.device) - began
            if found[0].tolist() != wanted:
                raise SpearSpecError(f"{DISTRIBUTION} wrote other tokens than it was made to")
            tokens += len(wanted)
        if keep:
            self.rates.append(tokens / seconds)

    def _forced(self, wanted: Sequence[int]) -> Callable[[Tensor], Tensor]:
        coming = iter(wanted)

        def choose(logits: Tensor) -> Tensor:
            probabilities(logits, self.law)
            only = torch.full_like(logits, float("-inf"))
            only[:, next(coming)] = 0.0  # its Gumbel draw then has one outcome
            return only

        return choose


def find_peer(target: Target, law: SamplingConfig, tell: Callable[[str], None]) -> Peer | None:
    """The peer where it is installed and can be built; says why where it is there and cannot."""
    if importlib.util.find_spec(PACKAGE) is None or not isinstance(target, TextToSemantic):
        return None
    try:
        return Peer(target, law)
    except Exception as error:  # other people's code: a bench must not fail for it
        tell(f"{DISTRIBUTION} is installed but cannot be measured: {error}")
        return None


def version() -> str:
    """Installed version of the peer."""
    return metadata.version(DISTRIBUTION)
