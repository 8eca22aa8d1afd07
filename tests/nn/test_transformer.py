"""Layers with a type, and layers whose attention is somebody else's affair."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from spear_spec.nn.attention import attend, rotary_table, seeing
from spear_spec.nn.cache import KVCache
from spear_spec.nn.transformer import DecoderLayer, EncoderLayer, Layers, decode

DIM, HEADS, WIDTH, KV = 12, 4, 6, 2


@pytest.fixture
def parts() -> tuple[DecoderLayer, Tensor, Tensor, tuple[Tensor, Tensor], Tensor]:
    """A layer, inputs [2, 5, D], rotations, cross-attention keys and values of 4 positions, a mask of those."""
    torch.manual_seed(0)
    layer = DecoderLayer(DIM, HEADS, WIDTH, 16, KV).double()
    x = torch.randn(2, 5, DIM, dtype=torch.float64)
    cross = layer.cross_attn.keys_values(torch.randn(2, 3, DIM, dtype=torch.float64))
    mask = torch.tensor([[True, True, True, False], [True, True, False, False]])[:, None, None]
    return layer, x, rotary_table(5, WIDTH, dtype=torch.float64, device="cpu"), cross, mask


def test_layers_are_named_and_saved_as_a_module_list() -> None:
    torch.manual_seed(0)
    plain = nn.ModuleList(EncoderLayer(DIM, HEADS, WIDTH, 16) for _ in range(11))
    ours = Layers(EncoderLayer(DIM, HEADS, WIDTH, 16) for _ in range(11))
    assert list(ours.state_dict()) == list(plain.state_dict())
    ours.load_state_dict(plain.state_dict())
    assert len(ours) == 11
    assert [layer is ours[i] for i, layer in enumerate(ours)] == [True] * 11
    assert ours[-1] is ours[10]
    assert torch.equal(ours[10].ff.up.weight, plain[10].ff.up.weight)
    with pytest.raises(IndexError):
        ours[11]


def test_a_layer_is_its_sublayers_one_after_the_other(parts: tuple) -> None:
    layer, x, table, cross, mask = parts
    past = x + layer.self_attn(x, table, causal=True)
    text = past + layer.cross_attn(past, *cross, mask)
    whole = layer(x, table, None, cross, mask, causal=True)
    assert torch.equal(whole, text + layer.ff(text))
    assert torch.equal(layer(x, table, None, cross, mask, causal=True, feed_forward=False), text)
    assert torch.equal(layer(x, table, None, cross, mask, causal=True, attention=False), x + layer.ff(x))
    assert torch.equal(decode(layer, x, table, cross, past=seeing(None, causal=True), text=seeing(mask)), whole)


def test_attention_of_ones_own_is_given_turned_heads_and_what_it_says_goes_on(parts: tuple) -> None:
    layer, x, table, cross, mask = parts
    seen: list[tuple[Tensor, ...]] = []

    def past(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        seen.append((q, k, v))
        return attend(q, k, v, causal=True)

    def text(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        seen.append((q, k, v))
        return torch.zeros_like(q)

    out = layer(x, table, None, cross, mask, past=past, text=text)
    expected = x + layer.self_attn(x, table, causal=True)
    assert torch.allclose(out, expected + layer.ff(expected), atol=1e-12)
    assert [tuple(t.shape for t in heads) for heads in seen] == [
        ((2, HEADS, 5, WIDTH), (2, KV, 5, WIDTH), (2, KV, 5, WIDTH)),
        ((2, HEADS, 5, WIDTH), (2, HEADS, 4, WIDTH), (2, HEADS, 4, WIDTH)),
    ]
    first = layer.self_attn.project(x[:, :1], table[:1])  # at position 0 nothing is turned
    assert torch.allclose(seen[0][0][:, :, :1], first[0], atol=1e-12)
    later = layer.self_attn.project(x[:, 3:4], table[3:4])
    assert torch.allclose(seen[0][1][:, :, 3:4], later[1], atol=1e-12)
    assert seen[1][1] is cross[0]


def test_a_cache_is_one_way_to_see(parts: tuple) -> None:
    layer, x, table, cross, mask = parts
    with torch.no_grad():
        whole = layer(x, table, None, cross, mask, causal=True)
        cache = KVCache(2, 2, KV, 8, WIDTH, dtype=torch.float64)
        for at in range(5):
            one = layer(x[:, at : at + 1], table[at : at + 1], None, cross, mask, cache=cache, layer=1)
            cache.advance(1)
            assert torch.allclose(one, whole[:, at : at + 1], atol=1e-12)
    assert not cache.k[0].any()
