"""Stage 2: the token-to-phoneme CTC, and durations."""

from __future__ import annotations

from spear_spec.semantic.tokenizer import read_centroids
from spear_spec.training.data.align import find_frames, worst_believed
from spear_spec.training.data.ctc import PhonemeCTC
from spear_spec.training.data.ctc_training import train_ctc
from spear_spec.training.data.prepared import Prepared, save_rows
from spear_spec.training.recipe.layout import Layout
from spear_spec.training.recipe.plan import Plan
from spear_spec.training.recipe.stage import Stage
from spear_spec.training.recipe.stages.common import hands, parts, spoken


def run(plan: Plan) -> None:
    """Train the CTC; find durations for clips that have none, and which of them do not say their text."""
    at = Layout(plan.out)
    folders = parts(plan)
    found = [path for folder in folders for path in (folder.durations, folder.doubtful)]
    STAGE.claim(plan, [at.ctc, at.ctc_work.folder, at.shards("align"), *found])
    for path in found:  # what was found before is no input
        path.unlink(missing_ok=True)
    model = listener(plan)
    print(f"phoneme error of the CTC on held-out true tokens: {100 * model.error_rate(spoken(at.dev)):.1f} %")
    losses = {folder: durations(plan, folder) for folder in folders}
    most = worst_believed(losses[at.prepared].values(), plan.align.doubt)
    for folder, known in losses.items():
        doubted = [(name, f"{loss:.2f} nats a phone") for name, loss in known.items() if loss > most]
        folder.write_doubted(doubted)
        if doubted:
            print(
                f"{folder.folder}: of {len(known)} clips {len(doubted)} seem not to say their text (above {most:.2f} "
                f"nats a phone; {folder.doubtful})"
            )


def listener(plan: Plan) -> PhonemeCTC:
    """The CTC, trained here where it is not there yet."""
    cfg, at = plan.align, Layout(plan.out)
    clusters, _ = read_centroids(at.centroids)
    if not at.ctc.exists():
        model = train_ctc(
            spoken(at.prepared),
            len(clusters),
            at.ctc_work.folder,
            clock=plan.clock,
            minutes=cfg.minutes,
            steps=cfg.steps,
            dim=cfg.dim,
            blocks=cfg.blocks,
            centroids=clusters,
            seed=plan.seed,
            device=plan.device,
            progress=plan.progress,
        ).cpu()
        model.save(at.ctc)
    return PhonemeCTC.load(at.ctc)


def durations(plan: Plan, folder: Prepared) -> dict[str, float]:
    """Write the durations of a folder's clips that have none; what its texts cost the CTC, in nats a phone."""
    at, method = Layout(plan.out), plan.align.method
    place = at.shards("align") / folder.folder.name
    ctc = at.ctc if method == "ctc" else None
    rows, losses = find_frames(folder.clips(), folder.tokens, ctc, plan.clock, place, hands(plan, device=False))
    save_rows(folder.durations, rows)
    if rows:
        print(f"{folder.folder}: durations by {method} for {len(rows)} clips")
    return losses


STAGE = Stage(
    "align",
    run,
    reads=lambda plan, at: [
        at.centroids, *(path for folder in parts(plan) for path in (folder.utterances, folder.tokens))
    ],
    writes=lambda plan, at: [
        at.ctc, *(path for folder in parts(plan) for path in (folder.durations, folder.doubtful))
    ],
)  # fmt: skip
