"""A checkpoint through small half-precision files and back."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from spear_spec.errors import BundleError
from spear_spec.training.checkpoint import load_checkpoint, save_checkpoint
from spear_spec.training.data.shards import read_shards, write_shards


def trained(folder: Path) -> tuple[nn.Module, torch.optim.AdamW, Path]:
    model = nn.Sequential(nn.Linear(64, 256), nn.Linear(256, 8))
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3, betas=(0.9, 0.98))
    for _ in range(3):
        model(torch.randn(4, 64)).square().sum().backward()
        optimizer.step()
    save_checkpoint(
        folder / "a.pt",
        {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": 3, "seconds": 1.5, "note": None},
    )
    return model, optimizer, folder / "a.pt"


def test_round_trip_with_moments(tmp_path: Path) -> None:
    model, optimizer, path = trained(tmp_path)
    files = write_shards(path, tmp_path / "out", "t2s", shard_bytes=2**18 + 30_000, most=20)
    assert len(files) > 2
    assert all(file.stat().st_size < 2**18 + 30_000 for file in files)
    assert read_shards(tmp_path / "out", "t2s", tmp_path / "new" / "b.pt")
    state = load_checkpoint(tmp_path / "new" / "b.pt")
    assert (state["step"], state["seconds"], state["note"]) == (3, 1.5, None)
    for key, value in model.state_dict().items():
        assert state["model"][key].dtype == torch.float32
        torch.testing.assert_close(state["model"][key], value, rtol=5e-3, atol=1e-6)
    fresh = torch.optim.AdamW(model.parameters(), 1.0)
    fresh.load_state_dict(state["optimizer"])
    assert fresh.param_groups[0]["betas"] == [0.9, 0.98] or fresh.param_groups[0]["betas"] == (0.9, 0.98)
    for key, slot in optimizer.state_dict()["state"].items():
        torch.testing.assert_close(
            fresh.state_dict()["state"][key]["exp_avg_sq"], slot["exp_avg_sq"], rtol=1e-2, atol=1e-9
        )
    fresh.step()


def test_moments_stay_behind_when_there_is_no_room(tmp_path: Path) -> None:
    model, _, path = trained(tmp_path)
    weights = sum(p.numel() for p in model.parameters()) * 2
    write_shards(path, tmp_path / "out", "x", total_bytes=weights + 100)
    assert read_shards(tmp_path / "out", "x", tmp_path / "b.pt")
    state = load_checkpoint(tmp_path / "b.pt")
    assert state["optimizer"]["state"] == {}
    torch.optim.AdamW(model.parameters(), 1.0).load_state_dict(state["optimizer"])
    torch.testing.assert_close(state["model"]["0.weight"], model.state_dict()["0.weight"], rtol=5e-3, atol=1e-6)
    with pytest.raises(BundleError, match="do not fit"):
        write_shards(path, tmp_path / "out", "x", total_bytes=weights // 2)


def test_missing_shards(tmp_path: Path) -> None:
    assert not read_shards(tmp_path, "t2s", tmp_path / "b.pt")
    _, _, path = trained(tmp_path)
    files = write_shards(path, tmp_path / "out", "t2s", shard_bytes=2**18 + 30_000, most=20)
    files[1].write_bytes(files[1].read_bytes()[:-10])
    with pytest.raises(BundleError, match="not whole"):
        read_shards(tmp_path / "out", "t2s", tmp_path / "b.pt")
