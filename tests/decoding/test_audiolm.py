"""Drafts run ahead of audiolm-pytorch's transformers exactly: laws enumerated, greedy and seeded output unchanged."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from spear_spec.config import DraftConfig, SamplingConfig
from spear_spec.decoding import Session, make_drafter, make_verifier
from spear_spec.decoding.drafters.layer_skip import LayerSkipDrafter
from spear_spec.decoding.request import Request, encode
from spear_spec.engine import Engine
from spear_spec.errors import ConfigError
from spear_spec.exactness.oracles import SAMPLINGS, UncachedTarget
from spear_spec.exactness.verify import verify_drafter
from spear_spec.models.audiolm.coarse import CoarseConfig, CoarseTransformer
from spear_spec.models.drafts.decoder import DraftDecoder
from spear_spec.models.memory import Skip
from tests.decoding.laws import law_error

TEXTS = [[3, 1, 4], [2, 0, 2, 3, 1], [4]]
PLAIN = SAMPLINGS["plain"]


def tiny(dtype: torch.dtype = torch.float64, **change: Any) -> CoarseTransformer:
    """Random weights whose laws are neither flat nor one-sided."""
    torch.manual_seed(0)
    shape = {
        "width": 8, "depth": 2, "heads": 2, "dim_head": 4, "ff_inner": 10, "streams": 2, "codebook": 2, "quantizers": 2,
        "semantic": 5,
    }  # fmt: skip
    model = CoarseTransformer(CoarseConfig(**{**shape, **change}))
    for name, parameter in model.named_parameters():
        torch.nn.init.normal_(parameter, 1.0 if "norm.weight" in name else 0.0, 0.6)
    with torch.no_grad():
        for table in (model.token_emb.weight, model.to_logits.weight):
            table[:, model.cfg.width :] = 0
    return model.to(dtype).eval().requires_grad_(False)


class Uncached(UncachedTarget):
    """The oracle's law, from whole forwards of one row; there is no text-free one."""

    def __init__(self, model: CoarseTransformer, text: list[int], sampling: SamplingConfig) -> None:
        self.model, self.sampling, self.known = model, sampling, {}  # type: ignore[assignment]
        self.memory = self.null = encode(model, [text])


def random_draft(model: CoarseTransformer, fed: bool) -> DraftDecoder:
    torch.manual_seed(1)
    shape = DraftConfig(dim=model.dim, heads=2, dim_head=4, target_layers=(1, 2) if fed else ())
    return DraftDecoder(shape, model).to(model.dtype).eval()


DRAFTERS = {
    "ngram": lambda model: make_drafter("ngram"),
    "layer_skip": lambda model: LayerSkipDrafter(Skip(frozenset({1}), frozenset({0}))),
    "small": lambda model: make_drafter("small", random_draft(model, fed=False)),
    "fed": lambda model: make_drafter("eagle", random_draft(model, fed=True)),
    "tree": lambda model: make_drafter(
        "small", random_draft(model, fed=False), tree="2-1", options={"siblings": "wor"}
    ),
}


@pytest.mark.parametrize(
    ("name", "caps", "watch", "sampling"),
    [
        ("ngram", [3], 0, "plain"),
        ("small", [3], 0, "top_p"),
        ("small", [1, 2], 1, "plain"),
        ("layer_skip", [2], 0, "plain"),
        ("fed", [2], 0, "top_p"),
        ("tree", [2], 0, "plain"),
    ],
)
def test_the_law_is_the_targets(name: str, caps: list[int], watch: int, sampling: str) -> None:
    rule = "recursive_wor" if name == "tree" else "rejection"
    model, law = tiny(), SAMPLINGS[sampling]
    target = Uncached(model, TEXTS[watch], law)
    assert law_error(model, TEXTS, target, DRAFTERS[name](model), rule, law, caps, watch) < 1e-9


def test_an_utterance_ends_between_frames_alone_and_not_before_the_first() -> None:
    law = Uncached(tiny(), TEXTS[0], PLAIN).sequences(5)
    ended = [tokens for tokens in law if tokens[-1] == 4]
    assert {len(tokens) for tokens in ended} == {3, 5} and sum(law[tokens] for tokens in ended) > 0.05
    assert all(token // 2 == place % 2 for tokens in law for place, token in enumerate(tokens) if token != 4)


def said(model: CoarseTransformer, drafter: Any, rule: str, temperature: float, gamma: int = 4) -> list[list[int]]:
    """Tokens of each text, one of them with a prompt of coarse tokens, same seeds every time."""
    sampling = SamplingConfig(temperature=temperature, top_p=1.0)
    prompts: list[tuple[int, ...]] = [(), (5, 9 + 3, 7, 9 + 8), ()]
    requests = [Request(ids, prefix=prompt, seed=40 + row, sampling=sampling, cap=40)
                for row, (ids, prompt) in enumerate(zip(TEXTS, prompts))]  # fmt: skip
    engine = Engine(model, drafter, make_verifier(rule), gamma) if drafter else Engine(model)
    late = engine.admit(requests[:1])
    engine.step()
    late += engine.admit(requests[1:])
    while engine.running:
        engine.step()
    return [one.tokens for one in late]


@pytest.fixture(scope="module")
def lively() -> CoarseTransformer:
    """Greedy output wanders; float32."""
    return tiny(torch.float32, width=24, heads=3, dim_head=8, ff_inner=40, codebook=9)


@pytest.mark.parametrize("name", DRAFTERS)
def test_greedy_output_is_unchanged(lively: CoarseTransformer, name: str) -> None:
    plain = said(lively, None, "", 0.0)
    assert max(len(set(tokens)) for tokens in plain) > 4 and max(map(len, plain)) > 20
    assert said(lively, DRAFTERS[name](lively), "recursive_wor" if name == "tree" else "rejection", 0.0) == plain


@pytest.mark.parametrize("temperature", [0.7, 1.2])
def test_seeded_output_is_unchanged_where_the_rule_draws_as_the_plain_loop_does(
    lively: CoarseTransformer, temperature: float
) -> None:
    plain = said(lively, None, "", temperature)
    assert said(lively, make_drafter("ngram"), "matching", temperature) == plain
    assert len({tuple(tokens) for tokens in plain}) == 3


def test_it_passes_verify(lively: CoarseTransformer) -> None:
    found = verify_drafter(lively, DRAFTERS["small"](lively), texts=TEXTS, samples=150, batch=3, sampling=PLAIN)
    assert found["pass"] is True


def test_guidance_is_refused() -> None:
    with pytest.raises(ConfigError, match="text-free"):
        Session(tiny()).admit([Request(TEXTS[0], sampling=SamplingConfig(guidance=2.0))])
