"""Training of the unit vocoder: spectral losses first, then a GAN beside them. Resumable, one thread is enough.

Pitch, voicing and energy are teacher-forced, and the pulse train runs in step with the recording's own fundamental
(`analysis.py`), so that a loss on complex spectra means something. Towards the end the predicted voicing and energy
replace the measured ones in part of the crops, since that is what inference will see.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spear_spec.acoustic.unit.excitation import unwrap
from spear_spec.acoustic.unit.prompt import PromptConfig
from spear_spec.acoustic.unit.vocoder import Prosody, UnitVocoder, VocoderConfig, drive_from_phase
from spear_spec.config import Clock
from spear_spec.errors import ConfigError, NumericsError
from spear_spec.training.checkpoint import Work, restore, save_export
from spear_spec.training.loop import Run, carry_out
from spear_spec.training.optimise import clip_and_step, copy_weights
from spear_spec.training.precision import mixed
from spear_spec.training.vocoder.begin import begin_with
from spear_spec.training.vocoder.data import ClipStore
from spear_spec.training.vocoder.discriminators import Discriminators, discriminator_loss, generator_losses
from spear_spec.training.vocoder.prompting import Prompting, begin
from spear_spec.training.vocoder.recogniser import Recogniser
from spear_spec.training.vocoder.settings import VocoderTraining
from spear_spec.training.vocoder.spectral import SpectralLoss
from spear_spec.voice.bundle import Bundle


@dataclass
class Output:
    """What one pass over a batch of crops gives."""

    fake: Tensor
    real: Tensor
    prosody_loss: Tensor
    voiced: Tensor


def run_generator(
    model: UnitVocoder,
    batch: dict[str, Tensor],
    cfg: VocoderTraining,
    tokens: int,
    predicted: float | Tensor = 0.0,
    who: Tensor | None = None,
) -> Output:
    """Render the crops of a batch (see ClipStore.draw), teacher-forced; `predicted` of the rows hear their own
    prosody (a tensor is not read here: a captured step cannot wait for it). who: speaker vectors [B, 2 C] (left out:
    the rows of the batch's speakers).
    """
    who = model.vectors(batch["speaker"]) if who is None else who
    voc = model.cfg
    count = voc.frames_per_token
    valid = batch["valid"]
    device = valid.device
    with mixed(device):
        hidden, raw = model.encode(batch["tokens"], who, valid[..., None].to(torch.bfloat16))
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
    if isinstance(predicted, Tensor) or predicted > 0:
        rows = (torch.rand(len(voiced), 1, device=device) < predicted).float()
        given_voiced = rows * torch.sigmoid(logits[:, span]).detach() + (1 - rows) * given_voiced
        given_energy = rows * energy[:, span].detach() + (1 - rows) * given_energy
    prosody = Prosody(given_voiced, batch["f0"][:, span], given_energy)
    with mixed(device):
        mask = frame_valid[:, span, None].to(torch.bfloat16)
        frames = model.decode(hidden[:, low:high], prosody, who, mask) * mask
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


class VocoderLearner:
    """Generator, its moving average, discriminators and optimisers; see `loop.Learner`."""

    def __init__(
        self,
        voc: VocoderConfig,
        cfg: VocoderTraining,
        store: ClipStore,
        device: str | torch.device = "cpu",
        start: Bundle | None = None,
        prompts: PromptConfig | None = None,
        speakers: int | None = None,
        names: Sequence[str] | None = None,
        recogniser: Recogniser | None = None,
    ) -> None:
        """prompts: shape of the encoder that is trained along; speakers: how many there may be in the clips, the first
        `voc.num_speakers` of them stored as rows (left out: all are). names: of those, where they are others than the
        voice's that is gone on from.
        """
        torch.manual_seed(cfg.seed)
        self.cfg, self.store = cfg, store
        self.device = torch.device(device)
        self.model = UnitVocoder(voc).to(self.device)
        self.judges = Discriminators().to(self.device)
        if start is not None:
            begin_with(self.model, start, names)
        self.average = copy_weights(self.model)
        self.prompting: Prompting | None = None
        if prompts is not None:
            self.prompting = Prompting(prompts, cfg, speakers or voc.num_speakers).to(self.device)
            begin(self.prompting.encoder, self.model, start)
            store.favour(voc.num_speakers, cfg.stored)
        self.heard = {} if self.prompting is None else copy_weights(self.prompting.encoder)
        self.trained = nn.ModuleList([self.model] if self.prompting is None else [self.model, self.prompting])
        self.norms = torch.zeros((), device=self.device)  # of all gradients so far: not finite once one was not
        self.recogniser = None if recogniser is None else recogniser.to(self.device)
        self.spectral = SpectralLoss(voc.sample_rate).to(self.device)
        self.optimiser = torch.optim.AdamW(
            self.trained.parameters(), lr=cfg.learning_rate, betas=(0.8, 0.99), weight_decay=0.01, fused=True
        )
        self.judge_optimiser = torch.optim.AdamW(
            self.judges.parameters(),
            lr=cfg.discriminator_learning_rate,
            betas=(0.8, 0.99),
            weight_decay=0.01,
            fused=True,
        )

    def begin(self, step: int) -> None:
        """Every step draws by its own number."""

    def batch(self, step: int, size: int, tokens: int) -> dict[str, Tensor]:
        """The crops of this step: they depend on the seed and the step alone, so that a resumed run sees the same."""
        rng = np.random.default_rng((self.cfg.seed, step))
        drawn = self.store.draw(rng, size, tokens, self.cfg.left, self.cfg.right)
        if self.prompting is not None:
            drawn |= self.store.prompts(rng, np.asarray(drawn["clip"]), self.cfg.shortest, self.cfg.longest)
        return {key: torch.from_numpy(np.ascontiguousarray(value)).to(self.device) for key, value in drawn.items()}

    def learn(self, step: int, progress: float, shared: Any) -> Mapping[str, Tensor | float]:
        """One update of everything."""
        cfg = self.cfg
        torch.manual_seed(cfg.seed * 1_000_003 + step)
        gan = step >= cfg.gan_start
        tokens = cfg.gan_tokens if gan else cfg.tokens
        batch = self.batch(step, cfg.gan_batch if gan else cfg.batch, tokens)
        peak = cfg.gan_learning_rate if gan else cfg.learning_rate
        rate, judge_rate = (learning_rate(step, top, cfg) for top in (peak, cfg.discriminator_learning_rate))
        predicted = 0.5 if step > cfg.predicted_from * cfg.steps else 0.0
        told: dict[str, Tensor] = {}
        who: Tensor | None = None
        if self.prompting is not None:
            who, told = self.prompting(self.model, batch)
        out = run_generator(self.model, batch, cfg, tokens, predicted, who)
        mel, magnitude, phase, coherence = self.spectral(out.fake, out.real, out.voiced)
        loss = cfg.mel * mel + cfg.magnitude * magnitude + cfg.phase * phase + cfg.prosody * out.prosody_loss
        log: dict[str, Tensor | float] = {
            "mel": mel, "mag": magnitude, "phase": phase, "coh": coherence[0], "coh2": coherence[1],
            "pros": out.prosody_loss, **told,
        }  # fmt: skip
        if told:
            loss = loss + cfg.parting * told["parting"] + cfg.level * told["level"]
        if self.recogniser is not None and cfg.listens:
            with mixed(self.device):
                heard = self.recogniser(out.fake, out.real)
            log["hearing"], loss = heard.states, loss + cfg.hearing * heard.states
            if heard.features is not None:
                log["reading"], loss = heard.features, loss + cfg.reading * heard.features
        if gan:
            # A few judges a step, in turn, so that a step is cheap and every judge is heard often.
            every, some = len(self.judges), min(cfg.judges_a_step, len(self.judges))
            order = np.random.default_rng((cfg.seed, 7, step // max(1, every // some))).permutation(every)
            first = (step % max(1, every // some)) * some
            select = [int(i) for i in order[first : first + some]]
            rows = len(out.real)
            # The judges hear a part of each crop: their cost rules the step, the spectral losses are cheap.
            length = min(tokens, cfg.judge_tokens) * self.model.cfg.token_samples
            at = int(np.random.default_rng((cfg.seed, 8, step)).integers(out.real.shape[1] - length + 1))
            real, fake = out.real[:, at : at + length], out.fake[:, at : at + length]
            with mixed(self.device):
                seen = self.judges(torch.cat([real, fake.detach()]), select)
            judge_loss = discriminator_loss(seen, rows)
            judge_loss.backward()
            references = [(score[:rows].detach(), [f[:rows].detach() for f in features]) for score, features in seen]
            clip_and_step(self.judges, self.judge_optimiser, judge_rate, 100.0)
            for parameter in self.judges.parameters():
                parameter.requires_grad_(False)
            with mixed(self.device):
                judged = self.judges(fake, select)
            for parameter in self.judges.parameters():
                parameter.requires_grad_(True)
            adversarial, matching = generator_losses(judged, references)
            ramp = min(1.0, (step - cfg.gan_start + 1) / cfg.ramp)
            loss = loss + ramp * (cfg.adversarial * adversarial + cfg.matching * matching)
            log |= {"d": judge_loss, "adv": adversarial, "fm": matching}
        loss.backward()
        norm = clip_and_step(self.trained, self.optimiser, rate, 50.0)
        self.norms = self.norms + norm
        decay = min(cfg.ema, (2 + step) / (11 + step))
        with torch.no_grad():
            for key, value in self.model.state_dict().items():
                self.average[key].lerp_(value, 1 - decay)
            if self.prompting is not None:
                for key, value in self.prompting.encoder.state_dict().items():
                    self.heard[key].lerp_(value, 1 - decay)
        return log | {"norm": norm}

    def check(self) -> None:
        """Refuse to go on, or to leave a checkpoint, after a gradient that was not finite.

        Raises:
            NumericsError: there was one. It is asked for here, not in every step: the answer is waited for.
        """
        if not math.isfinite(float(self.norms)):
            raise NumericsError("the vocoder's gradient was not finite in a step since the last line of the log")

    def report(self, progress: float) -> Mapping[str, Any]:
        self.check()
        return {}

    def state(self) -> Mapping[str, Any]:
        self.check()
        prompts = {} if self.prompting is None else {"prompting": self.prompting.state_dict(), "heard": self.heard}
        return {
            "model": self.model.state_dict(), "average": self.average, "judges": self.judges.state_dict(),
            "optimiser": self.optimiser.state_dict(), "judge_optimiser": self.judge_optimiser.state_dict(), **prompts,
        }  # fmt: skip

    def load(self, state: Mapping[str, Any], checkpoint: Path) -> None:
        restore(self.model, state["model"], checkpoint)
        restore(self.judges, state["judges"], checkpoint)
        if ("prompting" in state) != (self.prompting is not None):
            raise ConfigError(f"{checkpoint} is of a run {'with' if 'prompting' in state else 'without'} prompts")
        if self.prompting is not None:
            restore(self.prompting, state["prompting"], checkpoint)
            self.heard = {key: value.to(self.device) for key, value in state["heard"].items()}
        self.average = {key: value.to(self.device) for key, value in state["average"].items()}
        self.optimiser.load_state_dict(state["optimiser"])
        self.judge_optimiser.load_state_dict(state["judge_optimiser"])

    def averaged(self) -> UnitVocoder:
        """A copy of the generator with the moving average of its weights, on the CPU, in eval mode."""
        model = UnitVocoder(self.model.cfg)
        model.load_state_dict(self.average)
        return model.eval()

    def export(self, work: Work, about: Mapping[str, Any]) -> None:
        description = {"vocoder": self.model.cfg.to_dict(), "training": self.cfg.to_dict(), **about}
        save_export(work.export, "vocoder", description, self.average)
        if self.prompting is not None:
            save_export(work.export, "prompt", {"prompt": self.prompting.encoder.cfg.to_dict(), **about}, self.heard)


def train_vocoder(
    data: Path,
    out: Path,
    cfg: VocoderTraining,
    voc: VocoderConfig,
    *,
    save_s: float = 300.0,
    every: int = 50,
    device: str | torch.device = "cpu",
    progress_bar: bool = True,
    start: Bundle | None = None,
    prompts: PromptConfig | None = None,
    speakers: int | None = None,
    names: Sequence[str] | None = None,
    recogniser: Recogniser | None = None,
) -> UnitVocoder:
    """Train on clips that `data.prepare` left (or go on from the checkpoint in `out`); leaves an export of the averaged
    weights, see `Work`.

    Args:
        save_s: seconds between two checkpoints; every: steps between two lines of the log.
        start: a voice whose vocoder (and prompt encoder) is gone on from; the discriminators begin anew.
        prompts: shape of a prompt encoder that is trained along, see `prompting.py`. speakers: of the clips, where not
            all of them are stored in the vocoder's tables. names: of those that are: who is new to `start` begins as
            the mean of its speakers. recogniser: what `cfg.hearing` and `cfg.reading` weigh.

    Returns:
        The averaged model.

    Raises:
        SpearSpecError: there are no clips, or the checkpoint or the voice belongs to another model.
    """
    clock = Clock(voc.sample_rate // voc.token_samples, voc.hop, voc.sample_rate)
    learner = VocoderLearner(voc, cfg, ClipStore(data, clock), device, start, prompts, speakers, names, recogniser)
    carry_out([Run("vocoder", learner, out, steps=cfg.steps, every=every, save_s=save_s)], progress=progress_bar)
    return learner.averaged()
