"""What a run is done with. Its key says whether work that is found on disk is this run's."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from spear_spec.acoustic.takes import MOST_TAKES
from spear_spec.config import SamplingConfig, SpecConfig, Strict, number, require, whole
from spear_spec.decoding.chance import check_seed
from spear_spec.decoding.request import check_cap
from spear_spec.errors import ConfigError
from spear_spec.text import Lexicon, Pauses, Reading

FORMATS = ("wav", "flac")
PACKINGS = ("files", "tar")
MOST_ROWS = 4096
BATCH = 16
SHARD_LINES = 64
_NOT_HEARD = ("voice", "batch", "prompt", "lexicon", "acoustic")  # say nothing about what is written


@dataclass(frozen=True)
class Settings(Strict):
    """All that the files depend on, besides the lines, and the rows of a worker's engine (`batch`), which they do not.

    voice: name or folder, as a worker opens it; fingerprint: of what was found there. spec, sampling: in full.
    packing: a file for each line, or one tar file for each shard. prompt: the file whose voice speaks what has none of
    its own, as a worker opens it, and its SHA-256. provenance: as `TTS.synthesize`. pauses: the fields of `Pauses`.
    lexicon: a file, as a worker opens it, and the SHA-256 of what it says. ssml: texts are SSML. best_of, judge: so
    many takes of each sentence, and who chooses, by name. acoustic: another stage than the voice's own, as a worker
    opens it, and its fingerprint. complete: "off", "on" or "stream", as `TTS.stream` has it.

    Raises:
        ConfigError: a value that cannot be used.
    """

    voice: str | None
    name: str
    fingerprint: str
    speaker: str
    version: str
    seed: int = 0
    speed: float = 1.0
    max_tokens: int | None = None
    sampling: dict[str, Any] = field(default_factory=dict)
    spec: dict[str, Any] = field(default_factory=dict)
    device: str = "cpu"
    dtype: str = "float32"
    threads: int = 1
    format: str = "wav"
    packing: str = "files"
    shard_lines: int = SHARD_LINES
    batch: int = BATCH
    prompt: str | None = None
    prompt_sha256: str | None = None
    provenance: bool | None = None
    pauses: dict[str, float] = field(default_factory=lambda: asdict(Pauses()))
    lexicon: str | None = None
    lexicon_sha256: str | None = None
    ssml: bool = False
    best_of: int = 1
    judge: str | None = None
    acoustic: str | None = None
    acoustic_fingerprint: str | None = None
    complete: str = "off"

    def __post_init__(self) -> None:
        check_seed(self.seed)
        check_cap(self.max_tokens)
        number("speed", self.speed, 0.25, 4)
        require(self.format in FORMATS, f"format must be {' or '.join(FORMATS)}, not {self.format!r:.40}")
        require(self.packing in PACKINGS, f"shards are {' or '.join(PACKINGS)}, not {self.packing!r:.40}")
        whole("threads", self.threads, 1, 1024)
        whole("lines of a shard", self.shard_lines, 1, 10**6)
        whole("batch", self.batch, 1, MOST_ROWS)
        require((self.prompt is None) == (self.prompt_sha256 is None), "a prompt goes with its SHA-256")
        require((self.lexicon is None) == (self.lexicon_sha256 is None), "a lexicon goes with its SHA-256")
        require((self.acoustic is None) == (self.acoustic_fingerprint is None), "a stage goes with its fingerprint")
        whole("best_of", self.best_of, 1, MOST_TAKES)
        require((self.best_of == 1) == (self.judge is None), "several takes go with the name of a judge")
        require(self.complete in ("off", "on", "stream"), f"complete is off, on or stream, not {self.complete!r:.40}")
        Pauses(**self.pauses)
        SamplingConfig.from_dict(self.sampling)
        SpecConfig.from_dict(self.spec)

    def reading(self) -> Reading:
        """How texts are read.

        Raises:
            ConfigError: the lexicon cannot be read, or says something else than it did.
        """
        lexicon = Lexicon.of(self.lexicon)
        if lexicon is not None and digest(lexicon.to_json()) != self.lexicon_sha256:
            raise ConfigError(f"the lexicon {self.lexicon} is not the one that this run began with")
        return Reading(Pauses(**self.pauses), lexicon, self.ssml)

    def heard(self) -> dict[str, Any]:
        """What the files depend on: kept with them, and compared before more is added."""
        return {name: value for name, value in self.to_dict().items() if name not in _NOT_HEARD}

    @property
    def key(self) -> str:
        return digest(self.heard())


def steady(spec: SpecConfig, batch: int) -> SpecConfig:
    """The same speculation with one draft length whatever the number of rows: what is drawn for a line depends on it,
    and must not depend on the lines beside it. With the rule `coupled` nothing that is drawn does."""
    if spec.verifier == "coupled":
        return spec
    return replace(spec, gamma=spec.gamma_at(batch), gammas={})


def digest(value: Any) -> str:
    """SHA-256 of a JSON value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()
