"""Drafts that are passed over for some steps: what is drafted later is what a fresh engine drafts behind the same
tokens."""

from __future__ import annotations

import random
from itertools import cycle
from typing import Any

import pytest
import torch

from spear_spec.config import SpecConfig
from spear_spec.decoding import Request
from spear_spec.decoding.decode import make
from spear_spec.engine import Engine
from spear_spec.errors import ConfigError
from spear_spec.exactness.oracles import tiny_model
from spear_spec.models.spear_tts import TextToSemantic
from tests.decoding.test_joining_drafters import SEMANTIC, SETTINGS, Setting, crowded, parts, requests

NOT = ("early_exit", "medusa", "layer_skip", "ngram", "lookup")
RESTING = [one for one in SETTINGS if one.name not in NOT][::2]  # of each kind some


@pytest.fixture(scope="module")
def model() -> TextToSemantic:
    return tiny_model(semantic=SEMANTIC, seed=4)


def watched(engine: Engine) -> list[tuple[Request, list[int], int, Any, Any]]:
    """All that is drafted from now on: request, its tokens then, most draft tokens, first law, draft."""
    seen: list[tuple[Request, list[int], int, Any, Any]] = []
    drafter: Any = engine._loop.drafter  # type: ignore[union-attr]
    right = drafter.propose

    def propose(session: Any, state: Any, limits: list[int]) -> Any:
        proposal = right(session, state, limits)
        for place, row in enumerate(session.rows):
            if proposal.tokens[place]:
                law = None if proposal.probs is None else proposal.probs[place, 0].clone()
                request = engine._running[row].request
                seen.append((request, list(session.tokens[row]), limits[place], law, proposal.tokens[place]))
        return proposal

    drafter.propose = propose
    return seen


@pytest.mark.parametrize("setting", RESTING, ids=str)
def test_what_is_drafted_later(model: TextToSemantic, setting: Setting) -> None:
    lengths = cycle([0, 2, 0, 0, 3, 0, 0, 0, 1])
    engine = setting.engine(model)
    engine._loop.gamma = lambda rows: next(lengths)  # type: ignore[union-attr]
    seen = watched(engine)
    luck = random.Random(7)
    crowded(engine, requests(luck, 5), luck)
    luck.shuffle(seen)
    assert len(seen) >= 5
    for request, tokens, most, law, draft in seen[:6]:
        alone = setting.engine(model)
        alone._loop.gamma = most  # type: ignore[union-attr]
        expected = watched(alone)
        alone.admit([Request(request.ids, tokens, 0, request.sampling, request.cap)])
        alone.step()
        [(_, _, _, wanted, other)] = expected[:1]
        if law is None:
            assert draft[:1] == other[:1]
        else:
            torch.testing.assert_close(law, wanted, rtol=0, atol=1e-9)


def test_only_those_that_can_are_passed_over(model: TextToSemantic) -> None:
    made = parts(model)
    for name in ("eagle", "small", "prophet", "block"):
        make(SpecConfig(name, gammas={"2": 0}), made)
    for name in ("early_exit", "medusa", "layer_skip"):
        with pytest.raises(ConfigError, match="pass over"):
            make(SpecConfig(name, gammas={"2": 0}), made)


def test_a_stopping_rule_learns_nothing_from_steps_without_drafts(model: TextToSemantic) -> None:
    engine = Setting("small", options=(("stop", "adaedl"),)).engine(model)
    lengths = cycle([2, 0, 0, 0])
    engine._loop.gamma = lambda rows: next(lengths)  # type: ignore[union-attr]
    engine.admit(requests(random.Random(3), 3))
    engine.step()
    rule: Any = engine._loop.state.stopping  # type: ignore[union-attr]
    before = list(rule.thresholds)
    for _ in range(3):
        engine.step()
    assert rule.thresholds
    assert set(rule.thresholds) == set(before) == {rule.begin + 0.1 * rule.step}
