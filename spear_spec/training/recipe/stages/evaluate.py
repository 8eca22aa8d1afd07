"""Stage 9: what the voice is worth."""

from __future__ import annotations

from pathlib import Path

from tqdm import tqdm

from spear_spec.errors import SpearSpecError
from spear_spec.training.recipe.keys import write_json
from spear_spec.training.recipe.layout import Layout
from spear_spec.training.recipe.plan import Plan
from spear_spec.training.recipe.stage import Stage
from spear_spec.training.recipe.stages.common import chosen_sampling, dev_texts, text_inputs
from spear_spec.training.recipe.stages.sampling import ctc_error


def run(plan: Plan) -> None:
    """Judge the bundle on the held-out texts, speculation on and off."""
    from spear_spec.evaluation.evaluate import evaluate as judge
    from spear_spec.pipeline import TTS

    cfg, at = plan.evaluate, Layout(plan.out)
    voice = TTS.load(at.voice(plan.pack.name), device=plan.device)
    texts = sentences(Path(cfg.text), cfg.sentences) if cfg.text else dev_texts(plan, cfg.sentences)
    with tqdm(total=0, unit="utterance", disable=not plan.progress) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        found = judge(voice, texts, judges=cfg.judges, seed=plan.seed, max_tokens=cfg.max_tokens, progress=progress)
    error = ctc_error(plan, chosen_sampling(plan), at.evaluated)
    write_json(at.evaluation, {**found.to_dict(), "ctc_phoneme_error": error})
    print(found.table())
    print(f"phoneme error of freely sampled tokens by the CTC: {100 * error:.1f} %")


def sentences(path: Path, most: int) -> list[str]:
    """The first lines of a file that hold anything.

    Raises:
        SpearSpecError: it cannot be read.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SpearSpecError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from None
    return [line.strip() for line in lines if line.strip()][:most]


def reads(plan: Plan, at: Layout) -> list[Path]:
    """The voice, the texts, and what the CTC needs."""
    heard = [*at.target, at.ctc, at.sampling, at.prepared.speakers, at.dev.utterances]
    return [at.voice(plan.pack.name), *text_inputs(plan, plan.evaluate.text), *heard]


STAGE = Stage(
    "evaluate",
    run,
    reads=reads,
    writes=lambda plan, at: [at.evaluation],
    more=lambda plan: {"name": plan.pack.name},
)
