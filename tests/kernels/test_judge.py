"""Chains judged in C against the rules' own form on lists: the same verdict from the same uniforms."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from spear_spec.config import SamplingConfig
from spear_spec.decoding.chance import Uniforms
from spear_spec.decoding.proposal import Proposal
from spear_spec.decoding.sampling import probabilities
from spear_spec.decoding.verifiers import block, coupled, rejection
from spear_spec.errors import ContractError
from spear_spec.kernels import native
from spear_spec.kernels.judge import judge

RULES = {"rejection": rejection.RejectionVerifier, "block": block.BlockVerifier, "coupled": coupled.CoupledVerifier}


@pytest.fixture(autouse=True)
def _switched_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(native.SWITCH, raising=False)


def laws(generator: torch.Generator, *shape: int, sharp: float) -> Tensor:
    logits = sharp * torch.randn(*shape, generator=generator)
    return probabilities(logits, SamplingConfig(temperature=1.0, top_p=0.9))


def case(seed: int, size: int, drawn: bool) -> tuple[Proposal, Tensor, list[int]]:
    """Ragged drafts (some empty), laws with zeros, drafts that often agree with the target."""
    generator = torch.Generator().manual_seed(seed)
    rows, longest = 5, 4
    counts = [4, 2, 0, 3, 1]
    p = laws(generator, rows, longest + 1, size, sharp=2.0)
    moved = p[:, :longest].clamp_min(1e-9).log() + 0.3 * torch.randn(rows, longest, size, generator=generator)
    near = probabilities(moved, SamplingConfig(temperature=1.0, top_p=0.95))
    picked = torch.multinomial(near.view(-1, size), 1, generator=generator).view(rows, longest)
    if seed % 3 == 0:
        near[0] = p[0, :longest]  # equal laws: nothing is ever rejected
        picked[0] = p[0, :longest].argmax(-1)
    drafts = [row[:count] for row, count in zip(picked.tolist(), counts)]
    return Proposal(drafts, near if drawn else None), p, list(range(rows))


@pytest.mark.parametrize("drawn", [True, False], ids=["laws", "points"])
@pytest.mark.parametrize("size", [2, 17, 1025])
@pytest.mark.parametrize("name", RULES)
def test_the_verdict_is_that_of_the_lists(name: str, size: int, drawn: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokens, accepted counts, and which uniform comes next."""
    kept = set()
    for seed in range(60):
        proposal, p, rows = case(seed, size, drawn)
        one, two = Uniforms([seed + row for row in rows]), Uniforms([seed + row for row in rows])
        found = RULES[name]().verify(proposal, p, one, rows)
        with monkeypatch.context() as patch:
            patch.setenv(native.SWITCH, "0")
            expected = RULES[name]().verify(proposal, p, two, rows)
        assert found == expected
        assert [one.ahead(row, 3) for row in rows] == [two.ahead(row, 3) for row in rows]
        kept.update(zip(found.num_accepted, found.num_drafted))
    assert {(0, 4), (4, 4), (0, 0), (0, 1)} <= kept if size == 17 else kept


def test_an_end_of_rounding_falls_back_to_the_law() -> None:
    """p = q and a trial that fails by rounding: the residual is empty, so the token comes from p."""
    p = torch.tensor([[[0.25, 0.75], [0.5, 0.5]]])
    q = p[:, :1].clone()
    [(accepted, last, used)] = judge("rejection", [[1]], q, p, [[1.0, 0.1]])
    assert (accepted, last, used) == (0, 0, 2)


def test_other_dtypes_and_chance_go_through_lists() -> None:
    proposal, p, rows = case(1, 17, True)
    wide = Proposal(proposal.tokens, proposal.probs.double())  # type: ignore[union-attr]
    verdict = block.BlockVerifier().verify(wide, p.double(), Uniforms(rows), rows)
    assert len(verdict.tokens) == 5


def test_what_does_not_fit_is_refused() -> None:
    p, q = torch.full((1, 3, 4), 0.25), torch.full((1, 2, 4), 0.25)
    fine = ("block", [[1, 2]], q, p, [[0.5, 0.5, 0.5]])
    judge(*fine)
    for place, wrong in (
        (1, [[1, 4]]),
        (1, [[1, -1]]),
        (1, [[1, 2], [0]]),
        (2, q[:, :1]),
        (2, q.double()),
        (3, p[:, :2]),
        (3, p.double()),
        (4, [[0.5, 0.5]]),
    ):
        with pytest.raises(ContractError):
            judge(*fine[:place], wrong, *fine[place + 1 :])  # type: ignore[arg-type]
