"""Training of the token-to-phoneme CTC."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from spear_spec.config import Clock
from spear_spec.errors import ConfigError
from spear_spec.training.checkpoint import Work, restore
from spear_spec.training.data.corpus import DURATION_RATE
from spear_spec.training.data.ctc import BLANK, UPSAMPLE, PhonemeCTC, Spoken, phones
from spear_spec.training.loop import Run, carry_out
from spear_spec.training.optimise import clip_and_step, learning_rate
from spear_spec.training.order import Order, chance, seed_of
from spear_spec.training.precision import mixed


@dataclass
class Batch:
    """tokens [B, T], padded with pad_id; lengths [B], outputs of each row; targets, the phones of each row; labels
    [B, 2 T], the phone (or blank) spoken at each output, -1 where padded or not known.
    """

    tokens: Tensor
    lengths: Tensor
    targets: list[Tensor]
    labels: Tensor


def output_labels(model: PhonemeCTC, item: Spoken, clock: Clock) -> Tensor:
    """What each of the 2 T outputs should write by the durations, int64 [2 T]; -1 throughout without them."""
    length = len(item.tokens) * UPSAMPLE
    if item.frames is None or len(item.frames) != len(item.phonemes) + 2:
        return torch.full((length,), -1)
    known = {c: i + 1 for i, c in enumerate(model.alphabet)}
    ids = np.array([BLANK, *(known.get(c, BLANK) for c in item.phonemes), BLANK])
    middle = (np.arange(length) + 0.5) * (DURATION_RATE / clock.token_rate) / UPSAMPLE
    spoken = np.searchsorted(np.cumsum(item.frames), middle, side="right")
    return torch.from_numpy(ids[np.minimum(spoken, len(ids) - 1)])


def groups_of(data: Sequence[Spoken], tokens_a_step: int, rng: random.Random) -> list[list[Spoken]]:
    """One epoch: groups of like lengths."""
    groups: list[list[Spoken]] = [[]]
    for item in sorted(data, key=lambda item: len(item.tokens)):
        if groups[-1] and (len(groups[-1]) + 1) * len(item.tokens) > tokens_a_step:
            groups.append([])
        groups[-1].append(item)
    rng.shuffle(groups)
    return groups


def collate(model: PhonemeCTC, group: Sequence[Spoken], clock: Clock) -> Batch:
    """One batch, on the CPU."""
    pad = nn.utils.rnn.pad_sequence
    tokens = pad([item.tokens.long() for item in group], batch_first=True, padding_value=model.pad_id)
    labels = pad([output_labels(model, item, clock) for item in group], batch_first=True, padding_value=-1)
    lengths = torch.tensor([len(item.tokens) * UPSAMPLE for item in group])
    return Batch(tokens, lengths, [model.encode(item.phonemes) for item in group], labels)


class CtcLearner:
    """A CTC and its optimiser; see `loop.Learner`."""

    def __init__(
        self,
        model: PhonemeCTC,
        data: Sequence[Spoken],
        *,
        clock: Clock,
        tokens_a_step: int,
        peak: float,
        framewise: float,
        seed: int,
        device: str | torch.device,
    ) -> None:
        self.model, self.clock = model.to(device).train(), clock
        self.peak, self.seed, self.device = peak, seed, torch.device(device)
        self.framewise = 0.0 if all(item.frames is None for item in data) else framewise
        self.optimizer = torch.optim.AdamW(model.parameters(), peak, betas=(0.9, 0.98), weight_decay=0.01)
        self.order = Order(lambda rng: groups_of(data, tokens_a_step, rng), seed)

    def load(self, state: Mapping[str, Any], checkpoint: Path) -> None:
        restore(self.model, state["model"], checkpoint)
        self.optimizer.load_state_dict(state["optimizer"])
        if "order" in state:
            self.order.load(state["order"])

    def begin(self, step: int) -> None:
        """Every step draws by its own number."""

    def learn(self, step: int, progress: float, shared: Any) -> Mapping[str, Tensor | float]:
        rate = learning_rate(step, progress, peak=self.peak, floor=0.0, warmup=20)
        model = self.model
        batch = collate(model, self.order[step], self.clock)
        torch.manual_seed(seed_of(self.seed, "dropout", step))
        draws = chance(self.seed, "masks", step)
        hidden = (torch.rand(batch.tokens.shape, generator=draws) < 0.1) & (batch.tokens != model.pad_id)
        with mixed(self.device):
            log_probs = model(batch.tokens.masked_fill(hidden, model.mask_id).to(self.device))
        if progress < self.framewise and bool((batch.labels >= 0).any()):
            loss = F.nll_loss(log_probs.flatten(0, 1), batch.labels.flatten().to(self.device), ignore_index=-1)
        else:
            sizes = torch.tensor([len(t) for t in batch.targets])
            targets = torch.cat(batch.targets).to(self.device)
            loss = F.ctc_loss(log_probs.transpose(0, 1), targets, batch.lengths, sizes, zero_infinity=True)
        loss.backward()
        clip_and_step(model, self.optimizer, rate)
        return {"loss": loss}

    def report(self, progress: float) -> Mapping[str, Any]:
        return {}

    def state(self) -> Mapping[str, Any]:
        return {
            "model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(), "order": self.order.state()
        }  # fmt: skip

    def export(self, work: Work, about: Mapping[str, Any]) -> None:
        """Nothing of it goes into a voice."""


def train_ctc(
    data: Sequence[Spoken],
    num_tokens: int,
    out: Path,
    *,
    clock: Clock,
    minutes: float = 1.0,
    steps: int | None = None,
    tokens_a_step: int = 1000,
    learning_rate: float = 3e-3,
    seed: int = 0,
    dim: int = 256,
    blocks: int = 4,
    centroids: Tensor | None = None,
    framewise: float = 0.5,
    device: str | torch.device = "cpu",
    save_s: float = 30.0,
    progress: bool = True,
) -> PhonemeCTC:
    """Train for `minutes` (or `steps`), the learning rate falling to 0 on a cosine, or go on from `out`.

    For the first `framewise` of the run each output learns the phone that the durations say is spoken there: a CTC left
    alone spends most of such a short run writing nothing but blanks. Without durations there is no such help, and the
    run must be several times as long. A tenth of the tokens is masked, so that it listens to the neighbours as well.
    `centroids` [K, D] of the tokens start the embedding (a random projection of them). save_s: seconds between two
    checkpoints; with `steps` a run that was killed ends with the weights that it would have had.

    Raises:
        ConfigError: there is nothing to train on, or the checkpoint in `out` is of another shape.
    """
    usable = [
        item for item in data if phones(item.phonemes) and len(item.tokens) * UPSAMPLE > len(phones(item.phonemes))
    ]
    if not usable:
        raise ConfigError("no utterance with tokens and phonemes to train the CTC on")
    torch.manual_seed(seed)
    alphabet = "".join(sorted({c for item in usable for c in phones(item.phonemes)}))
    model = PhonemeCTC(num_tokens, alphabet, dim, blocks)
    if centroids is not None:
        spread = centroids.float() - centroids.float().mean(0)
        projected = spread @ torch.randn(centroids.shape[1], dim)
        model.embedding.weight.data[:num_tokens] = projected / projected.std()
    learner = CtcLearner(
        model, usable, clock=clock, tokens_a_step=tokens_a_step, peak=learning_rate, framewise=framewise, seed=seed,
        device=device,
    )  # fmt: skip
    run = Run("ctc", learner, out, steps=steps, minutes=0.0 if steps else minutes, every=100, save_s=save_s)
    carry_out([run], progress=progress)
    return model.eval()
