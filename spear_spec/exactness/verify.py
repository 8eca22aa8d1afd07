"""Is decoding exact? Whole utterances, spoken through the call that `say` uses, scored against the bare target."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

import torch

from spear_spec.config import SamplingConfig, SpecConfig
from spear_spec.decoding import Drafter, Parts, Request, Verifier
from spear_spec.decoding import complete as completed
from spear_spec.decoding.chance import SENTENCE, check_seed, derive
from spear_spec.decoding.contract import checked_drafter, checked_verifier
from spear_spec.decoding.request import Whole
from spear_spec.decoding.sampling import probabilities
from spear_spec.engine import Decoder, Utterance
from spear_spec.errors import ConfigError, TextError
from spear_spec.exactness.completed import SEEDS, Completed, mean_log, shared_check
from spear_spec.exactness.conclusion import GREEDY
from spear_spec.exactness.crowd import crowd
from spear_spec.exactness.reference import Reference, drafts_of
from spear_spec.exactness.scores import Scores
from spear_spec.exactness.uniformity import FEWEST, same_check, settle
from spear_spec.models.contract import Target
from spear_spec.pipeline import TTS, whole_by

SENTENCES = (
    "The ferry leaves the harbour at half past seven, whatever the weather.",
    "Nobody could explain why the lights had stayed on all night.",
    "Good morning!",
    "She folded the letter twice, put it back into the drawer, and said nothing about it for the rest of the week.",
    "Is this the road to the old observatory?",
    "Three hundred and twelve people signed the petition.",
)
DEFAULT_SAMPLES = 4000
REPLAYED = 8  # utterances that a user's drafter is asked about at once
# Greedy may part where the best logits lie closer than this.
_TIE = {torch.float64: 1e-4, torch.float32: 1e-4, torch.float16: 0.05, torch.bfloat16: 0.4}

Texts = list[list[int]]  # text token ids of each sentence, the end token left out
Progress = Callable[[str], None]
WholeBy = Callable[[Sequence[int]], Whole]


def verify_drafter(
    target: TTS | Target | None = None,
    drafter: str | Drafter | None = None,
    verifier: str | Verifier = "rejection",
    *,
    texts: Sequence[str] | Sequence[Sequence[int]] | None = None,
    samples: int = DEFAULT_SAMPLES,
    batch: int = 1,
    gamma: int | None = None,
    tree: str | None = None,
    num_drafts: int | None = None,
    options: dict[str, Any] | None = None,
    sampling: SamplingConfig | None = None,
    seed: int = 0,
    speaker: str | None = None,
    max_tokens: int | None = None,
    complete: bool | str = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Test whether decoding with this drafter and verifier follows the target's own law (statistics: see `run_verify`).

    Args:
        target: a voice; None: the one that ships with the package; or a bare transformer (a `Target`), and then `texts`
            are lists of text token ids (without the end token).
        drafter: a name (None: the voice's own), or an object of one's own: the protocol
            `spear_spec.decoding.Drafter`. Its `propose` returns for B running rows a `Proposal` of token lists
            [B][<= gamma], with `probs` [B, N, V], the law that each token was drawn from, or None where tokens were
            chosen without chance. A copy of it, made before anything is decoded, is asked again what it would draft
            before each token: what it remembers of utterances must live in the object or in its state, not in a global.
        verifier: a name, or an object: the protocol `spear_spec.decoding.Verifier`. `verify` gets the proposal and the
            target's laws [B, N + 1, V], already filtered, and returns a `Verdict`.
        texts: sentences to speak; all are also compared at temperature 0.
        samples: tokens that are scored, at least 100. batch: utterances decoded together.
        gamma, tree, num_drafts, options: as in `SpecConfig`; what is left out comes from the voice.
        sampling: the law to test under; by default the voice's.
        max_tokens: cap on the tokens of an utterance.
        complete: as `TTS.stream` has it; a bare transformer knows no words.
        progress: told where a long run stands.

    Returns:
        The object of schema verify/1. `pass` is true if every check passed and the rule declares to be lossless;
        `spear_spec.exactness.conclusion.conclusion` says it in words.

    Raises:
        ConfigError: a setting out of range; names or objects that do not fit each other; an object that breaks its
            protocol.
        TextError: there is nothing to say. BundleError: the voice is missing. NumericsError: the model produced NaN.
    """
    shape = {"gamma": gamma, "tree": tree, "num_drafts": num_drafts, "options": options}
    given: dict[str, Any] = {name: value for name, value in shape.items() if value is not None}
    if drafter is not None:
        given["drafter"] = drafter if isinstance(drafter, str) else checked_drafter(drafter)
    given["verifier"] = verifier if isinstance(verifier, str) else checked_verifier(verifier)
    if target is None or isinstance(target, TTS):
        tts = (TTS.load() if target is None else target).using(**given)
        name, decoder, sentences = tts.name, tts.decoder, _spell(tts, texts, speaker)
        whole = whole_by(tts.front_end, tts.target, complete) if complete else None
    else:
        if complete:
            raise ConfigError(f"a bare {type(target).__name__} does not tell where its words are: leave complete off")
        whole = None
        name, decoder, sentences = type(target).__name__, _bare(target, given), _check_ids(target, texts)
    return _verify(
        name,
        replace(decoder, sampling=sampling or decoder.sampling),
        sentences,
        samples=samples,
        batch=batch,
        seed=seed,
        max_tokens=max_tokens,
        whole=whole,
        progress=progress,
    )


def run_verify(
    tts: TTS,
    texts: Sequence[str] | None = None,
    *,
    samples: int | None = None,
    speaker: str | None = None,
    seed: int = 0,
    batch: int = 1,
    max_tokens: int | None = None,
    complete: bool | str = False,
    progress: Progress | None = None,
    **sampling: Any,
) -> dict[str, Any]:
    """Test the drafter and verifier that this voice is set to; the object of schema verify/1.

    Utterances are generated until `samples` tokens are there (texts are spoken again with fresh randomness as often as
    needed). Each token x is scored against an uncached forward of the target by a randomised probability integral
    transform: u = F(x-) + v p(x), v uniform, where F sums p over the vocabulary in an order that depends on the past
    alone. If decoding is exact, the u are independent and uniform whatever the order. So there are several, each for
    the faults that it piles up at one end: by falling p (a wrong temperature or filter, stale caches), by q/p with the
    draft's law q given the true past (a leak of the draft's law, a wrong residual), by token id (the end token, shared
    random streams). Not stratified by the place in a draft, which correct block rules would fail.

    Three checks of each order; independence of utterances that are decoded beside or after each other; no token that
    the filters exclude; and greedy identity: every text at temperature 0 gives the tokens of the autoregressive loop,
    but for ties within 1e-4. At temperature 0 that is the only check, the law being a point.

    complete (as `TTS.stream` has it): the law tested is then that of utterances that are drawn again where words are
    missing (`exactness/completed.py`). All tries are scored, kept or not; values at the same place of two tries are
    held against each other; what was kept is worked out again for every utterance; draws, length and likelihood are
    compared with those of the autoregressive loop; and a rule that shares its numbers must say the loop's own tokens,
    with as many redraws. `complete` in the result says how many there were.

    A check passes when its Holm-adjusted p-value (the one reported) is at least .001, so a correct build fails less
    than once in a thousand runs. The whole passes when all checks do and the rule declares to be lossless.

    Raises:
        TextError: the texts hold nothing to say.
        ConfigError: a setting is out of range.
    """
    law = tts.sampling.changed(**sampling)
    whole = whole_by(tts.front_end, tts.target, complete) if complete else None
    return _verify(
        tts.name,
        replace(tts.decoder, sampling=law),
        _spell(tts, texts, speaker),
        samples=DEFAULT_SAMPLES if samples is None else samples,
        batch=batch,
        seed=seed,
        max_tokens=max_tokens,
        whole=whole,
        progress=progress,
    )


def _verify(
    name: str,
    decoder: Decoder,
    sentences: Texts,
    *,
    samples: int,
    batch: int,
    seed: int,
    max_tokens: int | None,
    whole: WholeBy | None = None,
    progress: Progress | None,
) -> dict[str, Any]:
    for what, value, least in (
        ("samples", samples, FEWEST),
        ("batch", batch, 1),
        ("max_tokens", 1 if max_tokens is None else max_tokens, 1),
    ):
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise ConfigError(f"{what} must be a whole number of at least {least}, not {value!r}")
    check_seed(seed)
    law = decoder.sampling
    tell = progress or (lambda message: None)
    checks = []
    seen = Completed()
    if law.temperature > 0:
        scores = Scores(law, torch.Generator().manual_seed((seed + 1) % 2**63), whole is not None)
        drafts = drafts_of(decoder, law, seed)
        spoken = crowd(decoder, sentences, batch=batch, seed=seed, cap=max_tokens, whole=whole)
        while scores.count < samples:
            group = list(islice(spoken, max(batch, 1 if drafts is None else REPLAYED)))
            draws = [_draws(utterance) for utterance in group]
            flat = [(list(one.request.ids), draw[0]) for one, some in zip(group, draws) for draw in some]
            guesses = iter([None] * len(flat) if drafts is None else drafts.laws(flat))
            for utterance, some in zip(group, draws):
                reference, likelihood = Reference(decoder, list(utterance.request.ids), law), -math.inf
                for tokens, begun, number in some:
                    laws = scores.add(reference, tokens, next(guesses), begun, number)
                    if tokens == utterance.tokens:
                        likelihood = mean_log(laws, tokens)
                if whole is not None:
                    seen.add(decoder.target, utterance, likelihood)
            tell(f"scored {min(scores.count, samples)} of {samples} tokens")
        checks += scores.checks(samples)
        if whole is not None:
            checks += _whole_checks(decoder, sentences, seen, scores.level, whole, batch, seed, max_tokens, tell)
    checks.append(_greedy_check(decoder, sentences, batch, max_tokens, tell, whole))
    settle(checks)
    settings = decoder.describe(batch=batch, seed=seed)
    return {
        "schema": "verify/1",
        "voice": name,
        **settings,
        **({} if whole is None else {"complete": {**_told(whole(sentences[0])), **seen.counts}}),
        "checks": checks,
        "pass": all(check["pass"] for check in checks) and bool(settings["lossless"]),
    }


def _draws(utterance: Utterance) -> list[tuple[list[int], int, int]]:
    """All that was drawn for an utterance: (tokens, how many of them were there before, number of the stream)."""
    if utterance.request.whole is None:
        return [(utterance.tokens, 0, 0)]
    return [(look.tokens, look.begun, look.number) for look in utterance.looked]


def _told(whole: Whole) -> dict[str, Any]:
    return {"law": "pieces" if whole.first else "sentence", "tries": whole.tries}


def _whole_checks(
    decoder: Decoder,
    sentences: Texts,
    seen: Completed,
    level: float,
    whole: WholeBy,
    batch: int,
    seed: int,
    cap: int | None,
    tell: Progress,
) -> list[dict[str, Any]]:
    """What is kept of the tries, and against the autoregressive loop: as many utterances, with other seeds."""
    law, verifier = decoder.sampling, decoder.parts.made[1]

    def laws(request: Request, tokens: list[int]) -> Any:
        logits = Reference(decoder, list(request.ids), law).logits(tokens)[0]
        return probabilities(logits, law).double().cpu().numpy()

    if not decoder.parts.plain:
        count = seen.counts["utterances"]
        other = crowd(decoder.alone(), sentences, batch=batch, seed=(seed + 2) % 2**63, cap=cap, whole=whole)
        for number, utterance in enumerate(islice(other, count), 1):
            seen.add_plain(utterance, mean_log(laws(utterance.request, utterance.tokens), utterance.tokens))
            tell(f"the loop: {number} of {count} utterances")
    checks = seen.checks(level)
    if not decoder.parts.plain and getattr(verifier, "shares", False):
        seeds = [derive(seed, number, SENTENCE) for number in range(SEEDS)]
        requests = [Request(ids, (), one, law, cap, whole(ids)) for one in seeds for ids in sentences]
        checks.append(shared_check(decoder, requests, batch, laws))
    return checks


# --- what is tested --------------------------------------------------------------------------------------------------


def _bare(target: Target, given: dict[str, Any]) -> Decoder:
    """A transformer without front end and acoustic stage."""
    own = {
        f"own_{name}": given.pop(name) for name in ("drafter", "verifier") if not isinstance(given.get(name, ""), str)
    }
    parts = Parts(completed(SpecConfig(), given), {}, target.embedding[: target.eos_id], **own)
    parts.make()
    return Decoder(target, parts)


def _check_ids(target: Target, texts: Any) -> Texts:
    if texts is None:
        raise ConfigError(
            f"a bare {type(target).__name__} has no text front end: give texts as lists of text token ids"
        )
    sentences = []
    for text in texts:
        try:
            ids = [int(i) for i in text] if not isinstance(text, str) else []
            target.text(ids)
        except (TextError, TypeError, ValueError):
            raise TextError(
                f"texts of a bare {type(target).__name__} are lists of text token ids below {target.text_ids}, "
                f"not {str(text)[:80]!r}"
            ) from None
        sentences.append(ids)
    return _not_empty(sentences)


def _spell(tts: TTS, texts: Any, speaker: str | None) -> Texts:
    if isinstance(texts, str):
        texts = [texts]
    if not all(isinstance(text, str) for text in texts or ()):
        raise TextError("texts of a voice are strings; token ids go with a bare transformer")
    return _not_empty(tts.texts(SENTENCES if texts is None else texts, speaker))


def _not_empty(sentences: Texts) -> Texts:
    if not sentences:
        raise TextError("there is nothing to say: the text holds no word")
    return sentences


def _greedy_check(
    decoder: Decoder, sentences: Texts, batch: int, max_tokens: int | None, tell: Progress, whole: WholeBy | None
) -> dict[str, Any]:
    """Every text at temperature 0 against the autoregressive loop alone; tv is the share of texts that part although no
    tie allows it."""
    greedy = replace(decoder.sampling, temperature=0.0)
    total, wrong = 0, 0

    def speak(by: Decoder, group: Texts) -> list[list[int]]:
        asked = [None if whole is None else whole(ids) for ids in group]
        requests = [Request(ids, sampling=greedy, cap=max_tokens, whole=want) for ids, want in zip(group, asked)]
        return [utterance.tokens for utterance in by.engine().run(requests)]

    for start in range(0, len(sentences), batch):
        group = sentences[start : start + batch]
        for ids, other in zip(group, speak(decoder, group)):
            (plain,) = speak(decoder.alone(), [ids])
            total += len(plain)
            wrong += plain != other and not _tied(Reference(decoder, ids, greedy), plain, other)
        tell(f"greedy: {min(start + batch, len(sentences))} of {len(sentences)} texts")
    return same_check(GREEDY, wrong, len(sentences), total)


def _tied(reference: Reference, plain: list[int], other: list[int]) -> bool:
    """Whether two greedy outputs part at a place where both tokens are among the best, within a tie."""
    at = next((i for i, (one, two) in enumerate(zip(plain, other)) if one != two), None)
    if at is None:  # one is the beginning of the other
        return False
    logits = reference.logits(plain[: at + 1])[0][-1]
    worse = min(float(logits[plain[at]]), float(logits[other[at]]))
    return float(logits.max()) - worse <= _TIE.get(reference.model.dtype, 1e-4)
