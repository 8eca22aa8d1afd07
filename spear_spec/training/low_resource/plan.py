"""What `recipes/low_resource/run.sh` reads: one TOML or JSON file, and which part of the corpus counts as parallel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from spear_spec.config import SamplingConfig, Strict, number, whole
from spear_spec.errors import ConfigError
from spear_spec.training import settings
from spear_spec.training.low_resource.backtranslate import WAYS
from spear_spec.training.low_resource.filter import Filter
from spear_spec.training.recipe.plan import Ctc, Plan, Shape
from spear_spec.training.t2s.settings import T2STraining

STAGES = (
    "prepare", "tokenize", "parallel", "pretrain", "scratch", "finetune", "ctc", "back", "pseudo", "forward", "final",
    "evaluate",
)  # fmt: skip
SHARED = ("prepare", "tokenize", "pretrain")  # the same for every parallel part


@dataclass(frozen=True)
class Parallel(Strict):
    """Which clips have text: so many minutes of one speaker (None: the one with the most clips), drawn by chance;
    a smaller part lies within a larger one. minutes 0: all clips of all speakers.
    """

    minutes: float = 15.0
    speaker: str | None = None

    def __post_init__(self) -> None:
        number("minutes", self.minutes, 0, 1e6)


@dataclass(frozen=True)
class SmallShape(Shape):
    """Shape of every transformer of the run."""

    dim: int = 192
    heads: int = 3
    encoder_layers: int = 3
    decoder_layers: int = 4


@dataclass(frozen=True)
class Pretrain(Strict):
    """deleted: share of the semantic tokens that the encoder does not see."""

    deleted: float = 0.6
    every: int = 100
    training: T2STraining = field(default_factory=T2STraining)


@dataclass(frozen=True)
class Lesson(Strict):
    """One training; every: steps between two reports on held-out speech, of which the best one's weights are kept."""

    every: int = 50
    training: T2STraining = field(default_factory=T2STraining)


@dataclass(frozen=True)
class Back(Strict):
    """The back-translator's training. deleted: of its source, at each reading, a share drawn from 0 to this is deleted:
    few pairs give many sources so, and of the kind that the frozen encoder was trained on.
    """

    deleted: float = 0.6
    every: int = 50
    training: T2STraining = field(default_factory=lambda: T2STraining(join_share=0.0))

    def __post_init__(self) -> None:
        number("deleted", self.deleted, 0, 0.99)


@dataclass(frozen=True)
class Freeze(Strict):
    """lower: encoder layers that learn, counted from the text; cross_attention: whether that of the decoder learns;
    helpers: whether history vector and auxiliary head do (see freeze.py).
    """

    lower: int = 2
    cross_attention: bool = True
    helpers: bool = False


@dataclass(frozen=True)
class Pseudo(Strict):
    """way: "guided", "sample" or "beam" (width `beam`), see `backtranslate.hear`; temperature, top_p: of the
    back-translator; candidates: texts drawn for each clip, of which the likeliest is taken; batch: clips at a time;
    limit: clips at most, drawn by chance (None: all); durations: whether pseudo-pairs get those of the CTC (only where
    the parallel part has durations).
    """

    way: str = "guided"
    beam: int = 10
    temperature: float = 0.3
    top_p: float = 0.95
    candidates: int = 1
    batch: int = 48
    limit: int | None = None
    durations: bool = True
    filter: Filter = field(default_factory=Filter)

    def __post_init__(self) -> None:
        whole("batch", self.batch, 1, 10_000)
        whole("candidates", self.candidates, 1, 100)
        whole("beam", self.beam, 1, 1000)
        if self.way not in WAYS:
            raise ConfigError(f"way must be one of {', '.join(WAYS)}, not {self.way!r}")

    @property
    def sampling(self) -> SamplingConfig:
        return SamplingConfig(temperature=self.temperature, top_p=self.top_p)


@dataclass(frozen=True)
class Evaluate(Strict):
    """sentences: of the held-out clips, the first; the others choose among the weights. voice: whose vocoder speaks.

    judge: whether Whisper tiny.en listens; without it held-out figures alone are told.
    """

    sentences: int = 100
    voice: str = "kokoro-duo"
    temperature: float = 0.7
    top_p: float = 0.9
    batch: int = 24
    judge: bool = True

    def __post_init__(self) -> None:
        whole("sentences", self.sentences, 1, 100_000)

    @property
    def sampling(self) -> SamplingConfig:
        return SamplingConfig(temperature=self.temperature, top_p=self.top_p)


SECTIONS: dict[str, type[Strict]] = {
    "parallel": Parallel, "shape": SmallShape, "freeze": Freeze, "pretrain": Pretrain, "scratch": Lesson,
    "finetune": Lesson, "ctc": Ctc, "back": Back, "pseudo": Pseudo, "forward": Lesson, "final": Lesson,
    "evaluate": Evaluate,
}  # fmt: skip


@dataclass(frozen=True)
class LowResource:
    """A checked configuration. corpus: the recipe whose first stages make clips and tokens; the rest are sections."""

    corpus: Plan
    stages: tuple[str, ...]
    parallel: Parallel
    shape: SmallShape
    freeze: Freeze
    pretrain: Pretrain
    scratch: Lesson
    finetune: Lesson
    ctc: Ctc
    back: Back
    pseudo: Pseudo
    forward: Lesson
    final: Lesson
    evaluate: Evaluate

    @property
    def out(self) -> Path:
        return self.corpus.out

    @property
    def part(self) -> str:
        """How the parallel part is called."""
        if not self.parallel.minutes:
            return "all"
        return f"{self.parallel.speaker or 'most'}-{self.parallel.minutes:g}min"

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> LowResource:
        """Check a configuration, every section of it, whatever is to run.

        Raises:
            ConfigError: an unknown key or stage, a missing one, or a value of the wrong kind.
        """
        stages = tuple(values.get("stages", STAGES))
        if wrong := [str(stage) for stage in stages if stage not in STAGES]:
            raise ConfigError(f"unknown stage {', '.join(wrong)}; known are {', '.join(STAGES)}")
        common = {"out", "prepare", "tokenize", "clock", "device", "threads", "seed", "progress"}
        known = {*common, *SECTIONS, "stages"}
        if unknown := sorted(set(values) - known):
            raise ConfigError(f"unknown key {', '.join(unknown)} in the recipe; known are {', '.join(sorted(known))}")
        corpus = Plan.from_dict({key: values[key] for key in common if key in values} | {"stages": []})
        sections: dict[str, Any] = {
            name: settings.read(kind, values.get(name, {}), name) for name, kind in SECTIONS.items()
        }
        plan = cls(corpus, tuple(stage for stage in STAGES if stage in stages), **sections)
        if plan.freeze.lower > plan.shape.encoder_layers:
            raise ConfigError(f"freeze.lower: the encoder has {plan.shape.encoder_layers} layers")
        return plan


assert {f.name for f in fields(LowResource)} == {"corpus", "stages", *SECTIONS}
