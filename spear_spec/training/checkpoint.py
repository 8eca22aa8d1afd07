"""Checkpoints and exports: written to a temporary file first, so that a cut-off run loses nothing."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from spear_spec.errors import SpearSpecError


def save_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Write training state (tensors, numbers, containers) so that it is either whole or not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    torch.save(dict(state), temporary)
    os.replace(temporary, path)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read training state; only tensors and plain values are accepted.

    Raises:
        SpearSpecError: the file is damaged or holds anything else.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise SpearSpecError(f"{path} is not a usable checkpoint ({error}); delete it to start again") from None


def save_export(folder: Path, name: str, description: Mapping[str, Any], weights: Mapping[str, Tensor]) -> None:
    """Write folder/name.json and folder/name.safetensors (half precision): what is packed into a voice."""
    folder.mkdir(parents=True, exist_ok=True)
    half = {k: v.detach().to(torch.float16).contiguous() for k, v in weights.items()}
    save_file(half, folder / f"{name}.safetensors.tmp")
    os.replace(folder / f"{name}.safetensors.tmp", folder / f"{name}.safetensors")
    temporary = folder / f"{name}.json.tmp"
    temporary.write_text(json.dumps(description, indent=1, ensure_ascii=False), encoding="utf-8")
    os.replace(temporary, folder / f"{name}.json")


def load_export(folder: Path, name: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read what `save_export` wrote.

    Raises:
        SpearSpecError: the folder lacks it or it is damaged.
    """
    try:
        description = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        return description, load_file(folder / f"{name}.safetensors")
    except Exception as error:
        raise SpearSpecError(f"{folder} holds no usable {name} export ({error}); run that stage first") from None
