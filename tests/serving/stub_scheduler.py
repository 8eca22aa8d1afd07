"""A scheduler without a voice: sines whose pitch is the text's, at once or slowly, whole or broken."""

from __future__ import annotations

import threading
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np

from spear_spec.serving.speech import Ask, Done, Sound, Speech, Written

RATE = 24_000
PIECE = 7_680  # samples


def sine(text: str, seed: int, pieces: int) -> np.ndarray:
    """float32 [T]: what is heard of a text."""
    pitch = 150 + zlib.crc32(text.encode()) % 400
    at = np.arange(pieces * PIECE) / RATE
    return (0.5 * np.sin(2 * np.pi * pitch * at) * (0.6 + 0.4 * np.cos(2 * np.pi * (1 + seed % 5) * at))).astype(
        np.float32
    )


@dataclass
class StubScheduler:
    """pieces: of every answer. wait_s: before each. fails: with what, before which piece. busy: raised by speak."""

    pieces: int = 4
    wait_s: float = 0.0
    fails: tuple[int, BaseException] | None = None
    busy: BaseException | None = None
    tts: Any = field(default_factory=lambda: SimpleNamespace(name="tiny", speakers=("anna", "ben"), sample_rate=RATE))
    rows: set[Speech] = field(default_factory=set)
    asked: list[Ask] = field(default_factory=list)
    ready_to_go_on: threading.Event = field(default_factory=threading.Event)
    held: bool = False  # stop after the first piece until `ready_to_go_on`

    def __post_init__(self) -> None:
        self._texts: dict[Speech, list[str]] = {}
        self._ended: dict[Speech, threading.Event] = {}
        self._cancelled: set[Speech] = set()

    def speak(self, ask: Ask) -> Speech:
        speech = self._open(ask)
        self._start(speech, ask, ask.text)
        return speech

    def open(self, ask: Ask) -> Speech:
        speech = self._open(ask)
        self._texts[speech], self._ended[speech] = [], threading.Event()

        def run() -> None:
            self._ended[speech].wait()
            if speech not in self._cancelled:
                self._run(speech, ask, "".join(self._texts[speech]))

        threading.Thread(target=run, daemon=True).start()
        return speech

    def _open(self, ask: Ask) -> Speech:
        if self.busy is not None:
            raise self.busy
        self.asked.append(ask)
        speech = Speech(self, 7 if ask.seed is None else ask.seed, RATE)
        self.rows.add(speech)
        return speech

    def _start(self, speech: Speech, ask: Ask, text: str) -> None:
        threading.Thread(target=self._run, args=(speech, ask, text), daemon=True).start()

    def _run(self, speech: Speech, ask: Ask, text: str) -> None:
        whole = sine(text, speech.seed, self.pieces)
        for at in range(self.pieces):
            if speech in self._cancelled:
                return
            if self.fails is not None and self.fails[0] == at:
                speech.fail(self.fails[1])
                self.rows.discard(speech)
                return
            if self.held and at:
                self.ready_to_go_on.wait(20)
            if self.wait_s:
                threading.Event().wait(self.wait_s)
            if ask.tokens:
                speech.put(Written(0, [at, at + 1], ["accepted", "bonus"], at + 1, 2 * at + 2))
            last = at == self.pieces - 1
            speech.put(Sound(whole[at * PIECE : (at + 1) * PIECE], 0, text, "eos" if last else None))
        usage: Mapping[str, Any] = {
            "characters": len(text), "tokens": 8 * self.pieces, "target_calls": self.pieces, "seed": speech.seed,
            "audio_s": self.pieces * PIECE / RATE, "ended": "eos",
        }  # fmt: skip
        self.rows.discard(speech)
        speech.put(Done(dict(usage)))

    # --- what a Speech tells its maker -------------------------------------------------------------------------------

    def taken(self, speech: Speech) -> None:
        pass

    def cancel(self, speech: Speech) -> None:
        if speech.over:
            return
        self._cancelled.add(speech)
        self.rows.discard(speech)
        if speech in self._ended:
            self._ended[speech].set()
        speech.put(Done({"ended": "cancelled", "seed": speech.seed}))

    def feed(self, speech: Speech, text: str) -> None:
        self._texts[speech].append(text)

    def finish(self, speech: Speech) -> None:
        self._ended[speech].set()

    def state(self) -> dict[str, float]:
        return {"queued": 1, "rows": len(self.rows), "tokens": 60, "target_calls": 10, "drafted": 80, "accepted": 40}
