"""The transformer's learner with a start other than chance, and with weights that stay as they are."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from spear_spec.config import Clock, T2SConfig
from spear_spec.training.checkpoint import Work, load_checkpoint, save_checkpoint
from spear_spec.training.data.utterances import Utterance
from spear_spec.training.low_resource.freeze import freeze
from spear_spec.training.optimise import adamw, copy_weights
from spear_spec.training.order import Order
from spear_spec.training.t2s.batches import groups
from spear_spec.training.t2s.settings import T2STraining
from spear_spec.training.t2s.trainer import T2SLearner

BEST = "best.pt"  # the weights (running mean) of the lowest held-out NLL, and what the trainer had beside them


class Pupil(T2SLearner):
    """A `T2SLearner` that begins with given weights, of which some are frozen, and keeps its best on held-out data.

    data: utterances, or what gives those of an epoch (with its random numbers and no others).
    begin_with: weights of the trainee by name; those that it lacks, or that have another shape (tables of another
    vocabulary), begin by chance. learn: names of the model's parameters that learn (None: all, and the helpers).
    """

    def __init__(
        self,
        data: Sequence[Utterance] | Callable[[random.Random], Sequence[Utterance]],
        held_out: Sequence[Utterance],
        shape: T2SConfig,
        cfg: T2STraining,
        *,
        space: int,
        clock: Clock,
        device: str | torch.device = "cpu",
        begin_with: Mapping[str, Tensor] | None = None,
        learn: set[str] | None = None,
        helpers: bool = True,
    ) -> None:
        drawn = data if callable(data) else lambda rng: data
        super().__init__((), held_out, shape, cfg, space=space, clock=clock, device=device, start=None)
        self.order = Order(lambda rng: groups(drawn(rng), cfg, space, rng, clock=clock), cfg.seed)
        if begin_with is not None:
            own = self.trainee.state_dict()
            same = {name: value for name, value in begin_with.items() if name in own and own[name].shape == value.shape}
            self.trainee.load_state_dict({**own, **same})
        if learn is not None:
            freeze(self.trainee, learn, helpers)
        self.ema, self.optimizer = copy_weights(self.model), adamw(self.trainee, cfg.lr, cfg.weight_decay)
        self.best = float("inf")

    def load(self, state: Mapping[str, Any], checkpoint: Path) -> None:
        super().load(state, checkpoint)
        if (kept := checkpoint.with_name(BEST)).exists():  # what is kept, not what was when the checkpoint was written
            self.best = float(load_checkpoint(kept, ("nll",))["nll"])

    def report(self, progress: float) -> Mapping[str, Any]:
        """Held-out figures of the running mean, whose weights are what is kept."""
        live = copy_weights(self.model)
        self.model.load_state_dict(self.ema)
        found = super().report(progress)
        self.model.load_state_dict(live)
        return found

    def export(self, work: Work, about: Mapping[str, Any]) -> None:
        if about["nll"] < self.best or not (work.folder / BEST).exists():
            self.best = about["nll"]
            trainee = {**self.trainee.state_dict(), **{f"model.{name}": value for name, value in self.ema.items()}}
            save_checkpoint(work.folder / BEST, {"trainee": trainee, "shape": self.model.cfg.to_dict(), **about})
            super().export(work, about)


def best_weights(folder: Path) -> dict[str, Any]:
    """What a `Pupil` kept in its folder: "trainee" (weights by name), "shape", "step", "nll", ...

    Raises:
        SpearSpecError: it has kept nothing usable.
    """
    return load_checkpoint(folder / BEST, ("trainee", "shape", "step", "nll"))
