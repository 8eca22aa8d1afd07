"""The encoder in C against the same layers in float64 on torch."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from spear_spec.config import T2SConfig
from spear_spec.errors import ContractError
from spear_spec.kernels import native
from spear_spec.kernels.encoder import NativeEncoder
from spear_spec.models.native import encoder_for
from spear_spec.models.spear_tts import TextToSemantic


@pytest.fixture(autouse=True)
def _switched_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(native.SWITCH, raising=False)
    assert native.available(), native.reason()


def encoder(dim: int = 48, heads: int = 3, dim_head: int = 16, *, halves: bool = True) -> TextToSemantic:
    torch.manual_seed(dim)
    cfg = T2SConfig(
        num_text_token_ids=30,
        num_semantic_token_ids=20,
        dim=dim,
        source_depth=2,
        target_depth=2,
        heads=heads,
        dim_head=dim_head,
    )
    model = TextToSemantic(cfg).eval()
    with torch.no_grad():
        for weight in model.parameters():  # gains and biases that are not one and zero
            weight.add_(0.1 * torch.randn_like(weight))
            if halves:
                weight.copy_(weight.half())
    return model


def text(rows: int, length: int) -> Tensor:
    """Ragged rows, the first one full."""
    ids = torch.randint(1, 30, (rows, length))
    for row in range(1, rows):
        ids[row, -row * length // rows :] = 0
    return ids


@pytest.mark.parametrize("halves", [True, False])
@pytest.mark.parametrize("size", [(20, 2, 6), (48, 3, 16), (256, 4, 64)], ids=str)
@pytest.mark.parametrize(("rows", "length"), [(1, 1), (1, 70), (4, 33)])
@torch.inference_mode()
def test_texts_equal_float64(rows: int, length: int, size: tuple[int, int, int], halves: bool) -> None:
    model = encoder(*size, halves=halves)
    ids = text(rows, length)
    found, wanted = model.encode(ids), copy.deepcopy(model).double().encode(ids)
    inside = wanted.mask
    assert torch.equal(found.mask, inside)
    assert (found.cross_mask is None) == (rows == 1)
    for ours, theirs in [(found.hidden, wanted.hidden)]:
        torch.testing.assert_close(ours[inside].double(), theirs[inside], atol=1e-4, rtol=1e-4)
        assert not ours[~inside].any()
    slots = torch.nn.functional.pad(inside, (1, 0), value=True)
    for layer, reference in zip(found.cross, wanted.cross, strict=True):
        for ours, theirs in zip(layer, reference, strict=True):
            assert ours.shape == theirs.shape and ours.is_contiguous()
            pairs = (x.transpose(1, 2)[slots].double() for x in (ours, theirs))
            torch.testing.assert_close(*pairs, atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_a_text_has_the_same_bits_alone_and_in_a_batch() -> None:
    model = encoder(256, 4, 64)
    ids = text(3, 40)
    together = model.encode(ids)
    for threads in (1, 2):
        torch.set_num_threads(threads)
        for row in range(3):
            alone = model.encode(ids[row : row + 1, : int(together.mask[row].sum())])
            length = alone.hidden.shape[1]
            assert torch.equal(alone.hidden[0], together.hidden[row, :length])
            for ours, theirs in zip(alone.cross, together.cross):
                assert all(torch.equal(a[0], b[row, :, : 1 + length]) for a, b in zip(ours, theirs))
    torch.set_num_threads(1)


def test_where_torch_encodes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gradients, training, another dtype, a mask that is no padding, no kernel; weights that change are seen."""
    model, calls, right = encoder(), [], NativeEncoder.run

    def run(*args: Any) -> Any:
        calls.append(args)
        return right(*args)

    monkeypatch.setattr(NativeEncoder, "run", run)
    ids = text(2, 9)
    assert model.encode(ids).hidden.requires_grad
    with torch.no_grad():
        model.train().encode(ids)
        model.eval()
        copy.deepcopy(model).double().encode(ids)
        model.encode(ids, torch.tensor([[False] + [True] * 8] * 2))
        model.encode(text(60, 40))
        monkeypatch.setenv(native.SWITCH, "0")
        model.encode(ids)
        monkeypatch.delenv(native.SWITCH)
        with torch.autocast("cpu"):
            model.encode(ids)
        assert not calls
        before = model.encode(ids).hidden
        model.encoder[1].ff.down.bias.add_(1)
        assert len(calls) == 1 and not torch.equal(model.encode(ids).hidden, before)


@torch.inference_mode()
def test_what_does_not_fit_is_refused() -> None:
    model = encoder()
    kernel, angles, ids = encoder_for(model), model.rotary(9), text(2, 9)
    assert kernel is not None
    for arguments in (
        (ids[0], [9, 9], angles),
        (ids, [9], angles),
        (ids, [9, 10], angles),
        (ids, [9, -1], angles),
        (ids.int(), [9, 9], angles),
        (ids, [9, 9], angles[:8].clone()),
        (ids, [9, 9], angles.to(torch.complex128)),
        (ids.masked_fill(ids > 0, 31), [9, 9], angles),
        (ids.masked_fill(ids > 0, -1), [9, 9], angles),
    ):
        with pytest.raises(ContractError):
            kernel.run(*arguments)  # type: ignore[arg-type]
