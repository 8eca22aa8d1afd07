"""Our rejection rule against the one in Hugging Face transformers: the same law of tokens for every draft."""

from __future__ import annotations

import math

import pytest
import torch
from transformers.generation.utils import _speculative_sampling

from spear_spec.decoding.proposal import Proposal
from spear_spec.decoding.verifiers import make_verifier
from spear_spec.decoding.verifiers.rejection import RejectionVerifier
from spear_spec.exactness.oracles import DRAFTS, SAMPLINGS, Enumerating, distance, walk
from spear_spec.exactness.rules import Draft, Laws, grow

GAMMA = 2


def theirs(chance: Enumerating, draft: Draft, p: torch.Tensor, patch: pytest.MonkeyPatch) -> tuple[int, ...]:
    """Their function, with its uniform and its categorical draws taken from the enumeration."""

    def rand_like(bounds: torch.Tensor) -> torch.Tensor:
        # it compares u <= bound: 0 stands for every u that is, infinity for every u that is not
        return torch.tensor(
            [0.0 if chance.bernoulli(bound, 0) else math.inf for bound in bounds.tolist()], dtype=bounds.dtype
        )

    def multinomial(weights: torch.Tensor, num_samples: int) -> torch.Tensor:
        return torch.tensor([chance.categorical(weights, [0])])

    with patch.context() as inside:
        inside.setattr(torch, "rand_like", rand_like)
        inside.setattr(torch, "multinomial", multinomial)
        tokens, matches = _speculative_sampling(
            torch.tensor([draft.tokens]), torch.stack(draft.laws)[None].log(), len(draft.tokens), p[None].log()
        )
    assert tokens.shape == (1, int(matches) + 1)
    return tuple(tokens[0].tolist())


def both_laws(
    sampling: str, kind: str, patch: pytest.MonkeyPatch, name: str = "rejection"
) -> tuple[dict[tuple[int, ...], float], dict[tuple[int, ...], float]]:
    """Joint law of the draft and of what is made of it, by their function and by ours."""
    laws = Laws(SAMPLINGS[sampling], kind, 3, seed=4)

    def run(chance: Enumerating, ours: bool) -> tuple[int, ...]:
        draft = grow(chance, 0, laws, "chain", range(-1, GAMMA - 1), None)
        p = torch.stack([laws.library(0, prefix) for prefix in [(), *draft.spelled]])
        if ours:
            tokens = (
                make_verifier(name)
                .verify(Proposal([draft.tokens], torch.stack(draft.laws)[None]), p[None], chance, [0])
                .tokens[0]
            )
            return (*draft.tokens, -1, *tokens)
        return (*draft.tokens, -1, *theirs(chance, draft, p, patch))

    return walk(lambda chance: run(chance, False)), walk(lambda chance: run(chance, True))


@pytest.mark.parametrize("kind", [kind for kind in DRAFTS if kind != "right"])
@pytest.mark.parametrize("sampling", ["plain", "temperature", "top_k", "top_p"])
def test_the_same_law_as_transformers(kind: str, sampling: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not only the law of the tokens, but that of the tokens for each draft. ("right" is left out: theirs divides 0
    by 0 where rounding rejects a token of p = q.)"""
    one, other = both_laws(sampling, kind, monkeypatch)
    assert math.fsum(one.values()) == pytest.approx(1.0, abs=1e-12)
    assert distance(one, other) < 1e-12


def test_the_comparison_sees_a_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another exact rule agrees in the law of tokens, but not draft by draft; a broken one is far off."""
    assert distance(*both_laws("plain", "random", monkeypatch, "block")) > 1e-3
    right = RejectionVerifier.verify
    monkeypatch.setattr(
        RejectionVerifier,
        "verify",
        lambda self, proposal, p, chance, rows: right(
            self, proposal, p.sqrt() / p.sqrt().sum(-1, keepdim=True), chance, rows
        ),
    )
    assert distance(*both_laws("plain", "random", monkeypatch)) > 1e-3
