"""Names that a client gives: models, voices, and what they stand for here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from spear_spec.config import require
from spear_spec.serving.errors import ApiError
from spear_spec.serving.settings import MODELS, OPENAI_VOICES


class Names:
    """The names of one served voice.

    Args:
        voice: its name; the first of its speakers is the default. given: other names of speakers and prompts. prompts:
            names of voices that were heard, with the SHA-256 of what they were heard in.

    Raises:
        ConfigError: a name is to stand for a speaker that there is not.
    """

    def __init__(
        self,
        voice: str,
        speakers: Sequence[str],
        given: Mapping[str, str] | None = None,
        prompts: Mapping[str, str | None] | None = None,
    ) -> None:
        self.voice, self.speakers, self.prompts = voice, tuple(speakers), dict(prompts or {})
        own = (*self.speakers, *self.prompts)
        for name, speaker in (given or {}).items():
            require(speaker in own, f"{name}={speaker}: the voice's speakers are {', '.join(own)}")
        table = dict.fromkeys(OPENAI_VOICES, self.speakers[0]) | {"default": self.speakers[0]} | dict(given or {})
        self.stand_ins = {name: speaker for name, speaker in table.items() if name not in own}

    @property
    def models(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((self.voice, *MODELS)))

    def check_model(self, name: str) -> None:
        """Raises ApiError 404 as OpenAI does unless this model is served."""
        if name not in self.models:
            said = name.encode("ascii", "replace").decode()[:80]
            raise ApiError(
                404,
                f"the model '{said}' does not exist here; there are {', '.join(self.models)}",
                param="model",
                code="model_not_found",
            )

    def speaker(self, name: str | None) -> str:
        """The speaker, or the prompt, that a client's voice stands for.

        Raises:
            ApiError: 400, there is no such voice.
        """
        if name is None:
            return self.speakers[0]
        if name in self.speakers or name in self.prompts:
            return name
        if name in self.stand_ins:
            return self.stand_ins[name]
        raise ApiError(
            400,
            f"there is no such voice; there are {', '.join((*self.speakers, *self.prompts))} and, standing for them, "
            f"{', '.join(self.stand_ins)}",
            param="voice",
            code="invalid_value",
        )

    def describe_models(self) -> dict[str, Any]:
        """The body of GET /v1/models."""
        return {"object": "list", "data": [self.describe_model(name) for name in self.models]}

    def describe_model(self, name: str) -> dict[str, Any]:
        """The body of GET /v1/models/{name}."""
        return {"id": name, "object": "model", "created": 0, "owned_by": "spear_spec"}

    def describe_voices(self) -> dict[str, Any]:
        """The body of GET /v1/audio/voices."""
        own: list[dict[str, Any]] = [
            {"id": name, "name": name, "default": name == self.speakers[0], "stands_for": None}
            for name in self.speakers
        ]
        own += [
            {"id": name, "name": name, "default": False, "stands_for": None, "prompt_sha256": sha256}
            for name, sha256 in self.prompts.items()
        ]
        other = [
            {"id": name, "name": name, "default": False, "stands_for": speaker}
            for name, speaker in self.stand_ins.items()
        ]
        return {"object": "list", "voices": own + other}
