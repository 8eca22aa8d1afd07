"""Many lines through one engine, as many rows as fit; each line sounds as if it had been spoken alone."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from spear_spec.acoustic.contract import Heard
from spear_spec.acoustic.speaking import Voiced, in_one_go, sentence_noise, sentence_seed
from spear_spec.acoustic.takes import Chosen, check_best_of, check_takes, choose, judge_of, likelihoods, take_seed
from spear_spec.audio import Audio, FloatArray
from spear_spec.bulk.lines import Line
from spear_spec.bulk.settings import Settings
from spear_spec.config import SamplingConfig
from spear_spec.decoding import Request
from spear_spec.decoding.proposal import DecodeStats
from spear_spec.engine import Engine, Utterance
from spear_spec.errors import AudioError, SpearSpecError
from spear_spec.pipeline import TTS, whole_by
from spear_spec.text import Segment, check_reads, read
from spear_spec.voice.bundle import choose_speaker

_WORST = ("eos", "cap", "guard")
MOST_HEARD = 256  # prompts that are kept
log = logging.getLogger("spear_spec")


@dataclass(frozen=True)
class Spoken:
    """A line that was spoken. seed, speaker, prompt (its SHA-256): what it was spoken with; ended: as in `Utterance`,
    the worst of its sentences; warnings: of the text front end; chosen: which take of each sentence, where there were
    several; redrawn: how often a sentence, or a part of one, was drawn again."""

    audio: Audio
    seed: int
    speaker: str
    stats: DecodeStats
    ended: str
    warnings: tuple[str, ...] = ()
    prompt: str | None = None
    chosen: tuple[Chosen, ...] = ()
    redrawn: int = 0


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
    sound: dict[int, FloatArray] = field(default_factory=dict)  # of each sentence
    started: int = 0
    whole: bool = False  # no sentence is left to start
    stats: DecodeStats = field(default_factory=DecodeStats)
    redrawn: int = 0
    ended: str = "eos"
    warnings: list[str] = field(default_factory=list)
    chosen: dict[int, Chosen] = field(default_factory=dict)
    error: SpearSpecError | None = None

    @property
    def done(self) -> bool:
        return self.error is not None or (self.whole and len(self.sound) == self.started)


@dataclass(frozen=True, eq=False)
class _Sentence:
    """One of a line's, in the engine."""

    part: _Part
    index: int
    segment: Segment
    takes: tuple[Utterance, ...]

    @property
    def ended(self) -> bool:
        return all(take.ended is not None for take in self.takes)


class Choir:
    """Speaks lines with a voice whose takes do not depend on the batch (`settings.steady`).

    Sentences of several lines share the rows of one engine; the longest lines begin, so that few are left alone at the
    end. A line that cannot be spoken takes nobody with it.

    Raises:
        AudioError, ConfigError: the prompt, the lexicon, the judge or `complete` of the settings cannot be used.
    """

    def __init__(self, tts: TTS, settings: Settings) -> None:
        self.tts, self.settings = tts, settings
        self._reading, self._best_of = settings.reading(), check_best_of(settings.best_of, settings.judge, 1.0)
        self._whole = whole_by(tts.front_end, tts.target, settings.complete)
        check_reads(tts.front_end, self._reading)
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
        under_way: list[_Sentence] = []
        part: _Part | None = None  # whose sentences are being started
        while True:
            while _rows(under_way) < self.settings.batch and (part is not None or waiting):
                if part is None:
                    line = waiting.popleft()
                    try:
                        part = self._begin(line)
                    except SpearSpecError as error:
                        yield line, error
                        continue
                segment = self._next(part)
                if segment is None:
                    if part.done and not any(one.part is part for one in under_way):
                        yield part.line, self._result(part)
                    part = None
                    continue
                index, part.started = part.started, part.started + 1
                takes = tuple(self._take(engine, part, index, segment, take) for take in range(self.settings.best_of))
                under_way.append(_Sentence(part, index, segment, takes))
            if not under_way:
                return
            while not any(sentence.ended for sentence in under_way):
                engine.step()
            for sentence in [one for one in under_way if one.ended]:
                under_way.remove(sentence)
                self._sound(sentence)
                owner = sentence.part
                if owner.done and owner is not part and not any(one.part is owner for one in under_way):
                    yield owner.line, self._result(owner)

    def _take(self, engine: Engine, part: _Part, index: int, segment: Segment, take: int) -> Utterance:
        seed = sentence_seed(take_seed(part.seed, take), index)
        # one at a time: in a common call of the encoder the rounding of a text could depend on the others
        whole = None if self._whole is None else self._whole(segment.ids)
        [utterance] = engine.admit([Request(segment.ids, seed=seed, sampling=part.law, cap=part.cap, whole=whole)])
        return utterance

    def _begin(self, line: Line) -> _Part:
        settings = self.settings
        speaker = choose_speaker(self.tts.bundle, settings.speaker if line.speaker is None else line.speaker)
        law = self.tts.sampling.changed(**line.sampling)
        check_takes(settings.best_of, settings.judge, law.temperature)
        return _Part(
            line,
            settings.seed if line.seed is None else line.seed,
            speaker,
            self._voice(line, speaker),
            settings.speed if line.speed is None else line.speed,
            law,
            settings.max_tokens if line.max_tokens is None else line.max_tokens,
            read(self.tts.front_end, line.text, speaker, self._reading.changed(line.pause, line.lexicon, line.ssml)),
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

    def _sound(self, sentence: _Sentence) -> None:
        """A sentence has ended: make its sound, of the best of its takes."""
        part, index, takes = sentence.part, sentence.index, sentence.takes
        for take in takes:
            part.stats += take.stats
            part.redrawn += take.redrawn
        part.sound[index] = np.zeros(0, dtype=np.float32)
        if part.error is not None:
            return

        def sound(number: int) -> tuple[FloatArray, FloatArray]:
            noise = sentence_noise(take_seed(part.seed, number), index)
            return in_one_go(Voiced(self.tts.stage, sentence.segment, takes[number], part.voice, noise, part.speed))

        try:
            kept = 0
            if self._best_of is None:
                silence, speech = sound(kept)
            else:
                decoder, ids = self.tts.decoder, sentence.segment.ids
                judge = judge_of(self._best_of, takes, decoder.frame_rate * sentence.segment.rate * part.speed)
                likely = [] if judge is not None else likelihoods(decoder.target, ids, takes)
                best = choose(judge, likely, takes, sound, self.tts.sample_rate)
                part.chosen[index] = best.chosen(index, part.seed)
                kept, silence, speech = best.number, best.silence, best.speech
        except SpearSpecError as error:
            part.error = error
            return
        part.ended = max(part.ended, str(takes[kept].ended), key=_WORST.index)
        part.sound[index] = np.concatenate([silence, speech])

    def _result(self, part: _Part) -> Spoken | SpearSpecError:
        if part.error is not None:
            return part.error
        pieces = [part.sound[index] for index in sorted(part.sound)]
        tags = self.tts.tags(part.speaker, part.voice, self.settings.provenance)
        audio = Audio(np.concatenate(pieces), self.tts.sample_rate, tags=tags)
        prompt = part.voice.sha256 if isinstance(part.voice, Heard) else None
        chosen = tuple(part.chosen[index] for index in sorted(part.chosen))
        warnings = tuple(part.warnings)
        return Spoken(
            audio, part.seed, part.speaker, part.stats, part.ended, warnings, prompt, chosen, redrawn=part.redrawn
        )


def _rows(sentences: Iterable[_Sentence]) -> int:
    """Of the engine that they take."""
    return sum(take.ended is None for sentence in sentences for take in sentence.takes)


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
