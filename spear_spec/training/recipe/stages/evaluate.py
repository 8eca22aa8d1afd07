"""Stage 9: what the voice is worth."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from spear_spec.audio import load_audio
from spear_spec.errors import AudioError, SpearSpecError
from spear_spec.training.data.corpus import Clip
from spear_spec.training.recipe.keys import write_json
from spear_spec.training.recipe.layout import Layout
from spear_spec.training.recipe.plan import Plan
from spear_spec.training.recipe.stage import Stage
from spear_spec.training.recipe.stages.common import chosen_sampling, dev_texts, text_inputs
from spear_spec.training.recipe.stages.sampling import ctc_error

if TYPE_CHECKING:
    from spear_spec.evaluation.unseen import Case, Unseen
    from spear_spec.pipeline import TTS


def run(plan: Plan) -> None:
    """Judge the bundle on the held-out texts, and with prompts of unseen readers, speculation on and off; is it
    exact?
    """
    from spear_spec.evaluation.evaluate import evaluate as judge
    from spear_spec.exactness.conclusion import conclusion
    from spear_spec.exactness.verify import run_verify
    from spear_spec.pipeline import TTS

    cfg, at = plan.evaluate, Layout(plan.out)
    voice = TTS.load(at.voice(plan.pack.name), device=plan.device)
    texts = sentences(Path(cfg.text), cfg.sentences) if cfg.text else dev_texts(plan, cfg.sentences)
    with bar(plan) as progress:
        found = judge(voice, texts, judges=cfg.judges, seed=plan.seed, max_tokens=cfg.max_tokens, progress=progress)
    print(found.table())
    result = found.to_dict()
    if (unheard := unseen(plan, voice)) is not None:
        result["unseen"] = unheard.to_dict()
        print(f"with prompts of {cfg.prompt_s:g} s of {len(unheard.readers)} readers that were not trained on:")
        print(unheard.evaluation.table())
        for arm, share in (unheard.nearest_own or {}).items():
            print(f"{arm}: {100 * share:.0f} % nearer to their own reader than to any other")
    if cfg.verified:
        exact = run_verify(voice, samples=cfg.verified, seed=plan.seed, max_tokens=cfg.max_tokens)
        result["verify"] = exact
        print(f"{exact['voice']}: {conclusion(exact)}")
    error = ctc_error(plan, chosen_sampling(plan), at.evaluated)
    write_json(at.evaluation, {**result, "ctc_phoneme_error": error})
    print(f"phoneme error of freely sampled tokens by the CTC: {100 * error:.1f} %")


@contextmanager
def bar(plan: Plan) -> Iterator[Callable[[int, int], None]]:
    """Utterances done, of how many."""
    with tqdm(total=0, unit="utterance", disable=not plan.progress) as shown:

        def progress(done: int, total: int) -> None:
            shown.total = total
            shown.update(done - shown.n)

        yield progress


def unseen(plan: Plan, voice: TTS) -> Unseen | None:
    """Readers that nothing was trained on; None where there are none, or the vocoder takes no prompts."""
    from spear_spec.evaluation.unseen import evaluate_unseen

    cfg = plan.evaluate
    if not plan.prepare.test or not cfg.cases:
        return None
    if not hasattr(voice.stage, "prompt"):
        print("the vocoder takes no prompts: readers that were not trained on are not evaluated")
        return None
    chosen = cases(Layout(plan.out).test.clips(), cfg.cases, cfg.prompt_s)
    if not chosen:
        print(f"no reader of prepare.test has two clips, one of them {cfg.prompt_s:g} s long: none is evaluated")
        return None
    with bar(plan) as progress:
        try:
            return evaluate_unseen(
                voice, chosen, judges=cfg.judges, seed=plan.seed, max_tokens=cfg.max_tokens, progress=progress
            )
        except AudioError as error:
            print(f"readers that were not trained on are not evaluated: {error}")
            return None


def cases(clips: Sequence[Clip], most: int, prompt_s: float) -> list[Case]:
    """Texts of readers in turn, each with the beginning of another clip of the same reader's as its prompt."""
    from spear_spec.evaluation.unseen import Case

    own: dict[str, list[Clip]] = {}
    for clip in clips:
        own.setdefault(clip.speaker, []).append(clip)
    turns: list[list[tuple[Clip, Clip]]] = []
    for theirs in own.values():
        long = [clip for clip in theirs if clip.seconds >= prompt_s]
        pairs = []
        for number, clip in enumerate(theirs):
            others = [other for other in long if other is not clip]
            if others:
                pairs.append((clip, others[number % len(others)]))
        turns.append(pairs)
    out = []
    for clip, prompt in [pair for turn in zip_longest(*turns) for pair in turn if pair is not None][:most]:
        audio = load_audio(prompt.audio)
        out.append(
            Case(clip.speaker, clip.text, audio.samples[: round(prompt_s * audio.sample_rate)], audio.sample_rate)
        )
    return out


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
    if plan.prepare.test:
        heard.append(at.test.utterances)
    return [at.voice(plan.pack.name), *text_inputs(plan, plan.evaluate.text), *heard]


STAGE = Stage(
    "evaluate",
    run,
    reads=reads,
    writes=lambda plan, at: [at.evaluation],
    more=lambda plan: {"name": plan.pack.name},
)
