"""Stage 10: how fast the finished voice speaks, with and without speculation."""

from __future__ import annotations

from spear_spec.audio import write_atomically
from spear_spec.training.recipe.keys import write_json
from spear_spec.training.recipe.layout import Layout
from spear_spec.training.recipe.plan import Plan
from spear_spec.training.recipe.stage import Stage


def run(plan: Plan) -> None:
    """As `spear-spec bench`; what a run that was cut off has measured is gone on from."""
    from spear_spec.bench.speed import SENTENCES, run_bench
    from spear_spec.bench.table import table
    from spear_spec.pipeline import TTS

    cfg, at = plan.benchmark, Layout(plan.out)
    voice = TTS.load(at.voice(plan.pack.name), device=plan.device)
    result = run_bench(
        voice,
        SENTENCES[: cfg.sentences],
        drafters=cfg.drafters or None,
        gammas=cfg.gammas,
        batches=cfg.batches,
        runs=cfg.runs,
        seed=plan.seed,
        max_tokens=cfg.max_tokens,
        file=at.benchmark,
        tell=print,
    )
    lines = table(result)
    write_atomically(at.benchmark_table, (lines + "\n").encode())
    write_json(at.benchmark, result)
    print(lines)


STAGE = Stage(
    "benchmark",
    run,
    reads=lambda plan, at: [at.voice(plan.pack.name)],
    writes=lambda plan, at: [at.benchmark, at.benchmark_table],
    more=lambda plan: {"name": plan.pack.name, "device": plan.device, "threads": plan.threads},
)
