"""ngram and lookup: what they draft against a search through the whole past, and the law of the loop by enumeration."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch

from spear_spec.config import SamplingConfig
from spear_spec.decoding.drafters.history import HistoryDrafter
from spear_spec.decoding.drafters.lookup import LookupDrafter, Occurrences
from spear_spec.decoding.drafters.ngram import NgramDrafter, NGrams
from spear_spec.decoding.loop import speculate
from spear_spec.decoding.proposal import Proposal
from spear_spec.decoding.session import Session
from spear_spec.decoding.verifiers import make_verifier
from spear_spec.errors import ConfigError
from spear_spec.exactness.oracles import SAMPLINGS, loop_error, texts, tiny_model

# every filter and both arms; with three tokens `SAMPLINGS["all"]` leaves one
LAWS = {**SAMPLINGS, "filtered": SamplingConfig(temperature=1.5, top_k=2, top_p=0.95, guidance=1.5)}
DRAFTERS: dict[str, Callable[..., HistoryDrafter]] = {"ngram": NgramDrafter, "lookup": LookupDrafter}


def searched_ngram(past: list[int], limit: int, order: int) -> list[int]:
    """Count again for every token."""
    out: list[int] = []
    while len(out) < limit:
        spelled = past + out
        for size in range(order - 1, 0, -1):
            if size > len(spelled):
                continue
            followers = [past[end] for end in range(size, len(past)) if past[end - size : end] == spelled[-size:]]
            if followers:
                most = max(followers.count(token) for token in followers)
                # of those seen most often, the one that was seen last
                out.append(next(token for token in reversed(followers) if followers.count(token) == most))
                break
        else:
            break
    return out


def searched_lookup(past: list[int], limit: int, longest: int) -> list[int]:
    """Go back from the end."""
    for size in range(min(longest, len(past)), 0, -1):
        for end in range(len(past) - 1, size - 1, -1):
            if past[end - size : end] == past[-size:]:
                return past[end : end + limit]
    return []


SEARCHED = {"ngram": searched_ngram, "lookup": searched_lookup}
MADE: dict[str, Callable[[int], Any]] = {"ngram": NGrams, "lookup": Occurrences}


@pytest.mark.parametrize("length", [2, 3, 5])
@pytest.mark.parametrize("vocab", [2, 5, 30])
@pytest.mark.parametrize("name", DRAFTERS)
def test_guesses_are_those_of_a_search(name: str, vocab: int, length: int) -> None:
    rng = random.Random(f"{name}/{vocab}/{length}")
    history, past, guessed = MADE[name](length), [], 0
    for _ in range(150):
        for limit in (0, 1, 4):
            guess = history.guess(limit)
            assert guess == SEARCHED[name](past, limit, length)
            guessed += len(guess)
        past.append(rng.randrange(vocab))
        history.push(past[-1])
    assert guessed > 30


def test_ngram_ties_go_to_the_newest_and_counts_count() -> None:
    history = NGrams(2)
    for token in [1, 2, 1, 3, 1]:
        history.push(token)
    assert history.guess(1) == [3]
    for token in [2, 1]:
        history.push(token)
    assert history.guess(3) == [2, 1, 2]


@pytest.mark.parametrize("make", [NgramDrafter, LookupDrafter])
def test_what_was_said_is_read_once(make: Callable[[], HistoryDrafter], monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of a ragged batch, one of which leaves in the middle: each draft follows from the row's own kept tokens, and
    each kept token is taken in once."""
    drafter = make()
    pushed: list[int] = []
    kind = type(drafter.history())
    right = kind.push
    monkeypatch.setattr(kind, "push", lambda self, token: (pushed.append(token), right(self, token)))
    model = tiny_model(semantic=3, seed=2)
    with torch.no_grad():
        model.semantic_emb.weight[-1].mul_(-3)  # rows end one after the other
    propose, drafted, batches = drafter.propose, 0, set()

    def watched(session: Session, state: Any, limits: list[int]) -> Proposal:
        nonlocal drafted
        proposal = propose(session, state, limits)
        assert proposal.probs is None and proposal.parents is None
        assert list(state) == session.rows  # nothing is kept of rows that have left
        for row, limit, tokens in zip(session.rows, limits, proposal.tokens, strict=True):
            size = drafter.order if isinstance(drafter, NgramDrafter) else drafter.longest  # type: ignore[attr-defined]
            assert tokens == SEARCHED[drafter.name](session.tokens[row], limit, size)  # type: ignore[attr-defined]
            assert model.eos_id not in tokens
            drafted += len(tokens)
        batches.add(tuple(session.rows))
        return proposal

    drafter.propose = watched  # type: ignore[method-assign]
    accepted = kept = 0
    for seed in range(8):
        chance = torch.Generator().manual_seed(seed)
        session = Session(model, model.encode(texts(3)), SAMPLINGS["plain"], generator=chance, max_tokens=[9, 40, 30])
        for _ in speculate(session, drafter, make_verifier("rejection"), 4):
            pass
        accepted += sum(stats.accepted for stats in session.stats)
        kept += sum(len(tokens) for tokens in session.tokens)
    assert (0, 1, 2) in batches and {(0, 2), (2,)} & batches and drafted > 40 and accepted > 5
    assert len(pushed) <= kept


@pytest.mark.parametrize("rule", ["rejection", "block"])
@pytest.mark.parametrize("sampling", ["plain", "filtered", "guidance"])
@pytest.mark.parametrize("name", DRAFTERS)
def test_loop_law_is_the_targets(name: str, sampling: str, rule: str) -> None:
    assert loop_error(lambda targets: DRAFTERS[name](), make_verifier(rule), LAWS[sampling], cap=5, gamma=3) < 1e-9


@pytest.mark.parametrize(("watch", "rule"), [(0, "block"), (2, "rejection"), (3, "block")])
@pytest.mark.parametrize("name", DRAFTERS)
def test_loop_law_in_a_ragged_batch(name: str, watch: int, rule: str) -> None:
    assert (
        loop_error(
            lambda targets: DRAFTERS[name](),
            make_verifier(rule),
            SAMPLINGS["plain"],
            batch=4,
            watch=watch,
            caps=[4, 2, 5, 4],
        )
        < 1e-9
    )


@pytest.mark.parametrize("name", DRAFTERS)
def test_loop_law_of_guesses_that_are_wrong_about_the_law(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault: a rule that takes every guess for certain.

    The law of the loop must then be off, or nothing was drafted.
    """
    from spear_spec.decoding.verifiers import rejection

    monkeypatch.setattr(rejection, "_ratios", lambda proposal, p: [[1.0] * len(tokens) for tokens in proposal.tokens])
    assert (
        loop_error(lambda targets: DRAFTERS[name](), make_verifier("rejection"), SAMPLINGS["plain"], cap=5, gamma=3)
        > 1e-3
    )


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "3"])
def test_options_that_cannot_be(value: Any) -> None:
    with pytest.raises(ConfigError, match="order must be"):
        NgramDrafter(order=value)
    with pytest.raises(ConfigError, match="longest must be"):
        LookupDrafter(longest=value)
