"""`recipes/low_resource/run.sh`: the stages of learning to read from minutes of parallel speech.

python -m spear_spec.training.low_resource.run CONFIG [--stages pretrain finetune] [--set out=runs/low ...]

A stage runs again when its settings or what it reads have changed, and when what it leaves is not there; a training
that was cut off goes on where it stopped. Several parallel parts may share a folder, and its denoising model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from spear_spec.training.low_resource import lessons, listening, pairs
from spear_spec.training.low_resource.layout import ARMS, Places
from spear_spec.training.low_resource.plan import SHARED, STAGES, LowResource
from spear_spec.training.recipe.command import command
from spear_spec.training.recipe.keys import claim, key_of, without
from spear_spec.training.recipe.once import once
from spear_spec.training.recipe.run import run_plan

Paths = Callable[[Places], Sequence[Path]]


def _no_work(at: Places) -> Sequence[Path]:
    return ()


@dataclass(frozen=True)
class Stage:
    """run: does it. reads, writes: files. sections: of the plan that its result depends on. work: what a cut-off run
    goes on from, which must be of the same settings and inputs.
    """

    name: str
    run: Callable[[LowResource], None]
    reads: Paths
    writes: Paths
    sections: tuple[str, ...]
    work: Paths = _no_work

    def settings(self, plan: LowResource) -> dict[str, Any]:
        """Everything of the plan that the result depends on."""
        own: dict[str, Any] = {"seed": plan.corpus.seed, "clock": asdict(plan.corpus.clock)}
        for name in self.sections:
            own[name] = asdict(getattr(plan, name))
            if "training" in own[name]:
                own[f"{name}.training"] = own[name].pop("training")
        if self.work is not _no_work:  # which clips are held out, and for whom
            own["held_out"] = [plan.evaluate.sentences, plan.parallel.speaker]
        return own


def corpus(at: Places) -> list[Path]:
    """Clips and tokens of the whole corpus and of what is held out."""
    both = [path for f in (at.shared.prepared, at.shared.dev) for path in (f.utterances, f.tokens, f.speakers)]
    return [*both, at.shared.centroids]


def known(at: Places) -> list[Path]:
    """The parallel part, and what is held out."""
    return [at.parallel.utterances, at.parallel.tokens, *corpus(at)[3:]]


def _lesson(name: str, run: Callable[[LowResource], None], reads: Paths, *more: str) -> Stage:
    return Stage(
        name,
        run,
        reads,
        lambda at: [at.best(name), at.work(name).checkpoint],
        (name, "shape", "parallel", *more),
        lambda at: [at.work(name).folder],
    )


TABLE = (
    Stage(
        "parallel",
        pairs.parallel,
        corpus,
        lambda at: [at.parallel.utterances, at.parallel.tokens],
        ("parallel",),
    ),
    Stage(
        "pretrain",
        lessons.pretrain,
        corpus,
        lambda at: [at.best("pretrain"), at.work("pretrain").checkpoint],
        ("pretrain", "shape"),
        lambda at: [at.work("pretrain").folder],
    ),
    _lesson("scratch", lessons.scratch, known),
    _lesson("finetune", lessons.finetune, lambda at: [*known(at), at.best("pretrain")], "freeze"),
    Stage("ctc", pairs.ctc, known, lambda at: [at.ctc], ("ctc",), lambda at: [at.work("ctc").folder]),
    _lesson("back", lessons.back, lambda at: [*known(at), at.best("pretrain")]),
    Stage(
        "pseudo",
        pairs.pseudo,
        lambda at: [*corpus(at), *known(at), at.best("back"), at.ctc],
        lambda at: [at.pseudo.utterances, at.pseudo.tokens],
        ("pseudo",),
        lambda at: [at.heard],
    ),
    _lesson(
        "forward",
        lessons.forward,
        lambda at: [at.pseudo.utterances, at.pseudo.tokens, at.pseudo.durations, *known(at), at.best("pretrain")],
        "freeze",
    ),
    _lesson("final", lessons.final, lambda at: [*known(at), at.best("forward")], "freeze"),
    Stage(
        "evaluate",
        listening.evaluate,
        lambda at: [*corpus(at), *(at.best(arm) for arm in ARMS)],
        lambda at: [at.evaluation, at.table],
        ("evaluate", "parallel"),
    ),
)
LENGTHS = ("every", "training.steps", "training.minutes")  # settings that only say how long a training goes on


def run_stage(plan: LowResource, stage: Stage) -> None:
    """Run a stage, unless it is done with the same settings and inputs.

    Raises:
        SpearSpecError: what it reads cannot be used, or a training was told to stop.
    """
    at, shared = Places(plan.out, plan.part), stage.name in SHARED
    label = f"{'' if shared else plan.part + ', '}{stage.name}"

    def work() -> None:
        if begun := stage.work(at):
            settings = without(stage.settings(plan), [f"{stage.name}.{name}" for name in LENGTHS])
            claim(at.owner(stage.name, shared), key_of(settings, stage.reads(at), plan.out), begun)
        stage.run(plan)

    once(
        label,
        at.done(stage.name, shared),
        key_of(stage.settings(plan), stage.reads(at), plan.out),
        lambda: all(path.exists() for path in stage.writes(at)),
        work,
    )


def run_low_resource(plan: LowResource) -> None:
    """Run the stages of a checked plan, in their order.

    With `parallel.minutes` 0 there is no audio without text: then there is nothing to back-translate.

    Raises:
        SpearSpecError: a corpus or a stage's input cannot be used, or a training was told to stop.
    """
    torch.set_num_threads(plan.corpus.threads)
    first = tuple(stage for stage in plan.stages if stage in ("prepare", "tokenize"))
    if first:
        run_plan(replace(plan.corpus, stages=first))
    wanted = [stage for stage in TABLE if stage.name in plan.stages]
    if not plan.parallel.minutes:
        wanted = [
            stage for stage in wanted if stage.name in ("parallel", "pretrain", "scratch", "finetune", "evaluate")
        ]
    for stage in wanted:
        run_stage(plan, stage)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line of `python -m spear_spec.training.low_resource.run`; returns the exit status."""
    return command(
        "low_resource", __doc__, lambda values: run_low_resource(LowResource.from_dict(values)), argv, STAGES
    )


if __name__ == "__main__":
    raise SystemExit(main())
