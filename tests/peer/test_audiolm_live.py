"""Parity with the real audiolm-pytorch, side by side in one process: `make test-peer`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from spear_spec.acoustic.audiolm import AudioLMStage
from spear_spec.config import SamplingConfig, SpecConfig
from spear_spec.decoding import Parts, make_drafter, make_verifier
from spear_spec.decoding.request import Request, encode
from spear_spec.engine import Engine
from spear_spec.interop import load_audiolm_coarse, load_audiolm_fine, load_soundstream

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
USUAL: dict[str, Any] = {  # the package's own sizes but for the widths
    "channels": 4, "strides": (2, 4, 5, 8), "channel_mults": (2, 4, 8, 16), "codebook_dim": 32, "codebook_size": 64,
    "rq_num_quantizers": 8, "attn_window_size": 128, "attn_heads": 8, "attn_dim_head": 64,
}  # fmt: skip


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


@pytest.mark.parametrize("trainer", [False, True], ids=["saved", "trainer"])
@pytest.mark.parametrize("name", [*peer.CODEC_CASES, "usual"])
def test_equal_codes_and_samples(name: str, trainer: bool, tmp_path: Path) -> None:
    """Files of `SoundStream.save`, which holds its shape pickled, and of its trainer, with a running mean."""
    options: dict[str, Any] = peer.CODEC_CASES.get(name, USUAL)
    theirs, path = peer.soundstream(**options), tmp_path / "soundstream.pt"
    theirs.save(path)
    if trainer:
        held = torch.load(path, weights_only=True)
        mean = {f"ema_model.{name}": value for name, value in theirs.state_dict().items()}
        held["model"] = {name: torch.zeros_like(value) for name, value in held["model"].items()}
        torch.save({**held, "ema_model": {**mean, "step": torch.tensor(3)}}, path)
    ours = load_soundstream(path, **peer.told_of({"window": theirs.encoder_attn.window_size}, options))
    hop = theirs.downsample_factor
    for frames in (80, 17):
        samples = torch.randn(2, frames * hop + hop // 2)
        codes = theirs(samples, return_encoded=True)[1]
        want = theirs.decode_from_codebook_indices(codes)
        error = (ours.decode(codes) - want[:, 0]).abs().max().item()
        print(name, f"{error:.1e} of {want.abs().max():.1f}")
        assert torch.equal(ours.encode(samples), codes) and want.shape == (2, 1, frames * hop)
        assert error < 1e-5
    assert ours.decode(codes[:, :3]).shape == (2, 3 * hop)  # the package fails on so few


def test_the_stage_beside_the_packages_own_chain(tmp_path: Path) -> None:
    """Semantic tokens to samples, greedily: the package's coarse and fine `generate`, then its SoundStream."""
    coarse, fine, codec = peer.coarse(**SHAPES["two_streams"]), peer.fine(**SHAPES["two_streams"]), peer.soundstream()
    fine.fine_logit_weights[:, -1] *= 0.01
    coarse.coarse_logit_weights[0, -1] *= 0
    codec.save(tmp_path / "soundstream.pt")
    semantic = peer.pairs(9, 1, peer.SEMANTIC)
    codes = peer.greedy(coarse, semantic, 29)
    assert bool((codes >= 0).all())
    rest = peer.fine_greedy(fine, codes.flatten(1))
    want = codec.decode_from_codebook_indices(torch.cat((codes, rest), -1))
    stage = AudioLMStage(
        load_audiolm_coarse(coarse.state_dict()),
        load_audiolm_fine(fine.state_dict()),
        load_soundstream(tmp_path / "soundstream.pt", window=peer.CODEC["attn_window_size"]),
        sample_rate=16000,
        frame_samples=8,
        token_samples=16,
        parts=Parts(SpecConfig(drafter="ngram", verifier="rejection", gamma=4)),
        sampling=SamplingConfig(0.0),
    )
    stream = stage.open("", generator=torch.Generator().manual_seed(0))
    stream.push(semantic[0])
    samples = stream.finish()  # its cap is half as much again as the tokens last: 29 frames
    assert samples.shape == (29 * 8,) and torch.allclose(samples, want.flatten(), atol=1e-6)
