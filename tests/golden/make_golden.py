"""Make the golden files from the real spear-tts-pytorch: `python tests/golden/make_golden.py`, in the environment of `make test-peer`.

One file a case, with float32 weights (used in both precisions), inputs, and what the real package computes:
    logits       its uncached forward, float64, 200 target tokens [B, 201, V]
    logits_f32   the same in float32, every eighth position
    logits_one   its uncached forward for one target token [B, 2, V]
    null         its uncached forward with the condition dropped, every eighth position
    guided       what its cached `generate` hands to the filter, step by step along forced tokens, at cond_scale 3
    guided_f32   the same in float32
    early        its early-exit head on the early layer's state [B, 201, V] (the case with that head)
"""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from spear_spec.interop.shims import import_spear_tts

HERE = Path(__file__).parent
CASES: dict[str, dict[str, Any]] = {
    "plain": {"dim": 12, "source_depth": 2, "target_depth": 2, "heads": 2, "dim_head": 8, "ff_mult": 2},
    "grouped": {"dim": 12, "source_depth": 1, "target_depth": 2, "heads": 4, "dim_head": 6, "ff_mult": 2, "target_kv_heads": 2},
    "early_exit": {"dim": 12, "source_depth": 1, "target_depth": 3, "heads": 2, "dim_head": 8, "ff_mult": 1, "target_early_exit_layer": 2},
}
TEXT, SEMANTIC, LENGTH, GUIDED, STRIDE = 9, 5, 200, 40, 8


def forced(targets: Tensor, seen: list[Tensor]) -> Callable[..., Tensor]:
    """A logits filter for `generate` that notes what it is given and leaves only the wanted token."""

    def choose(logits: Tensor) -> Tensor:
        seen.append(logits.clone())
        only = torch.full_like(logits, float("-inf"))
        return only.scatter(-1, targets[:, len(seen) - 1, None], 0.0)

    return choose


@torch.no_grad()
def outputs(model: Any, text: Tensor, tokens: Tensor) -> dict[str, Tensor]:
    """Everything the tests compare, in the model's precision."""
    kind = {"source_type": "text", "target_type": "speech"}
    found = {
        "logits": model(text, tokens, cond_drop_prob=0.0, **kind),
        "logits_one": model(text, tokens[:, :1], cond_drop_prob=0.0, **kind),
        "null": model(text, tokens, cond_drop_prob=1.0, **kind)[:, ::STRIDE],
    }
    seen: list[Tensor] = []
    model.generate(text, filter_logits_fn=forced(tokens, seen), cond_scale=3.0, max_length=GUIDED, **kind)
    found["guided"] = torch.stack(seen, dim=1)
    if model.target_has_early_exit:
        ended = torch.nn.functional.pad(text, (0, 1))
        ended[torch.arange(len(text)), (text != 0).sum(-1)] = TEXT
        source = model.source_transformer(model.token_emb["text"](ended), mask=ended != 0)
        start = model.start_token["speech"].expand(len(text), 1, -1)
        state = model.target_transformer(torch.cat((start, model.token_emb["speech"](tokens)), 1), context=source,
                                         context_mask=ended != 0, early_exit_at_layer=model.early_exit_layer)
        found["early"] = model.to_early_exit_semantic_logits(state)
    return found


def case(name: str, shape: dict[str, Any], seed: int, out: Path) -> None:
    peer = import_spear_tts()
    torch.manual_seed(seed)
    model = peer.TextToSemantic(num_text_token_ids=TEXT, num_semantic_token_ids=SEMANTIC, cond_drop_prob=0.1, **shape).eval()
    for parameter in model.parameters():  # gains away from 1
        if parameter.requires_grad:
            parameter.data.add_(0.1 * torch.randn_like(parameter))
    text = torch.randint(1, TEXT, (3, 7))
    text[1, 4:] = 0
    text[2, 1:] = 0
    tokens = torch.randint(0, SEMANTIC, (3, LENGTH))
    weights = {f"weights/{key}": value.clone() for key, value in model.state_dict().items()
               if not key.startswith(("to_logits.", "token_emb.speech"))}
    found = outputs(copy.deepcopy(model).double(), text, tokens)  # a copy: a float32 forward leaves float32 angles in its cache
    single = outputs(model, text, tokens)
    found["logits_f32"], found["guided_f32"] = single["logits"][:, ::STRIDE], single["guided"]
    meta = {"shape": json.dumps(shape), "package": "spear-tts-pytorch 0.4.8", "stride": str(STRIDE)}
    tensors = {**weights, **found, "text": text, "tokens": tokens}
    save_file({key: value.contiguous() for key, value in tensors.items()}, out / f"{name}.safetensors", meta)
    (out / f"{name}.safetensors").chmod(0o644)


def main() -> None:
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE
    for seed, (name, shape) in enumerate(CASES.items()):
        case(name, shape, seed, out)
        print(name, (out / f"{name}.safetensors").stat().st_size)


if __name__ == "__main__":
    main()
