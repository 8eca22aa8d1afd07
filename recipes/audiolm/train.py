"""Train the real audiolm-pytorch's SoundStream, coarse and fine transformer on a folder of clips, in `.venv-peer`.

    .venv-peer/bin/python recipes/audiolm/train.py CLIPS TOKENS OUT [--clips 400] [--codec-steps 150] [--steps 500]

CLIPS: audio files, their path below it (without suffix, / as in TOKENS) is their id. TOKENS: semantic tokens of each id
(safetensors, as the recipe of a voice makes them). OUT gets `soundstream.pt`, `coarse.pt`, `fine.pt` (in the form of
the package's trainers) and `codes.safetensors`.

The modules, the losses and the quantiser's codebook updates are the package's. Its trainers are not used: they want
raw audio alone, with a HuBERT from fairseq, which does not import on Python 3.11, and a folder of checkpoints that they
delete. SoundStream is trained without its discriminators: on a CPU in minutes they only cost time.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from spear_spec.audio import load_audio
from spear_spec.interop.shims import import_spear_tts

RATE, HOP = 16000, 320  # 50 frames a second
COARSE, FINE, CODEBOOK = 2, 2, 128


def package() -> Any:
    """The real package. Its transformers ask the network how wide a text encoder is that they then do not use."""
    import_spear_tts()
    import audiolm_pytorch
    import audiolm_pytorch.t5 as t5
    import transformers

    t5.T5_CONFIGS[t5.DEFAULT_T5_NAME] = {"config": transformers.T5Config()}
    return audiolm_pytorch


def read(clips: Path, tokens: Path, count: int) -> dict[str, tuple[Tensor, Tensor]]:
    """Samples [T] at RATE and semantic tokens [S] of the first `count` clips, by id."""
    found: dict[str, tuple[Tensor, Tensor]] = {}
    with safe_open(tokens, "pt") as file:
        known = set(file.keys())
        for path in sorted(clips.rglob("*.ogg")) + sorted(clips.rglob("*.wav")):
            key = path.relative_to(clips).with_suffix("").as_posix()
            if key in known:
                samples = torch.from_numpy(np.array(load_audio(path, RATE).samples))
                found[key] = (samples[: len(samples) // HOP * HOP], file.get_tensor(key).long())
            if len(found) == count:
                break
    return found


def spectral(one: Tensor, other: Tensor) -> Tensor:
    """Distance of log magnitudes at three resolutions."""
    loss = one.new_zeros(())
    for size in (256, 512, 1024):
        window = torch.hann_window(size)
        a, b = (torch.stft(x, size, size // 4, window=window, return_complex=True).abs() for x in (one, other))
        loss = loss + (a.add(1e-3).log() - b.add(1e-3).log()).abs().mean() + 10 * (a - b).abs().mean() / size**0.5
    return loss


def train_codec(codec: nn.Module, data: list[Tensor], steps: int) -> None:
    """The autoencoder alone, without its quantiser: trained together from the start, in a hundred steps one to ten
    codes are left of a codebook, with the package's commitment loss and without. See `fit_codebooks`.
    """
    optimizer = torch.optim.AdamW(codec.non_discr_parameters(), lr=5e-4, betas=(0.8, 0.95))  # type: ignore[operator]
    codec.train()
    for step in range(steps):
        rows = [random.choice(data) for _ in range(8)]
        cuts = [random.randrange(max(len(row) - RATE, 1)) for row in rows]
        batch = torch.stack([nn.functional.pad(row[at : at + RATE], (0, max(0, RATE - len(row) + at)))
                             for row, at in zip(rows, cuts)])  # fmt: skip
        encoded = codec.encoder_attn(codec.encoder(batch[:, None]).transpose(1, 2))  # type: ignore[operator]
        loss = spectral(codec.decode(encoded).squeeze(1), batch)  # type: ignore[operator]
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(codec.parameters(), 1.0)
        optimizer.step()
        if step % 25 == 0 or step == steps - 1:
            print(f"soundstream {step} {loss.item():.3f}", flush=True)
    codec.eval()


@torch.no_grad()
def fit_codebooks(codec: Any, data: list[Tensor], rounds: int = 12) -> None:
    """Codebooks of the package's residual quantiser by k-means on what its encoder says, one after the other."""
    frames = torch.cat([codec.encoder_attn(codec.encoder(row[None, None]).transpose(1, 2))[0] for row in data])
    left = frames[torch.randperm(len(frames))[:16000]]
    for layer in codec.rq.rvqs[0].layers:
        book = left[torch.randperm(len(left))[:CODEBOOK]].clone()
        for _ in range(rounds):
            nearest = torch.cdist(left, book).argmin(1)
            counts = torch.bincount(nearest, minlength=CODEBOOK)
            means = torch.zeros_like(book).index_add_(0, nearest, left) / counts.clamp_min(1)[:, None]
            book = torch.where(counts[:, None] > 0, means, left[torch.randperm(len(left))[:CODEBOOK]])
        own = layer._codebook
        own.embed.copy_(book[None])
        own.embed_avg.copy_(book[None])
        own.cluster_size.fill_(1.0)
        own.initted.fill_(True)
        left = left - book[torch.cdist(left, book).argmin(1)]
        print("residual", (left.pow(2).sum(1).mean() / frames.var(0).sum()).item(), flush=True)


def train_writer(name: str, wrapper: nn.Module, draw: Any, steps: int) -> None:
    """The package's wrapper and loss; draw: keyword arguments of a batch."""
    optimizer = torch.optim.AdamW(wrapper.transformer.parameters(), lr=1e-3)  # type: ignore[union-attr]
    wrapper.train()
    began = time.perf_counter()
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * min(1, (step + 1) / 50) * max(0.05, 1 - step / steps)
        loss = wrapper(**draw(), return_loss=True)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(wrapper.parameters(), 1.0)
        optimizer.step()
        if step % 50 == 0 or step == steps - 1:
            print(f"{name} {step} {loss.item():.3f} {time.perf_counter() - began:.0f}s", flush=True)
    wrapper.eval()


def save(model: nn.Module, path: Path) -> None:
    torch.save({"model": model.state_dict(), "version": "2.4.0"}, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", type=Path)
    parser.add_argument("tokens", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--clips", dest="count", type=int, default=400)
    parser.add_argument("--codec-steps", type=int, default=150)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--fine-steps", type=int, default=100)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--depth", type=int, default=4)
    args = parser.parse_args()
    torch.manual_seed(0)
    random.seed(0)
    args.out.mkdir(parents=True, exist_ok=True)
    peer = package()
    data = read(args.clips, args.tokens, args.count)
    semantic = 1 + max(int(tokens.max()) for _, tokens in data.values())
    print(len(data), "clips", sum(len(samples) for samples, _ in data.values()) / RATE / 60, "minutes", flush=True)
    codec = peer.SoundStream(
        channels=8, strides=(2, 4, 5, 8), channel_mults=(2, 4, 4, 8), codebook_dim=64, codebook_size=CODEBOOK,
        rq_num_quantizers=COARSE + FINE, attn_window_size=64, attn_heads=2, attn_dim_head=32, target_sample_hz=RATE,
    )  # fmt: skip
    train_codec(codec, [samples for samples, _ in data.values()], args.codec_steps)
    fit_codebooks(codec, [samples for samples, _ in data.values()])
    save(codec, args.out / "soundstream.pt")
    codes = {}
    with torch.inference_mode():
        for key, (samples, _) in data.items():
            codes[key] = codec(samples[None], return_encoded=True)[1][0].clone()
    used = torch.cat(list(codes.values()))
    print("codes in use", [len(used[:, q].unique()) for q in range(used.shape[1])], flush=True)
    held = {f"codes/{key}": value.int() for key, value in codes.items()}
    save_file({**held, **{f"semantic/{key}": t.int() for key, (_, t) in data.items()}}, args.out / "codes.safetensors")

    keys = [key for at, key in enumerate(data) if at % 20]  # every twentieth is held out

    def window(key: str, frames: int) -> tuple[Tensor, Tensor]:
        """A cut that begins with the clip, so that a first frame is learnt too: half as many tokens as frames."""
        own, tokens = codes[key], data[key][1]
        count = min(frames, len(own), 2 * len(tokens)) // 2 * 2
        return own[:count], tokens[: count // 2]

    def coarse_batch() -> dict[str, Tensor]:
        chosen = [window(random.choice(keys), 120) for _ in range(8)]
        shortest = min(len(own) for own, _ in chosen)
        return {
            "semantic_token_ids": torch.stack([tokens[: shortest // 2] for _, tokens in chosen]),
            "coarse_token_ids": torch.stack([own[:shortest, :COARSE] for own, _ in chosen]),
        }

    def fine_batch() -> dict[str, Tensor]:
        chosen = [window(random.choice(keys), 60)[0] for _ in range(6)]
        shortest = min(map(len, chosen))
        own = torch.stack([rows[:shortest] for rows in chosen])
        return {"coarse_token_ids": own[..., :COARSE], "fine_token_ids": own[..., COARSE:]}

    sizes = {"dim": args.dim, "depth": args.depth, "heads": 4, "dim_head": 32, "codebook_size": CODEBOOK}
    coarse = peer.CoarseTransformer(num_coarse_quantizers=COARSE, num_semantic_tokens=semantic, **sizes)
    wrapper = peer.CoarseTransformerWrapper(transformer=coarse, codec=codec, unique_consecutive=False)
    train_writer("coarse", wrapper, coarse_batch, args.steps)
    save(coarse, args.out / "coarse.pt")
    fine = peer.FineTransformer(num_coarse_quantizers=COARSE, num_fine_quantizers=FINE, **sizes)
    train_writer("fine", peer.FineTransformerWrapper(transformer=fine, codec=codec), fine_batch, args.fine_steps)
    save(fine, args.out / "fine.pt")


if __name__ == "__main__":
    main()
