"""`config.json` of a voice: what it is, what its parts are, and the files that hold them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from spear_spec.config import Clock, SamplingConfig, SpecConfig, Strict, require, shown, whole, words
from spear_spec.errors import ConfigError
from spear_spec.voice.files import VOICE_BYTES, Shard
from spear_spec.voice.registry import DEFAULT_KINDS

SCHEMA = "spear-voice/1"
PARTS = ("t2s", "draft", "vocoder", "prompt", "centroids", "supervised")  # the last two are of the tokenizer
MOST_SHARDS = 1024


@dataclass(frozen=True)
class VoiceConfig(Strict):
    """A voice's `config.json`, checked: every field has a bound, and no file is looked at.

    speakers: the first is the default. text, t2s, vocoder: shapes of the front end, the target and the acoustic
    stage; kinds: which builder of `voice.registry` each of these needs (`kind` in the part's object; what ships
    where it is left out). prompt: shape of the encoder with which the acoustic stage hears a voice in a clip (null:
    it has named speakers only). complete: sentences that leave out words are drawn again unless a request says
    otherwise, which is for voices whose attention was found to tell (docs/completeness.md). rounded: on a CPU the
    unit vocoder computes its frame blocks in whole numbers (`UnitStage.rounded`), for voices with which judges hear
    no difference (recipes/benchmark/rounded_vocoder.py). draft: shape of what the voice ships to draft with (null:
    nothing); drafters: shapes of further drafts by the drafter's name; `drafts` has them all. packages: for each
    kind or drafter that is not ours, the package that brings it. sampling, spec: what `say` uses when nothing else
    is asked for. semantic: `rate` (tokens a second) and `k` (how many there are) of the semantic tokens, and where
    they come from. files: for each part its shards, [{"file", "bytes", "sha256"}].
    """

    schema: str
    name: str
    licence: str
    origin: str
    sample_rate: int
    speakers: tuple[str, ...]
    text: dict[str, Any]
    t2s: dict[str, Any]
    vocoder: dict[str, Any]
    semantic: dict[str, Any]
    files: dict[str, list[dict[str, Any]]]
    draft: dict[str, Any] | None = None
    prompt: dict[str, Any] | None = None
    drafters: dict[str, dict[str, Any]] = field(default_factory=dict)
    sampling: dict[str, Any] = field(default_factory=dict)
    spec: dict[str, Any] = field(default_factory=dict)
    complete: bool = False
    rounded: bool = False
    packages: dict[str, str] = field(default_factory=dict)
    kinds: dict[str, str] = field(default_factory=lambda: dict(DEFAULT_KINDS))

    def __post_init__(self) -> None:
        if self.schema != SCHEMA:
            raise ConfigError(
                f"schema {shown(self.schema)} is not {SCHEMA!r}: the voice is of another version of spear_spec"
            )
        words("name", self.name, 100)
        words("licence", self.licence, 500)
        words("origin", self.origin, 4000)
        for name in ("text", "t2s", "vocoder", "semantic", "drafters", "files", "sampling", "spec", "packages"):
            require(isinstance(getattr(self, name), dict), f"{name} must be an object")
        for name in ("draft", "prompt"):
            shape = getattr(self, name)
            require(shape is None or isinstance(shape, dict), f"{name} must be an object or null")
        for name in ("complete", "rounded"):
            require(isinstance(getattr(self, name), bool), f"{name} must be true or false")
        ok = isinstance(self.speakers, tuple) and 0 < len(self.speakers) <= 10_000
        require(ok, "speakers must name at least one speaker and at most 10000")
        for speaker in self.speakers:
            words("speakers: a name", speaker, 100)
        distinct = len(set(self.speakers)) == len(self.speakers) and "" not in self.speakers
        require(distinct, "speakers must have names, no two the same")
        for name, package in self.packages.items():
            words("packages: a kind", name, 100)
            words("packages: a package", package, 100)
        for part, kind in self.kinds.items():
            words(f"{part}: kind", kind, 100)
        require(len(self.drafters) <= 64, f"drafters: {len(self.drafters)}; a voice has at most 64")
        for name, shape in self.drafters.items():
            words("drafters: a name", name, 100)
            require(isinstance(shape, dict), f"drafters: {name} must be an object")
        self._check_files()
        whole("semantic: k", self.semantic.get("k"), 1, 2**20)
        SamplingConfig.from_dict(self.sampling)
        SpecConfig.from_dict(self.spec)
        assert self.clock is not None  # made here once, so that its checks have passed

    def _check_files(self) -> None:
        for part in self.files:
            if part not in (*PARTS, *self.drafters) or not isinstance(self.files[part], list):
                known = ", ".join(PARTS)
                raise ConfigError(f"files: unknown part {shown(part)}; known are {known} and the voice's drafters")
        entries = [(part, entry) for part in self.files for entry in self.files[part]]
        require(len(entries) <= MOST_SHARDS, f"files: {len(entries)} shards; a voice has at most {MOST_SHARDS}")
        for part, entry in entries:
            whole_entry = isinstance(entry, Mapping) and set(entry) == {"file", "bytes", "sha256"}
            require(whole_entry, f"files: {part}: a file entry must hold file, bytes and sha256")
        shards = [Shard.from_dict(entry) for _, entry in entries]
        require(len({shard.file for shard in shards}) == len(shards), "files: a shard is listed twice")
        total = sum(shard.bytes for shard in shards)
        require(total <= VOICE_BYTES, f"files: {total} bytes; a voice has at most {VOICE_BYTES}")
        # a part of another kind need not have weights; other drafts are looked for when they are used
        needed = [part for part in ("t2s", "vocoder") if self.kinds.get(part) == DEFAULT_KINDS[part]]
        needed += [part for part in ("draft", "prompt") if getattr(self, part) is not None]
        absent = [part for part in needed if part not in self.files]
        require(not absent, f"no files for {', '.join(absent)}")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Build from the JSON object; the parts' kinds stand in their objects.

        Raises:
            ConfigError: see `Strict.from_dict`.
        """
        if not isinstance(values, Mapping) or "kinds" in values:
            raise ConfigError("a voice is an object without a key kinds")
        parts = {part: dict(values[part]) for part in DEFAULT_KINDS if isinstance(values.get(part), Mapping)}
        kinds = {
            # the front end reads its own kind too
            part: (shape.get("kind", default) if part == "text" else shape.pop("kind", default))
            for part, default in DEFAULT_KINDS.items()
            if (shape := parts.get(part)) is not None
        }
        return super().from_dict({**values, **parts, "kinds": kinds})

    def to_dict(self) -> dict[str, Any]:
        """The JSON object that `from_dict` reads back."""
        values = super().to_dict()
        if self.prompt is None:  # a voice without one reads as it always did
            del values["prompt"]
        for name in ("complete", "rounded"):
            if not values[name]:
                del values[name]
        for part, kind in values.pop("kinds").items():
            values[part] = {"kind": kind, **values[part]}
        return values

    @property
    def drafts(self) -> dict[str, tuple[str, dict[str, Any]]]:
        """For each drafter that has something trained in the bundle: its part and its shape.

        The part "draft" is what the voice ships to draft with: fed with the target's features it is an eagle, else
        small.
        """
        found = {name: (name, shape) for name, shape in self.drafters.items()}
        if self.draft is not None:
            found["eagle" if self.draft.get("target_layers") else "small"] = ("draft", self.draft)
        return found

    @property
    def clock(self) -> Clock:
        """Token rate, hop and sample rate; a stage without frames has one frame a token.

        Raises:
            ConfigError: they do not fit each other.
        """
        rate, hop = self.semantic.get("rate"), self.vocoder.get("hop")
        if hop is None:
            whole("semantic: rate", rate, 1, 1000)
            whole("sample_rate", self.sample_rate, 1000, 384_000)
            hop = self.sample_rate // rate  # type: ignore[operator]
        return Clock(rate, hop, self.sample_rate)  # type: ignore[arg-type]

    def shards(self, part: str) -> list[Shard]:
        """The files of a part, in order."""
        return [Shard.from_dict(entry) for entry in self.files[part]]

    def whence(self, kind: str, known: tuple[str, ...]) -> str:
        """What to do about a kind that is not known here."""
        package = self.packages.get(kind)
        return f"known are {', '.join(known)}" if package is None else f"install the package {package}, which brings it"
