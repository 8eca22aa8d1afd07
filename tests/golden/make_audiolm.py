"""Make the golden files from the real audiolm-pytorch 2.4.0, in the environment of `make test-peer`.

    python tests/golden/make_audiolm.py [FOLDER]

One file a case: random float32 weights (`weights/...`), as metadata what the weights do not tell (`options`), and what
the real package computes in float32, one row at a time (row b's prefix has `lengths[b]` tokens, the rest is padding):
    prefix [B, S], written [B, T]     forced tokens: what is read first, and what is written, as the package counts them
    logits [B, T + 1, C]              its uncached forward; the law of written token i is at i
    greedy [B, G]                     its own cached `generate`, best code each time, -1 behind the end
    repeated [B, 2 S]                 the prefix with repeats, which `generate` was given (coarse alone)

SoundStream's cases hold instead `samples` [B, T], `codes` [B, F, Q] that the package's encoder and quantiser make of
them, and `decoded` [B, F * hop], what its decoder makes of these codes; of `weights` only what a codec needs.
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from spear_spec.interop.shims import import_spear_tts

HERE = Path(__file__).parent
SEMANTIC, CODEBOOK, COARSE, FINE = 11, 9, 3, 2
LENGTHS = (9, 4, 6)
COARSE_CASES: dict[str, dict[str, Any]] = {
    "coarse": {"dim": 16, "depth": 3, "heads": 3, "dim_head": 6},
    "coarse_bare": {
        "dim": 14,
        "depth": 2,
        "heads": 2,
        "dim_head": 8,
        "rel_pos_bias": False,
        "num_residual_streams": 1,
        "add_value_residual": False,
    },
}
CODEC: dict[str, Any] = {
    "channels": 4, "strides": (2, 4), "channel_mults": (2, 2), "codebook_dim": 8, "codebook_size": CODEBOOK,
    "rq_num_quantizers": COARSE + FINE, "attn_window_size": 8, "attn_depth": 1, "attn_heads": 2, "attn_dim_head": 8,
    "target_sample_hz": 16000,
}  # fmt: skip

CODEC_CASES: dict[str, dict[str, Any]] = {
    "soundstream": {"codebook_dim": 12},
    # two buckets of attention and more, groups, two layers, another padding, three blocks
    "soundstream_grouped": {
        "channels": 3, "strides": (2, 3, 5), "channel_mults": (1, 2, 3), "codebook_dim": 8, "rq_groups": 2,
        "rq_num_quantizers": 2, "attn_window_size": 5, "attn_depth": 2, "attn_xpos_scale_base": 7,
        "pad_mode": "constant", "enc_cycle_dilations": (1, 2, 3), "dec_cycle_dilations": (2, 1, 2),
    },
}  # fmt: skip


def package() -> Any:
    """The real package. Its transformers ask the network how wide a text encoder is that they then do not use."""
    import_spear_tts()
    import audiolm_pytorch
    import audiolm_pytorch.t5 as t5
    import transformers

    t5.T5_CONFIGS[t5.DEFAULT_T5_NAME] = {"config": transformers.T5Config(d_model=24)}
    return audiolm_pytorch


@torch.no_grad()
def lively(model: nn.Module, size: float = 1.2) -> Any:
    """Random weights away from the package's start, where streams are not mixed and biases are zero. size: of a
    product's; the larger, the more a rounding error grows.
    """
    for name, parameter in model.named_parameters():
        width = parameter.shape[-1] if parameter.ndim else 1
        if name.endswith(("gamma", "scale")) or "static" in name:
            parameter.add_(0.3 * torch.randn_like(parameter))
        elif "dynamic" in name or ("bias" in name and parameter.ndim != 2):
            parameter.normal_(0, 0.7)
        elif "logit_weights" in name:
            parameter.normal_(0, 1.5 * width**-0.5)
        elif "embedding" in name or "start" in name:
            parameter.normal_(0, 1.0)
        else:
            parameter.normal_(0, size * width**-0.5)
    return model.eval()


def codec(quantizers: int = COARSE + FINE) -> Any:
    """A small SoundStream: the package's wrappers do not work without one."""
    return package().SoundStream(**{**CODEC, "rq_num_quantizers": quantizers}).eval()


@torch.no_grad()
def soundstream(**options: Any) -> Any:
    """The package's SoundStream of these sizes with random weights and codebooks that it would have fitted."""
    model = package().SoundStream(**{**CODEC, **options}).eval()
    for name, parameter in model.named_parameters():
        if "discr" in name:
            continue
        if name.endswith(("q_scale", "k_scale")) or ("norm" in name and name.endswith("weight")):
            parameter.add_(0.3 * torch.randn_like(parameter))
        elif name.endswith("bias"):
            parameter.normal_(0, 0.3)
        else:
            parameter.normal_(0, 1.3 * parameter[0].numel() ** -0.5)
    spread = model.encoder_attn(model.encoder(torch.randn(1, 1, 64 * model.downsample_factor)).transpose(1, 2)).std()
    for group in model.rq.rvqs:
        for at, layer in enumerate(group.layers):
            layer._codebook.embed.normal_(0, float(spread) * 0.7**at)
            layer._codebook.initted.fill_(True)
    said = model.decode_from_codebook_indices(
        torch.randint(0, CODEBOOK, (1, 64, model.num_quantizers * model.rq_groups))
    )
    for parameter in model.decoder[-1].parameters():
        parameter /= 3 * said.std()  # as loud as speech
    return model


def kept(model: nn.Module) -> dict[str, Tensor]:
    """The tensors of a codec: without discriminators and losses."""
    spare = ("discriminators", "stft_discriminator", "mel_spec_transforms", "encoder_film", "decoder_film")
    return {name: value for name, value in model.state_dict().items() if not name.startswith(spare)}


@torch.no_grad()
def soundstream_case(name: str, options: dict[str, Any], seed: int, out: Path) -> None:
    torch.manual_seed(seed)
    model = soundstream(**options)
    samples = torch.randn(2, 25 * model.downsample_factor)
    codes = model(samples, return_encoded=True)[1]
    decoded = model.decode_from_codebook_indices(codes)[:, 0]
    told = {"window": model.encoder_attn.window_size}
    write(
        out / f"audiolm_{name}.safetensors",
        model,
        {"samples": samples, "codes": codes, "decoded": decoded},
        told_of(told, options),
    )
    print([len(codes[..., at].unique()) for at in range(codes.shape[-1])], decoded.std().item())


def told_of(told: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
    """What our loader is told of the package's options."""
    return {**told, **{ours: options[theirs] for ours, theirs in TOLD.items() if theirs in options}}


TOLD = {"decay": "attn_xpos_scale_base", "pad": "pad_mode", "encoder_dilations": "enc_cycle_dilations",
        "decoder_dilations": "dec_cycle_dilations"}  # fmt: skip


def coarse(size: float = 1.2, **options: Any) -> Any:
    """The package's coarse transformer of these sizes, with lively weights."""
    return lively(
        package().CoarseTransformer(
            codebook_size=CODEBOOK, num_coarse_quantizers=COARSE, num_semantic_tokens=SEMANTIC, **options
        ),
        size,
    )


def pairs(length: int, batch: int, ids: int) -> Tensor:
    """[B, length] random ids, no two neighbours alike."""
    steps = torch.randint(1, ids, (batch, length))
    return steps.cumsum(-1) % ids


@torch.no_grad()
def greedy(model: Any, prefix: Tensor, steps: int, primed: Tensor | None = None) -> Tensor:
    """[1, steps, quantizers]: its own cached `generate` with the best code each time (a filter that leaves one)."""
    wrapper = package().CoarseTransformerWrapper(transformer=model, codec=codec(), unique_consecutive=True)
    more = {} if primed is None else {"prime_coarse_token_ids": primed}
    return wrapper.generate(semantic_token_ids=prefix, max_time_steps=steps, filter_thres=1.0, **more)  # type: ignore[no-any-return]


@torch.no_grad()
def coarse_case(name: str, options: dict[str, Any], seed: int, out: Path) -> None:
    torch.manual_seed(seed)
    random.seed(seed)  # the package draws the stream that a layer begins with
    model = coarse(**options)
    model.coarse_logit_weights[0, -1] *= 1.7  # it ends now and then
    prefix, written = pairs(max(LENGTHS), len(LENGTHS), SEMANTIC), torch.randint(0, CODEBOOK, (len(LENGTHS), 22))
    logits, said, repeated = [], [], prefix.repeat_interleave(2, 1)
    for row, length in enumerate(LENGTHS):
        semantic, own = prefix[row : row + 1, :length], written[row : row + 1]
        logits.append(model(semantic_token_ids=semantic, coarse_token_ids=own, cond_drop_prob=0.0)[1][0])
        said.append(greedy(model, repeated[row : row + 1, : 2 * length], 24).flatten())
    found = {"prefix": prefix, "lengths": torch.tensor(LENGTHS), "written": written, "logits": torch.stack(logits),
             "greedy": torch.stack(said), "repeated": repeated}  # fmt: skip
    write(
        out / f"audiolm_{name}.safetensors", model, found, {"value_residual": options.get("add_value_residual", True)}
    )
    print([(row >= 0).sum().item() for row in said], torch.stack(logits).softmax(-1).amax(-1).mean().item())


def fine(size: float = 1.2, **options: Any) -> Any:
    """The package's fine transformer of these sizes, with lively weights."""
    return lively(
        package().FineTransformer(
            codebook_size=CODEBOOK, num_coarse_quantizers=COARSE, num_fine_quantizers=FINE, **options
        ),
        size,
    )


@torch.no_grad()
def fine_greedy(model: Any, prefix: Tensor) -> Tensor:
    """[1, S / COARSE, FINE]: as `greedy`."""
    wrapper = package().FineTransformerWrapper(transformer=model, codec=codec())
    return wrapper.generate(coarse_token_ids=prefix, filter_thres=1.0)  # type: ignore[no-any-return]


@torch.no_grad()
def fine_case(name: str, options: dict[str, Any], seed: int, out: Path) -> None:
    torch.manual_seed(seed)
    random.seed(seed)  # the package draws the stream that a layer begins with
    model = fine(**options)
    model.fine_logit_weights[:, -1] *= 0.01  # `generate` bars the last code at most places, as if it were an end token
    lengths = tuple(COARSE * frames for frames in LENGTHS)
    prefix, written = (torch.randint(0, CODEBOOK, (len(lengths), n * max(LENGTHS))) for n in (COARSE, FINE))
    logits, said = [], []
    for row, length in enumerate(lengths):
        coarse, own = prefix[row : row + 1, :length], written[row : row + 1, : length * FINE // COARSE - 1]
        found = model(coarse_token_ids=coarse, fine_token_ids=own, cond_drop_prob=0.0)[1][0]
        logits.append(nn.functional.pad(found, (0, 0, 0, written.shape[1] - len(found))))
        codes = fine_greedy(model, coarse).flatten()
        said.append(nn.functional.pad(codes, (0, written.shape[1] - len(codes)), value=-1))
    found = {"prefix": prefix, "lengths": torch.tensor(lengths), "written": written[:, :-1],
             "logits": torch.stack(logits), "greedy": torch.stack(said)}  # fmt: skip
    told = {"value_residual": options.get("add_value_residual", True)}
    write(out / f"audiolm_{name}.safetensors", model, found, told)
    print([len(set(row.tolist())) for row in said])


def write(path: Path, model: nn.Module, found: dict[str, Tensor], options: dict[str, Any]) -> None:
    tensors = {**{f"weights/{key}": value for key, value in kept(model).items()}, **found}
    meta = {"options": json.dumps(options), "package": "audiolm-pytorch 2.4.0"}
    save_file({key: value.contiguous().clone() for key, value in tensors.items()}, path, meta)
    path.chmod(0o644)
    print(path.name, path.stat().st_size)


def main() -> None:
    out = Path(sys.argv[1]) if sys.argv[1:] else HERE
    for seed, (name, options) in enumerate(COARSE_CASES.items()):
        coarse_case(name, options, seed, out)
        fine_case(name.replace("coarse", "fine"), options, seed + 10, out)
    for seed, (name, options) in enumerate(CODEC_CASES.items()):
        soundstream_case(name, options, seed + 20, out)


if __name__ == "__main__":
    main()
