"""Make the golden files from the real spear-tts-pytorch, in the environment of `make test-peer`.

    python tests/golden/make_golden.py [FOLDER]            random weights
    python tests/golden/make_golden.py --voice [FOLDER]    the voice that ships: again whenever its weights change

voice.safetensors holds no weights, only inputs, the checksums of the shards, and the float64 logits of the real
package at some of the vocabulary (`columns`). The others: one file a case, with float32 weights (used in both
precisions), inputs, and what the real package computes:
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

from spear_spec.config import T2SConfig
from spear_spec.interop import to_spear_tts_state_dict
from spear_spec.interop.shims import import_spear_tts
from spear_spec.models.spear_tts import TextToSemantic
from spear_spec.voice.bundle import open_voice

HERE = Path(__file__).parent
CASES: dict[str, dict[str, Any]] = {
    "plain": {"dim": 12, "source_depth": 2, "target_depth": 2, "heads": 2, "dim_head": 8, "ff_mult": 2},
    "grouped": {
        "dim": 12,
        "source_depth": 1,
        "target_depth": 2,
        "heads": 4,
        "dim_head": 6,
        "ff_mult": 2,
        "target_kv_heads": 2,
    },
    "early_exit": {
        "dim": 12,
        "source_depth": 1,
        "target_depth": 3,
        "heads": 2,
        "dim_head": 8,
        "ff_mult": 1,
        "target_early_exit_layer": 2,
    },
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
        state = model.target_transformer(
            torch.cat((start, model.token_emb["speech"](tokens)), 1),
            context=source,
            context_mask=ended != 0,
            early_exit_at_layer=model.early_exit_layer,
        )
        found["early"] = model.to_early_exit_semantic_logits(state)
    return found


def case(name: str, shape: dict[str, Any], seed: int, out: Path) -> None:
    peer = import_spear_tts()
    torch.manual_seed(seed)
    model = peer.TextToSemantic(
        num_text_token_ids=TEXT, num_semantic_token_ids=SEMANTIC, cond_drop_prob=0.1, **shape
    ).eval()
    for parameter in model.parameters():  # gains away from 1
        if parameter.requires_grad:
            parameter.data.add_(0.1 * torch.randn_like(parameter))
    text = torch.randint(1, TEXT, (3, 7))
    text[1, 4:] = 0
    text[2, 1:] = 0
    tokens = torch.randint(0, SEMANTIC, (3, LENGTH))
    weights = {
        f"weights/{key}": value.clone()
        for key, value in model.state_dict().items()
        if not key.startswith(("to_logits.", "token_emb.speech"))
    }
    found = outputs(
        copy.deepcopy(model).double(), text, tokens
    )  # a copy: a float32 forward leaves float32 angles in its cache
    single = outputs(model, text, tokens)
    found["logits_f32"], found["guided_f32"] = single["logits"][:, ::STRIDE], single["guided"]
    meta = {"shape": json.dumps(shape), "package": "spear-tts-pytorch 0.4.8", "stride": str(STRIDE)}
    tensors = {**weights, **found, "text": text, "tokens": tokens}
    save_file({key: value.contiguous() for key, value in tensors.items()}, out / f"{name}.safetensors", meta)
    (out / f"{name}.safetensors").chmod(0o644)


@torch.no_grad()
def voice(out: Path) -> None:
    """The shipped voice's weights in the real package."""
    bundle = open_voice()
    ours = TextToSemantic(T2SConfig.from_dict(bundle.config.t2s))
    bundle.load_into(ours, "t2s")
    cfg = ours.cfg
    model = (
        import_spear_tts()
        .TextToSemantic(
            dim=cfg.dim,
            source_depth=cfg.source_depth,
            target_depth=cfg.target_depth,
            num_text_token_ids=cfg.num_text_token_ids,
            num_semantic_token_ids=cfg.num_semantic_token_ids,
            dim_head=cfg.dim_head,
            heads=cfg.heads,
            target_kv_heads=cfg.kv_heads,
            ff_mult=cfg.ff_mult,
            target_early_exit_layer=cfg.early_exit_layer,
        )
        .eval()
        .double()
    )
    model.load_state_dict({name: tensor.double() for name, tensor in to_spear_tts_state_dict(ours).items()})
    torch.manual_seed(0)
    text = torch.randint(1, cfg.num_text_token_ids, (2, 50))
    text[1, 20:] = 0
    tokens = torch.randint(0, cfg.num_semantic_token_ids, (2, 60))
    columns = torch.cat(
        (torch.randperm(cfg.num_semantic_token_ids)[:30].sort().values, torch.tensor([cfg.num_semantic_token_ids]))
    )
    found = {
        "logits": model(text, tokens, source_type="text", target_type="speech")[:, :, columns],
        "text": text,
        "tokens": tokens,
        "columns": columns,
    }
    meta = {
        "shards": json.dumps([shard["sha256"] for shard in bundle.config.files["t2s"]]),
        "package": "spear-tts-pytorch 0.4.8",
    }
    save_file({key: value.contiguous() for key, value in found.items()}, out / "voice.safetensors", meta)
    (out / "voice.safetensors").chmod(0o644)


def main() -> None:
    arguments = sys.argv[1:]
    if "--voice" in arguments:
        arguments.remove("--voice")
        return voice(Path(arguments[0]) if arguments else HERE)
    out = Path(arguments[0]) if arguments else HERE
    for seed, (name, shape) in enumerate(CASES.items()):
        case(name, shape, seed, out)
        print(name, (out / f"{name}.safetensors").stat().st_size)


if __name__ == "__main__":
    main()
