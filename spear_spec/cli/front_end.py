"""The text front end in a process of its own, so that a cold start loads spaCy and torch side by side on two cores.

Importing is Python work under one interpreter lock; a thread would gain nothing. The child is forked before anything
heavy is imported, reads the texts in order, runs ahead as far as the pipe holds, and needs no torch.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Any

from spear_spec.errors import SpearSpecError, TextError
from spear_spec.text import PhonemeFrontEnd, Reader, Reading, Segment
from spear_spec.text.written import Word


class FrontEndProcess:
    """A `Reader` whose segments of `texts`, each spoken by `speaker`, are computed by a forked child.

    words: whether it also finds their written words, for timestamps.
    """

    tells_words = True

    def __init__(
        self,
        texts: Sequence[str],
        speaker: str,
        config: Mapping[str, Any],
        reading: Reading | None = None,
        *,
        words: bool = False,
    ) -> None:
        self._reading = reading or Reading()
        self._own = PhonemeFrontEnd.from_dict(config)
        source, sink = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(source)
            _child(texts, speaker, self._own, self._reading, sink, words)
        os.close(sink)
        self._texts = iter(texts)
        self._speaker = speaker
        self._busy = False  # a text has been asked for whose last message has not come
        self._pipe: IO[str] = os.fdopen(source, encoding="utf-8")

    @staticmethod
    def useful(config: Mapping[str, Any]) -> bool:
        """Whether this is a cold start with our own front end, where forking is possible and a second core may help."""
        ours = config.get("kind") == PhonemeFrontEnd.KIND
        return ours and "torch" not in sys.modules and hasattr(os, "fork") and (os.cpu_count() or 1) > 1

    @property
    def speakers(self) -> tuple[str, ...]:
        return self._own.speakers

    @property
    def num_token_ids(self) -> int:
        return self._own.num_token_ids

    def phonemes(self, text: str) -> str:
        return self._own.phonemes(text)

    def places(self, ids: Sequence[int]) -> tuple[tuple[int, int], ...]:
        return self._own.places(ids)

    def segments(self, text: str, speaker: str) -> Iterator[Segment]:
        return self.read(text, speaker, Reading())

    def read(self, text: str, speaker: str, reading: Reading) -> Iterator[Segment]:
        """Segments of the next text, which must be asked for in order; of any other, made here.

        Raises:
            TextError: what the front end found wrong with it.
        """
        if (text, speaker, reading) != (next(self._texts, None), self._speaker, self._reading):
            yield from self._own.read(text, speaker, reading)
            return
        while self._busy:  # the last text was left before its end
            self._receive()
        self._busy = True
        while self._busy:
            message = self._receive()
            if self._busy:
                yield _unpacked(**message["segment"])
        if "error" in message:
            raise TextError(message["error"])

    def _receive(self) -> dict[str, Any]:
        line = self._pipe.readline()
        if not line:
            raise TextError("the text front end stopped unexpectedly")
        message: dict[str, Any] = json.loads(line)
        self._busy = "segment" in message
        return message

    def close(self) -> None:
        """Let the child go; safe to call twice."""
        if not self._pipe.closed:
            self._pipe.close()
            os.kill(self.pid, signal.SIGKILL)  # it holds nothing that could be lost
            os.waitpid(self.pid, 0)


def _child(texts: Sequence[str], speaker: str, front_end: Reader, reading: Reading, sink: int, words: bool) -> None:
    """Never returns."""
    status = 1
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends this process
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # nothing here has to be cleaned up
        os.dup2(2, 1)  # nothing but audio and JSON may reach standard output
        sys.modules["torch"] = None  # type: ignore[assignment]  # spaCy would import it, for a second, and not use it
        with os.fdopen(sink, "w", encoding="utf-8") as pipe:
            _serve(texts, speaker, front_end, reading, pipe, words)
        status = 0
    except (BrokenPipeError, SpearSpecError):  # the parent has left, or has met the same error itself
        status = 0
    except BaseException as error:  # must not run the parent's clean-up
        print(f"spear-spec: text front end: {error!r}", file=sys.stderr, flush=True)
    finally:
        os._exit(status)


def _packed(segment: Segment, words: bool) -> dict[str, Any]:
    fields = {name: value for name, value in vars(segment).items() if name != "find_words"}
    return {**fields, "words": [vars(word) for word in segment.words]} if words else fields


def _unpacked(words: Sequence[Mapping[str, Any]] | None = None, **fields: Any) -> Segment:
    if words is None:
        return Segment(**fields)
    found = tuple(Word(**word) for word in words)
    return Segment(**fields, find_words=lambda: found)


def _serve(texts: Sequence[str], speaker: str, front_end: Reader, reading: Reading, pipe: IO[str], words: bool) -> None:
    for text in texts:
        try:
            for segment in front_end.read(text, speaker, reading):
                pipe.write(json.dumps({"segment": _packed(segment, words)}) + "\n")
                pipe.flush()
            pipe.write('{"end": true}\n')
        except SpearSpecError as error:
            pipe.write(json.dumps({"error": str(error)}) + "\n")
        pipe.flush()
