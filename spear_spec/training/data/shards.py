"""A trainer's checkpoint in small safetensors files, for machines that hand back only a few small files.

Weights and moments are stored in half precision. When all of it is more
than the budget allows, the optimisers' moments stay behind: the trainer then warms them up again.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from spear_spec.errors import BundleError
from spear_spec.training.checkpoint import load_checkpoint, save_checkpoint
from spear_spec.voice.save import shards

MIB = 2**20


def _flatten(value: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    """The same structure with every tensor replaced by its name; tensors go to `tensors`."""
    if isinstance(value, Tensor):
        tensors[path] = value
        return {"tensor": path, "dtype": str(value.dtype).removeprefix("torch.")}
    if isinstance(value, dict):
        return {"dict": [[key, _flatten(item, f"{path}/{key}", tensors)] for key, item in value.items()]}
    if isinstance(value, (list, tuple)):
        return {"list": [_flatten(item, f"{path}/{i}", tensors) for i, item in enumerate(value)]}
    return {"value": value}


def _rebuild(tree: dict[str, Any], tensors: dict[str, Tensor]) -> Any:
    if "tensor" in tree:
        return tensors[tree["tensor"]].to(getattr(torch, tree["dtype"]))
    if "dict" in tree:
        return {key: _rebuild(item, tensors) for key, item in tree["dict"]}
    if "list" in tree:
        return [_rebuild(item, tensors) for item in tree["list"]]
    return tree["value"]


def _half(name: str, tensor: Tensor) -> Tensor:
    """Half precision: float16 for weights, bfloat16 for moments, which lie far below float16's range, and for
    giants.
    """
    tensor = tensor.detach().cpu().contiguous()
    if tensor.dtype != torch.float32 or tensor.ndim == 0:
        return tensor
    return tensor.to(torch.bfloat16 if "/state/" in name or bool((tensor.abs() > 6e4).any()) else torch.float16)


def _moments_apart(state: dict[str, Any]) -> dict[str, Any]:
    """The state with empty optimisers (their `param_groups` stay)."""
    return {
        key: {**value, "state": {}} if isinstance(value, dict) and "param_groups" in value else value
        for key, value in state.items()
    }


def _pieces(tensors: dict[str, Tensor], limit: int) -> dict[str, Tensor]:
    """A tensor larger than the limit is cut along its first axis into `name#i` pieces."""
    out: dict[str, Tensor] = {}
    for name, whole in tensors.items():
        if whole.nbytes <= limit:
            out[name] = whole
            continue
        rows = max(1, len(whole) * limit // whole.nbytes)
        out |= {f"{name}#{i:04d}": piece.contiguous() for i, piece in enumerate(whole.split(rows))}
    return out


def write_shards(
    checkpoint: Path,
    folder: Path,
    name: str,
    *,
    shard_bytes: int = 15 * MIB,
    total_bytes: int = 58 * MIB,
    most: int = 7,
) -> list[Path]:
    """Write folder/NAME-1.safetensors, ... from a checkpoint.

    Raises:
        BundleError: the weights alone are more than `total_bytes` or `most` files.
        SpearSpecError: the checkpoint is damaged.
    """
    state = load_checkpoint(checkpoint)
    for attempt in (state, _moments_apart(state)):
        tensors: dict[str, Tensor] = {}
        tree = _flatten(attempt, "", tensors)
        halves = {key: _half(key, value) for key, value in tensors.items()}
        room = shard_bytes - MIB // 4  # for the header, which describes every tensor
        parts = list(shards(_pieces(halves, room), room))
        if len(parts) <= most and sum(t.nbytes for part in parts for t in part.values()) <= total_bytes:
            break
    else:
        raise BundleError(f"{checkpoint}: the weights do not fit {most} files of {shard_bytes // MIB} MiB")
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob(f"{name}-*.safetensors"):
        old.unlink()
    paths = []
    for number, part in enumerate(parts, 1):
        path = folder / f"{name}-{number}.safetensors"
        save_file(
            part,
            path,
            metadata={"tree": json.dumps(tree), "parts": str(len(parts))} if number == 1 else {"part": str(number)},
        )
        paths.append(path)
    return paths


def read_shards(folder: Path, name: str, checkpoint: Path) -> bool:
    """Rebuild a checkpoint from shards; False if there are none.

    Raises:
        BundleError: a shard is missing or damaged.
    """
    first = folder / f"{name}-1.safetensors"
    if not first.exists():
        return False
    try:
        with safe_open(first, "pt") as file:
            about = file.metadata()
        tensors: dict[str, Tensor] = {}
        pieces: dict[str, list[Tensor]] = {}
        for number in range(1, int(about["parts"]) + 1):
            with safe_open(folder / f"{name}-{number}.safetensors", "pt") as file:
                for key in sorted(file.keys()):
                    whole, cut, _ = key.partition("#")
                    if cut:
                        pieces.setdefault(whole, []).append(file.get_tensor(key))
                    else:
                        tensors[key] = file.get_tensor(key)
        tensors |= {key: torch.cat(rows) for key, rows in pieces.items()}
        state = _rebuild(json.loads(about["tree"]), tensors)
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise BundleError(f"{folder}: the shards of {name} are not whole: {error}") from None
    os.makedirs(checkpoint.parent, exist_ok=True)
    save_checkpoint(checkpoint, state)
    return True
