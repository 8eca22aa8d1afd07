"""`spear-spec eval`: the same sentences spoken with speculation on and off, and judged."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from spear_spec.audio import Audio
from spear_spec.decoding.chance import SEEDS
from spear_spec.errors import ConfigError, TextError
from spear_spec.evaluation.judge import Judge, Measurement, Reference, Samples
from spear_spec.evaluation.judges import JUDGES, make_judges
from spear_spec.evaluation.reference import load_reference
from spear_spec.evaluation.report import Evaluation, Utterance

if TYPE_CHECKING:
    from spear_spec.pipeline import TTS

_GROUP = 16  # sentences spoken before they are judged: judges must not cool the caches that RTF is measured with

Keep = Callable[[int, str, Audio], None]
Progress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class Prompt:
    """Whose voice a text is to be spoken with. heard: what `TTS.hear` gave, or what else `TTS.synthesize` takes for
    `voice`; embedding: unit length [256], of the recording (None: similarity is not judged).
    """

    heard: Any
    embedding: Samples | None = None


def evaluate(
    tts: TTS,
    texts: Sequence[str],
    *,
    judges: Sequence[str] = tuple(JUDGES),
    speaker: str | None = None,
    seed: int = 0,
    max_tokens: int | None = None,
    batch: int = 1,
    speed: float = 1.0,
    resamples: int = 2000,
    prompts: Sequence[Prompt] = (),
    keep: Keep | None = None,
    progress: Progress | None = None,
    **sampling: Any,
) -> Evaluation:
    """Speak every text as `tts` is set ("speculative") and with drafter "none" ("autoregressive"), and judge both.

    Both arms share weights, sampling settings and seeds. A `tts` whose drafter is "none" has the second arm only.

    Args:
        judges: metrics to judge: wer, per, mos, speaker_similarity. RTF and TTFA (seconds) always come along.
        speed: of the speech, see `TTS.stream`.
        seed: text i is spoken with seed + i, so that no two sentences share their chance.
        prompts: one for each text, if any: its voice is to be heard, and similarity is to it.
        keep: called with (index, arm, audio) for every utterance; progress: with (utterances done, of how many).
        sampling: fields of `SamplingConfig` that differ from the voice's.

    Raises:
        TextError: no texts, or one that cannot be spoken. ConfigError: an option cannot be used.
        MissingExtraError: a judge is not installed.
    """
    if not texts:
        raise TextError("nothing to evaluate: give at least one sentence")
    listeners = make_judges(judges)
    arms = {} if tts.decoder.parts.plain else {"speculative": tts}
    arms["autoregressive"] = tts.using(drafter="none", verifier="rejection", options={})  # nor a rule of a user's own
    said: dict[str, Any] = {"speaker": speaker, "max_tokens": max_tokens, "batch": batch, "speed": speed, **sampling}
    found = Evaluation(
        voice=tts.name,
        judges=[{"name": judge.name, "version": judge.version} for judge in listeners],
        arms={name: arm.describe(batch=batch, seed=seed, **sampling) for name, arm in arms.items()},
        resamples=resamples,
        speed=speed,
    )
    if prompts and len(prompts) != len(texts):
        raise ConfigError(f"{len(prompts)} prompts for {len(texts)} texts: each text needs one")
    references = [reference_of(tts, text, speaker) for text in texts]
    voices: list[dict[str, Any]] = [{} for _ in texts]
    if prompts:
        references = [replace(known, speaker=prompt.embedding) for known, prompt in zip(references, prompts)]
        voices = [{"voice": prompt.heard} for prompt in prompts]
    for arm in arms.values():
        arm.synthesize(texts[0], seed=seed, **said, **voices[0])  # warm-up: first calls pay for allocation
    done = 0
    for start in range(0, len(texts), _GROUP):
        group = range(start, min(start + _GROUP, len(texts)))
        spoken = [
            (i, name, arm.synthesize(texts[i], seed=(seed + i) % SEEDS, **said, **voices[i]))
            for i in group
            for name, arm in arms.items()
        ]
        for i, name, audio in spoken:
            if keep is not None:
                keep(i, name, audio)
            measured = {**timings(audio), **listen_to(audio, references[i], listeners)}
            found.utterances.append(Utterance(i, name, texts[i], audio.stats, measured))
            done += 1
            if progress is not None:
                progress(done, len(texts) * len(arms))
    return found


def reference_of(tts: TTS, text: str, speaker: str | None) -> Reference:
    """What the voice was asked for: the text, its phonemes as its front end gives them, its speaker's embedding."""
    who = speaker or tts.speakers[0]
    return Reference(text, tts.front_end.phonemes(text), load_reference(tts.bundle.path, who))


def listen_to(audio: Audio, reference: Reference, judges: Sequence[Judge]) -> dict[str, Measurement]:
    """Every judge's measurement of one utterance, by metric; those that lack a reference are left out."""
    found: dict[str, Measurement] = {}
    with one_thread():
        for judge in judges:
            measurement = judge.score(audio.samples, reference, audio.sample_rate)
            if measurement is not None:
                found[judge.metric] = measurement
    return found


def timings(audio: Audio) -> dict[str, Measurement]:
    """RTF (compute seconds over audio seconds) and time to first audio, from the item of say/1."""
    stats = audio.stats
    found = {}
    if stats["rtf"] is not None:
        found["rtf"] = Measurement(stats["rtf"] * stats["audio_s"], stats["audio_s"])
    if stats["ttfa_s"] is not None:
        found["ttfa_s"] = Measurement(stats["ttfa_s"], 1.0)
    return found


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Judges run on one torch thread: two beside another busy process can be 50 times slower than one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
