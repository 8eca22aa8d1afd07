"""Ways to change a voice folder, shared by the tests of this room."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from spear_spec.pipeline import TTS


def edit(voice: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change config.json."""
    path = voice / "config.json"
    config = json.loads(path.read_text())
    change(config)
    path.write_text(json.dumps(config))


def put(voice: Path, part: str, data: bytes) -> None:
    """Make `data` the part's only shard, in a bundle that is otherwise sound: size and checksum are right."""
    file = voice / f"{part}-1.safetensors"
    file.write_bytes(data)
    entry = {"file": file.name, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    edit(voice, lambda config: config["files"].update({part: [entry]}))


def read_all(voice: Path) -> TTS:
    """Load everything that a voice holds."""
    tts = TTS.load(voice, device="cpu")
    for name in tts.drafts:
        tts.drafts[name]
    tts.bundle.centroids()
    return tts
