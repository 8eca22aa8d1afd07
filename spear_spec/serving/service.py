"""What every route shares."""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, is_dataclass
from typing import TYPE_CHECKING, Any

from spear_spec.serving.auth import Keys
from spear_spec.serving.errors import SERVER, ApiError, as_api_error, shutting_down
from spear_spec.serving.metrics import Metrics
from spear_spec.serving.schema import Manner
from spear_spec.serving.settings import ServerSettings
from spear_spec.serving.speech import Ask, Speech
from spear_spec.serving.voices import Names

if TYPE_CHECKING:
    from spear_spec.serving.scheduler import Scheduler

log = logging.getLogger("spear_spec.serving")


@dataclass(frozen=True)
class Order:
    """A request as the scheduler takes it, and the headers that say how it was understood.

    speaker: or the name of a prompt. tags: what a file of the answer says of itself.
    """

    ask: Ask
    speaker: str
    headers: Mapping[str, str]
    tags: Mapping[str, str] = field(default_factory=dict)


class Service:
    """A scheduler behind its names, keys, limits and counters."""

    def __init__(self, scheduler: Scheduler, settings: ServerSettings) -> None:
        self.scheduler, self.settings = scheduler, settings
        self.tts = scheduler.tts
        heard = {name: voice.sha256 for name, voice in settings.prompts.items()}
        self.names = Names(self.tts.name, self.tts.speakers, settings.voice_names, heard)
        self.keys = Keys(settings.keys)
        self.metrics = Metrics(self.state)
        self.draining = False
        self.speaking: set[Speech] = set()

    def state(self) -> Mapping[str, float]:
        """The scheduler's, as numbers by name."""
        state: Any = self.scheduler.state()
        values = asdict(state) if is_dataclass(state) and not isinstance(state, type) else dict(state)
        values.update(values.pop("totals", {}))
        return {name: value for name, value in values.items() if isinstance(value, int | float)}

    def check_open(self) -> None:
        """Raises ApiError 503 when the server takes nothing new."""
        if self.draining:
            raise shutting_down(self.settings.drain_s)

    def check_alive(self) -> None:
        """Raises ApiError 503 when the scheduler has stopped: only another process helps."""
        if not self.state().get("alive", True):
            raise ApiError(503, "the scheduler has stopped: start the server again", kind=SERVER, code="not_alive")

    def order(self, wanted: Manner, text: str) -> Order:
        """Check what can be checked without the scheduler.

        Raises:
            ApiError: no such model or voice; the text is too long. TextError, ConfigError: of `Ask`.
        """
        self.names.check_model(wanted.model)
        speaker, whose = self.whose(wanted.voice_name)
        self.check_length(len(text))
        headers = {"X-Spear-Spec-Model": self.names.voice, "X-Spear-Spec-Voice": speaker}
        if wanted.voice_name not in (None, speaker):
            headers["X-Spear-Spec-Voice-Asked"] = str(wanted.voice_name)
        if wanted.instructions is not None:
            headers["X-Spear-Spec-Ignored"] = "instructions"
        reading = self.settings.reading.changed(wanted.pause, ssml=wanted.ssml)
        ask = Ask(
            text,
            seed=wanted.seed,
            speed=wanted.speed or 1.0,
            sampling=wanted.sampling,
            reading=reading,
            best_of=wanted.best_of,
            **whose,
        )
        tags = {} if ask.voice is None else self.tts.tags(ask.speaker, ask.voice)
        if tags:
            headers["X-Spear-Spec-Provenance"] = tags["comment"].encode("ascii", "replace").decode()
        return Order(ask, speaker, headers, tags)

    def whose(self, name: str | None) -> tuple[str, dict[str, Any]]:
        """What a client's voice is called here, and the fields of an `Ask` for it.

        Raises:
            ApiError: 400, there is no such voice.
        """
        speaker = self.names.speaker(name)
        heard = self.settings.prompts.get(speaker)
        return speaker, {"speaker": speaker} if heard is None else {"voice": heard}

    def check_length(self, characters: int) -> None:
        """Raises ApiError 400 when a text is too long."""
        if characters > (most := self.settings.characters):
            raise ApiError(
                400,
                f"the text has more than {most} characters ({characters}): send it in parts",
                param="input",
                code="string_above_max_length",
            )

    def refuse(self, error: BaseException, request_id: str) -> ApiError:
        """What the client is told; counts it, and logs it once where it is the server's own fault."""
        told = as_api_error(error)
        self.metrics.refused.labels(told.reason).inc()
        self.log_failure(error, request_id)
        return told

    def log_failure(self, error: BaseException, request_id: str) -> None:
        """Where the server's own failure happened; what its message says (there may be text in it) only where text may
        be logged. The client's mistakes are not logged.
        """
        if as_api_error(error).status < 500 or isinstance(error, ApiError):
            return
        said = f": {error}" if self.settings.log_text else ""
        frames = "".join(traceback.format_tb(error.__traceback__))
        log.error("%s failed: %s%s\n%s", request_id, type(error).__name__, said, frames)

    def log_answer(self, told: Mapping[str, Any], text: str) -> None:
        """One line for each answer."""
        line = " ".join(f"{name}={value}" for name, value in told.items() if value is not None)
        log.info("%s%s", line, f" text={text!r}" if self.settings.log_text else "")


class Clock:
    """Of one answer: when it began, when the first sound left, how much was sent."""

    def __init__(self, began: float | None = None) -> None:
        self.began = time.perf_counter() if began is None else began
        self.first: float | None = None
        self.samples = 0

    def sent(self, metrics: Metrics) -> None:
        """Sound has left."""
        if self.first is None:
            self.first = time.perf_counter()
            metrics.ttfa.observe(self.first - self.began)

    def told(self, sample_rate: int) -> dict[str, Any]:
        """For the log."""
        ttfa = None if self.first is None else round(self.first - self.began, 4)
        seconds = round(time.perf_counter() - self.began, 4)
        return {"ttfa_s": ttfa, "seconds": seconds, "audio_s": round(self.samples / sample_rate, 3)}
