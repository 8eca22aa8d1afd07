"""Stage 5: temperature and top-p of the voice."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from spear_spec.config import SamplingConfig
from spear_spec.training.data.ctc import PhonemeCTC
from spear_spec.training.data.prepared import Prepared
from spear_spec.training.drafts.sample import sample_folder
from spear_spec.training.drafts.trainer import load_target
from spear_spec.training.recipe.keys import write_json
from spear_spec.training.recipe.layout import Layout
from spear_spec.training.recipe.plan import Plan
from spear_spec.training.recipe.stage import Stage
from spear_spec.training.recipe.stages.common import dev_texts, encoder, front_end, spoken
from spear_spec.training.recipe.stages.pack import voice_of


def run(plan: Plan) -> None:
    """Choose temperature and top-p by what listeners make of the held-out texts, before the draft is trained.

    The lowest word error wins; candidates whose interval reaches below the winner's value count as equal, and among
    those the highest predicted MOS wins. Without these judges: the phoneme error of the sampled tokens by the CTC.
    """
    from spear_spec.evaluation.evaluate import evaluate as judge
    from spear_spec.pipeline import TTS

    cfg, at = plan.sampling, Layout(plan.out)
    texts = dev_texts(plan, cfg.sentences)
    rows = []
    for number, (temperature, top_p) in enumerate(cfg.candidates):
        law = SamplingConfig(temperature=temperature, top_p=top_p)
        error = ctc_error(plan, law, Prepared(at.trials / str(number)))
        row: dict[str, Any] = {"temperature": temperature, "top_p": top_p, "ctc_phoneme_error": error}
        if cfg.judges:
            voice = TTS.load(voice_of(plan, at.trials / "voice", law), device=plan.device)
            found = judge(voice, texts, judges=cfg.judges, seed=plan.seed, max_tokens=cfg.max_tokens).to_dict()
            row |= found["arms"]["autoregressive"]["metrics"]
        rows.append(row)
        print(json.dumps(row))
    chosen = choose(rows)
    law_of = {"temperature": chosen["temperature"], "top_p": chosen["top_p"]}
    write_json(at.sampling, {"chosen": law_of, "candidates": rows})
    print(f"sampling: temperature {chosen['temperature']}, top-p {chosen['top_p']}")


def choose(rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The best of judged candidates (see `run`)."""
    if "wer" not in rows[0]:
        return min(rows, key=lambda row: row["ctc_phoneme_error"])
    best = min(row["wer"]["value"] for row in rows)
    equal = [row for row in rows if row["wer"]["lo"] <= best]
    return max(equal, key=lambda row: row["mos"]["value"] if "mos" in row else -row["wer"]["value"])


def ctc_error(plan: Plan, law: SamplingConfig, folder: Prepared, limit: int = 60) -> float:
    """Phoneme error of tokens that the target samples for held-out phonemes, heard by the CTC."""
    at = Layout(plan.out)
    model = load_target(at.t2s.export, plan.device)
    clips = at.dev.clips()
    clips = clips[:: max(1, len(clips) // limit)][:limit]
    shutil.rmtree(folder.folder, ignore_errors=True)
    encode = encoder(front_end(plan))
    sample_folder(model, clips, folder, [law], encode, clock=plan.clock, seed=plan.seed, progress=plan.progress)
    return PhonemeCTC.load(at.ctc).error_rate(spoken(folder))


def reads(plan: Plan, at: Layout) -> list[Path]:
    """The target, held-out texts and the CTC; the vocoder where somebody listens."""
    heard = [*at.vocoder_export, at.centroids] if plan.sampling.judges else []
    return [*at.target, at.dev.utterances, at.prepared.speakers, at.ctc, *heard]


STAGE = Stage("sampling", run, reads=reads, writes=lambda plan, at: [at.sampling])
