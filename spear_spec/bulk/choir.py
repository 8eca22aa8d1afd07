"""Many lines through one engine, as many rows as fit; each line sounds as if it had been spoken alone."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count

import numpy as np

from spear_spec.acoustic.contract import Heard
from spear_spec.acoustic.speaking import Voiced, sentence_noise, sentence_seed
from spear_spec.audio import Audio, FloatArray
from spear_spec.bulk.lines import Line
from spear_spec.bulk.settings import Settings
from spear_spec.config import SamplingConfig
from spear_spec.decoding import Request
from spear_spec.decoding.proposal import DecodeStats
from spear_spec.engine import Engine, Utterance
from spear_spec.errors import AudioError, SpearSpecError
from spear_spec.pipeline import TTS
from spear_spec.text import Segment
from spear_spec.voice.bundle import choose_speaker

_WORST = ("eos", "cap", "guard")
MOST_HEARD = 256  # prompts that are kept
log = logging.getLogger("spear_spec")


@dataclass(frozen=True)
class Spoken:
    """A line that was spoken. seed, speaker, prompt (its SHA-256): what it was spoken with; ended: as in `Utterance`,
    the worst of its sentences; warnings: of the text front end."""

    audio: Audio
    seed: int
    speaker: str
    stats: DecodeStats
    ended: str
    warnings: tuple[str, ...] = ()
    prompt: str | None = None


@dataclass(eq=False)
class _Part:
    """A line under way."""

    line: Line
    seed: int
    speaker: str
    voice: str | Heard
    speed: float
    law: SamplingConfig
    cap: int | None
    segments: Iterator[Segment]
    sound: dict[int, list[FloatArray]] = field(default_factory=dict)  # of each sentence
    started: int = 0
    whole: bool = False  # no sentence is left to start
    stats: DecodeStats = field(default_factory=DecodeStats)
    ended: str = "eos"
    warnings: list[str] = field(default_factory=list)
    error: SpearSpecError | None = None

    @property
    def done(self) -> bool:
        return self.error is not None or (self.whole and len(self.sound) == self.started)


class Choir:
    """Speaks lines with a voice whose takes do not depend on the batch (`settings.steady`).

    Sentences of several lines share the rows of one engine; the longest lines begin, so that few are left alone at the
    end. A line that cannot be spoken takes nobody with it.

    Raises:
        AudioError, ConfigError: the prompt of the settings cannot be used.
    """

    def __init__(self, tts: TTS, settings: Settings) -> None:
        self.tts, self.settings = tts, settings
        self._heard: dict[str, Heard] = {}
        if settings.prompt is not None and settings.prompt_sha256 is not None:
            self._hear(settings.prompt, settings.prompt_sha256)  # a prompt for all lines is refused at once

    def speak(self, lines: Sequence[Line]) -> Iterator[tuple[Line, Spoken | SpearSpecError]]:
        """Every line once, as soon as it is done, in any order: its sound, or why it cannot be spoken."""
        left = sorted(lines, key=lambda line: (-len(line.text), line.number))
        done: set[int] = set()
        try:
            for line, result in self._together(left):
                done.add(line.number)
                yield line, result
        except SpearSpecError as error:  # of the engine, which does not go on: find out whose fault it is
            if len(left) == 1:
                yield left[0], error
                return
            for line in left:
                if line.number not in done:
                    yield from self.speak([line])

    def _together(self, lines: Sequence[Line]) -> Iterator[tuple[Line, Spoken | SpearSpecError]]:
        engine = self.tts.decoder.engine()
        waiting = deque(lines)
        rows: dict[int, tuple[_Part, int, Segment, Utterance]] = {}
        number = count()
        part: _Part | None = None  # whose sentences are being started
        while True:
            while len(rows) < self.settings.batch and (part is not None or waiting):
                if part is None:
                    line = waiting.popleft()
                    try:
                        part = self._begin(line)
                    except SpearSpecError as error:
                        yield line, error
                        continue
                segment = self._next(part)
                if segment is None:
                    if part.done and not _under_way(part, rows):
                        yield part.line, self._result(part)
                    part = None
                    continue
                index, part.started = part.started, part.started + 1
                own = sentence_seed(part.seed, index)
                # one at a time: in a common call of the encoder the rounding of a text could depend on the others
                [utterance] = engine.admit([Request(segment.ids, seed=own, sampling=part.law, cap=part.cap)])
                rows[next(number)] = part, index, segment, utterance
            if not rows:
                return
            _run(engine, rows)
            for key in [key for key, (*_, utterance) in rows.items() if utterance.ended is not None]:
                owner, index, segment, utterance = rows.pop(key)
                self._sound(owner, index, segment, utterance)
                if owner.done and owner is not part and not _under_way(owner, rows):
                    yield owner.line, self._result(owner)

    def _begin(self, line: Line) -> _Part:
        settings = self.settings
        speaker = choose_speaker(self.tts.bundle, settings.speaker if line.speaker is None else line.speaker)
        return _Part(
            line,
            settings.seed if line.seed is None else line.seed,
            speaker,
            self._voice(line, speaker),
            settings.speed if line.speed is None else line.speed,
            self.tts.sampling.changed(**line.sampling),
            settings.max_tokens if line.max_tokens is None else line.max_tokens,
            self.tts.front_end.segments(line.text, speaker),
        )

    def _voice(self, line: Line, speaker: str) -> str | Heard:
        """Whose sound a line has."""
        for prompt, sha256 in (
            (line.prompt, line.prompt_sha256),
            (self.settings.prompt, self.settings.prompt_sha256),
        ):
            if prompt is not None and sha256 is not None:
                return self._hear(prompt, sha256)
        return speaker

    def _hear(self, prompt: str, sha256: str) -> Heard:
        if sha256 not in self._heard:
            heard = self.tts.hear(prompt)
            if heard.sha256 != sha256:
                raise AudioError(f"the prompt {prompt} is not the one that this run began with")
            if len(self._heard) >= MOST_HEARD:
                self._heard.pop(next(iter(self._heard)))
            self._heard[sha256] = heard
        return self._heard[sha256]

    def _next(self, part: _Part) -> Segment | None:
        """The next sentence of a line; None: there is none, or the text cannot be spoken."""
        if part.error is not None:
            return None
        try:
            with _told(part.warnings):
                segment = next(part.segments, None)
        except SpearSpecError as error:
            part.error, segment = error, None
        part.whole = segment is None
        return segment

    def _sound(self, part: _Part, index: int, segment: Segment, utterance: Utterance) -> None:
        """An utterance has ended: make its sound."""
        assert utterance.ended is not None
        part.stats += utterance.stats
        part.ended = max(part.ended, utterance.ended, key=_WORST.index)
        part.sound[index] = []
        if part.error is not None:
            return
        try:
            noise = sentence_noise(part.seed, index)
            voiced = Voiced(self.tts.stage, segment, utterance, part.voice, noise, part.speed)
            voiced.see()
            while voiced.due(heard=True):
                part.sound[index].append(voiced.take()())
        except SpearSpecError as error:
            part.error = error

    def _result(self, part: _Part) -> Spoken | SpearSpecError:
        if part.error is not None:
            return part.error
        pieces = [piece for index in sorted(part.sound) for piece in part.sound[index]]
        tags = self.tts.tags(part.speaker, part.voice, self.settings.provenance)
        audio = Audio(np.concatenate(pieces), self.tts.sample_rate, tags=tags)
        prompt = part.voice.sha256 if isinstance(part.voice, Heard) else None
        return Spoken(audio, part.seed, part.speaker, part.stats, part.ended, tuple(part.warnings), prompt)


def _run(engine: Engine, rows: dict[int, tuple[_Part, int, Segment, Utterance]]) -> None:
    """Decode until an utterance has ended."""
    while all(utterance.ended is None for *_, utterance in rows.values()):
        engine.step()


def _under_way(part: _Part, rows: dict[int, tuple[_Part, int, Segment, Utterance]]) -> bool:
    return any(owner is part for owner, *_ in rows.values())


class _told(logging.Filter):
    """Keeps the front end's warnings for the line's record, instead of thousands of lines on standard error."""

    def __init__(self, into: list[str]) -> None:
        super().__init__()
        self.into = into

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno >= logging.WARNING:
            self.into.append(record.getMessage().removeprefix("text: "))
        return False

    def __enter__(self) -> _told:
        log.addFilter(self)
        return self

    def __exit__(self, *_: object) -> None:
        log.removeFilter(self)
