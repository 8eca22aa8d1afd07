"""What is heard of each arm, and the table: character error as in SPEAR-TTS (arXiv 2302.03540), tables 1 to 3."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from spear_spec.acoustic.contract import AcousticStage
from spear_spec.audio import write_atomically
from spear_spec.decoding.request import Request
from spear_spec.engine import Engine
from spear_spec.evaluation.cer import CharacterErrorJudge, character_errors
from spear_spec.evaluation.judge import Measurement
from spear_spec.evaluation.statistics import paired_difference, ratio_interval
from spear_spec.evaluation.wer import word_errors
from spear_spec.training.data.corpus import Clip
from spear_spec.training.data.prepared import load_rows
from spear_spec.training.low_resource.layout import ARMS, Places
from spear_spec.training.low_resource.learner import best_weights
from spear_spec.training.low_resource.lessons import School
from spear_spec.training.low_resource.pairs import load_best
from spear_spec.training.low_resource.plan import LowResource
from spear_spec.training.recipe.keys import digest, read_json, write_json
from spear_spec.voice.bundle import open_voice
from spear_spec.voice.parts import load_stage

Heard = list[dict[str, Any]]  # of each sentence: id, text, heard, tokens, ended, cer and wer as [errors, units]


def evaluate(plan: LowResource) -> None:
    """Speak the held-out sentences with every arm that is there, and write down what is heard."""
    school = School(plan)
    at = school.at
    clips = school.held_out()[0]
    listener = Listener(plan, school.speaker()) if plan.evaluate.judge else None
    if listener is not None:
        rows = load_rows(at.shared.dev.tokens)
        made_of = {"clips": [clip.id for clip in clips], "voice": plan.evaluate.voice}
        if (known := read_json(at.resynthesis)) is None or known.get("settings") != made_of:
            found = listener.listen(clips, [rows[clip.id].tolist() for clip in clips], ["eos"] * len(clips))
            write_json(at.resynthesis, {"settings": made_of, "sentences": found})
    arms: dict[str, Any] = (read_json(at.evaluation) or {}).get("arms", {})
    settings: dict[str, Any] = {"clips": [clip.id for clip in clips], "sampling": plan.evaluate.sampling.to_dict()}
    settings |= {"seed": plan.corpus.seed, "judge": plan.evaluate.judge, "voice": plan.evaluate.voice}
    for arm in ARMS:
        if not at.best(arm).exists():
            continue
        of = {**settings, "weights": digest(at.best(arm))}
        if arms.get(arm, {}).get("of") == of:
            continue
        kept = best_weights(at.work(arm).folder)
        tokens, ended = speak(school, arm, clips)
        arms[arm] = {"of": of, **{key: kept[key] for key in ("step", "nll", "accuracy", "gap")}}
        arms[arm]["ended"] = sum(why == "eos" for why in ended)
        if listener is not None:
            arms[arm]["sentences"] = listener.listen(clips, tokens, ended)
        write_json(at.evaluation, {"part": plan.part, "arms": arms})
        print(f"{plan.part}, {ARMS[arm]}: {summary(arms[arm])}", flush=True)
    write_table(plan)


def speak(school: School, arm: str, clips: Sequence[Clip]) -> tuple[list[list[int]], list[str]]:
    """Semantic tokens of the clips' phonemes, sampled, and why each ended. Sentence n has seed + n."""
    cfg, seed = school.plan.evaluate, school.plan.corpus.seed
    model, speaker = load_best(school, arm), school.speaker()
    requests = [
        Request(school.front.encode_phonemes(clip.phonemes or "", speaker), seed=seed + n, sampling=cfg.sampling)
        for n, clip in enumerate(clips)
    ]
    done = []
    for first in range(0, len(requests), cfg.batch):
        engine = Engine(model, frame_rate=school.plan.corpus.clock.token_rate)
        done += engine.run(requests[first : first + cfg.batch])
    return [utterance.speech for utterance in done], [str(utterance.ended) for utterance in done]


class Listener:
    """A vocoder and Whisper tiny.en behind it."""

    def __init__(self, plan: LowResource, speaker: str) -> None:
        self.stage: AcousticStage = load_stage(open_voice(plan.evaluate.voice))
        self.judge, self.speaker, self.seed = CharacterErrorJudge(), speaker, plan.corpus.seed

    def listen(self, clips: Sequence[Clip], tokens: Sequence[Sequence[int]], ended: Sequence[str]) -> Heard:
        """What is heard of these tokens, against the clips' texts."""
        out = []
        for n, (clip, row, why) in enumerate(zip(clips, tokens, ended)):
            stream = self.stage.open(self.speaker, 1.0, torch.Generator().manual_seed(self.seed + n))
            samples = torch.cat([stream.push(torch.tensor(row, dtype=torch.long)), stream.finish()])
            heard = self.judge.transcribe(samples.numpy(), self.stage.sample_rate)
            counts = {"cer": character_errors(clip.text, heard), "wer": word_errors(clip.text, heard)}
            out.append({"id": clip.id, "text": clip.text, "heard": heard, "tokens": len(row), "ended": why, **counts})
        return out


def measured(found: Mapping[str, Any], metric: str) -> list[Measurement]:
    """One measurement a sentence."""
    return [Measurement(*sentence[metric]) for sentence in found["sentences"]]


def percent(found: Mapping[str, Any], metric: str) -> str:
    """A rate and its 95 % interval over sentences."""
    one = ratio_interval(measured(found, metric))
    return f"{100 * one.value:.1f} [{100 * one.lo:.1f}, {100 * one.hi:.1f}]"


def summary(found: Mapping[str, Any]) -> str:
    """An arm in a line."""
    heard = f"CER {percent(found, 'cer')} %, WER {percent(found, 'wer')} %, " if "sentences" in found else ""
    return f"{heard}held-out NLL {found['nll']:.3f} at step {found['step']}"


def write_table(plan: LowResource) -> None:
    """All parts that were judged, as a Markdown table; differences are paired over the sentences."""
    at = Places(plan.out, plan.part)
    parts = {path.parent.name: read_json(path) for path in sorted(plan.out.glob("*/evaluation.json"))}
    parts = {name: found["arms"] for name, found in parts.items() if found and found.get("arms")}
    head = (
        "parallel part",
        "arm",
        "CER, %",
        "WER, %",
        "CER against the arm before",
        "held-out NLL",
        "accuracy",
        "step",
    )
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    if known := read_json(at.resynthesis):
        lines.append(f"| | the recording's own tokens | {percent(known, 'cer')} | {percent(known, 'wer')} | | | | |")
    for name in sorted(parts, key=lambda part: (part == "all", _minutes(part), part)):
        before = None
        for arm in (arm for arm in ARMS if arm in parts[name]):
            found = parts[name][arm]
            heard = "sentences" in found
            change = ""
            if heard and before is not None and "sentences" in before:
                apart = paired_difference(measured(found, "cer"), measured(before, "cer"))
                change = f"{100 * apart.value:+.1f} [{100 * apart.lo:+.1f}, {100 * apart.hi:+.1f}]"
            rates = [percent(found, metric) if heard else "" for metric in ("cer", "wer")]
            cells = [name, ARMS[arm], *rates, change]
            cells += [f"{found['nll']:.3f}", f"{found['accuracy']:.3f}", str(found["step"])]
            lines.append(f"| {' | '.join(cells)} |")
            before = found
    write_atomically(at.table, ("\n".join(lines) + "\n").encode())
    print("\n".join(lines), flush=True)


def _minutes(part: str) -> float:
    text = part.rpartition("-")[2].removesuffix("min")
    return float(text) if text.replace(".", "", 1).isdigit() else 0.0
