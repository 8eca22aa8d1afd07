"""One text on its way to sound: sentences join the engine, their tokens go to the acoustic stage while they come, and
pieces of sound are heard in order. What was asked for has been checked (`TTS.stream`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from typing import Protocol

import numpy as np
import torch

from spear_spec.acoustic.behind import Behind
from spear_spec.acoustic.contract import AcousticStage, Heard
from spear_spec.acoustic.speaking import Voiced, in_one_go, sentence_noise, sentence_seed, warn_if_cut
from spear_spec.acoustic.takes import BestOf, choose, judge_of, likelihoods, take_seed
from spear_spec.audio import FloatArray, TimedWord
from spear_spec.config import SamplingConfig
from spear_spec.decoding import Request
from spear_spec.decoding.request import Whole
from spear_spec.engine import Beams, Decoder, Engine, Utterance
from spear_spec.meter import Meter
from spear_spec.text import Segment
from spear_spec.timing.timeline import Timeline


@dataclass(frozen=True)
class AudioChunk:
    """A piece of a stream: samples float32 [T] at `sample_rate` Hz of the sentence with this index and text.

    ended: None but for the last chunk of a sentence: "eos", or "cap" or "guard" when it was cut off. words: in that
    last chunk, those of the sentence with their times from the stream's beginning, where timestamps were asked for.
    said: what the sentence is made of, likewise.
    """

    samples: FloatArray
    sample_rate: int
    sentence: int
    text: str
    ended: str | None = None
    words: tuple[TimedWord, ...] = ()
    said: tuple[Segment, Utterance] | None = field(default=None, repr=False, compare=False)


WholeBy = Callable[[Sequence[int]], Whole]  # by text ids


@dataclass(frozen=True)
class Asked:
    """A text to speak, with what `TTS.stream` was asked for. voice: whose sound it is. whole: what a request wants of
    its words, by its ids. search: where its tokens are searched for and not drawn.
    """

    segments: Iterator[Segment]
    voice: str | Heard
    law: SamplingConfig
    seed: int
    cap: int | None
    batch: int
    speed: float
    whole: WholeBy | None
    best_of: BestOf | None
    search: Beams | None

    def request(self, segment: Segment, index: int, take: int = 0) -> Request:
        """A take of its sentence of this number."""
        whole = None if self.whole is None else self.whole(segment.ids)
        seed = sentence_seed(take_seed(self.seed, take), index)
        return Request(segment.ids, seed=seed, sampling=self.law, cap=self.cap, whole=whole)

    def noise(self, index: int, take: int = 0) -> torch.Generator:
        """All chance in its sound."""
        return sentence_noise(take_seed(self.seed, take), index)


Job = Callable[[], AudioChunk]  # makes a piece of sound


def _STEP() -> AudioChunk:
    """In place of a job: a step of decoding is over, and a piece that is ready may be handed out."""
    raise AssertionError


class Voice(Protocol):
    """What speaks: a decoder and a stage (`TTS`)."""

    @property
    def decoder(self) -> Decoder: ...

    @property
    def stage(self) -> AcousticStage: ...


def beside(stage: AcousticStage) -> bool:
    """Whether sound can be made in a thread of its own, beside the decoding of what follows."""
    return torch.get_num_threads() > 1 and bool(getattr(stage, "overlaps", False))


def say(asked: Asked, voice: Voice, meter: Meter, timeline: Timeline | None) -> Iterator[AudioChunk]:
    """Speak what was asked for, piece by piece; timeline: where the words' times are wanted.

    Sound is made in a thread of its own where that is `beside` the decoding.
    """
    with Behind[AudioChunk](beside(voice.stage)) as behind:
        jobs = _Saying(asked, voice, meter, "behind_s" if behind.threaded else "acoustic_s").jobs()
        failed: Exception | None = None
        while True:
            try:
                job = next(jobs, None)
            except Exception as error:  # what was decoded before it is heard before it
                job, failed = None, error
            if job is not None and job is not _STEP:
                behind.submit(job)
            over = job is None
            while behind.waiting and (over or behind.full or behind.ready or meter.ttfa_s is None):
                with meter.clock("wait_s"):
                    chunk = behind.take()
                if len(chunk.samples) or chunk.ended is not None:
                    meter.hear(chunk.samples)
                    yield chunk if timeline is None else _timed(chunk, timeline)
            if failed is not None:
                raise failed
            if over:
                return


@dataclass
class _Saying:
    """A text under way. where: the meter's field that the time of making sound is added to."""

    asked: Asked
    voice: Voice
    meter: Meter
    where: str

    @cached_property
    def engine(self) -> Engine | Beams:
        return self.asked.search or self.voice.decoder.engine()

    def jobs(self) -> Iterator[Job]:
        """Decode the text and give the jobs that make its sound, in order; between them _STEP for every step."""
        asked, meter = self.asked, self.meter
        waiting: deque[tuple[Segment, list[Utterance]]] = deque()  # decoded together, spoken in order
        spoken = 0
        while True:
            with meter.clock("front_s"):
                new = list(islice(asked.segments, asked.batch - len(waiting)))
            with meter.clock("t2s_s"):
                waiting.extend(zip(new, self._admitted(new, spoken + len(waiting))))
            if not waiting:
                return
            segment, takes = waiting.popleft()
            if asked.best_of is None:
                [utterance] = takes
                voiced = Voiced(self.voice.stage, segment, utterance, asked.voice, asked.noise(spoken), asked.speed)
                yield from self._speak(segment, utterance, voiced, spoken)
            else:
                yield from self._choose(asked.best_of, segment, takes, spoken)
            spoken += 1

    def _admitted(self, segments: Sequence[Segment], first: int) -> list[list[Utterance]]:
        """The takes of sentences, in the engine; `first` is the number of the first sentence."""
        asked, admit = self.asked, self.engine.admit
        if asked.best_of is None:
            requests = [asked.request(segment, first + at) for at, segment in enumerate(segments)]
            return [[utterance] for utterance in admit(requests)]
        # one at a time: in a common call of the encoder the rounding of a text could depend on the others
        return [
            [admit([asked.request(segment, first + at, take)])[0] for take in range(asked.best_of.count)]
            for at, segment in enumerate(segments)
        ]

    def _choose(self, best_of: BestOf, segment: Segment, takes: Sequence[Utterance], index: int) -> Iterator[Job]:
        """Decode until every take has ended; the job makes the sound of the best one."""
        asked, meter = self.asked, self.meter
        while any(take.ended is None for take in takes):
            with meter.clock("t2s_s"):
                self.engine.step()
            yield _STEP
        for take in takes:
            meter.count(take.stats, "eos", take.redrawn)
        judge = judge_of(best_of, takes, self.voice.decoder.frame_rate * segment.rate * asked.speed)
        with meter.clock("t2s_s"):
            likely = [] if judge is not None else likelihoods(self.voice.decoder.target, segment.ids, takes)

        def sound(number: int) -> tuple[FloatArray, FloatArray]:
            noise = asked.noise(index, number)
            return in_one_go(Voiced(self.voice.stage, segment, takes[number], asked.voice, noise, asked.speed))

        def job() -> AudioChunk:
            with meter.clock(self.where):
                best = choose(judge, likely, takes, sound, self.voice.stage.sample_rate)
            kept = takes[best.number]
            meter.choose(best.chosen(index, asked.seed), str(kept.ended))
            warn_if_cut(kept)
            samples = np.concatenate([best.silence, best.speech])
            return AudioChunk(
                samples, self.voice.stage.sample_rate, index, segment.text, kept.ended, said=(segment, kept)
            )

        yield job

    def _speak(self, segment: Segment, utterance: Utterance, voiced: Voiced, index: int) -> Iterator[Job]:
        """Decode until the utterance has ended; its tokens go to the stage as they come."""
        meter = self.meter

        def job(sound: Callable[[], FloatArray], ended: str | None) -> Job:
            def run() -> AudioChunk:
                with meter.clock(self.where):
                    samples = sound()
                said = None if ended is None else (segment, utterance)
                return AudioChunk(samples, self.voice.stage.sample_rate, index, segment.text, ended, said=said)

            return run

        while voiced.ended is None:
            voiced.see()
            while not voiced.due(meter.ttfa_s is not None):
                with meter.clock("t2s_s"):
                    self.engine.step()
                yield _STEP
                voiced.see()
            sound = voiced.take()
            if voiced.ended is not None:
                meter.count(utterance.stats, voiced.ended, utterance.redrawn)
                warn_if_cut(utterance)
            yield job(sound, voiced.ended)


def _timed(chunk: AudioChunk, timeline: Timeline) -> AudioChunk:
    """The chunk with its sentence's words, if it is the last one."""
    timeline.hear(len(chunk.samples))
    if chunk.said is None:
        return chunk
    segment, utterance = chunk.said
    return replace(chunk, words=timeline.end(segment, utterance.speech, chunk.sentence))
