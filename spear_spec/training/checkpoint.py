"""What a trainer keeps in its folder. Everything is written to a temporary file first: a cut-off run loses nothing."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from spear_spec.errors import ConfigError, SpearSpecError


@dataclass(frozen=True)
class Work:
    """The folder of one trainer."""

    folder: Path

    @property
    def checkpoint(self) -> Path:
        """What the run goes on from."""
        return self.folder / "checkpoint.pt"

    @property
    def log(self) -> Path:
        return self.folder / "train.log"

    @property
    def export(self) -> Path:
        """What is packed into a voice; see `save_export`."""
        return self.folder / "export"

    @property
    def joint(self) -> Path:
        """Export of the heads that were trained along with the target."""
        return self.folder / "export_joint"


def save_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Write training state (tensors, numbers, containers) so that it is either whole or not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    torch.save(dict(state), temporary)
    os.replace(temporary, path)


def load_checkpoint(path: Path, needs: Sequence[str] = ()) -> dict[str, Any]:
    """Read training state; only tensors and plain values are accepted. needs: what it must hold.

    Raises:
        SpearSpecError: the file is damaged, holds anything else, or is the checkpoint of another kind of trainer.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = str(error).splitlines()[0][:200]
        raise SpearSpecError(f"{path} is not a usable checkpoint ({reason}); delete it to start again") from None
    if not isinstance(state, dict) or (missing := [key for key in needs if key not in state]):
        lacks = ", ".join(missing) if isinstance(state, dict) else "everything"
        raise SpearSpecError(f"{path} is no checkpoint of this trainer (it lacks {lacks}); delete it to start again")
    return state


def restore(module: nn.Module, weights: Mapping[str, Tensor], checkpoint: Path) -> None:
    """Load the weights of a checkpoint into the module that goes on with them.

    Raises:
        ConfigError: they are those of a model of another shape.
    """
    wanted = module.state_dict()
    for name in (*wanted, *weights):
        there, here = (list(side[name].shape) if name in side else None for side in (weights, wanted))
        if there != here:
            raise ConfigError(
                f"{checkpoint} is of a model of another shape ({name}: {there or 'nothing'} there, {here or 'nothing'} "
                "in these settings): name another folder, or go on with the shape that it has"
            )
    module.load_state_dict(dict(weights))


def export_files(folder: Path, name: str) -> tuple[Path, Path]:
    """Description and weights of an export."""
    return folder / f"{name}.json", folder / f"{name}.safetensors"


def save_export(folder: Path, name: str, description: Mapping[str, Any], weights: Mapping[str, Tensor]) -> None:
    """Write folder/name.json and folder/name.safetensors (half precision): what is packed into a voice.

    Raises:
        SpearSpecError: a weight is not finite in half precision.
    """
    folder.mkdir(parents=True, exist_ok=True)
    half = {k: v.detach().to(torch.float16).contiguous().cpu() for k, v in weights.items()}
    if bad := [key for key, value in half.items() if not bool(torch.isfinite(value).all())]:
        raise SpearSpecError(f"the weights of {name} do not fit half precision (the first: {bad[0]})")
    about, data = export_files(folder, name)
    save_file(half, f"{data}.tmp")
    Path(f"{data}.tmp").chmod(0o644)  # the library makes it readable for its owner alone
    os.replace(f"{data}.tmp", data)
    temporary = Path(f"{about}.tmp")
    temporary.write_text(json.dumps(description, indent=1, ensure_ascii=False), encoding="utf-8")
    os.replace(temporary, about)


def load_export(folder: Path, name: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read what `save_export` wrote.

    Raises:
        SpearSpecError: the folder lacks it or it is damaged.
    """
    about, data = export_files(folder, name)
    try:
        return json.loads(about.read_text(encoding="utf-8")), load_file(data)
    except Exception as error:
        raise SpearSpecError(f"{folder} holds no usable {name} export ({error}); run that stage first") from None
