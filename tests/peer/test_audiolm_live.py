"""Parity with the real audiolm-pytorch, side by side in one process: `make test-peer`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from spear_spec.config import SamplingConfig
from spear_spec.decoding import make_drafter, make_verifier
from spear_spec.decoding.request import Request, encode
from spear_spec.engine import Engine
from spear_spec.interop import load_audiolm_coarse, load_audiolm_fine

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "golden"))
import make_audiolm as peer
from audiolm_cases import places, tokens_of

pytestmark = pytest.mark.peer
SHAPES: dict[str, dict[str, Any]] = {
    "usual": {"dim": 64, "depth": 4, "heads": 4, "size": 0.6},  # the package's width of a head
    "bare": peer.COARSE_CASES["coarse_bare"],
    "two_streams": {"dim": 24, "depth": 2, "heads": 2, "dim_head": 8, "num_residual_streams": 2},
}
TOLERANCE = 1e-4


@pytest.fixture(autouse=True)
def _no_grad() -> Iterator[None]:
    torch.manual_seed(3)
    with torch.no_grad():
        yield


def residual(options: dict[str, Any]) -> dict[str, Any]:
    return {"value_residual": options.get("add_value_residual", True)}


def saved(model: Any, path: Path) -> Path:
    """As the package's trainers save."""
    torch.save({"model": model.state_dict(), "optim": torch.optim.Adam(model.parameters()).state_dict(),
                "version": "2.4.0"}, path)  # fmt: skip
    return path


def both_ways(model: Any, prefix: list[int], written: Tensor) -> list[Tensor]:
    """Our logits along written tokens [1, T]: whole, and cached in pieces."""
    tokens = torch.cat((torch.tensor([[model.start_id]]), written), 1)
    memory, cache = encode(model, [prefix]), model.new_cache(1, 8)
    pieces = (*tokens[:, :9].split(1, 1), tokens[:, 9:])
    return [model(tokens, memory).logits, torch.cat([model(part, memory, cache).logits for part in pieces], 1)]


@pytest.mark.parametrize("name", SHAPES)
def test_equal_coarse_logits(name: str, tmp_path: Path) -> None:
    theirs = peer.coarse(**SHAPES[name])
    ours = load_audiolm_coarse(saved(theirs, tmp_path / "coarse.pt"), **residual(SHAPES[name]))
    semantic, codes = peer.pairs(30, 1, peer.SEMANTIC), torch.randint(0, peer.CODEBOOK, (1, 100))
    want = theirs(semantic_token_ids=semantic, coarse_token_ids=codes, cond_drop_prob=0.0)[1]
    for got in both_ways(ours, semantic[0].tolist(), tokens_of(codes, peer.CODEBOOK, peer.COARSE)):
        error = (places(got, peer.CODEBOOK, peer.COARSE) - want)[..., :-1].abs().max().item()
        print(name, f"{error:.1e} of {want.abs().max():.1f}")
        assert error < TOLERANCE


@pytest.mark.parametrize("name", SHAPES)
def test_equal_fine_logits(name: str, tmp_path: Path) -> None:
    theirs = peer.fine(**SHAPES[name])
    ours = load_audiolm_fine(saved(theirs, tmp_path / "fine.pt"), **residual(SHAPES[name]))
    coarse, codes = (torch.randint(0, peer.CODEBOOK, (1, 20 * n)) for n in (peer.COARSE, peer.FINE))
    codes = codes[:, :-1]
    want = theirs(coarse_token_ids=coarse, fine_token_ids=codes, cond_drop_prob=0.0)[1]
    prefix = tokens_of(coarse, peer.CODEBOOK, peer.COARSE)[0].tolist()
    for got in both_ways(ours, prefix, tokens_of(codes, peer.CODEBOOK, peer.FINE)):
        assert (places(got, peer.CODEBOOK, peer.FINE)[..., :-1] - want).abs().max() < TOLERANCE


@pytest.mark.parametrize("prompted", [False, True], ids=["whole", "prompted"])
@pytest.mark.parametrize("name", SHAPES)
def test_equal_greedy_coarse_tokens(name: str, prompted: bool) -> None:
    """The package's cached `generate` and ours, plain and with drafts, up to the package's first end token."""
    theirs = peer.coarse(**SHAPES[name])
    # with a prompt the package bars the end token for one frame more, which a law of what was written cannot
    theirs.coarse_logit_weights[0, -1] *= 0.0 if prompted else 1.5
    ours = load_audiolm_coarse(theirs.state_dict(), **residual(SHAPES[name]))
    semantic = peer.pairs(12, 1, peer.SEMANTIC).repeat_interleave(2, 1)
    prompt = torch.randint(0, peer.CODEBOOK, (1, 4 * peer.COARSE)) if prompted else None
    want = peer.greedy(theirs, semantic, 20, prompt).flatten()
    want = want[: int((want >= 0).sum())]
    request = Request(
        semantic[0].tolist(),
        prefix=[] if prompt is None else tokens_of(prompt, peer.CODEBOOK, peer.COARSE)[0].tolist(),
        sampling=SamplingConfig(0.0),
        cap=(20 + 4 * prompted) * peer.COARSE,
    )
    wanted = tokens_of(want[None], peer.CODEBOOK, peer.COARSE)[0].tolist()
    for engine in (Engine(ours), Engine(ours, make_drafter("ngram"), make_verifier("rejection"), 4)):
        engine.session.frame_rate = 1000.0  # the package has no guard against runaways
        (one,) = engine.run([request])
        assert one.speech == wanted and one.ended in ("eos", "cap")


@pytest.mark.parametrize("name", SHAPES)
def test_equal_greedy_fine_tokens(name: str) -> None:
    theirs = peer.fine(**SHAPES[name])
    theirs.fine_logit_weights[:, -1] *= 0.01  # the package bars the last code at most places: ours does not
    ours = load_audiolm_fine(theirs.state_dict(), **residual(SHAPES[name]))
    coarse = torch.randint(0, peer.CODEBOOK, (1, 15 * peer.COARSE))
    want = peer.fine_greedy(theirs, coarse).flatten()
    request = Request(tokens_of(coarse, peer.CODEBOOK, peer.COARSE)[0].tolist(), sampling=SamplingConfig(0.0),
                      cap=15 * peer.FINE)  # fmt: skip
    (one,) = Engine(ours, frame_rate=1000.0).run([request])
    assert one.tokens == tokens_of(want[None], peer.CODEBOOK, peer.FINE)[0].tolist()
