"""Parity with the real spear-tts-pytorch, side by side in one process: `make test-peer`."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from spear_spec.config import SamplingConfig, T2SConfig
from spear_spec.decoding.loop import generate
from spear_spec.decoding.session import Session
from spear_spec.interop import config_from_state_dict, load_spear_tts, to_spear_tts_state_dict
from spear_spec.interop.shims import import_spear_tts
from spear_spec.models.spear_tts import TextToSemantic
from spear_spec.voice.bundle import open_voice

pytestmark = pytest.mark.peer
KIND = {"source_type": "text", "target_type": "speech"}
SHAPES: list[dict[str, Any]] = [
    {"dim": 32, "source_depth": 2, "target_depth": 3, "heads": 4, "dim_head": 16},
    {"dim": 48, "source_depth": 1, "target_depth": 2, "heads": 6, "dim_head": 8, "target_kv_heads": 2, "ff_mult": 2},
    {"dim": 40, "source_depth": 1, "target_depth": 2, "heads": 4, "dim_head": 64, "target_kv_heads": 1},
    {"dim": 32, "source_depth": 1, "target_depth": 4, "heads": 2, "dim_head": 32, "target_early_exit_layer": 3},
]
LIMIT = {torch.float64: 1e-9, torch.float32: 1e-4}


@pytest.fixture(autouse=True)
def _no_grad() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def peer() -> Any:
    return import_spear_tts()


def random_peer(peer: Any, shape: dict[str, Any], text: int = 21, semantic: int = 33) -> Any:
    model = peer.TextToSemantic(
        num_text_token_ids=text, num_semantic_token_ids=semantic, cond_drop_prob=0.1, **shape
    ).eval()
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def same_shape_peer(peer: Any, cfg: T2SConfig) -> Any:
    return peer.TextToSemantic(
        dim=cfg.dim,
        source_depth=cfg.source_depth,
        target_depth=cfg.target_depth,
        num_text_token_ids=cfg.num_text_token_ids,
        num_semantic_token_ids=cfg.num_semantic_token_ids,
        dim_head=cfg.dim_head,
        heads=cfg.heads,
        target_kv_heads=cfg.kv_heads,
        ff_mult=cfg.ff_mult,
        target_early_exit_layer=cfg.early_exit_layer,
        cond_drop_prob=0.1,
    ).eval()


def ended(text: Tensor, eos: int) -> Tensor:
    """Ragged text (padded with 0) with its end token, which the peer appends by itself."""
    text = torch.nn.functional.pad(text, (0, 1))
    text[torch.arange(len(text)), (text != 0).sum(-1)] = eos
    return text


def ragged(ids: int, lengths: list[int]) -> Tensor:
    rows = [torch.randint(1, ids, (length,)) for length in lengths]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)


def errors(theirs: Any, ours: TextToSemantic, text: Tensor, tokens: Tensor) -> dict[str, float]:
    """Largest difference of logits: uncached, cached in chunks, without text."""
    memory = ours.encode(ended(text, ours.text_eos_id))
    ids = torch.cat((torch.full((len(text), 1), ours.start_id), tokens), 1)
    cache = ours.new_cache(len(text), capacity=8)
    parts = [part for part in (*ids[:, :20].split(1, 1), *ids[:, 20:].split(6, 1)) if part.shape[1]]
    chunks = torch.cat([ours(part, memory, cache).logits for part in parts], 1)
    want, null = (theirs(text, tokens, cond_drop_prob=drop, **KIND) for drop in (0.0, 1.0))
    pairs = {
        "uncached": (ours(ids, memory).logits, want),
        "cached": (chunks, want),
        "null": (ours(ids, memory.unconditional()).logits, null),
    }
    assert all(got.shape == reference.shape for got, reference in pairs.values())
    return {name: (got - reference).abs().max().item() for name, (got, reference) in pairs.items()}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("length", [1, 200])
@pytest.mark.parametrize("shape", SHAPES, ids=["plain", "grouped", "one_key_head", "early_exit"])
def test_equal_logits_on_random_weights(peer: Any, shape: dict[str, Any], length: int, dtype: torch.dtype) -> None:
    theirs = random_peer(peer, shape).to(dtype)
    ours = load_spear_tts(theirs.state_dict(), early_exit_layer=shape.get("target_early_exit_layer"))
    assert ours.dtype == dtype
    found = errors(theirs, ours, ragged(21, [9, 1, 5]), torch.randint(0, 33, (3, length)))
    print({name: f"{value:.1e}" for name, value in found.items()})
    assert max(found.values()) < LIMIT[dtype]


@pytest.mark.parametrize("guidance", [1.0, 3.0])
@pytest.mark.parametrize("shape", SHAPES, ids=["plain", "grouped", "one_key_head", "early_exit"])
def test_equal_greedy_tokens_from_both_loops(peer: Any, shape: dict[str, Any], guidance: float) -> None:
    theirs = random_peer(peer, shape).double()
    ours = load_spear_tts(theirs.state_dict(), early_exit_layer=shape.get("target_early_exit_layer"))
    text = ragged(21, [7])
    want = theirs.generate(text, temperature=0.0, max_length=60, cond_scale=guidance, **KIND)[0].tolist()
    session = Session(
        ours,
        ours.encode(ended(text, ours.text_eos_id)),
        SamplingConfig(temperature=0, guidance=guidance),
        generator=torch.Generator().manual_seed(0),
        max_tokens=60,
    )
    for _ in generate(session):
        pass
    got = session.tokens[0]
    assert len(got) == len(want) or session.ended[0] == "guard"  # the peer has no guard against runaways
    assert got == want[: len(got)]


@pytest.mark.parametrize("shape", SHAPES, ids=["plain", "grouped", "one_key_head", "early_exit"])
def test_the_package_takes_our_weights_strictly(peer: Any, shape: dict[str, Any]) -> None:
    early = shape.get("target_early_exit_layer")
    cfg = config_from_state_dict(random_peer(peer, shape).state_dict(), early_exit_layer=early)
    ours = TextToSemantic(cfg).double().eval()
    theirs = same_shape_peer(peer, cfg).double()
    theirs.load_state_dict(to_spear_tts_state_dict(ours), strict=True)
    assert max(errors(theirs, ours, ragged(21, [4, 6]), torch.randint(0, 33, (2, 30))).values()) < 1e-9


def test_files_that_the_package_saves_and_loads(peer: Any, tmp_path: Path) -> None:
    theirs = random_peer(peer, SHAPES[1])
    torch.save(
        {"model": theirs.state_dict(), "optim": torch.optim.Adam(theirs.parameters()).state_dict()},
        tmp_path / "theirs.pt",
    )
    ours = load_spear_tts(tmp_path / "theirs.pt")
    torch.save({"model": to_spear_tts_state_dict(ours)}, tmp_path / "ours.pt")
    back = random_peer(peer, SHAPES[1])
    back.load(tmp_path / "ours.pt")
    for name, value in theirs.state_dict().items():
        assert torch.equal(back.state_dict()[name], value), name


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
def test_the_shipped_voice_gives_equal_logits_in_the_real_package(peer: Any, dtype: torch.dtype) -> None:
    bundle = open_voice()
    ours = TextToSemantic(T2SConfig.from_dict(bundle.config.t2s))
    bundle.load_into(ours, "t2s")
    ours = copy.deepcopy(ours).to(dtype)
    theirs = same_shape_peer(peer, ours.cfg).to(dtype)
    theirs.load_state_dict(to_spear_tts_state_dict(ours), strict=True)
    found = errors(
        theirs,
        ours,
        ragged(ours.cfg.num_text_token_ids, [60, 12]),
        torch.randint(0, ours.cfg.num_semantic_token_ids, (2, 200)),
    )
    print({name: f"{value:.1e}" for name, value in found.items()})
    assert max(found.values()) < LIMIT[dtype]
