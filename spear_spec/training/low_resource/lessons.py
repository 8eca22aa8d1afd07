"""The trainings of the recipe: who begins with which weights, what learns, from which utterances."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
from torch import Tensor

from spear_spec.errors import ConfigError
from spear_spec.models.spear_tts import TextToSemantic
from spear_spec.semantic.tokenizer import read_centroids
from spear_spec.text import PhonemeTokenizer
from spear_spec.training.data.corpus import Clip, speakers_of
from spear_spec.training.data.prepared import Prepared, load_rows
from spear_spec.training.data.utterances import Utterance, read_utterances
from spear_spec.training.loop import Run, carry_out
from spear_spec.training.low_resource.backtranslate import turned
from spear_spec.training.low_resource.corrupt import Source, draw, thinned
from spear_spec.training.low_resource.freeze import reading, writing
from spear_spec.training.low_resource.layout import Places
from spear_spec.training.low_resource.learner import Pupil, best_weights
from spear_spec.training.low_resource.plan import Lesson, LowResource
from spear_spec.training.recipe.stages.common import utterances

HELD_OUT = 40  # utterances that a training reports on, and chooses its weights by


class School:
    """What all trainings of a plan need, read from its folder."""

    def __init__(self, plan: LowResource) -> None:
        self.plan, self.at = plan, Places(plan.out, plan.part)
        self.clusters = len(read_centroids(self.at.shared.centroids)[0])
        self.source = Source(self.clusters)
        self.front = PhonemeTokenizer(speakers=self.at.shared.prepared.names())
        self.space = self.front.encode_phonemes(" ", self.front.speakers[0])[1]

    def pairs(self, folder: Prepared) -> list[Utterance]:
        """Text and tokens of a folder."""
        return utterances(self.plan.corpus, folder, self.front)

    def turned(self, clips: Sequence[Clip], tokens: dict[str, Tensor]) -> list[Utterance]:
        """Clips as a back-translator reads them."""
        clock = self.plan.corpus.clock
        return [turned(clip, tokens[clip.id], self.front, self.source, clock) for clip in clips if clip.id in tokens]

    def held_out(self) -> tuple[list[Clip], list[Clip]]:
        """Held-out clips of the parallel speaker: those that are judged by ear, and those that weights are chosen by
        (at least half).

        Raises:
            ConfigError: there are not two of them.
        """
        speaker = self.speaker()
        tokens = load_rows(self.at.shared.dev.tokens)
        clips = [clip for clip in self.at.shared.dev.clips() if clip.speaker == speaker and clip.id in tokens]
        if len(clips) < 2:
            raise ConfigError(f"{self.at.shared.dev.folder} holds fewer than two clips of {speaker}: name a dev folder")
        cut = min(self.plan.evaluate.sentences, len(clips) // 2)
        return clips[:cut], clips[cut:]

    def speaker(self) -> str:
        """Whose speech is parallel, and who speaks when the arms are compared."""
        return self.plan.parallel.speaker or speakers_of(self.at.shared.prepared.clips())[0]

    def chosen_by(self) -> list[Utterance]:
        """The held-out pairs that weights are chosen by."""
        names = {clip.id for clip in self.held_out()[1][:HELD_OUT]}
        every = {clip.id for clip in self.at.shared.dev.clips()}
        return read_utterances(
            self.at.shared.dev,
            self.front.encode_phonemes,
            len(self.front.vocab),
            clock=self.plan.corpus.clock,
            drop=every - names,
        )

    def train(self, name: str, pupil: Pupil, lesson: Lesson) -> None:
        """Carry a training to its end, or go on with it."""
        cfg = lesson.training
        run = Run(name, pupil, self.at.work(name).folder, steps=cfg.steps, minutes=cfg.minutes, every=lesson.every)
        carry_out([run], progress=self.plan.corpus.progress)

    def reader(self, name: str, lesson: Lesson, data: Sequence[Utterance], begin: str | None, *, all: bool) -> None:
        """Train text to semantic tokens: from chance, or from what the training `begin` left; all: nothing is frozen.

        Raises:
            SpearSpecError: `begin` has left nothing.
        """
        plan = self.plan
        shape = plan.shape.config(len(self.front.vocab), self.clusters)
        learn = None if all else reading(TextToSemantic(shape), plan.freeze.lower, plan.freeze.cross_attention)
        pupil = Pupil(
            data,
            self.chosen_by(),
            shape,
            lesson.training,
            space=self.space,
            clock=plan.corpus.clock,
            device=plan.corpus.device,
            begin_with=None if begin is None else best_weights(self.at.work(begin).folder)["trainee"],
            learn=learn,
            helpers=plan.freeze.helpers,
        )
        self.train(name, pupil, lesson)


def pretrain(plan: LowResource) -> None:
    """Denoising: what is left of the semantic tokens to all of them, on all audio."""
    school, cfg = School(plan), plan.pretrain
    at, source = school.at.shared, school.source
    items = school.pairs(at.prepared)
    pupil = Pupil(
        lambda rng: draw(items, source, cfg.deleted, rng.getrandbits(63)),
        draw(school.chosen_by(), source, cfg.deleted, plan.corpus.seed),
        plan.shape.config(source.end, school.clusters),
        cfg.training,
        space=source.space,
        clock=plan.corpus.clock,
        device=plan.corpus.device,
    )
    school.train("pretrain", pupil, Lesson(cfg.every, cfg.training))


def scratch(plan: LowResource) -> None:
    """The parallel part alone, from chance."""
    school = School(plan)
    school.reader("scratch", plan.scratch, school.pairs(school.at.parallel), None, all=True)


def finetune(plan: LowResource) -> None:
    """The parallel part, from the denoising model, most of it frozen."""
    school = School(plan)
    school.reader("finetune", plan.finetune, school.pairs(school.at.parallel), "pretrain", all=False)


def back(plan: LowResource) -> None:
    """The parallel part the other way round: the decoder learns to write text."""
    school = School(plan)
    at = school.at
    shape = plan.shape.config(school.source.end, len(school.front.vocab))
    items = school.turned(at.parallel.clips(), load_rows(at.parallel.tokens))

    def drawn(rng: random.Random) -> list[Utterance]:
        chance = np.random.default_rng(rng.getrandbits(63))
        return [thinned(item, school.source, chance.uniform(0, plan.back.deleted), chance) for item in items]

    pupil = Pupil(
        drawn,
        school.turned(school.held_out()[1][:HELD_OUT], load_rows(at.shared.dev.tokens)),
        shape,
        plan.back.training,
        space=school.source.space,
        clock=plan.corpus.clock,
        device=plan.corpus.device,
        begin_with=best_weights(at.work("pretrain").folder)["trainee"],
        learn=writing(TextToSemantic(shape)),
        helpers=True,
    )
    school.train("back", pupil, Lesson(plan.back.every, plan.back.training))


def forward(plan: LowResource) -> None:
    """The pseudo-pairs, from the denoising model, most of it frozen."""
    school = School(plan)
    school.reader("forward", plan.forward, school.pairs(school.at.pseudo), "pretrain", all=False)


def final(plan: LowResource) -> None:
    """The parallel part again."""
    school = School(plan)
    school.reader("final", plan.final, school.pairs(school.at.parallel), "forward", all=False)
