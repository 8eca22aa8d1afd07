"""Filters with settings that are tensors: `probabilities`, law for law."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from spear_spec.config import SamplingConfig
from spear_spec.decoding.rounds.laws import Kinds, Law, Settings, mixed
from spear_spec.decoding.sampling import probabilities
from spear_spec.kernels import native
from spear_spec.runtime.lanes import Lanes

EVERY = [
    SamplingConfig(temperature=t, top_k=k, top_p=p)
    for t, k, p in itertools.product((0.0, 5e-4, 0.02, 0.7, 1.0, 10.0), (0, 1, 7, 900, 5000), (1e-6, 0.1, 0.95, 1.0))
]


def laws(logits: Tensor, samplings: list[SamplingConfig], kinds: Kinds | None = None) -> tuple[Tensor, Tensor]:
    """Laws of rows with these settings, and whether they are any."""
    dtype = torch.promote_types(logits.dtype, torch.float32)
    made = Law(Settings.of(samplings), logits.shape[-1], dtype, Kinds.of(samplings) if kinds is None else kinds)
    law, total = made(logits)
    return law, total.isfinite()


def near(law: Tensor, sampling: SamplingConfig) -> bool:
    """Whether a running sum comes so near to top-p that rounding decides."""
    if sampling.temperature == 0 or sampling.top_p == 1:
        return False
    values = law.double().sort(descending=True).values
    values = values[: sampling.top_k or None]
    return bool(((values.cumsum(-1) - sampling.top_p * values.sum()).abs() < 3e-6).any())


def softened(logits: Tensor, sampling: SamplingConfig) -> Tensor:
    x = logits.double()
    return torch.softmax((x - x.amax()) / (sampling.temperature or 1.0), -1)


@pytest.mark.parametrize("by", ["C", "torch"])
@pytest.mark.parametrize(("size", "dtype"), [(1, torch.float32), (9, torch.float64), (1025, torch.float32)])
def test_it_is_probabilities(size: int, dtype: torch.dtype, by: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every row with another setting; peaked, flat and wide logits. Left out is what rounding decides: next to none.

    The form in torch divides before it subtracts, and so rounds wide logits more than C and this one do.
    """
    if by == "torch":
        monkeypatch.setenv(native.SWITCH, "0")
    generator, left_out = torch.Generator().manual_seed(size), 0
    scale = torch.tensor([0.1, 3.0, 20.0 if by == "C" else 8.0], dtype=dtype)[:, None]
    logits = torch.randn(len(EVERY), 3, size, generator=generator, dtype=dtype) * scale
    found, fine = laws(logits, EVERY)
    assert found.dtype == dtype and fine.all()
    for row, sampling in enumerate(EVERY):
        wanted = probabilities(logits[row], sampling)
        for place in range(3):
            if dtype == torch.float32 and near(softened(logits[row, place], sampling), sampling):
                left_out += 1
                continue
            torch.testing.assert_close(found[row, place], wanted[place], atol=1e-6, rtol=0)
            assert torch.equal(found[row, place] > 1e-30, wanted[place] > 1e-30), sampling
    assert left_out <= 12


@pytest.mark.parametrize("by", ["C", "torch"])
def test_ties(by: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ties with the last one kept stay, for top-k and for top-p; the first best is taken at temperature 0."""
    if by == "torch":
        monkeypatch.setenv(native.SWITCH, "0")
    rows = [[0.0, 2, 0, 2, 0, 2, 0], [1.0] * 7, [5, 4, 4, 4, 3, 3, 9], [-5, -9, -5, -5, -9, -9, -9]]
    logits = torch.tensor(rows)
    for sampling in (
        SamplingConfig(top_k=2, top_p=1.0),
        SamplingConfig(top_p=0.3),
        SamplingConfig(top_k=4, top_p=1.0),
        SamplingConfig(top_k=3, top_p=0.5),
        SamplingConfig(top_k=2, top_p=0.99),
        SamplingConfig(top_k=7, top_p=1.0),
        SamplingConfig(top_k=1, top_p=1e-3),
        SamplingConfig(temperature=0.0, top_k=3, top_p=0.2),
    ):
        wanted = probabilities(logits, sampling)
        found, _ = laws(logits, [sampling] * 4)
        assert torch.equal(found > 0, wanted > 0), sampling
        torch.testing.assert_close(found, wanted, atol=1e-6, rtol=0)


@pytest.mark.parametrize("temperature", [1e-300, 1e-38, 1e-30])
def test_next_to_no_temperature_is_greedy(temperature: float) -> None:
    logits = torch.tensor([[0.0, 3.0, 2.999, -4.0]])
    found, _ = laws(logits, [SamplingConfig(temperature=temperature)])
    assert found.tolist() == [[0.0, 1.0, 0.0, 0.0]]


def test_a_mass_that_a_running_sum_meets_exactly() -> None:
    """.5 .25 .125 ...: removed is what has more than top-p before it, so the next token still stays."""
    logits = torch.tensor([1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 16], dtype=torch.float64).log()
    logits = torch.stack([logits.exp().log(), logits.flip(0)])
    for top_p in (0.5, 0.75, 0.875, 0.9375):
        sampling = SamplingConfig(temperature=1.0, top_p=top_p)
        found, _ = laws(logits, [sampling] * 2)
        torch.testing.assert_close(found, probabilities(logits, sampling), atol=1e-12, rtol=0)


def test_what_no_row_has_costs_nothing_and_changes_nothing() -> None:
    """Each kind alone, against the form that has all kinds."""
    for sampling, kinds in (
        (SamplingConfig(temperature=0.7, top_p=1.0), (False, False, False)),
        (SamplingConfig(temperature=0.7, top_p=0.9), (False, True, False)),
        (SamplingConfig(temperature=0.7, top_k=3, top_p=1.0), (True, False, False)),
        (SamplingConfig(temperature=0.0, top_k=3, top_p=0.5), (False, False, True)),
    ):
        assert Kinds.of([sampling]) == kinds
        logits = torch.randn(3, 2, 50, dtype=torch.float64)
        one, other = (laws(logits, [sampling] * 3, every)[0] for every in (None, Kinds()))
        torch.testing.assert_close(one, other, atol=1e-15, rtol=0)
    assert Kinds.of([SamplingConfig(), SamplingConfig(temperature=0.0)]) == (False, True, True)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_bad_logits_are_told(bad: float) -> None:
    logits = torch.zeros(4, 3, 40)
    logits[1, 2, 39] = logits[3, 0, 0] = bad
    samplings = [SamplingConfig(temperature=0.0), SamplingConfig(temperature=0.0), SamplingConfig(), SamplingConfig()]
    found, fine = laws(logits, samplings)
    assert (~fine).nonzero().tolist() == [[1, 2], [3, 0]]
    assert found[fine].isfinite().all()


def test_half_precision_gives_laws_in_float32() -> None:
    logits = torch.randn(2, 30).bfloat16()
    found, _ = laws(logits, [SamplingConfig()] * 2)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, probabilities(logits, SamplingConfig()), atol=1e-6, rtol=0)


def test_guidance_is_mixed_as_lanes_are() -> None:
    logits = torch.randn(3, 2, 4, 9, dtype=torch.float64)
    scales = [2.5, 1.0, 3.0]
    lanes = Lanes.of([True, False, True])
    wanted = lanes.mix(torch.cat([logits[:, 0], logits[[0, 2], 1]]), scales)
    logits[1, 1] = math.nan  # nobody's
    found = mixed(logits, torch.tensor(scales, dtype=torch.float64))
    assert torch.equal(found, wanted)


def test_settings_of_the_first_rows_share_their_memory() -> None:
    how = Settings.empty(4, "cpu")
    how.temperature[1] = 0.5
    assert how.first(2).temperature.tolist() == [1.0, 0.5]
    assert [tensor.data_ptr() for tensor in how.first(2).tensors] == [tensor.data_ptr() for tensor in how.tensors]
