"""Whole rounds on tensors: token for token what the eager engine says, whoever comes and goes."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch

from spear_spec.config import DraftConfig, SamplingConfig
from spear_spec.decoding import Request, make_drafter, make_verifier
from spear_spec.decoding.chance import SENTENCE, derive
from spear_spec.engine import Engine, Utterance
from spear_spec.exactness.oracles import tiny_draft, tiny_model
from spear_spec.models.drafts.decoder import DraftDecoder
from spear_spec.models.spear_tts import TextToSemantic

TEXTS = [[3, 1, 4], [2], [5, 5, 6, 2, 1], [6], [1, 2, 3], [4, 4], [2, 6, 1, 5], [3]]
MIXED = [
    SamplingConfig(temperature=1.0, top_p=1.0),
    SamplingConfig(temperature=1.2, top_p=0.9),
    SamplingConfig(temperature=0.5, top_k=4, top_p=1.0),
    SamplingConfig(temperature=0.0),
    SamplingConfig(temperature=0.8, top_k=6, top_p=0.7),
]
GUIDED = SamplingConfig(temperature=1.2, top_p=0.9, guidance=2.0)
RULES: dict[str, dict[str, Any]] = {
    "rejection": {}, "block": {}, "matching": {}, "tolerance": {"b": 0.2}, "lenience": {"l": 0.6},
    "typical": {"eps": 0.2, "delta": 0.6}, "coarse": {"theta": 0.3},
}  # fmt: skip


def requests(count: int, seed: int = 0, samplings: list[SamplingConfig] = MIXED, longest: int = 24) -> list[Request]:
    """Of all kinds: texts of several lengths, samplings, prefixes, caps."""
    rng = random.Random(seed)
    return [
        Request(
            TEXTS[n % len(TEXTS)],
            prefix=tuple(rng.randrange(20) for _ in range(rng.choice((0, 0, 1, 4)))),
            seed=derive(seed, n, SENTENCE),
            sampling=rng.choice(samplings),
            cap=rng.randint(6, longest),
        )
        for n in range(count)
    ]


def restless(engine: Engine, wanted: list[Request], seed: int) -> list[Utterance]:
    """Requests that join at random steps; every fourth is cancelled on the way."""
    rng, waiting, all_ = random.Random(seed), list(wanted), list[Utterance]()
    doomed: list[Utterance] = []
    while waiting or engine.running:
        count = min(len(waiting), rng.randint(0 if engine.running else 1, 3))
        joined, waiting = engine.admit(waiting[:count]), waiting[count:]
        all_ += joined
        doomed += joined[3::4] or joined[:1] * (len(all_) % 4 == 0)
        if engine.running:
            engine.step()
        if doomed and rng.random() < 0.3:
            engine.release([doomed.pop(rng.randrange(len(doomed)))])
    return all_


def drafter(model: TextToSemantic, name: str = "eagle") -> Any:
    if name == "eagle":
        return make_drafter("eagle", tiny_draft(model))
    torch.manual_seed(5)
    shape: dict[str, Any] = {"target_layers": (2,), "window": True} if name == "prophet" else {}
    draft = DraftDecoder(DraftConfig(dim=16, depth=1 + (name == "small2"), heads=2, dim_head=8, **shape), model.cfg)
    return make_drafter(name, draft.to(model.dtype).eval())


def engine(model: TextToSemantic, rule: str | None, runtime: str, name: str = "eagle", ahead: int = 1, gamma: int = 4) -> Engine:
    if rule is None:
        made = Engine(model, runtime=runtime)
    else:
        near = model.semantic_emb.weight[:-1]
        made = Engine(model, drafter(model, name), make_verifier(rule, RULES[rule], embedding=near), gamma, runtime)
    if runtime == "graphs":
        made.session.ahead = ahead  # type: ignore[attr-defined]
    return made


@pytest.fixture(scope="module")
def model() -> TextToSemantic:
    return tiny_model(semantic=20, seed=4)  # in float64 rounding moves no draw


def told(utterances: list[Utterance]) -> list[Any]:
    return [(u.tokens, u.ended, vars(u.stats)) for u in utterances]


def alike(one: Engine, other: Engine, wanted: list[Request]) -> list[Utterance]:
    """Both say the same, stats included."""
    eager, rounds = one.run(wanted), other.run(wanted)
    assert told(eager) == told(rounds)
    return rounds


@pytest.mark.parametrize("rule", [None, *RULES])
@pytest.mark.parametrize("ahead", [1, 3])
def test_a_batch_says_what_the_eager_engine_says(model: TextToSemantic, rule: str | None, ahead: int) -> None:
    wanted = requests(9, 2)
    said = alike(engine(model, rule, "eager"), engine(model, rule, "graphs", ahead=ahead), wanted)
    assert rule is None or any(u.stats.accepted for u in said)
    assert {u.ended for u in said} == {"eos", "cap"}
