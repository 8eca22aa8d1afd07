"""A voice's speaker reference: what `speaker_similarity` is measured against, `speaker_reference.json` in its
folder.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from spear_spec.audio import write_atomically
from spear_spec.errors import BundleError
from spear_spec.evaluation.judge import Samples

FILE = "speaker_reference.json"
SCHEMA = "speaker-reference/1"


def save_reference(folder: Path, speakers: Mapping[str, Samples], judge: str) -> Path:
    """Write unit-length embeddings by speaker; `judge` names the network they are from."""
    rounded = {name: [round(float(x), 5) for x in embedding] for name, embedding in speakers.items()}
    text = json.dumps({"schema": SCHEMA, "judge": judge, "speakers": rounded}, separators=(",", ":"))
    write_atomically(folder / FILE, (text + "\n").encode())
    return folder / FILE


def load_reference(folder: Path, speaker: str) -> Samples | None:
    """The embedding [256] of a speaker, None where the voice has no reference.

    Raises:
        BundleError: the file is damaged.
    """
    path = folder / FILE
    if not path.exists():
        return None
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if values["schema"] != SCHEMA:
            raise ValueError(f"schema {values['schema']!r} is not {SCHEMA!r}")
        found = values["speakers"].get(speaker)
        embedding = None if found is None else np.asarray(found, dtype=np.float32)
        if embedding is not None and (embedding.ndim != 1 or not np.isfinite(embedding).all() or not embedding.any()):
            raise ValueError("an embedding must be one row of finite numbers")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BundleError(f"{path} is damaged: {error}") from None
    return None if embedding is None else np.asarray(embedding / np.linalg.norm(embedding), dtype=np.float32)
