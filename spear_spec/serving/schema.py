"""What is asked for, as pydantic models: they check a request and describe it in /openapi.json."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator, ValidationError, WithJsonSchema

from spear_spec.errors import ConfigError
from spear_spec.serving.errors import ApiError
from spear_spec.text.pauses import LONGEST_S, Pauses

Format = Literal["mp3", "opus", "aac", "flac", "wav", "pcm"]
Text = Annotated[str, Field(min_length=1, pattern=r"^[^\x00]*$")]
Name = Annotated[str, Field(min_length=1, max_length=200)]


def _whole(value: Any) -> Any:
    """5.0 is an integer in JSON."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _pause(value: Any) -> Any:
    """What `Pauses.of` takes, in its words."""
    try:
        Pauses.of(value)
    except ConfigError as error:
        raise ApiError(400, str(error), param="pause", code="invalid_value") from None
    return value


_SECONDS = {"type": "number", "minimum": 0, "maximum": LONGEST_S}
Pause = Annotated[
    Any,
    PlainValidator(_pause),
    WithJsonSchema(
        {"anyOf": [_SECONDS, {"type": "array", "items": _SECONDS, "minItems": 1, "maxItems": 2}, {"type": "null"}]}
    ),
]
Seed = Annotated[int, Field(ge=0, le=2**64 - 1), BeforeValidator(_whole)]
Count = Annotated[int, Field(ge=0, le=10**6), BeforeValidator(_whole)]

Takes = Annotated[int, Field(ge=1, le=64), BeforeValidator(_whole)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, hide_input_in_errors=True)


class VoiceId(_Strict):
    """A voice by its id."""

    id: Name


class Manner(_Strict):
    """How it is said; what is left out comes from the voice."""

    model: Name = Field("tts-1", description="The served voice's name, or one of OpenAI's names for text to speech.")
    voice: Name | VoiceId | None = Field(
        None, description="A speaker, or one of OpenAI's voices, which stand for a speaker; default: the first speaker."
    )
    speed: float | None = Field(None, ge=0.25, le=4.0, description="1 is the voice's own rate.")
    instructions: str | None = Field(
        None, max_length=4096, description="Accepted and ignored; the header X-Spear-Spec-Ignored says so."
    )
    seed: Seed | None = Field(None, description="Same seed, same audio; without one the server draws it.")
    temperature: float | None = Field(None, ge=0, le=10, description="0 is greedy.")
    top_k: Count | None = Field(None, description="0 is off.")
    top_p: float | None = Field(None, gt=0, le=1, description="1 is off.")

    best_of: Takes | None = Field(
        None, description="So many takes of each sentence, of which the server's judge keeps the best."
    )
    ssml: bool | None = Field(None, description="The text is a document of SSML.")
    pause: Pause = Field(
        None, description="Seconds of silence between sentences, or [between sentences, between paragraphs]."
    )

    @property
    def voice_name(self) -> str | None:
        return self.voice.id if isinstance(self.voice, VoiceId) else self.voice

    @property
    def sampling(self) -> dict[str, float]:
        """The fields of `Ask.sampling` that were given."""
        given = {"temperature": self.temperature, "top_k": self.top_k, "top_p": self.top_p}
        return {name: value for name, value in given.items() if value is not None}


class SpeechRequest(Manner):
    """The body of POST /v1/audio/speech."""

    input: Text = Field(description="What is said.")
    response_format: Format | None = Field(
        None, description="Default mp3. pcm: 24 kHz, 16 bit, little-endian, one channel, no header."
    )
    stream_format: Literal["audio", "sse"] | None = Field(
        None, description="audio (default): the sound itself, chunked; sse: events with base64 audio."
    )


class SessionStart(Manner):
    """The first message of a WebSocket session."""

    type: Literal["session.start"]
    response_format: Format | None = None  # pcm
    audio: Literal["binary", "base64"] | None = None  # binary
    tokens: bool | None = None


class SessionText(_Strict):
    """A piece of the text; pieces are joined as they stand."""

    type: Literal["text"]
    text: Text


class SessionEnd(_Strict):
    """There is no more text."""

    type: Literal["end"]


class ErrorObject(BaseModel):
    """OpenAI's error object."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(BaseModel):
    """The body of every answer that is an error."""

    error: ErrorObject


Model = TypeVar("Model", bound=BaseModel)


def parse(model: type[Model], values: dict[str, Any]) -> Model:
    """Check a JSON object.

    Raises:
        ApiError: 400, which names the first field that is wrong and says nothing of its value.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        # a union names its members behind the field: the field is enough
        where = str(first["loc"][0]) if first["loc"] else "body"
        where = where.encode("ascii", "replace").decode()[:60]
        kind, said = first["type"], str(first["msg"])
        if kind == "missing":
            raise ApiError(400, f"{where} is missing", param=where, code="missing_required_parameter") from None
        if kind == "extra_forbidden":
            raise ApiError(400, f"there is no parameter {where!r}", param=where, code="unknown_parameter") from None
        if kind == "string_pattern_mismatch":
            said = "it holds the character NUL"
        if kind == "string_too_short":
            said = "it is empty"
        raise ApiError(400, f"{where}: {said}", param=where, code="invalid_value") from None
