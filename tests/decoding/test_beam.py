"""Beam search: against every sequence that there is, and against a plain beam in Python without cache or batch."""

from __future__ import annotations

import importlib.util
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from spear_spec.config import SamplingConfig
from spear_spec.decoding import Request, Session, generate
from spear_spec.decoding.beam import BeamSearch, Found, beam_search
from spear_spec.decoding.limits import Guard
from spear_spec.decoding.request import Whole, encode
from spear_spec.errors import ConfigError, ContractError, NumericsError, TextError
from spear_spec.exactness.oracles import oracle_law, tiny_model
from spear_spec.models.audiolm.coarse import CoarseConfig, CoarseTransformer
from spear_spec.models.contract import Target
from spear_spec.models.whisperspeech import WhisperSpeechConfig, WhisperSpeechT2S

Law = Callable[[tuple[int, ...]], list[float]]
TEXTS = [[3, 1, 4], [2], [5, 5, 6, 2, 1], [6]]


def scattered(model: Any) -> Any:
    torch.manual_seed(3)
    for name, parameter in model.named_parameters():
        torch.nn.init.normal_(parameter, 1.0 if "norm.weight" in name else 0.0, 0.5)
    return model.double().eval().requires_grad_(False)


def whisper() -> WhisperSpeechT2S:
    return scattered(
        WhisperSpeechT2S(
            WhisperSpeechConfig(
                dim=8, heads=2, source_depth=1, target_depth=2, ff_inner=12, vocab_size=4, eos_id=1, max_tokens=9,
                text_length=10, languages=3, rate_bins=4,
            )
        )
    )  # fmt: skip


def coarse() -> CoarseTransformer:
    model = scattered(
        CoarseTransformer(
            CoarseConfig(
                width=8, depth=2, heads=2, dim_head=4, ff_inner=10, streams=2, codebook=2, quantizers=2, semantic=9
            )
        )
    )
    for table in (model.token_emb.weight, model.to_logits.weight):
        table[:, model.cfg.width :] = 0
    return model


def outside() -> Any:
    spec = importlib.util.spec_from_file_location("gru", Path(__file__).parents[1] / "plugins" / "gru_target.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return scattered(module.GruTarget(9, 3, 8))


TARGETS: dict[str, tuple[Callable[[], Any], list[list[int]]]] = {
    "spear": (lambda: tiny_model(semantic=3), TEXTS),
    "whisper": (whisper, [[256, 259, 72, 105], [257, 260, 3, 4, 5, 6, 200], [258, 261, 9]]),
    "coarse": (coarse, [[3, 1, 4], [2, 0, 2, 3, 1], [4]]),
    "outside": (outside, TEXTS),
}


def law_of(model: Any, text: list[int], guidance: float = 1.0) -> Law:
    """Log probabilities of the next token, from whole forwards of one text; remembered."""
    memory = encode(model, [text])
    memories = [memory] if guidance == 1 else [memory, memory.unconditional()]
    known: dict[tuple[int, ...], list[float]] = {}
    sampling = SamplingConfig(temperature=1.0, top_p=1.0, guidance=guidance)

    def law(prefix: tuple[int, ...]) -> list[float]:
        if prefix not in known:
            ids = torch.tensor([[model.start_id, *prefix]])
            with torch.no_grad():
                logits = [model(ids, each).logits[0, -1].tolist() for each in memories]
            known[prefix] = [math.log(p) if p > 0 else -math.inf for p in oracle_law(logits[0], sampling, logits[-1])]
        return known[prefix]

    return law


def scored(total: float, length: int, alpha: float) -> float:
    return total * (6 / (5 + length)) ** alpha


def best_of_all(law: Law, eos: int, cap: int, alpha: float) -> tuple[tuple[int, ...], float]:
    """Of all sequences of at most `cap` tokens that end, the best."""
    ended: list[tuple[float, tuple[int, ...]]] = []
    level = [((), 0.0)]
    for length in range(1, cap + 1):
        longer = [((*p, t), s + x) for p, s in level for t, x in enumerate(law(p)) if x > -math.inf]
        ended += [(scored(s, length, alpha), p) for p, s in longer if p[-1] == eos]
        level = [(p, s) for p, s in longer if p[-1] != eos]
    score, tokens = max(ended)
    return tokens, score


def plain_beam(
    law: Law, eos: int, cap: int, width: int, alpha: float, rate: float = 25.0, prefix: tuple[int, ...] = ()
) -> tuple[tuple[int, ...], float, str]:
    """The module's definition, one text, no cache."""
    live: list[tuple[tuple[int, ...], float]] = [(prefix, 0.0)]
    ended: list[tuple[bool, float, tuple[int, ...], str]] = []
    while live:
        every = sorted(
            (((*p, t), s + x) for p, s in live for t, x in enumerate(law(p)) if x > -math.inf), key=lambda e: -e[1]
        )
        live = []
        for rank, (tokens, total) in enumerate(every):
            guard = Guard(rate)
            stuck = [guard.push(token) for token in tokens][-1]
            why = "eos" if tokens[-1] == eos else "guard" if stuck else "cap" if len(tokens) == cap else ""
            if not why and len(live) < width:
                live.append((tokens, total))
            elif why and rank < width:
                ended.append((why == "eos", scored(total, len(tokens) - len(prefix), alpha), tokens, why))
        if sum(complete for complete, *_ in ended) >= width:
            break
    # the module also stops where nothing can become better: it finds the same
    _, score, tokens, why = max(ended)
    return tokens, score, why


def same(found: Found, tokens: Sequence[int], score: float) -> None:
    assert found.tokens == list(tokens)
    assert found.score == pytest.approx(score, abs=1e-9)


@pytest.mark.parametrize("name", TARGETS)
def test_a_beam_as_wide_as_the_space_finds_the_best_there_is(name: str) -> None:
    made, texts = TARGETS[name]
    model, cap = made(), 5
    laws = [law_of(model, text) for text in texts]
    for alpha in (0.0, 0.6, 1.5):
        found = beam_search(model, texts, width=model.vocab_size**cap, length_penalty=alpha, cap=cap)
        for law, one in zip(laws, found):
            same(one, *best_of_all(law, model.eos_id, cap, alpha))
            assert one.ended == "eos" and one.speech == one.tokens[:-1]


def test_guidance_is_heard() -> None:
    model = tiny_model(semantic=3)
    laws = [law_of(model, text, 2.0) for text in TEXTS]
    wide = beam_search(model, TEXTS, width=4**4, cap=4, guidance=2.0)
    narrow = beam_search(model, TEXTS, width=2, cap=6, guidance=2.0)
    for law, one, other in zip(laws, wide, narrow):
        same(one, *best_of_all(law, model.eos_id, 4, 0.6))
        same(other, *plain_beam(law, model.eos_id, 6, 2, 0.6)[:2])


@pytest.mark.parametrize("name", TARGETS)
def test_a_narrow_beam_finds_what_a_plain_one_finds(name: str) -> None:
    made, texts = TARGETS[name]
    model = made()
    caps = [8, 3, 9, 6][: len(texts)]
    laws = [law_of(model, text) for text in texts]
    for width, together in ((1, 9), (2, 1), (3, 2), (3, 9), (6, 2)):  # texts join while others are in the middle
        found = beam_search(model, texts, width=width, cap=caps, together=together)
        for law, cap, one in zip(laws, caps, found):
            tokens, score, why = plain_beam(law, model.eos_id, cap, width, 0.6)
            same(one, tokens, score)
            assert one.ended == why and one.calls <= cap


def test_texts_join_behind_prefixes_with_guidance_of_their_own() -> None:
    model, rng = tiny_model(semantic=5, seed=2), random.Random(0)
    requests = [
        Request(
            TEXTS[n % 4],
            prefix=tuple(rng.randrange(5) for _ in range(rng.choice((0, 1, 4)))),
            sampling=SamplingConfig(guidance=rng.choice((1.0, 2.5))),
            cap=rng.randint(6, 12),
            seed=n,
        )
        for n in range(12)
    ]
    search, found, waiting = BeamSearch(model, 3, 1.0), {}, list(requests)
    while waiting or search.running:
        for _ in range(rng.randint(0 if search.running else 1, 2)):
            if waiting:
                search.admit([waiting.pop(0)])
        if search.running:
            found.update(search.step())
    assert sorted(found) == list(range(12))
    for number, request in enumerate(requests):
        law = law_of(model, list(request.ids), request.sampling.guidance)
        assert request.cap is not None
        tokens, score, why = plain_beam(law, model.eos_id, request.cap, 3, 1.0, prefix=tuple(request.prefix))
        same(found[number], tokens, score)
        assert found[number].ended == why


def test_what_repeats_itself_does_not_go_on() -> None:
    model, ends = tiny_model(semantic=4, seed=7), set()
    with torch.no_grad():
        model.semantic_emb.weight.mul_(2)  # it likes to say the same again
    laws = [law_of(model, text) for text in TEXTS]
    for width, rate in ((1, 1.0), (3, 1.0), (3, 2.0)):
        found = beam_search(model, TEXTS, width=width, cap=14, frame_rate=rate, length_penalty=1.0)
        for law, one in zip(laws, found):
            tokens, score, why = plain_beam(law, model.eos_id, 14, width, 1.0, rate=rate)
            same(one, tokens, score)
            assert one.ended == why
            ends.add(why)
    assert "guard" in ends


def test_what_is_longer_can_overtake() -> None:
    """The end comes first, with .6; 0 1 2 and the end has .4, all of it spent on the first token."""
    model = outside()
    table = torch.full((5, 4), -40.0, dtype=torch.float64)
    table[:, 3], table[4] = -800, -800  # nothing else ends meanwhile
    table[4, 3], table[4, 0], table[0, 1], table[1, 2], table[2, 3] = math.log(0.6), math.log(0.4), 0, 0, 0
    forward = model.forward

    def sure(tokens: torch.Tensor, *given: Any, **options: Any) -> Any:
        return replace(forward(tokens, *given, **options), logits=table[tokens])

    model.forward = sure
    for alpha, tokens in ((1.0, [3]), (2.0, [0, 1, 2, 3])):
        [one] = beam_search(model, TEXTS[:1], width=2, cap=9, length_penalty=alpha)
        assert one.tokens == tokens


def test_one_beginning_is_greedy_decoding() -> None:
    model = tiny_model(semantic=20, seed=4)
    memory = encode(model, TEXTS)
    session = Session(model, memory, SamplingConfig(temperature=0.0), generator=torch.Generator(), max_tokens=30)
    for _ in generate(session):
        pass
    found = beam_search(model, TEXTS, width=1, cap=30)
    assert [one.tokens for one in found] == session.tokens
    assert [one.ended for one in found] == session.ended


def test_the_kernel_in_c_finds_the_same() -> None:
    model = tiny_model(semantic=30, seed=5)
    slow = beam_search(model, TEXTS, width=4, cap=40)
    fast = beam_search(model.float(), TEXTS, width=4, cap=40)
    assert max(len(one.tokens) for one in slow) > 10
    for one, other in zip(slow, fast):
        assert one.tokens == other.tokens
        assert one.score == pytest.approx(other.score, abs=1e-4)


def test_a_model_of_nan_is_named() -> None:
    model = tiny_model()
    with torch.no_grad():
        model.semantic_emb.weight[0] = math.nan
    search = BeamSearch(model, 2)
    search.admit([Request([1])])
    with pytest.raises(NumericsError):
        search.step()
    with pytest.raises(ContractError, match="broken off"):
        search.step()


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"width": 0}, ConfigError, "beam must be a whole number of 1 to 4096, not 0"),
        ({"width": True}, ConfigError, "beam"),
        ({"width": 2, "guidance": 0.0}, ConfigError, "guidance"),
        ({"width": 2, "length_penalty": -1}, ConfigError, "length_penalty"),
        ({"width": 2, "cap": 0}, ConfigError, "max_tokens"),
        ({"width": 2, "cap": [3]}, ConfigError, "one number for each of the 4 texts, not 1"),
        ({"width": 2, "together": 0}, ConfigError, "together"),
        ({"width": 2, "texts": [[99]]}, TextError, "text ids"),
    ],
)
def test_settings_that_cannot_be_used(options: dict[str, Any], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        beam_search(tiny_model(), options.pop("texts", TEXTS), **options)


def test_requests_that_cannot_be_searched() -> None:
    search = BeamSearch(tiny_model(), 2)
    with pytest.raises(ContractError, match="nothing runs"):
        search.step()
    with pytest.raises(ConfigError, match="complete"):
        search.admit([Request([1], whole=Whole(((0, 1),)))])
    with pytest.raises(ConfigError, match="prefix"):
        search.admit([Request([1], prefix=[9])])
    target: Target = whisper()
    with pytest.raises(ConfigError, match="text-free"):
        beam_search(target, [[256, 259, 72]], width=2, guidance=2.0)
    assert beam_search(target, [], width=2) == []
