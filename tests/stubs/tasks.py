"""Work in shards that a test can follow, in a module that a worker process can import."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path

from spear_spec.errors import AudioError
from spear_spec.training.data.corpus import Clip
from spear_spec.training.data.spread import Do


@dataclass(frozen=True)
class Note:
    """Writes the clips' ids, and its process into the folder `seen`. die_at: the clip at which the process is killed,
    if `alive` is not there; refuse_at: at which it raises."""

    seen: str
    die_at: str = ""
    refuse_at: str = ""

    def open(self) -> Do:
        seen = Path(self.seen)

        def do(clips: list[Clip]) -> bytes:
            (seen / str(os.getpid())).touch()
            for clip in clips:
                if clip.id == self.die_at and not (seen / "alive").exists():
                    os.kill(os.getpid(), signal.SIGKILL)
                if clip.id == self.refuse_at:
                    raise AudioError(f"{clip.id} cannot be heard")
            return " ".join(clip.id for clip in clips).encode()

        return do


def clips(count: int) -> list[Clip]:
    return [Clip(f"{number:03d}", "a", "t", "x.wav") for number in range(count)]
