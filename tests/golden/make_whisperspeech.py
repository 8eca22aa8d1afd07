"""Make the golden files from the real WhisperSpeech, in the environment of `make test-peer`.

    python tests/golden/make_whisperspeech.py [FOLDER]

One file a case: random float32 weights (`weights/...`) and, as metadata, the `config` and `tunables` that the package
saves beside them; the requests; and what the real package computes in float32:
    text [B, S], languages [B], rates [B], tokens [B, T]    the requests, and forced semantic tokens
    logits [B, T + 1, V]     its uncached forward on `[start, *tokens]`
    stepped [B, T + 1, V]    what its own cached `generate` hands to the sampler, step by step along the same tokens
`micro` has the shape of the package's smallest model but for its width. `projected` has everything else: embeddings of
widths of their own, an encoder that looks ahead, other multipliers, and no `padding_token_offset`, as old files.
"""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from whisperspeech import inference, languages
from whisperspeech.t2s_up_wds_mlang_enclm import TSARTransformer, Tunables

HERE = Path(__file__).parent
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "micro": ({"depth": 2, "n_head": 3, "head_width": 6, "ffn_mult": 1, "stoks_codes": 11}, {}),
    "projected": (
        {"depth": 3, "n_head": 2, "head_width": 6, "ffn_mult": 2, "stoks_codes": 9, "stoks_width": 5, "ttoks_width": 7},
        {
            "causal_encoder": False,
            "query_mult": 1.5,
            "output_mult": 0.5,
            "encoder_depth_ratio": 0.35,
            "cps_bins": 12,
            "padding_token_offset": -1,
        },
    ),
}
TEXT_LENGTH, LENGTH = 28, 36
REQUESTS = [("Hello there, world.", "en", 15.0), (" Zażółć gęślą", "polish", 4.9), ("はい!", "ja", 40.0)]


@torch.no_grad()
def lively(model: TSARTransformer) -> None:
    """Random weights away from the package's start, where every query is zero."""
    for name, parameter in model.named_parameters():
        width = parameter.shape[-1]
        if "lang_embeddings" in name or "cps_embeddings" in name:
            parameter.normal_(0, 0.5)
        elif "ln" in name:
            parameter.add_(0.2 * torch.randn_like(parameter))
        elif parameter.ndim == 1:
            parameter.normal_(0, 0.3)
        else:
            parameter.normal_(0, 0.4 if "embedding" in name else 1.1 * width**-0.5)


def padded(model: TSARTransformer, text: str) -> Tensor:
    """[S]: text bytes as `generate` lays them out: one end-of-text byte before, as many behind as fit."""
    data = torch.tensor(model.tokenizer.encode(text))
    return torch.nn.functional.pad(data, (1, model.ttoks_len - len(data) - 1), value=model.tokenizer.eot)


@torch.no_grad()
def stepped(model: TSARTransformer, request: tuple[str, str, float], tokens: Tensor) -> Tensor:
    """[T + 1, V]: the logits that `generate` samples from, along forced tokens [T]."""
    seen: list[Tensor] = []

    def sample(logits: Tensor, *_: Any) -> Tensor:
        seen.append(logits[0].clone())
        return tokens[len(seen) - 1].view(1, 1) if len(seen) <= len(tokens) else torch.zeros(1, 1, dtype=torch.long)

    text, language, rate = request
    drawn, inference.sample = inference.sample, sample
    try:
        model.generate(text, cps=rate, lang=language, N=len(tokens) + 2, show_progress_bar=False)
    finally:
        inference.sample = drawn
    return torch.stack(seen)


@torch.no_grad()
def case(name: str, shape: dict[str, Any], tunables: dict[str, Any], seed: int, out: Path) -> None:
    torch.manual_seed(seed)
    model = TSARTransformer(
        **shape, ttoks_len=TEXT_LENGTH, stoks_len=LENGTH, ttoks_codes=256, tunables=Tunables(**tunables)
    ).eval()
    lively(model)
    model.ensure_tokenizer()
    start = model.stoks_codes + model.tunables.padding_token_offset
    tokens = torch.randint(0, start, (len(REQUESTS), LENGTH - 2))
    text = torch.stack([padded(model, text) for text, _, _ in REQUESTS])
    spoken = torch.tensor([languages.to_id(language) for _, language, _ in REQUESTS])
    rates = torch.tensor([rate for _, _, rate in REQUESTS])
    read = torch.cat((torch.full((len(tokens), 1), start), tokens), 1)
    logits, _ = model(text, None, spoken, rates, read, in_stoks_positions=torch.arange(read.shape[1]), loss=None)
    cached = copy.deepcopy(model)
    cached.optimize(max_batch_size=1, dtype=torch.float32, torch_compile=False)
    steps = torch.stack([stepped(cached, request, row) for request, row in zip(REQUESTS, tokens)])
    model.save_model(out / "saved.model")
    saved = torch.load(out / "saved.model", weights_only=True)
    (out / "saved.model").unlink()
    if model.tunables.padding_token_offset == -1:
        del saved["tunables"]["padding_token_offset"]
    meta = {
        "config": json.dumps(saved["config"]),
        "tunables": json.dumps(saved["tunables"]),
        "requests": json.dumps(REQUESTS),
        "package": "WhisperSpeech 0.8.9",
    }
    found = {"text": text, "languages": spoken, "rates": rates, "tokens": tokens, "logits": logits, "stepped": steps}
    tensors = {**{f"weights/{key}": value for key, value in saved["state_dict"].items()}, **found}
    path = out / f"whisperspeech_{name}.safetensors"
    save_file({key: value.contiguous().clone() for key, value in tensors.items()}, path, meta)
    path.chmod(0o644)
    worst = (logits - steps).abs().max().item()
    law = logits.softmax(-1)
    print(name, path.stat().st_size, f"cached against uncached {worst:.1e}", law.amax(-1).mean().item(), meta["config"])


def main() -> None:
    out = Path(sys.argv[1]) if sys.argv[1:] else HERE
    for seed, (name, (shape, tunables)) in enumerate(CASES.items()):
        case(name, shape, tunables, seed, out)


if __name__ == "__main__":
    main()
