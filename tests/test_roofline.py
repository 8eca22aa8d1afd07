"""The roofline of a target: what is counted, and that the bound follows from it."""

from __future__ import annotations

import pytest
import torch

from spear_spec.bench.roofline import Roofline, roofline
from spear_spec.bench.table import table
from spear_spec.config import T2SConfig
from spear_spec.kernels import native
from spear_spec.models.spear_tts import TextToSemantic


def target() -> TextToSemantic:
    return TextToSemantic(
        T2SConfig(
            num_text_token_ids=7,
            num_semantic_token_ids=39,
            dim=64,
            source_depth=1,
            target_depth=2,
            heads=2,
            dim_head=16,
        )
    )


def test_weights_and_bytes_are_those_that_a_step_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    """By hand: every matrix of the decoder that a token is multiplied with, and the head; neither the encoder nor what
    reads the text.
    """
    width, inner, model = 32, 170, target()
    layer = 64 * 3 * width + width * 64 + 64 * width + width * 64 + 64 * 2 * inner + inner * 64
    expected = 2 * layer + 40 * 64
    found = roofline(model)
    assert found is not None
    assert found.weights == expected
    padded = sum(-(-out // 32) * 32 * size for out, size in [(40, 64)])  # outputs lie in strips of 32
    for out, size in [(96, 64), (64, 32), (32, 64), (64, 32), (340, 64), (64, 170)]:
        padded += 2 * -(-out // 32) * 32 * size
    assert found.bytes == 4 * padded  # random weights are no halves
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(weight.half())
    halves = roofline(model)
    assert halves is not None and halves.bytes == 2 * padded
    monkeypatch.setenv(native.SWITCH, "0")
    plain = roofline(model)
    assert plain is not None and plain.weights == expected and plain.bytes > 4 * expected


def test_the_bound_is_the_slower_of_reading_and_counting() -> None:
    roof = Roofline(weights=1000, bytes=2000, bandwidth=1e6, peak=1e7)
    assert roof.bound_ms(1) == pytest.approx(2.0)
    assert roof.bound_ms(10) == pytest.approx(2.0)
    assert roof.bound_ms(100) == pytest.approx(20.0)


def test_a_target_that_does_not_say_has_none() -> None:
    class Other:
        head = torch.zeros(3, 3)

    assert roofline(Other()) is None  # type: ignore[arg-type]


def test_the_table_names_each_step_once() -> None:
    row = {
        "lossless": True,
        "runtime": "eager",
        "options": {},
        "tokens_per_call": 1.0,
        "acceptance_by_position": [],
        "quality": None,
    }
    row |= {"draft_step_share": None, "predicted_speedup": 1.0, "tokens_per_s": {"median": 1.0}, "vs_peer": None}
    row |= {
        "speedup": {"median": 1.0, "lo": 1.0, "hi": 1.0},
        "rtf": None,
        "ttfa_s": None,
        "num_drafts": 1,
        "tree": None,
    }
    rows = [
        {
            **row,
            "drafter": "none",
            "verifier": None,
            "gamma": 0,
            "batch": 2,
            "target_step_ms": {"1": 3.0, "gamma+1": 3.0},
        }
        | {"bound_ms": {"1": 1.5, "gamma+1": 1.5}},
        {**row, "drafter": "small", "verifier": "block", "gamma": 4, "batch": 2, "bound_ms": {"1": 1.5, "gamma+1": 2.0}}
        | {"target_step_ms": {"1": 3.0, "gamma+1": 5.0}},
    ]
    roof = {"weights": 1, "weight_bytes": 11_600_000, "bandwidth_gb_s": 20.0, "peak_gflop_s": 150.0}
    text = table({"rows": rows, "roofline": roof})
    assert "11.6 MB of weights at 20.0 GB/s, 150 GFLOP/s" in text
    assert [line.split(" | ")[1:] for line in text.splitlines()[-2:]] == [
        ["2", "2", "3.000", "1.500", "2.00 |"],
        ["2", "10", "5.000", "2.000", "2.50 |"],
    ]
    assert "Roofline" not in table({"rows": rows, "roofline": None})
