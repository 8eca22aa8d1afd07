"""Find the sublayers that a self-speculative draft leaves out: Bayesian search over the switches (Draft & Verify,
arXiv 2309.08168).

The objective is what counts, tokens a second of the real loop. It is noisy: each trial decodes the same texts from the
same seed, and the leaders are measured again, in turn, before one is chosen.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch

from spear_spec.config import SamplingConfig, Strict
from spear_spec.decoding import DecodeStats, Session, make_verifier, speculate
from spear_spec.decoding.drafters.layer_skip import LayerSkipDrafter
from spear_spec.errors import ConfigError, MissingExtraError
from spear_spec.models.drafts.layer_skip import LayerSkipConfig
from spear_spec.models.spear_tts import TextToSemantic


@dataclass(frozen=True)
class Reading(Strict):
    """One measurement of a set of switches; tokens_per_s None: not measured, since it leaves out nothing or everything.

    final: of a leader, when the search was over.
    """

    attention: tuple[int, ...]
    feed_forward: tuple[int, ...]
    tokens_per_s: float | None
    final: bool = False

    @property
    def config(self) -> LayerSkipConfig:
        return LayerSkipConfig(self.attention, self.feed_forward)


class Speed:
    """Tokens a second of `speculate` on texts, one after the other."""

    def __init__(
        self,
        model: TextToSemantic,
        texts: Sequence[Sequence[int]],
        sampling: SamplingConfig,
        *,
        gamma: int,
        verifier: str = "rejection",
        seed: int = 0,
        max_tokens: int | None = None,
    ) -> None:
        """texts: ids, end token included.

        Raises:
            ConfigError: there are no texts, or no such verifier.
        """
        if not texts:
            raise ConfigError("there is nothing to measure speed on: give at least one text")
        self.model, self.sampling, self.gamma, self.verifier = model, sampling, gamma, make_verifier(verifier)
        self.seed, self.max_tokens = seed, max_tokens
        with torch.inference_mode():
            self.memories = [model.encode(torch.tensor([list(text)], device=model.device)) for text in texts]
        self._warm = False

    def __call__(self, config: LayerSkipConfig) -> float:
        if not self._warm:
            self.decode(config)
            self._warm = True
        began = self._now()
        stats = self.decode(config)
        return stats.tokens / (self._now() - began)

    def decode(self, config: LayerSkipConfig) -> DecodeStats:
        """Speak every text; the chance is the same each time."""
        drafter = LayerSkipDrafter(config.skip(self.model.cfg.target_depth))
        chance = torch.Generator().manual_seed(self.seed)
        total = DecodeStats()
        for memory in self.memories:
            session = Session(self.model, memory, self.sampling, generator=chance, max_tokens=self.max_tokens)
            for _ in speculate(session, drafter, self.verifier, self.gamma):
                pass
            total += session.stats[0]
        return total

    def _now(self) -> float:
        if self.model.device.type == "cuda":
            torch.cuda.synchronize()
        elif torch.get_num_threads() == 1:
            return time.process_time()  # what else runs on the machine does not count
        return time.perf_counter()


def search(
    model: TextToSemantic,
    texts: Sequence[Sequence[int]],
    sampling: SamplingConfig,
    *,
    gamma: int = 8,
    verifier: str = "rejection",
    trials: int = 200,
    minutes: float = 0.0,
    seed: int = 0,
    finalists: int = 4,
    rounds: int = 3,
    progress: bool = True,
    known: Sequence[Reading] = (),
    record: Callable[[list[Reading]], None] | None = None,
    objective: Callable[[LayerSkipConfig], float] | None = None,
) -> tuple[LayerSkipConfig, list[Reading]]:
    """The best switches, and every reading.

    Args:
        texts: ids that each trial speaks at batch 1. trials: sets of switches tried, those in `known` included.
        minutes: the search (not the last rounds) ends then; 0: no limit. finalists, rounds: the leaders, and how often
            each is measured again. known: readings of a run that was cut off, to go on from. record: is given all
            readings after each new one, to write them down. objective: measured in place of tokens a second; larger
            is better.

    Raises:
        ConfigError: nothing to measure on, or nothing was measured. MissingExtraError: optuna is not installed.
        NumericsError: the model produced NaN or infinity.
    """
    optuna = _optuna()
    from tqdm import tqdm

    depth = model.cfg.target_depth
    measure = objective or Speed(model, texts, sampling, gamma=gamma, verifier=verifier, seed=seed)
    space = {
        name: optuna.distributions.CategoricalDistribution((False, True))
        for name in _switches(LayerSkipConfig(), depth)
    }
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", optuna.exceptions.ExperimentalWarning
        )  # what optuna 4 says of multivariate; 5 has it by default
        # switches work together: one at a time, the search takes five times as many trials. A run that goes on draws
        # on:
        # from the first seed it would repeat its first random trials
        sampler = optuna.samplers.TPESampler(seed=seed + len(known), multivariate=True)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    history, pruned = list(known), optuna.trial.TrialState.PRUNED
    for reading in known:
        reading.config.skip(depth)
        state = pruned if reading.tokens_per_s is None else optuna.trial.TrialState.COMPLETE
        past = optuna.trial.create_trial(
            state=state, value=reading.tokens_per_s, params=_switches(reading.config, depth), distributions=space
        )
        study.add_trial(past)
    for layers in (range(1, depth, 2), range((depth + 1) // 2, depth)):  # every second layer, the upper half
        study.enqueue_trial(_switches(LayerSkipConfig(tuple(layers), tuple(layers)), depth), skip_if_exists=True)

    def note(config: LayerSkipConfig, value: float | None, final: bool = False) -> None:
        history.append(Reading(config.attention, config.feed_forward, value, final))
        if record is not None:
            record(history)

    end = time.monotonic() + 60 * minutes if minutes else float("inf")
    searched = sum(not reading.final for reading in known)
    for _ in tqdm(range(searched, trials), desc="switches", disable=not progress, mininterval=5):
        trial = study.ask(space)
        config = _config(trial.params, depth)
        if config.skipped in (0, 2 * depth):
            study.tell(trial, state=pruned)
            note(config, None)
            continue
        value = measure(config)
        study.tell(trial, value)
        note(config, value)
        if time.monotonic() >= end:
            break
    leaders = _leaders(history, finalists)
    for _ in range(rounds):
        for config in leaders:
            note(config, measure(config), final=True)
    return _leaders(history, 1, among=leaders)[0], history


def _leaders(
    history: Sequence[Reading], count: int, among: Sequence[LayerSkipConfig] | None = None
) -> list[LayerSkipConfig]:
    """The best by the median of their readings, best first.

    Raises:
        ConfigError: nothing was measured.
    """
    values: dict[LayerSkipConfig, list[float]] = {}
    for reading in history:
        if reading.tokens_per_s is not None and (among is None or reading.config in among):
            values.setdefault(reading.config, []).append(reading.tokens_per_s)
    if not values:
        raise ConfigError("no set of switches was measured: give more trials")
    return sorted(values, key=lambda config: -median(values[config]))[:count]


def _switches(config: LayerSkipConfig, depth: int) -> dict[str, Any]:
    return {
        f"{kind} {layer}": layer in getattr(config, kind)
        for kind in ("attention", "feed_forward")
        for layer in range(depth)
    }


def _config(switches: dict[str, Any], depth: int) -> LayerSkipConfig:
    return LayerSkipConfig(
        *(
            tuple(layer for layer in range(depth) if switches[f"{kind} {layer}"])
            for kind in ("attention", "feed_forward")
        )
    )


def _optuna() -> Any:
    try:
        import optuna
    except ImportError:
        raise MissingExtraError(
            "the search for layer_skip's switches needs optuna: pip install 'spear_spec[train]'"
        ) from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna
