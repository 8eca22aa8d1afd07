"""The search for the sublayers that a draft leaves out: what it finds, how it goes on, and what its objective
measures.
"""

from __future__ import annotations

import sys

import pytest
import torch

from spear_spec.config import SamplingConfig, T2SConfig
from spear_spec.decoding import Session, generate
from spear_spec.errors import ConfigError, MissingExtraError
from spear_spec.models.drafts.layer_skip import LayerSkipConfig
from spear_spec.models.spear_tts import TextToSemantic
from spear_spec.training.drafts import skip_search
from spear_spec.training.drafts.skip_search import Reading, Speed, search

TEXTS = [[3, 1, 4, 7], [2, 7], [5, 5, 6, 2, 1, 7]]
GREEDY = SamplingConfig(temperature=0.0, top_p=1.0)
LAW = SamplingConfig(temperature=1.0, top_p=1.0)


def model(depth: int = 3) -> TextToSemantic:
    torch.manual_seed(0)
    made = TextToSemantic(
        T2SConfig(
            num_text_token_ids=7,
            num_semantic_token_ids=12,
            dim=16,
            source_depth=1,
            target_depth=depth,
            heads=2,
            dim_head=8,
        )
    )
    with torch.no_grad():
        for layer in made.decoder:
            layer.self_attn.to_out.weight.mul_(6.0)
            layer.cross_attn.to_out.weight.mul_(6.0)
    return made.double().eval()


BEST = LayerSkipConfig(attention=(1, 2), feed_forward=(0,))


def closeness(config: LayerSkipConfig) -> float:
    """Minus the number of switches that stand otherwise than in BEST, with some that count more."""
    wrong = [
        2.0 * len({*config.attention} ^ {*BEST.attention}),
        1.0 * len({*config.feed_forward} ^ {*BEST.feed_forward}),
    ]
    return 20.0 - sum(wrong)


def run(**settings: object) -> tuple[LayerSkipConfig, list[Reading]]:
    given = {"trials": 40, "progress": False, "objective": closeness, **settings}
    return search(model(), TEXTS, LAW, **given)  # type: ignore[arg-type]


def test_the_best_of_64_is_found() -> None:
    best, history = run()
    assert best == BEST
    assert sum(not reading.final for reading in history) == 40
    final = [reading for reading in history if reading.final]
    assert [reading.config for reading in final[:4]] * 3 == [reading.config for reading in final]
    assert len({reading.config for reading in final}) == 4


def test_the_search_learns() -> None:
    """Late trials are better than the first ones, which know nothing; a search at random would not be."""
    wins = 0
    for seed in range(3):
        values = [reading.tokens_per_s for reading in run(seed=seed, rounds=0)[1]]
        early, late = ([value for value in part if value is not None] for part in (values[:12], values[-24:]))
        wins += sum(late) / len(late) > sum(early) / len(early) + 1
    assert wins == 3


def test_the_same_seed_searches_alike() -> None:
    assert run(trials=25)[1] == run(trials=25)[1] != run(trials=25, seed=1)[1]


def test_nothing_and_everything_are_not_measured() -> None:
    asked: list[LayerSkipConfig] = []

    def objective(config: LayerSkipConfig) -> float:
        asked.append(config)
        return float(-min(config.skipped, 2 - config.skipped))  # what must not be asked for would be best

    history = search(model(depth=1), TEXTS, LAW, trials=40, progress=False, objective=objective)[1]
    assert {config.skipped for config in asked} == {1}
    unmeasured = [reading for reading in history if reading.tokens_per_s is None]
    assert {reading.config.skipped for reading in unmeasured} == {0, 2}


def test_a_search_that_was_cut_off_goes_on() -> None:
    class Off(Exception):
        pass

    kept: list[Reading] = []
    measured: list[LayerSkipConfig] = []

    def record(history: list[Reading]) -> None:
        kept[:] = [Reading.from_dict(reading.to_dict()) for reading in history]  # as a file would give them back
        if len(history) == 6:
            raise Off

    with pytest.raises(Off):
        run(record=record)
    assert len(kept) == 6

    def objective(config: LayerSkipConfig) -> float:
        measured.append(config)
        return closeness(config)

    best, history = run(known=list(kept), objective=objective)
    assert best == BEST and history[:6] == kept
    assert len(measured) == sum(reading.tokens_per_s is not None for reading in history[6:])
    assert sum(not reading.final for reading in history) == 40
    # what was known counts: neither the two sets that are always tried first nor the first draws come again
    first, again = ([reading.config for reading in part] for part in (kept, history[6:12]))
    assert again[:2] != first[:2] and again[:4] != first[2:]
    # a search that had ended only measures its leaders again
    assert all(reading.final for reading in run(known=history)[1][len(history) :])


def test_leaders_are_measured_again_because_readings_are_noisy() -> None:
    """One lucky reading does not win."""
    lucky = LayerSkipConfig(attention=(1,), feed_forward=(1,))  # every second layer: the first trial
    seen: list[LayerSkipConfig] = []

    def objective(config: LayerSkipConfig) -> float:
        seen.append(config)
        return 1000.0 if config == lucky and seen.count(lucky) == 1 else closeness(config)

    best, history = run(objective=objective)
    assert history[0].config == lucky and history[0].tokens_per_s == 1000.0
    assert best == BEST


def test_time_ends_the_search() -> None:
    history = run(minutes=1e-9)[1]
    assert sum(not reading.final for reading in history) == 1


def test_no_trial() -> None:
    with pytest.raises(ConfigError, match="more trials"):
        run(trials=0)


def test_foreign_readings_are_refused() -> None:
    with pytest.raises(ConfigError, match="layers 0 to 2"):
        run(known=[Reading((5,), (), 1.0)])


def test_without_optuna(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(MissingExtraError, match=r"optuna.*spear_spec\[train\]"):
        run()


# --- the objective ---------------------------------------------------------------------------------------------------


def test_every_trial_speaks_the_same_texts() -> None:
    """At temperature 0 what is said does not depend on the switches: as many tokens as the plain loop, in fewer
    calls.
    """
    target = model()
    plain = 0
    for text in TEXTS:
        session = Session(
            target, target.encode(torch.tensor([text])), GREEDY, generator=torch.Generator(), max_tokens=24
        )
        for _ in generate(session):
            pass
        plain += session.stats[0].tokens
    speed = Speed(target, TEXTS, GREEDY, gamma=3, max_tokens=24)
    some, other = (speed.decode(config) for config in (LayerSkipConfig((1,), ()), LayerSkipConfig((0, 1, 2), (0, 1))))
    assert plain == some.tokens == other.tokens > 3 * 12
    assert other.target_calls <= plain and some.target_calls < plain
    assert speed.decode(LayerSkipConfig()).tokens_per_call > 3.5  # the target itself drafts: nothing is refused


def test_the_objective_is_tokens_by_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that goes on by one second a target call: tokens a second are then tokens a call, of the same chance
    each time.
    """
    target = model()
    speed = Speed(target, TEXTS, LAW, gamma=3, verifier="block", seed=4, max_tokens=20)
    calls = 0
    score = Session.score

    def counted(self: Session, *args: object, **named: object) -> torch.Tensor:
        nonlocal calls
        calls += 1
        return score(self, *args, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(Session, "score", counted)
    monkeypatch.setattr(Speed, "_now", lambda self: float(calls))
    config = LayerSkipConfig((1,), (2,))
    expected = speed.decode(config).tokens_per_call
    assert speed(config) == speed(config) == pytest.approx(expected)
    assert expected > 1


def test_a_real_search_runs() -> None:
    best, history = search(model(), TEXTS[:2], LAW, gamma=2, trials=4, rounds=1, progress=False)
    assert 0 < best.skipped < 6
    assert all(reading.tokens_per_s is None or reading.tokens_per_s > 0 for reading in history)


def test_nothing_to_measure_on() -> None:
    with pytest.raises(ConfigError, match="at least one text"):
        search(model(), [], LAW, progress=False)


def test_readings_are_strict() -> None:
    with pytest.raises(ConfigError, match="unknown key"):
        Reading.from_dict({"attention": [], "feed_forward": [], "tokens_per_s": 1.0, "speed": 2.0})
    assert skip_search.Reading((1,), (), None).config == LayerSkipConfig((1,), ())
