"""SoundStream checkpoints: files as the package writes them, and what is refused."""

from __future__ import annotations

import argparse
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from audiolm_cases import Case

from spear_spec.errors import BundleError
from spear_spec.interop import load_soundstream

State = dict[str, Any]
BOOK = "rq.rvqs.0.layers.1._codebook"


@pytest.fixture
def state() -> State:
    return dict(Case.read("soundstream").weights)


class Trap:
    """What a pickled object could do."""

    def __reduce__(self) -> Any:
        return (pytest.fail, ("it was unpickled",))


def test_files_as_the_package_saves_them(state: State, tmp_path: Path) -> None:
    """Its shape stands pickled in the file and is not read; of a trainer's file the running mean is taken."""
    own, path = load_soundstream(state, window=8).state_dict(), tmp_path / "soundstream.pt"
    held: State = {"model": state, "config": pickle.dumps(Trap()), "version": "2.4.0"}
    torch.save(held, path)
    loaded = load_soundstream(path, window=8)
    assert all(torch.equal(value, own[name]) for name, value in loaded.state_dict().items())
    assert not loaded.training and not any(p.requires_grad for p in loaded.parameters())
    cfg = loaded.cfg
    assert (cfg.channels, cfg.strides, cfg.dim, cfg.codebook, cfg.codes) == ((4, 8, 8), (2, 4), 12, 9, 5)
    assert (cfg.heads, cfg.dim_head, cfg.depth, cfg.window, cfg.decay) == (2, 8, 1, 8, 4)
    other = {name: torch.zeros_like(value) for name, value in state.items()}
    mean = {**{f"ema_model.{name}": value for name, value in state.items()}, "initted": torch.tensor(True)}
    torch.save({**held, "model": other, "ema_model": mean, "discr_optim": {"lr": 1e-3}}, path)
    assert all(torch.equal(value, own[name]) for name, value in load_soundstream(path, window=8).state_dict().items())


def test_discriminators_and_denoising_are_left_out(state: State) -> None:
    more = {"discriminators.0.init_conv.weight": torch.zeros(2), "encoder_film.to_cond.bias": torch.zeros(3)}
    own, other = (load_soundstream(one, window=8).state_dict() for one in (state, {**state, **more}))
    assert own.keys() == other.keys()


def rename(state: State, one: str, two: str) -> None:
    state[two] = state.pop(one)


BAD: dict[str, tuple[Callable[[State], object], str]] = {
    "nothing": (lambda s: s.clear(), r"encoder\.0\.conv\.weight is missing"),
    "no codebooks": (lambda s: [s.pop(n) for n in list(s) if n.startswith("rq")], "no residual codebooks"),
    "untrained": (lambda s: s.update({f"{BOOK}.initted": torch.tensor(False)}), "never trained"),
    "a codebook missing": (lambda s: s.pop(f"{BOOK}.embed"), "embed is missing"),
    "not finite": (lambda s: s.update({f"{BOOK}.embed": torch.full((1, 9, 12), torch.inf)}), "NaN or infinity"),
    "another shape": (lambda s: s.update({"decoder.3.conv.bias": torch.zeros(2)}), r"decoder\.3\.conv\.bias has shape"),
    "stereo": (lambda s: s.update({"encoder.0.conv.weight": torch.zeros(4, 2, 7)}), r"0\.conv\.weight has shape"),
    "integers": (lambda s: s.update({"encoder.3.conv.bias": torch.zeros(12, dtype=torch.int64)}), "not floating"),
    "squeeze and excite": (
        lambda s: s.update({"encoder.1.0.fn.4.net.0.weight": torch.zeros(1)}),
        "squeeze_excite, which is not supported",
    ),
    "a bias of positions": (
        lambda s: s.update({"encoder_attn.pos_bias.mlp.0.weight": torch.zeros(1)}),
        "attn_dynamic_pos_bias",
    ),
    "a projection": (lambda s: s.update({"rq.rvqs.0.project_in.weight": torch.zeros(1)}), "rq_kwargs"),
    "gate loops": (lambda s: s.update({"encoder.2.fn.fn.norm.gamma": torch.zeros(1)}), "use_gate_loop_layers"),
    "unknown": (lambda s: s.update(more=torch.zeros(1)), "more is unknown"),
    "a quantizer more": (
        lambda s: s.update({"rq.rvqs.0.layers.9._codebook.embed": torch.zeros(1, 9, 12)}),
        r"layers\.5\._codebook\.embed is missing",
    ),
    "far too many": (
        lambda s: s.update({"rq.rvqs.0.layers.99999999._codebook.embed": torch.zeros(1, 9, 12)}),
        "quantizers must be",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_states_that_are_refused(state: State, name: str) -> None:
    spoil, message = BAD[name]
    spoil(state)
    with pytest.raises(BundleError, match=message):
        load_soundstream(state, window=8)


def test_files_that_are_refused(state: State, tmp_path: Path) -> None:
    torch.save({"model": state, "args": argparse.Namespace()}, tmp_path / "objects.pt")
    with pytest.raises(BundleError, match="more than plain tensors"):
        load_soundstream(tmp_path / "objects.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(BundleError, match="weights expected"):
        load_soundstream(tmp_path / "list.pt")
    with pytest.raises(BundleError, match="pad must be one of"):
        load_soundstream(state, pad="circular")
