"""One worker: loads the voice once, then does shard after shard. As a program it is told over its standard input and
answers on its standard output, a JSON object a line; when its driver has gone it ends."""

from __future__ import annotations

import json
import os
import platform
import queue
import signal
import sys
import threading
import traceback
from pathlib import Path
from typing import Any

from spear_spec.bulk.folder import Folder
from spear_spec.bulk.settings import Settings
from spear_spec.bulk.shards import Shard
from spear_spec.errors import BundleError, SpearSpecError


class Worker:
    """See the module.

    Raises:
        SpearSpecError: the voice or the settings cannot be used here.
    """

    def __init__(self, settings: Settings, folder: str) -> None:
        from spear_spec.bulk.choir import Choir, Spoken
        from spear_spec.config import SamplingConfig
        from spear_spec.pipeline import TTS
        from spear_spec.tuning.store import fingerprint

        self._spoken = Spoken
        self.settings, self.folder = settings, Folder(Path(folder))
        tts = TTS.load(
            settings.voice,
            settings.device,
            dtype=settings.dtype,
            threads=settings.threads,
            acoustic=settings.acoustic,
            **settings.spec,
        )
        if fingerprint(tts.bundle.path) != settings.fingerprint:
            raise BundleError(f"the voice {tts.name} at {platform.node()} is not the one that this run began with")
        if tts.acoustic is not None and fingerprint(tts.acoustic) != settings.acoustic_fingerprint:
            raise BundleError(f"the stage {tts.acoustic} at {platform.node()} is not the one that this run began with")
        tts.sampling = SamplingConfig.from_dict(settings.sampling)
        self.choir = Choir(tts, settings)

    def about(self) -> dict[str, Any]:
        """Where it is."""
        return {"pid": os.getpid(), "host": platform.node()}

    def do(self, shard: Shard) -> dict[str, Any]:
        """Speak a shard and publish it; what it was, in numbers.

        Raises:
            AudioError: the folder cannot be written, or the disk is full.
        """
        records: dict[int, dict[str, Any]] = {}
        with self.folder.draft(shard, self.settings.packing) as draft:
            for line, result in self.choir.speak(shard.lines):
                record: dict[str, Any] = {"id": line.id, "line": line.number}
                if isinstance(result, self._spoken):
                    name = f"{line.id}.{self.settings.format}"
                    record |= draft.add(name, result.audio.encode(f".{self.settings.format}"))
                    record |= self._told(result)
                    if result.warnings:
                        record["warnings"] = list(result.warnings)
                else:
                    record |= {"file": None}
                record["error"] = str(result) if isinstance(result, SpearSpecError) else None
                records[line.number] = record
            draft.publish([records[line.number] for line in shard.lines])
        failed = [{"line": r["line"], "id": r["id"], "error": r["error"]} for r in records.values() if r["error"]]
        spoken = [record for record in records.values() if record["error"] is None]
        return {
            "lines": len(records),
            "failed": failed,
            "tokens": sum(record["tokens"] for record in spoken),
            "seconds": sum(record["seconds"] for record in spoken),
        }

    def _told(self, result: Any) -> dict[str, Any]:
        audio = result.audio
        return {
            "samples": len(audio.samples),
            "sample_rate": audio.sample_rate,
            "seconds": round(audio.seconds, 4),
            "speaker": result.speaker,
            "seed": result.seed,
            "tokens": result.stats.tokens,
            "target_calls": result.stats.target_calls,
            "ended": result.ended,
            **({} if result.prompt is None else {"prompt_sha256": result.prompt}),
            **({} if self.settings.complete == "off" else {"redrawn": result.redrawn}),
            **({"best_of": [one.to_dict() for one in result.chosen]} if result.chosen else {}),
        }


def main() -> int:
    """The program: the first line of standard input has the settings and the folder, each of the others a shard."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a library prints must not get between the answers
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the driver ends this process

    def say(**message: Any) -> None:
        answers.write(json.dumps(message) + "\n")
        answers.flush()

    orders: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(orders,), daemon=True).start()
    try:
        first = orders.get()
        worker = Worker(Settings.from_dict(first["settings"]), first["folder"])
        say(ready=worker.about())
        while True:
            say(done=worker.do(Shard.from_dict(orders.get())))
    except SpearSpecError as error:
        say(error={"kind": type(error).__name__, "message": str(error)})
    except BrokenPipeError:  # the driver has gone
        pass
    except Exception:
        say(crash=traceback.format_exc().strip().splitlines()[-1])
        traceback.print_exc()
    return 1


def _listen(orders: queue.SimpleQueue[dict[str, Any]]) -> None:
    """Hand orders on; at their end there is no driver any more, and nobody to work for."""
    for line in sys.stdin:
        orders.put(json.loads(line))
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
