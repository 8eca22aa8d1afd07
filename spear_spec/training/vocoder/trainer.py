"""Training of the unit vocoder: spectral losses first, then a GAN beside them. Resumable, one thread is enough.

Pitch, voicing and energy are teacher-forced, and the pulse train runs in step with the recording's own fundamental
(`vocoder_data.analyse`), so that a loss on complex spectra means something. Towards the end the predicted voicing and
energy
replace the measured ones in part of the crops, since that is what inference will see.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from spear_spec.acoustic.unit.excitation import unwrap
from spear_spec.acoustic.unit.vocoder import Prosody, UnitVocoder, VocoderConfig, drive_from_phase
from spear_spec.config import Strict
from spear_spec.errors import BundleError, NumericsError
from spear_spec.training.checkpoint import load_checkpoint, save_checkpoint
from spear_spec.training.precision import mixed
from spear_spec.training.vocoder.data import ClipStore
from spear_spec.training.vocoder.discriminators import Discriminators, discriminator_loss, generator_losses
from spear_spec.training.vocoder.spectral import SpectralLoss
from spear_spec.voice.bundle import Bundle


@dataclass(frozen=True)
class VocoderTraining(Strict):
    """One training run. `steps` may be changed at resume: the learning rate falls over the last `tail` of them.
    `ramp`: steps over which the discriminators gain their say; longer when a trained generator meets new ones."""

    steps: int = 12000
    tail: int = 2600
    warmup: int = 100
    gan_start: int = 1300
    learning_rate: float = 6e-4
    gan_learning_rate: float = 4e-4
    discriminator_learning_rate: float = 5e-4
    batch: int = 12
    tokens: int = 16
    gan_batch: int = 8
    gan_tokens: int = 12
    judge_tokens: int = 8
    left: int = 14
    right: int = 9
    mel: float = 15.0
    magnitude: float = 2.0
    phase: float = 5.0
    prosody: float = 1.0
    adversarial: float = 2.0
    matching: float = 8.0
    judges_a_step: int = 3
    ramp: int = 200
    predicted_from: float = 0.6
    ema: float = 0.999
    seed: int = 0


@dataclass
class Output:
    """What one pass over a batch of crops gives."""

    fake: Tensor
    real: Tensor
    prosody_loss: Tensor
    voiced: Tensor


def run_generator(
    model: UnitVocoder, batch: dict[str, Tensor], cfg: VocoderTraining, tokens: int, predicted: float = 0.0
) -> Output:
    """Render the crops of a batch (see ClipStore.draw), teacher-forced; `predicted` of the rows hear their own
    prosody.
    """
    voc = model.cfg
    count = voc.frames_per_token
    valid = batch["valid"]
    device = valid.device
    with mixed(device):
        hidden, raw = model.encode(batch["tokens"], batch["speaker"], valid[..., None].to(torch.bfloat16))
    logits, pitch, energy = model.split_prosody(raw)
    frame_valid = valid.repeat_interleave(count, dim=1)
    weight = frame_valid.float()
    weight[:, : 4 * count] = 0  # the left context of the first tokens is cut short
    total = weight.sum().clamp_min(1)
    voiced = batch["voiced"]
    target = (torch.log(batch["f0"]) - 5.0) / 0.5
    loss = (F.binary_cross_entropy_with_logits(logits, voiced, reduction="none") * weight).sum() / total
    loss = loss + 2 * ((pitch - target).abs() * weight * voiced).sum() / (weight * voiced).sum().clamp_min(1)
    # Slopes too: jitter of F0 smears the upper harmonics, and an L1 on values alone does not see it.
    both = (weight * voiced)[:, 1:] * (weight * voiced)[:, :-1]
    slope = (pitch[:, 1:] - pitch[:, :-1]) - (target[:, 1:] - target[:, :-1])
    loss = loss + 6 * (slope.abs() * both).sum() / both.sum().clamp_min(1)
    loss = loss + 0.5 * ((energy - batch["energy"]).abs() * weight).sum() / total
    # The 100 Hz part sees 4 tokens before and 3 after the crop, the head 2 frames on each side.
    low, high = cfg.left - 4, cfg.left + tokens + 3
    span = slice(low * count, high * count)
    given_voiced, given_energy = voiced[:, span], batch["energy"][:, span]
    if predicted > 0:
        rows = (torch.rand(len(voiced), 1, device=device) < predicted).float()
        given_voiced = rows * torch.sigmoid(logits[:, span]).detach() + (1 - rows) * given_voiced
        given_energy = rows * energy[:, span].detach() + (1 - rows) * given_energy
    prosody = Prosody(given_voiced, batch["f0"][:, span], given_energy)
    with mixed(device):
        mask = frame_valid[:, span, None].to(torch.bfloat16)
        frames = model.decode(hidden[:, low:high], prosody, batch["speaker"], mask) * mask
        inner = slice(4 * count - 2, (4 + tokens) * count + 2)
        frames = frames[:, inner].contiguous()
        f0 = prosody.f0[:, inner]
        phase = unwrap(batch["phase"][:, span][:, inner], f0, voc.hop / voc.sample_rate)
        with torch.no_grad():
            driven = drive_from_phase(phase, f0.double(), voc)
        noise = torch.randn_like(driven[:, 0])
        fake = model.synthesise(frames, driven, noise)
    fake = fake[:, 2 * voc.hop : -2 * voc.hop].float()
    crop = slice(cfg.left * count, (cfg.left + tokens) * count)
    return Output(fake, batch["audio"], loss, voiced[:, crop])


def learning_rate(step: int, peak: float, cfg: VocoderTraining) -> float:
    """Warm-up, then flat, then a half cosine to 2 % over the last `tail` steps."""
    if step < cfg.warmup:
        return peak * (step + 1) / cfg.warmup
    left = cfg.steps - step
    if left < cfg.tail:
        return peak * (0.02 + 0.98 * 0.5 * (1 - math.cos(math.pi * max(0, left) / cfg.tail)))
    return peak


class Trainer:
    """Generator, its moving average, discriminators, optimisers, step: everything that a checkpoint holds."""

    def __init__(self, voc: VocoderConfig, cfg: VocoderTraining, store: ClipStore, device: str = "cpu") -> None:
        torch.manual_seed(cfg.seed)
        self.cfg, self.store, self.step = cfg, store, 0
        self.device = torch.device(device)
        self.model = UnitVocoder(voc).to(self.device)
        self.judges = Discriminators().to(self.device)
        self.average = {k: v.detach().clone() for k, v in self.model.state_dict().items()}
        self.spectral = SpectralLoss(voc.sample_rate).to(self.device)
        self.optimiser = torch.optim.AdamW(
            self.model.parameters(), lr=cfg.learning_rate, betas=(0.8, 0.99), weight_decay=0.01, fused=True
        )
        self.judge_optimiser = torch.optim.AdamW(
            self.judges.parameters(),
            lr=cfg.discriminator_learning_rate,
            betas=(0.8, 0.99),
            weight_decay=0.01,
            fused=True,
        )

    def batch(self, size: int, tokens: int) -> dict[str, Tensor]:
        """The crops of this step: they depend on the seed and the step alone, so that a resumed run sees the same."""
        rng = np.random.default_rng((self.cfg.seed, self.step))
        drawn = self.store.draw(rng, size, tokens, self.cfg.left, self.cfg.right)
        return {key: torch.from_numpy(np.ascontiguousarray(value)).to(self.device) for key, value in drawn.items()}

    def train_step(self) -> dict[str, float]:
        """One update of everything. Returns the losses."""
        cfg = self.cfg
        torch.manual_seed(cfg.seed * 1_000_003 + self.step)
        gan = self.step >= cfg.gan_start
        tokens = cfg.gan_tokens if gan else cfg.tokens
        batch = self.batch(cfg.gan_batch if gan else cfg.batch, tokens)
        peak = cfg.gan_learning_rate if gan else cfg.learning_rate
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(self.step, peak, cfg)
        for group in self.judge_optimiser.param_groups:
            group["lr"] = learning_rate(self.step, cfg.discriminator_learning_rate, cfg)
        predicted = 0.5 if self.step > cfg.predicted_from * cfg.steps else 0.0
        out = run_generator(self.model, batch, cfg, tokens, predicted)
        mel, magnitude, phase, coherence = self.spectral(out.fake, out.real, out.voiced)
        loss = cfg.mel * mel + cfg.magnitude * magnitude + cfg.phase * phase + cfg.prosody * out.prosody_loss
        log = {
            "mel": float(mel.detach()), "mag": float(magnitude.detach()), "phase": float(phase.detach()),
            "coh": coherence[0], "coh2": coherence[1], "pros": float(out.prosody_loss.detach()),
        }  # fmt: skip
        if gan:
            # A few judges a step, in turn, so that a step is cheap and every judge is heard often.
            every, some = len(self.judges), min(cfg.judges_a_step, len(self.judges))
            order = np.random.default_rng((cfg.seed, 7, self.step // max(1, every // some))).permutation(every)
            first = (self.step % max(1, every // some)) * some
            select = [int(i) for i in order[first : first + some]]
            rows = len(out.real)
            # The judges hear a part of each crop: their cost rules the step, the spectral losses are cheap.
            length = min(tokens, cfg.judge_tokens) * self.model.cfg.token_samples
            at = int(np.random.default_rng((cfg.seed, 8, self.step)).integers(out.real.shape[1] - length + 1))
            real, fake = out.real[:, at : at + length], out.fake[:, at : at + length]
            with mixed(self.device):
                seen = self.judges(torch.cat([real, fake.detach()]), select)
            judge_loss = discriminator_loss(seen, rows)
            self.judge_optimiser.zero_grad(set_to_none=True)
            judge_loss.backward()
            references = [(score[:rows].detach(), [f[:rows].detach() for f in features]) for score, features in seen]
            nn.utils.clip_grad_norm_(self.judges.parameters(), 100.0)
            self.judge_optimiser.step()
            for parameter in self.judges.parameters():
                parameter.requires_grad_(False)
            with mixed(self.device):
                heard = self.judges(fake, select)
            for parameter in self.judges.parameters():
                parameter.requires_grad_(True)
            adversarial, matching = generator_losses(heard, references)
            ramp = min(1.0, (self.step - cfg.gan_start + 1) / cfg.ramp)
            loss = loss + ramp * (cfg.adversarial * adversarial + cfg.matching * matching)
            log |= {"d": float(judge_loss.detach()), "adv": float(adversarial.detach()), "fm": float(matching.detach())}
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        norm = float(nn.utils.clip_grad_norm_(self.model.parameters(), 50.0))
        if not math.isfinite(norm):
            raise NumericsError(f"the vocoder's gradient is not finite at step {self.step}")
        self.optimiser.step()
        self.step += 1
        decay = min(cfg.ema, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for key, value in self.model.state_dict().items():
                self.average[key].lerp_(value, 1 - decay)
        return log | {"norm": norm}

    def state(self) -> dict[str, object]:
        """Tensors and numbers only: loads with weights_only."""
        return {
            "step": self.step, "model": self.model.state_dict(), "average": self.average,
            "judges": self.judges.state_dict(), "optimiser": self.optimiser.state_dict(),
            "judge_optimiser": self.judge_optimiser.state_dict(),
        }  # fmt: skip

    def save(self, path: Path) -> None:
        """Write a checkpoint: whole or not at all."""
        save_checkpoint(path, self.state())

    def load(self, path: Path) -> None:
        """Take everything from a checkpoint."""
        state = load_checkpoint(path)
        self.step = int(state["step"])
        self.model.load_state_dict(state["model"])
        self.average = {key: value.to(self.device) for key, value in state["average"].items()}
        self.judges.load_state_dict(state["judges"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.judge_optimiser.load_state_dict(state["judge_optimiser"])

    def averaged(self) -> UnitVocoder:
        """A copy of the generator with the moving average of its weights, in eval mode."""
        model = UnitVocoder(self.model.cfg)
        model.load_state_dict(self.average)
        return model.eval()


def export(model: UnitVocoder, folder: Path, half: bool = True) -> None:
    """Write `vocoder.json` and `vocoder.safetensors` (half precision) into `folder`, each by rename."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {k: (v.half() if half else v.float()).contiguous() for k, v in model.state_dict().items()}
    if not all(bool(torch.isfinite(v).all()) for v in tensors.values()):
        raise BundleError("the vocoder's weights do not fit half precision")
    partial = folder / "vocoder.safetensors.part"
    save_file(tensors, str(partial))
    partial.chmod(0o644)
    os.replace(partial, folder / "vocoder.safetensors")
    partial = folder / "vocoder.json.part"
    partial.write_text(json.dumps(model.cfg.to_dict(), indent=1) + "\n")
    os.replace(partial, folder / "vocoder.json")


def train_vocoder(
    data: Path,
    work: Path,
    cfg: VocoderTraining | None = None,
    voc: VocoderConfig | None = None,
    *,
    save_every: float = 240.0,
    log_every: int = 50,
    device: str = "cpu",
    start: Bundle | None = None,
) -> UnitVocoder:
    """Train on prepared clips in `data`, or resume from `work`; export the averaged weights to `work/export_latest`.

    `start`: a voice whose vocoder is gone on from; the discriminators begin anew.

    Checkpoints (`work/checkpoint.pt`) come every `save_every` seconds and at SIGTERM.

    Returns:
        The averaged model.
    """
    cfg = cfg or VocoderTraining()
    voc = voc or VocoderConfig()
    work.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(voc, cfg, ClipStore(data), device)
    checkpoint = work / "checkpoint.pt"
    if checkpoint.exists():
        trainer.load(checkpoint)
    elif start is not None:
        start.load_into(trainer.model, "vocoder").train().requires_grad_(True)
        trainer.average = {k: v.detach().clone() for k, v in trainer.model.state_dict().items()}
    stop: list[int] = []
    previous = signal.signal(signal.SIGTERM, lambda *_: stop.append(1))
    saved = began = time.monotonic()
    sums: dict[str, float] = {}
    counted = 0
    try:
        with (work / "train.log").open("a", buffering=1) as log:
            size = sum(p.numel() for p in trainer.model.parameters())
            log.write(
                f"start step {trainer.step} parameters {size} audio {trainer.store.seconds:.0f} s {cfg.to_dict()}\n"
            )
            while trainer.step < cfg.steps and not stop:
                for key, value in trainer.train_step().items():
                    sums[key] = sums.get(key, 0.0) + value
                counted += 1
                if trainer.step % log_every == 0 or trainer.step == cfg.steps:
                    spent = (time.monotonic() - began) / counted
                    text = " ".join(f"{k} {v / counted:.4f}" for k, v in sums.items())
                    log.write(f"{time.strftime('%H:%M:%S')} step {trainer.step} {text} s/step {spent:.3f}\n")
                    sums, counted, began = {}, 0, time.monotonic()
                if time.monotonic() - saved > save_every:
                    trainer.save(checkpoint)
                    export(trainer.averaged(), work / "export_latest")
                    saved = time.monotonic()
            trainer.save(checkpoint)
            model = trainer.averaged()
            export(model, work / "export_latest")
            log.write(f"stopped at step {trainer.step}\n")
    finally:
        signal.signal(signal.SIGTERM, previous)
    return model


def main(argv: Sequence[str] | None = None) -> None:
    """Command line: `python -m spear_spec.training.vocoder.trainer --data DIR --work DIR [--set KEY=VALUE ...]`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder made by spear_spec.training.vocoder.data")
    parser.add_argument("--work", type=Path, required=True, help="checkpoints, log and export go here")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a field of VocoderTraining")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    cfg = replace(VocoderTraining(), **{k: json.loads(v) for k, v in (item.split("=", 1) for item in options.set)})
    train_vocoder(options.data, options.work, cfg, device=options.device)


if __name__ == "__main__":
    main()
