"""Rotary positions, attention, normalisation and feed-forward against formulas written out in float64."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from spear_spec.nn.attention import CrossAttention, FeedForward, RMSNorm, SelfAttention, attend, rotary_table, rotate


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def turned(vector: list[float], position: int) -> list[float]:
    """RoFormer, equation 34: pair i of a vector of width d turns by position / 10000^(2 i / d)."""
    out = []
    for i in range(0, len(vector), 2):
        angle = position / 10000 ** (i / len(vector))
        a, b = vector[i : i + 2]
        out += [a * math.cos(angle) - b * math.sin(angle), a * math.sin(angle) + b * math.cos(angle)]
    return out


def softmax_attention(q: Tensor, k: Tensor, v: Tensor, visible: Tensor) -> Tensor:
    """One position and head at a time; query head h reads key head h mod Hk. visible [B, T, S]."""
    out = torch.zeros(*q.shape[:3], v.shape[3], dtype=q.dtype)
    for b in range(q.shape[0]):
        for h in range(q.shape[1]):
            for t in range(q.shape[2]):
                seen = visible[b, t].nonzero().flatten()
                weights = (k[b, h % k.shape[1], seen] @ q[b, h, t] / q.shape[3] ** 0.5).exp()
                out[b, h, t] = (weights[:, None] * v[b, h % v.shape[1], seen]).sum(0) / weights.sum()
    return out


@pytest.mark.parametrize(("dtype", "limit"), [(torch.float64, 1e-4), (torch.float32, 2e-4), (torch.bfloat16, 0.05)])
def test_rotary_against_the_formula(dtype: torch.dtype, limit: float) -> None:
    width, positions = 8, 300
    x = torch.randn(1, positions, 2, width, dtype=torch.float64).to(dtype)
    got = rotate(x, rotary_table(positions, width, dtype=dtype, device="cpu"))
    want = torch.tensor([[turned(x[0, t, h].tolist(), t) for h in range(2)] for t in range(positions)])
    assert got.dtype == dtype
    assert (got[0].double() - want).abs().max() < limit  # frequencies are rounded to float32, as the peer's are


def test_rotary_scores_depend_on_the_distance_alone() -> None:
    table = rotary_table(200, 16, dtype=torch.float64, device="cpu")
    q, k = torch.randn(2, 1, 1, 1, 16, dtype=torch.float64)

    def score(i: int, j: int) -> float:
        return float((rotate(q, table[i : i + 1]) * rotate(k, table[j : j + 1])).sum())

    assert score(5, 2) == pytest.approx(score(150, 147), abs=1e-10)
    assert abs(score(5, 2) - score(5, 3)) > 1e-3


@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 4), (4, 2), (6, 2), (4, 1)])
@pytest.mark.parametrize("mode", ["all", "causal", "mask"])
@pytest.mark.parametrize("training", [True, False])  # with gradients it takes another way
def test_attention_against_a_softmax_written_out(training: bool, heads: int, kv_heads: int, mode: str) -> None:
    batch, length, width = 2, 5, 3
    q = torch.randn(batch, heads, length, width, dtype=torch.float64)
    k, v = torch.randn(2, batch, kv_heads, length, width, dtype=torch.float64)
    visible = torch.ones(batch, length, length, dtype=torch.bool)
    if mode == "causal":
        visible = visible.tril()
    if mode == "mask":
        visible = (torch.rand(batch, length, length) < 0.5) | torch.eye(length, dtype=torch.bool)
    with torch.set_grad_enabled(training):
        got = attend(q, k, v, visible[:, None] if mode == "mask" else None, causal=mode == "causal")
    assert (got - softmax_attention(q, k, v, visible)).abs().max() < 1e-12


def test_cross_attention_with_nothing_but_the_null_slot_gives_its_value() -> None:
    layer = CrossAttention(6, 2, 4).double()
    k, v = layer.keys_values(torch.randn(2, 0, 6, dtype=torch.float64))
    got = layer(torch.randn(2, 3, 6, dtype=torch.float64), k, v, None)
    want = layer.to_out(layer.null_kv[1, :, 0].reshape(-1))
    assert (got - want).abs().max() < 1e-12


def test_cross_attention_keys_and_values_are_the_projection_behind_the_null_slot() -> None:
    layer, memory = CrossAttention(6, 2, 4).double(), torch.randn(1, 5, 6, dtype=torch.float64)
    k, v = layer.keys_values(memory)
    rows = layer.to_kv.weight.view(2, 2, 4, 6)  # key or value, head, width, input
    for head in range(2):
        for position in range(5):
            assert torch.allclose(k[0, head, position + 1], rows[0, head] @ memory[0, position], atol=1e-12)
            assert torch.allclose(v[0, head, position + 1], rows[1, head] @ memory[0, position], atol=1e-12)


def test_self_attention_projects_queries_then_keys_then_values() -> None:
    layer, x = SelfAttention(6, 2, 4, kv_heads=1).double(), torch.randn(1, 1, 6, dtype=torch.float64)
    got = layer(x, rotary_table(1, 4, dtype=torch.float64, device="cpu"))
    value = layer.to_qkv.weight[12:] @ layer.norm(x)[0, 0]  # rows: 2 x 4 of queries, 4 of keys, 4 of values
    assert (got[0, 0] - layer.to_out(value.repeat(2))).abs().max() < 1e-12


@pytest.mark.parametrize(
    ("dtype", "limit"), [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 0.05), (torch.float16, 0.01)]
)
@pytest.mark.parametrize("training", [True, False])
def test_norm_is_root_mean_square(training: bool, dtype: torch.dtype, limit: float) -> None:
    norm, x = RMSNorm(7).to(dtype), torch.randn(4, 7).to(dtype)
    torch.nn.init.uniform_(norm.gamma, 0.5, 2.0)
    x[0] *= 1e-3
    want = x.double() / x.double().pow(2).mean(-1, keepdim=True).sqrt() * norm.gamma.double()
    with torch.set_grad_enabled(training):
        assert (norm(x).double() - want).abs().max() < limit
        assert norm(torch.zeros(1, 7, dtype=dtype)).abs().max() == 0
        assert norm(x).dtype == dtype


def test_feed_forward_gates_with_the_second_half() -> None:
    layer, x = FeedForward(5, 3).double(), torch.randn(2, 5, dtype=torch.float64)
    hidden = layer.up.weight @ layer.norm(x).T + layer.up.bias[:, None]
    value, gate = hidden[:3], hidden[3:]
    gelu = gate * 0.5 * (1 + torch.erf(gate / 2**0.5))
    assert (layer(x) - ((layer.down.weight @ (value * gelu)).T + layer.down.bias)).abs().max() < 1e-12


def test_a_zero_row_leaves_the_gradients_finite():
    norm = RMSNorm(256)
    x = torch.randn(3, 256)
    x[1] = 0
    x.requires_grad_()
    norm(x)[0].sum().backward()
    assert torch.isfinite(x.grad).all()
    assert torch.isfinite(norm.gamma.grad).all()
