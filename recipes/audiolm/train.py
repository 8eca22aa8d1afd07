"""Train audiolm-pytorch's SoundStream, coarse or fine transformer with the package's own trainers, in `.venv-peer`.

    .venv-peer/bin/python recipes/audiolm/train.py OUT --conf recipes/audiolm/conf/tiny.toml [--only coarse]

OUT is what `prepare.py` has made; it gets `soundstream.pt`, `coarse.pt`, `fine.pt`, in the form of the package's
trainers; what stands there already is not trained again. README.md says what of the package works and what is put
right here.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
import tomllib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from clips import Clips, Crops

from spear_spec.interop.shims import import_spear_tts

PARTS = ("soundstream", "coarse", "fine")


def package() -> Any:
    """The real package. Its transformers ask the network how wide a text encoder is that they then do not use."""
    import_spear_tts()
    import audiolm_pytorch
    import audiolm_pytorch.t5 as t5
    import transformers

    t5.T5_CONFIGS[t5.DEFAULT_T5_NAME] = {"config": transformers.T5Config()}
    return audiolm_pytorch


def soundstream(peer: Any, conf: dict[str, Any]) -> Any:
    """The codec of a configuration, untrained."""
    shape = {name: tuple(value) if isinstance(value, list) else value for name, value in conf["codec"].items()}
    for spare in ("sample_rate", "discriminator_channels"):
        shape.pop(spare)
    return peer.SoundStream(
        **shape,
        target_sample_hz=conf["codec"]["sample_rate"],
        complex_stft_discr_kwargs={"channels": conf["codec"]["discriminator_channels"]},
    )


def read_clips(out: Path, conf: dict[str, Any]) -> tuple[Clips, list[str]]:
    """The clips and the ids of those that are trained on: every twentieth is held out."""
    clips = Clips(out, conf["codec"]["sample_rate"], conf["data"]["span"])
    return clips, [key for at, key in enumerate(clips.paths) if at % 20]


# --- SoundStream -----------------------------------------------------------------------------------------------------


def spectral(one: Tensor, other: Tensor) -> Tensor:
    """Distance of magnitudes, and of their logarithms, at three resolutions."""
    loss = one.new_zeros(())
    for size in (256, 512, 1024):
        window = torch.hann_window(size)
        a, b = (torch.stft(x, size, size // 4, window=window, return_complex=True).abs() for x in (one, other))
        loss = loss + (a.add(1e-3).log() - b.add(1e-3).log()).abs().mean() + 10 * (a - b).abs().mean() / size**0.5
    return loss


def frames_of(codec: Any, samples: Tensor) -> Tensor:
    """What is quantised of samples [B, T]: [B, F, D]."""
    return codec.encoder_attn(codec.encoder(samples[:, None]).transpose(1, 2))  # type: ignore[no-any-return]


def warm_up(codec: Any, crops: Crops, steps: int, batch: int, rate: float) -> None:
    """The autoencoder alone, without quantiser and discriminators: of codebooks that start with an encoder that says
    the same of everything, one to ten codes are left after a hundred steps.
    """
    optimizer = torch.optim.AdamW(codec.non_discr_parameters(), lr=rate, betas=(0.8, 0.95))
    codec.train()
    began = time.perf_counter()
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1.0, (step + 1) / 20) * max(0.05, 1 - step / steps)
        samples = torch.stack([crops[random.randrange(len(crops))] for _ in range(batch)])  # type: ignore[misc]
        loss = spectral(codec.decode(frames_of(codec, samples)).squeeze(1), samples)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(codec.parameters(), 1.0)
        optimizer.step()
        if step % 25 == 0 or step == steps - 1:
            print(f"soundstream, autoencoder {step} {loss.item():.3f} {time.perf_counter() - began:.0f}s", flush=True)
    codec.eval()


@torch.no_grad()
def fit_codebooks(codec: Any, crops: Crops, count: int, rounds: int = 12) -> list[float]:
    """Codebooks by k-means on what the encoder says, one after the other; what each leaves of the variance."""
    codec.eval()
    chosen = random.sample(range(len(crops)), min(count, len(crops)))
    frames = torch.cat([frames_of(codec, crops[at][None])[0] for at in chosen])  # type: ignore[index]
    parts, told = frames.chunk(codec.rq_groups, -1), []
    for group, part in zip(codec.rq.rvqs, parts):
        left, whole = part, part.var(0).sum()
        for layer in group.layers:
            own = layer._codebook
            size = own.embed.shape[1]
            book = left[torch.randint(len(left), (size,))].clone()
            for _ in range(rounds):
                nearest = torch.cdist(left, book).argmin(1)
                counts = torch.bincount(nearest, minlength=size)
                means = torch.zeros_like(book).index_add_(0, nearest, left) / counts.clamp_min(1)[:, None]
                book = torch.where(counts[:, None] > 0, means, left[torch.randint(len(left), (size,))])
            nearest = torch.cdist(left, book).argmin(1)
            counts = torch.bincount(nearest, minlength=size).clamp_min(1).float()
            own.embed.copy_(book[None])
            own.embed_avg.copy_((book * counts[:, None])[None])
            own.cluster_size.copy_(counts[None])
            own.initted.fill_(True)
            left = left - book[nearest]
            told.append(float(left.pow(2).sum(1).mean() / whole))
    return told


@torch.no_grad()
def in_use(codec: Any, crops: Crops, count: int) -> tuple[list[int], float]:
    """Codes of each quantizer that some crops use, and the spectral distance of what comes back of them."""
    codec.eval()
    chosen, codes, far = random.sample(range(len(crops)), min(count, len(crops))), [], []
    for at in chosen:
        samples: Any = crops[at]
        quantised, found, _ = codec(samples[None], return_encoded=True)
        codes.append(found[0])
        far.append(float(spectral(codec.decode(quantised).squeeze(1), samples[None])))
    every = torch.cat(codes)
    return [len(every[:, q].unique()) for q in range(every.shape[1])], sum(far) / len(far)


def train_soundstream(peer: Any, out: Path, conf: dict[str, Any]) -> None:
    """Warm-up, codebooks, the package's `SoundStreamTrainer`, codebooks again where it left few codes in use."""
    import torchaudio

    said = conf["soundstream"]
    clips, keys = read_clips(out, conf)
    codec = soundstream(peer, conf)
    span = conf["codec"]["sample_rate"] * said["seconds"]
    crops = Crops(clips, keys, said["batch"], (round(span / clips.span),) * 2, with_tokens=False)
    print(f"{len(crops)} clips, {clips.seconds / 60:.1f} minutes", flush=True)
    warm_up(codec, crops, said["warm_steps"], said["batch"], said["warm_rate"])
    count = said["fitted_on"]
    print("left by each codebook", [round(x, 3) for x in fit_codebooks(codec, crops, count)], flush=True)
    print("codes in use, spectral distance", *in_use(codec, crops, count // 4), flush=True)
    if said["steps"]:
        torchaudio.save = lambda *_, **__: None  # it writes samples at step 0, for which torchcodec would be needed
        trainer = peer.SoundStreamTrainer(
            codec,
            dataset=crops,
            batch_size=said["batch"],
            num_train_steps=said["steps"],
            lr=said["rate"],
            warmup_steps=min(1000, said["steps"] // 10 + 1),
            grad_accum_every=1,
            valid_frac=max(0.05, (said["batch"] + 1) / len(crops)),
            apply_grad_penalty_every=said["penalty_every"],
            use_ema=said["steps"] > 5000,  # it takes no notice of the first five hundred
            results_folder=str(out / "work" / "soundstream"),
            force_clear_prev_results=False,  # true fails where there is no folder yet
            save_results_every=1000,
            save_model_every=1000,
        )
        quiet(trainer, said["steps"])
        trainer.train()
        if trainer.use_ema:
            codec.load_state_dict(trainer.ema_soundstream.ema_model.state_dict())
        used, far = in_use(codec, crops, count // 4)
        print("the package's trainer leaves in use", used, far, flush=True)
        if min(used) < codec.codebook_size / 2:
            left = [round(x, 3) for x in fit_codebooks(codec, crops, count)]
            print("fitted again", left, *in_use(codec, crops, count // 4), flush=True)
    codec.save(str(out / ".soundstream.part"))
    (out / ".soundstream.part").rename(out / "soundstream.pt")


# --- the transformers ------------------------------------------------------------------------------------------------


def quiet(trainer: Any, steps: int) -> None:
    """One line in so many of what the package's trainer prints."""
    every, seen, began = max(steps // 20, 1), [0], time.perf_counter()

    def tell(line: str) -> None:
        if "loss" in line and "valid" not in line:
            seen[0] += 1
            if seen[0] % every == 1 % every:
                print(f"{line[:110]} {time.perf_counter() - began:.0f}s", flush=True)

    trainer.print = tell


def trained_codec(peer: Any, out: Path, conf: dict[str, Any]) -> Any:
    """The codec that was trained."""
    codec = soundstream(peer, conf)
    codec.load_state_dict(torch.load(out / "soundstream.pt", map_location="cpu", weights_only=True)["model"])
    return codec.eval()


def train_writer(peer: Any, out: Path, conf: dict[str, Any], name: str) -> None:
    """The package's `CoarseTransformerTrainer` or `FineTransformerTrainer`."""
    said, codec = conf[name], trained_codec(peer, out, conf)
    clips, keys = read_clips(out, conf)
    crops = Crops(clips, keys, said["batch"], tuple(said["tokens"]), with_tokens=name == "coarse")
    coarse = conf["data"]["coarse_quantizers"]
    sizes = {"codebook_size": codec.codebook_size, "num_coarse_quantizers": coarse, **said["shape"]}
    if name == "coarse":
        made = peer.CoarseTransformer(num_semantic_tokens=conf["data"]["semantic_tokens"], **sizes)
    else:
        made = peer.FineTransformer(num_fine_quantizers=codec.num_quantizers - coarse, **sizes)
    told: dict[str, Any] = {
        "num_train_steps": said["steps"], "batch_size": said["batch"], "lr": said["rate"], "dataset": crops,
        "valid_frac": max(0.05, (said["batch"] + 1) / len(crops)), "results_folder": str(out / "work" / name),
        "force_clear_prev_results": False, "drop_last": True,
    }  # fmt: skip
    if name == "coarse":  # semantic tokens are given, so no HuBERT is asked for
        trainer = peer.CoarseTransformerTrainer(made, codec, None, ds_fields=("semantic_token_ids", "raw_wave"), **told)
        trainer.train_wrapper.unique_consecutive = False  # a token that repeats lasts longer
    else:
        trainer = peer.FineTransformerTrainer(made, codec, **told)
    quiet(trainer, said["steps"])

    def again(_logs: Any) -> None:
        """Its validation leaves the wrapper in evaluation, where it appends no end tokens and masks nothing."""
        trainer.train_wrapper.train()
        done = int(trainer.steps) / said["steps"]
        for group in trainer.optim.param_groups:  # its rate is constant
            group["lr"] = said["rate"] * max(0.05, 1 - done)

    trainer.train(log_fn=again)
    trainer.save(str(out / f".{name}.part"))
    (out / f".{name}.part").rename(out / f"{name}.pt")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--only", action="append", choices=PARTS, help="default: all")
    parser.add_argument("--conf", type=Path, required=True)
    args = parser.parse_args()
    conf = tomllib.loads(args.conf.read_text(encoding="utf-8"))
    torch.manual_seed(0)
    random.seed(0)
    peer = package()
    for what in PARTS:
        if what not in (args.only or PARTS) or (args.out / f"{what}.pt").is_file():
            continue
        peer.trainer.ONE_TRAINER_INSTANTIATED = False  # its trainers refuse a second one in a process
        if what == "soundstream":
            train_soundstream(peer, args.out, conf)
        else:
            train_writer(peer, args.out, conf, what)


if __name__ == "__main__":
    main()
