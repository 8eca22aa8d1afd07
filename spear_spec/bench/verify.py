"""Is decoding exact on this voice? Whole utterances, spoken through the call that `say` uses, against the bare target."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import cycle
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spear_spec.bench.uniformity import ALPHA, holm, uniform_checks
from spear_spec.config import SamplingConfig
from spear_spec.decoding.sampling import guide, probabilities
from spear_spec.errors import TextError
from spear_spec.pipeline import TTS, choose_speaker

SENTENCES = (
    "The ferry leaves the harbour at half past seven, whatever the weather.",
    "Nobody could explain why the lights had stayed on all night.",
    "Good morning!",
    "She folded the letter twice, put it back into the drawer, and said nothing about it for the rest of the week.",
    "Is this the road to the old observatory?",
    "Three hundred and twelve people signed the petition.",
)
DEFAULT_SAMPLES = 4000
GREEDY_SENTENCES = 4
TIE = 1e-4  # greedy may part where the two best logits lie closer than this


def run_verify(tts: TTS, texts: Sequence[str] | None = None, *, samples: int | None = None, speaker: str | None = None, seed: int = 0,
               batch: int = 1, max_tokens: int | None = None, progress: Callable[[str], None] | None = None, **sampling: Any) -> dict[str, Any]:
    """Test `tts.spec` on this voice; the object of schema verify/1.

    Utterances are generated until `samples` tokens are there (texts are spoken again with fresh randomness as often as
    needed). Each token x is scored against an uncached forward of the target by a randomised probability integral
    transform: u = F(x-) + v p(x), v uniform, where F sums p over the vocabulary in an order that depends on the past
    alone. If decoding is exact, the u are independent and uniform whatever the order. Two orders: by q/p, q being the
    draft's law with the target's true features (a leak of the draft's law piles up at one end), and by falling p (a
    wrong temperature or filter does). Not stratified by the place in a draft, which correct block rules would fail.
    Greedy: the same tokens as the autoregressive loop, but for ties within 1e-4.

    A check passes when its Holm-adjusted p-value (the one reported) is at least .001; the whole when all checks pass
    and the declared rule is lossless.

    Raises:
        TextError: the texts hold nothing to say.
        ConfigError: a sampling setting is out of range.
    """
    law = replace(tts.sampling, **sampling)
    wanted = samples or DEFAULT_SAMPLES
    speaker = choose_speaker(tts.bundle, speaker)
    sentences = [ids for text in texts or SENTENCES for _, ids in tts.sentences(text, speaker)]
    if not sentences:
        raise TextError("there is nothing to say: the text holds no word")
    scores = Scores(torch.Generator().manual_seed(seed + 1))
    for ids, tokens in _spoken(tts, sentences, law, seed, batch, max_tokens):
        scores.add(Reference(tts, ids, law), tokens)
        if progress is not None:
            progress(f"scored {min(scores.count, wanted)} of {wanted} tokens")
        if scores.count >= wanted:
            break
    checks = []
    for name, values in scores.values(wanted).items():
        checks += uniform_checks(name, values, seed)
    checks.append(_greedy_check(tts, sentences[:GREEDY_SENTENCES], law, max_tokens))
    for check, p in zip(checks, holm([check["p_value"] for check in checks])):
        check["p_value"] = p
        check["pass"] = p >= ALPHA
    settings = tts.describe(batch=batch, seed=seed, **sampling)
    return {"schema": "verify/1", "voice": tts.name, **settings, "checks": checks,
            "pass": all(check["pass"] for check in checks) and bool(settings["lossless"])}


def _spoken(tts: TTS, sentences: list[list[int]], law: SamplingConfig, seed: int, batch: int,
            max_tokens: int | None) -> Iterator[tuple[list[int], list[int]]]:
    """Texts with their generated tokens, in order, again and again."""
    chance = torch.Generator().manual_seed(seed)
    endless = cycle(sentences)
    while True:
        group = [next(endless) for _ in range(batch)]
        session, verdicts = tts.decode(group, law, chance, max_tokens)
        for _ in verdicts:
            pass
        yield from zip(group, session.tokens)


class Reference:
    """The bare target on one text: full forwards without a cache, and the draft's law beside it."""

    def __init__(self, tts: TTS, ids: list[int], law: SamplingConfig) -> None:
        self.model, self.sampling = tts.t2s, law
        self.draft = tts.draft if tts.spec.drafter == "small" else None
        with torch.inference_mode():
            self.memory = self.model.encode(torch.tensor([[*ids, self.model.text_eos_id]], device=self.model.device))

    @torch.inference_mode()
    def logits(self, tokens: list[int]) -> tuple[Tensor, Tensor | None]:
        """Guided logits [T, V] of each of T tokens given those before it, and the draft's law [T, V]."""
        model = self.model
        if self.draft is not None:
            model.feature_layers = self.draft.cfg.target_layers
        ids = torch.tensor([[model.start_id, *tokens[:-1]]], device=model.device)
        out = model(ids, self.memory)
        logits, q = out.logits, None
        if self.sampling.guidance != 1:
            logits = guide(logits, model(ids, self.memory.unconditional()).logits, self.sampling.guidance)
        if self.draft is not None:
            features = self.draft.fuse_target(out.features)
            features = torch.cat((torch.zeros_like(features[:, :1]), features[:, :-1]), dim=1)
            hidden = self.draft.step(model, ids, features, self.draft.start(self.memory))
            q = probabilities(self.draft.logits(model, hidden)[0], self.sampling)
        return logits[0], q


@dataclass
class Scores:
    """Transformed tokens u in [0, 1) under each order of the vocabulary."""

    generator: torch.Generator

    def __post_init__(self) -> None:
        self._parts: dict[str, list[Tensor]] = {}
        self.count = 0

    def add(self, reference: Reference, tokens: list[int]) -> None:
        """One whole utterance."""
        logits, q = reference.logits(tokens)
        p = probabilities(logits, reference.sampling).double().cpu()
        orders = {"by probability": -p}
        if q is not None:
            # what the target excludes stands at the end; it carries no mass, so its place changes nothing
            orders["by draft/target"] = torch.where(p > 0, q.double().cpu() / p, torch.inf)
        at = torch.tensor(tokens)[:, None]
        v = torch.rand(len(tokens), generator=self.generator, dtype=torch.float64)
        for name, key in orders.items():
            order = key.argsort(dim=-1, stable=True)
            mass = p.gather(-1, order)
            place = (order == at).double().argmax(-1, keepdim=True)
            before = (mass.cumsum(-1) - mass).gather(-1, place)[:, 0]
            self._parts.setdefault(name, []).append((before + v * p.gather(-1, at)[:, 0]).clamp(0, 1 - 1e-12))
        self.count += len(tokens)

    def values(self, wanted: int) -> dict[str, NDArray[np.float64]]:
        """The first `wanted` of each: a fixed number, so that when generation stopped tells nothing."""
        return {name: torch.cat(parts)[:wanted].numpy() for name, parts in self._parts.items()}


def _greedy_check(tts: TTS, sentences: list[list[int]], law: SamplingConfig, max_tokens: int | None) -> dict[str, Any]:
    """Greedy output of both loops; tv is the share of sentences that part although no tie allows it."""
    greedy = replace(law, temperature=0.0)
    plain_tts = tts.using(drafter="none")
    total, wrong = 0, 0
    for ids in sentences:
        outputs = []
        for speaker in (plain_tts, tts):
            session, verdicts = speaker.decode([ids], greedy, torch.Generator().manual_seed(0), max_tokens)
            for _ in verdicts:
                pass
            outputs.append(session.tokens[0])
        plain, other = outputs
        total += len(plain)
        if plain != other:
            at = next(i for i in range(max(len(plain), len(other))) if i >= min(len(plain), len(other)) or plain[i] != other[i])
            best = Reference(tts, ids, law).logits(plain[: at + 1])[0][-1].topk(2).values
            wrong += bool(best[0] - best[1] > TIE)
    return {"name": "greedy identity", "n": total, "tv": wrong / len(sentences), "null_q99": 0.0,
            "p_value": 0.0 if wrong else 1.0, "detectable_tv": 1 / len(sentences)}
