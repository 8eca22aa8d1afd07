"""What several stages need: the front end, utterances, samples and voices of a recipe."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from spear_spec.config import SamplingConfig
from spear_spec.errors import ConfigError
from spear_spec.semantic.tokenizer import read_centroids
from spear_spec.text import PhonemeTokenizer
from spear_spec.training.data.ctc import Spoken
from spear_spec.training.data.prepared import Prepared, load_rows
from spear_spec.training.data.spread import Hands
from spear_spec.training.data.utterances import Utterance, read_utterances
from spear_spec.training.recipe.layout import Layout
from spear_spec.training.recipe.plan import Plan
from spear_spec.training.t2s.begin import same_alphabet
from spear_spec.voice.bundle import Bundle, open_voice

HELD_OUT = 120  # utterances that trainers report on


def front_end(plan: Plan) -> PhonemeTokenizer:
    """The text front end with this recipe's speakers."""
    return PhonemeTokenizer(speakers=Layout(plan.out).prepared.names())


def encoder(front: PhonemeTokenizer) -> Callable[[str, str], list[int]]:
    """(phonemes, speaker) to text ids. A reader that is not trained on has no token and is read as the first one."""
    known = set(front.speakers)
    return lambda phonemes, speaker: front.encode_phonemes(phonemes, speaker if speaker in known else front.speakers[0])


def utterances(plan: Plan, folder: Prepared, front: PhonemeTokenizer) -> list[Utterance]:
    """Utterances of a prepared folder, in this recipe's alphabet, but for those whose text is in doubt."""
    return read_utterances(folder, encoder(front), len(front.vocab), clock=plan.clock, drop=folder.doubted())


def parts(plan: Plan) -> list[Prepared]:
    """The prepared folders that have audio."""
    at = Layout(plan.out)
    return [at.prepared, at.dev, *([at.test] if plan.prepare.test else [])]


def hands(plan: Plan, *, device: bool) -> Hands:
    """Who works in shards; device: whether on the plan's device."""
    gpu = device and plan.device.startswith("cuda")
    return Hands(plan.workers, plan.ray, plan.threads, gpu, plan.progress)


def few(items: list[Utterance], most: int = HELD_OUT) -> list[Utterance]:
    """About so many of them, from all over."""
    return items[:: max(1, len(items) // most)]


def clusters(plan: Plan) -> int:
    """How many semantic tokens there are."""
    return len(read_centroids(Layout(plan.out).centroids)[0])


def start_from(voice: str | None, front: PhonemeTokenizer | None = None) -> Bundle | None:
    """The voice to go on from; its phonemes must be written as this recipe's are.

    Raises:
        ConfigError: they are not. BundleError: there is no such voice.
    """
    if voice is None:
        return None
    bundle = open_voice(voice)
    if front is not None:
        same_alphabet(bundle, front, voice)
    return bundle


def spoken(folder: Prepared, *, durations: bool = True) -> list[Spoken]:
    """What the CTC reads of a prepared folder."""
    tokens = load_rows(folder.tokens)
    return [
        Spoken(tokens[c.id], c.phonemes or "", c.frames if durations else None)
        for c in folder.clips()
        if c.id in tokens
    ]


def chosen_sampling(plan: Plan) -> SamplingConfig:
    """What the sampling stage chose.

    Raises:
        ConfigError: it has not run.
    """
    path = Layout(plan.out).sampling
    try:
        return SamplingConfig(**json.loads(path.read_text(encoding="utf-8"))["chosen"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path} is not there or damaged ({error}); run the sampling stage") from None


def laws_of_drafts(chosen: SamplingConfig) -> list[SamplingConfig]:
    """What the target speaks by for its drafts, and what they are reported on: the voice's own sampling, and a freer
    one.
    """
    return list(dict.fromkeys([chosen, SamplingConfig(temperature=1.0, top_p=0.95)]))


def dev_texts(plan: Plan, limit: int) -> list[str]:
    """Held-out sentences, each once."""
    texts = list(dict.fromkeys(clip.text for clip in Layout(plan.out).dev.clips()))
    return texts[:: max(1, len(texts) // limit)][:limit]


def text_inputs(plan: Plan, text: str | None) -> list[Path]:
    """The file of sentences that was named, or the held-out utterances."""
    return [Path(text)] if text else [Layout(plan.out).dev.utterances]
