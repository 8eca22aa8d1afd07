"""What `spear-spec train CONFIG` reads: one JSON or TOML file that names the corpora, the stages and their settings."""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from spear_spec.acoustic.unit.prompt import PromptConfig
from spear_spec.acoustic.unit.vocoder import VocoderConfig
from spear_spec.config import Clock, Strict, T2SConfig
from spear_spec.decoding.drafters import trained
from spear_spec.errors import ConfigError
from spear_spec.semantic.supervised import LAYERS
from spear_spec.training import settings
from spear_spec.training.data.download import MIRRORS
from spear_spec.training.drafts.settings import DraftTraining
from spear_spec.training.t2s.settings import T2STraining
from spear_spec.training.vocoder.settings import VocoderTraining

CLOCK = Clock(token_rate=25, hop=240, sample_rate=24000)  # of every voice so far
STAGES = (
    "prepare", "tokenize", "align", "t2s", "vocoder", "sampling", "draft", "drafters", "pack", "evaluate", "benchmark",
    "push",
)  # fmt: skip


@dataclass(frozen=True)
class Download(Strict):
    """Of the corpora that `prepare` names, those of LibriTTS that `prepare.data` lacks. mirrors: tried in turn;
    checksums: SHA-256 or MD5 by subset, for archives that the package does not know; keep: leave the archives there."""

    mirrors: tuple[str, ...] = MIRRORS
    checksums: dict[str, str] = field(default_factory=dict)
    keep: bool = False


@dataclass(frozen=True)
class Prepare(Strict):
    """corpora, dev, test: folders (or lhotse manifests), in the folder `data` where one is named. Without dev every
    `held_out_every`-th clip is held out. test: readers that nothing is trained on, for the evaluation.

    speakers: whom to keep, in the order of the models' tables (empty: the `most_speakers` with the most clips).
    unseen: dev, too, holds readers that are not trained on; otherwise of dev only those who are. Readers that have to
    stay apart and do not are an error.
    shortest, longest: seconds; clipped: largest share of samples that are cut off; pace: fewest and most phones a
    second, beyond which the text cannot be what is said. What does not fit is left out, and listed with the reason."""

    corpora: tuple[str, ...]
    dev: tuple[str, ...] = ()
    test: tuple[str, ...] = ()
    data: str | None = None
    form: str = "auto"
    speakers: tuple[str, ...] = ()
    most_speakers: int = 1000
    unseen: bool = False
    held_out_every: int = 50
    shortest: float = 0.3
    longest: float = 30.0
    clipped: float = 0.005
    pace: tuple[float, float] = (1.0, 40.0)
    limit: int | None = None

    def folders(self, which: Sequence[str]) -> list[Path]:
        """Where these corpora lie."""
        return [Path(self.data or "") / name for name in which]


@dataclass(frozen=True)
class Tokenize(Strict):
    """encoder: hub name or folder; layer: the hidden state that is divided. supervised: weights of the supervised
    encoder that stands behind it (semantic/supervised.py), which reads the hidden states `layers` instead, or null.
    centroids: a file, or a voice whose they are, or null to fit `clusters` on `fit_hours` of speech; given: [corpus
    folder, token file] pairs that exist; check: of those, how many clips are made again and compared (0: every clip is
    made again, and all are compared)."""

    encoder: str = "openai/whisper-base"
    layer: int = 4
    layers: tuple[int, ...] = LAYERS
    supervised: str | None = None
    clusters: int = 1024
    fit_hours: float = 1.0
    centroids: str | None = None
    given: tuple[tuple[str, str], ...] = ()
    check: int = 0


@dataclass(frozen=True)
class Ctc(Strict):
    """Shape and training of a CTC from tokens to phones. steps: instead of `minutes`."""

    minutes: float = 2.0
    steps: int | None = None
    dim: int = 256
    blocks: int = 4


@dataclass(frozen=True)
class Align(Ctc):
    """method: "ctc" or "diagonal", for clips without durations. The CTC is trained either way: later stages are
    judged by it. doubt: clips whose words the CTC hears worse than the median does, by so many robust deviations, are
    taken to say something else; the text-to-semantic model does not read them (0: it reads all).
    """

    method: str = "ctc"
    doubt: float = 8.0

    def __post_init__(self) -> None:
        if self.method not in ("ctc", "diagonal"):
            raise ConfigError(f"method must be ctc or diagonal, not {self.method!r}")


@dataclass(frozen=True)
class Shape(Strict):
    """Shape of an encoder-decoder transformer."""

    dim: int = 256
    heads: int = 4
    dim_head: int = 64
    encoder_layers: int = 4
    decoder_layers: int = 6

    def __post_init__(self) -> None:
        self.config(1, 1)

    def config(self, source: int, target: int) -> T2SConfig:
        """The whole shape, for so many ids that are read and that are written."""
        layers = (self.encoder_layers, self.decoder_layers)
        return T2SConfig(source, target, self.dim, *layers, self.heads, self.dim_head)


@dataclass(frozen=True)
class Target(Shape):
    """Shape of the text-to-semantic transformer, and its training (`joint` trains drafting heads along with it, which
    are left in OUT/t2s/export_joint); every: steps between two reports; save_minutes: between two checkpoints, at the
    most; start: a voice (folder or name) of the same shape and phonemes to go on from, instead of random weights: its
    speakers may be others."""

    every: int = 150
    save_minutes: float = 2.0
    start: str | None = None
    training: T2STraining = field(default_factory=T2STraining)


@dataclass(frozen=True)
class Vocoder(Strict):
    """shape: fields of `VocoderConfig`, but for those that follow from the corpus and the clock; workers: processes
    that analyse the audio; pitch: [corpus folder, file] pairs of a synthesiser's own F0 (see `analysis.py`); start: a
    voice (folder or name) of the same shape to go on from, whose speakers may be others (set training.gan_start to 0
    then); prompts: whether an encoder learns along that hears a voice in a prompt; prompt: fields of its
    `PromptConfig`."""

    workers: int = 1
    start: str | None = None
    pitch: tuple[tuple[str, str], ...] = ()
    shape: dict[str, Any] = field(default_factory=dict)
    prompts: bool = False
    prompt: dict[str, Any] = field(default_factory=dict)
    training: VocoderTraining = field(default_factory=VocoderTraining)

    def __post_init__(self) -> None:
        settings.read(PromptConfig, self.prompt, "prompt", without=("vector", "sample_rate"))
        follow = ("num_semantic_token_ids", "num_speakers", "sample_rate", "hop", "frames_per_token")
        settings.read(VocoderConfig, self.shape, "shape", without=follow)

    def config(self, tokens: int, speakers: int, clock: Clock) -> VocoderConfig:
        """The whole shape, for so many semantic tokens and speakers."""
        time = {"sample_rate": clock.sample_rate, "hop": clock.hop, "frames_per_token": clock.frames_per_token}
        sizes = {"num_semantic_token_ids": tokens, "num_speakers": speakers}
        return VocoderConfig.from_dict({**time, **sizes, **self.shape})

    def encoder(self, vocoder: VocoderConfig) -> PromptConfig | None:
        """The shape of the prompt encoder, where there is one."""
        if not self.prompts:
            return None
        return PromptConfig.from_dict({**self.prompt, "vector": 2 * vocoder.dim, "sample_rate": vocoder.sample_rate})


@dataclass(frozen=True)
class Sampling(Strict):
    """Candidates [temperature, top_p] are judged on `sentences` of the held-out texts; guidance and top_k are not
    searched.
    """

    candidates: tuple[tuple[float, float], ...] = ((0.7, 0.9), (0.7, 0.95), (0.8, 0.95), (1.0, 0.95))
    judges: tuple[str, ...] = ("wer", "mos")
    sentences: int = 60
    max_tokens: int | None = None

    def __post_init__(self) -> None:
        for temperature, top_p in self.candidates:
            if temperature < 0.7 or top_p < 0.9:
                raise ConfigError("candidates: a voice ships with temperature at least 0.7 and top_p at least 0.9")


@dataclass(frozen=True)
class Draft(Strict):
    """Shape of the draft, and its training; samples: utterances that the target speaks for it; start: a voice of the
    same shapes whose draft is gone on from, where the target was gone on from too."""

    depth: int = 1
    ff_mult: int = 2
    layers: tuple[int, ...] = (2, 4, 6)
    samples: int = 6000
    minutes: float = 0.0
    batch: int = 24
    every: int = 100
    start: str | None = None
    training: DraftTraining = field(default_factory=DraftTraining)


@dataclass(frozen=True)
class Drafters(Strict):
    """The other ways to draft, trained on the same samples: names of `drafts.trainer.draft_shapes`, and layer_skip.

    ff_mult, exit_layer (early_exit drafts behind it), tree_nodes (of Medusa's sparse tree): shapes. training: fields of
    `DraftTraining` for all; own: for one, by name. skip_minutes, skip_trials: how long layer_skip's switches are
    searched for. start: a voice whose drafts are gone on from.
    """

    names: tuple[str, ...] = field(default_factory=lambda: trained("drafters"))
    ff_mult: int = 2
    exit_layer: int = 2
    tree_nodes: int = 64
    every: int = 150
    skip_minutes: float = 5.0
    skip_trials: int = 200
    start: str | None = None
    training: dict[str, Any] = field(default_factory=dict)
    own: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for where, names in (("names", self.names), ("own", self.own)):
            if unknown := sorted(set(names) - set(trained("drafters"))):
                raise ConfigError(
                    f"{where}: nothing is trained for {', '.join(unknown)}; known are {', '.join(trained('drafters'))}"
                )
        settings.read(DraftTraining, self.training, "training")
        for name in self.own:
            self.settings(name)

    def settings(self, name: str) -> DraftTraining:
        """Of one drafter's training.

        Raises:
            ConfigError: an unknown key, or a value that cannot be.
        """
        settings.read(DraftTraining, self.own.get(name, {}), f"own.{name}")
        return DraftTraining.from_dict({**self.training, **self.own.get(name, {})})


@dataclass(frozen=True)
class Pack(Strict):
    """What the bundle says of itself; gamma of the shipped speculation. complete: sentences that leave out words are
    drawn again by default, for voices of which `recipes/benchmark/hard.py` shows that it helps; rounded: the vocoder's
    frame blocks in whole numbers, for those with which `recipes/benchmark/rounded_vocoder.py` hears no difference."""

    name: str = "my-voice"
    licence: str = "unknown"
    origin: str = "unknown"
    gamma: int = 5
    complete: bool = False
    rounded: bool = False
    reference: str | None = None


@dataclass(frozen=True)
class Evaluate(Strict):
    """text: a file with one sentence a line (null: the held-out texts); judges of `spear-spec eval`; verified: tokens
    that `verify` scores (0: it is left out). Where `prepare.test` names readers and the vocoder takes prompts: cases,
    how many of their texts are spoken with a prompt of another clip of theirs, prompt_s seconds long."""

    text: str | None = None
    judges: tuple[str, ...] = ("wer", "cer", "per", "mos", "speaker_similarity")
    sentences: int = 200
    max_tokens: int | None = None
    verified: int = 4000
    cases: int = 80
    prompt_s: float = 3.0

    def __post_init__(self) -> None:
        if self.prompt_s < 1:
            raise ConfigError(f"prompt_s must be 1 second or more, not {self.prompt_s:g}")
        if 0 < self.verified < 100:
            raise ConfigError(f"verified must be 100 tokens or more, or 0, not {self.verified}")


@dataclass(frozen=True)
class Benchmark(Strict):
    """What `spear-spec bench` measures on the finished voice: drafters ("all": every one that the voice has; none
    named: its own), draft lengths, batch sizes, runs."""

    drafters: tuple[str, ...] = ()
    gammas: tuple[int, ...] = ()
    batches: tuple[int, ...] = (1,)
    runs: int = 3
    sentences: int = 8
    max_tokens: int | None = None


@dataclass(frozen=True)
class Push(Strict):
    """to: a folder, or OWNER/NAME of the Hugging Face hub (null: the voice stays where it is). public: a new repository
    is one that everybody sees. force: in place of another voice that is in the folder."""

    to: str | None = None
    public: bool = False
    force: bool = False
    message: str | None = None


SECTIONS: dict[str, type[Strict]] = {
    "download": Download, "prepare": Prepare, "tokenize": Tokenize, "align": Align, "t2s": Target, "vocoder": Vocoder,
    "sampling": Sampling, "draft": Draft, "drafters": Drafters, "pack": Pack, "evaluate": Evaluate,
    "benchmark": Benchmark, "push": Push,
}  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """A checked configuration. out: where everything is written; stages: which to run, in the recipe's order; clock: of
    the voice's tokens and sound; workers: processes of the stages that work in shards (data/spread.py), or with `ray`
    (a cluster's address, or "local") workers of Ray Data."""

    out: Path
    stages: tuple[str, ...]
    download: Download
    prepare: Prepare
    tokenize: Tokenize
    align: Align
    t2s: Target
    vocoder: Vocoder
    sampling: Sampling
    draft: Draft
    drafters: Drafters
    pack: Pack
    evaluate: Evaluate
    benchmark: Benchmark
    push: Push
    clock: Clock = CLOCK
    device: str = "cpu"
    threads: int = 1
    workers: int = 1
    ray: str | None = None
    seed: int = 0
    progress: bool = True

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Plan:
        """Check a configuration, every section of it, whatever is to run.

        Raises:
            ConfigError: an unknown key or stage, a missing one, or a value of the wrong kind.
        """
        known = {f.name for f in fields(cls)}
        if unknown := sorted(set(values) - known):
            raise ConfigError(f"unknown key {', '.join(unknown)} in the recipe; known are {', '.join(sorted(known))}")
        for key in ("out", "prepare"):
            if key not in values:
                raise ConfigError(f"the recipe says nothing of {key!r}")
        kinds: dict[str, Any] = {
            "out": str, "stages": tuple[str, ...], "device": str, "threads": int, "workers": int,
            "ray": str | None, "seed": int, "progress": bool,
        }  # fmt: skip
        for key, kind in kinds.items():
            if key in values and not settings.fits(values[key], kind):
                raise ConfigError(f"{key} must be {settings.in_words(kind)}, not {values[key]!r}")
        stages = tuple(values.get("stages", STAGES))
        if wrong := [s for s in stages if s not in STAGES]:
            raise ConfigError(f"unknown stage {', '.join(wrong)}; known are {', '.join(STAGES)}")
        for key in ("threads", "workers"):
            if values.get(key, 1) < 1:
                raise ConfigError(f"{key} must be above 0, not {values[key]}")
        rest = {key: values[key] for key in kinds if key in values and key not in ("out", "stages")}
        sections: dict[str, Any] = {
            name: settings.read(kind, values.get(name, {}), name) for name, kind in SECTIONS.items()
        }
        sections["clock"] = settings.read(Clock, values.get("clock", {}), "clock", defaults=CLOCK)
        if foreign := [n for n in sections["draft"].layers if not 1 <= n <= sections["t2s"].decoder_layers]:
            raise ConfigError(
                f"draft.layers: the target has layers 1 to {sections['t2s'].decoder_layers}, not {foreign}"
            )
        return cls(Path(values["out"]), tuple(s for s in STAGES if s in stages), **sections, **rest)


def read_file(path: str | os.PathLike[str]) -> dict[str, Any]:
    """A JSON or TOML file as it stands.

    Raises:
        ConfigError: the file is missing or damaged.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
        values = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror or error}") from None
    except ValueError as error:
        raise ConfigError(f"{path} is not {'TOML' if path.suffix == '.toml' else 'JSON'}: {error}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path} must hold an object")
    return values


def set_value(values: dict[str, Any], assignment: str) -> None:
    """Apply `section.key=value` (the value as JSON, or a bare string) to a configuration, in place.

    Raises:
        ConfigError: the assignment has no `=`, or goes through something that is no section.
    """
    path, sign, text = assignment.partition("=")
    if not sign:
        raise ConfigError(f"{assignment!r} is not KEY=VALUE")
    try:
        value = json.loads(text)
    except ValueError:
        value = text
    *sections, key = path.split(".")
    for section in sections:
        values = values.setdefault(section, {})
        if not isinstance(values, dict):
            raise ConfigError(f"{path}: {section} is no section")
    values[key] = value
