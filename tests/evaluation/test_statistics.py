"""Bootstrap intervals against cases whose law is known, and edit distance against jiwer."""

from __future__ import annotations

import math

import jiwer
import numpy as np
import pytest

from spear_spec.errors import SpearSpecError
from spear_spec.evaluation.edits import edit_distance
from spear_spec.evaluation.judge import Measurement
from spear_spec.evaluation.statistics import paired_difference, ratio_interval


def of(values: list[float]) -> list[Measurement]:
    return [Measurement(v, 1.0) for v in values]


def test_value_is_the_ratio_of_sums_not_the_mean_of_ratios() -> None:
    assert ratio_interval([Measurement(1, 1), Measurement(0, 9)]).value == pytest.approx(0.1)


def test_mean_of_many_matches_the_normal_interval() -> None:
    values = np.random.default_rng(1).normal(3.0, 2.0, size=900)
    found = ratio_interval(of(values.tolist()), resamples=4000)
    spread = 1.959964 * values.std() / math.sqrt(len(values))
    assert found.value == pytest.approx(values.mean())
    assert found.lo == pytest.approx(values.mean() - spread, abs=0.06 * spread)
    assert found.hi == pytest.approx(values.mean() + spread, abs=0.06 * spread)


def test_two_sentences_follow_the_binomial_law() -> None:
    # resampled means of {0, 1} are 0, .5, 1 with probabilities 1/4, 1/2, 1/4
    wide, middle = (ratio_interval(of([0.0, 1.0]), confidence=c, resamples=4000) for c in (0.95, 0.4))
    assert (wide.lo, wide.hi) == (0.0, 1.0)
    assert (middle.lo, middle.hi) == (0.5, 0.5)


def test_ratio_matches_the_delta_method() -> None:
    generator = np.random.default_rng(2)
    words = generator.integers(5, 30, size=800).astype(float)
    errors = generator.binomial(words.astype(int), 0.1).astype(float)
    found = ratio_interval([Measurement(e, w) for e, w in zip(errors, words, strict=True)], resamples=4000)
    ratio = errors.sum() / words.sum()
    spread = 1.959964 * (errors - ratio * words).std() / (words.mean() * math.sqrt(len(words)))
    assert found.lo == pytest.approx(ratio - spread, abs=0.08 * spread)
    assert found.hi == pytest.approx(ratio + spread, abs=0.08 * spread)


def test_pairs_are_resampled_together() -> None:
    values = np.random.default_rng(3).normal(0.0, 5.0, size=50)
    found = paired_difference(of((values + 0.25).tolist()), of(values.tolist()))
    # the shared spread of 5 must cancel: an unpaired interval would be about 2 wide
    assert (found.lo, found.value, found.hi) == pytest.approx((0.25, 0.25, 0.25))


def test_same_seed_same_interval_and_seeds_differ() -> None:
    values = of(np.random.default_rng(4).normal(size=30).tolist())
    assert ratio_interval(values, seed=1) == ratio_interval(values, seed=1)
    assert ratio_interval(values, seed=1) != ratio_interval(values, seed=2)


@pytest.mark.parametrize("first, second", [([], []), ([1.0], [])])
def test_nothing_to_summarise_is_refused(first: list[float], second: list[float]) -> None:
    with pytest.raises(SpearSpecError):
        paired_difference(of(first), of(second))


def test_edit_distance_equals_jiwer() -> None:
    generator = np.random.default_rng(5)
    for _ in range(200):
        wanted = list(generator.choice(list("abc"), size=generator.integers(1, 9)))
        heard = list(generator.choice(list("abc"), size=generator.integers(0, 9)))
        counted = jiwer.process_words(" ".join(wanted), " ".join(heard))
        assert edit_distance(wanted, heard) == counted.substitutions + counted.deletions + counted.insertions
