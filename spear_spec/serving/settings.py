"""What a server is told at its start, besides the voice and the scheduler's limits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from spear_spec.acoustic.contract import Heard
from spear_spec.config import number, require, whole
from spear_spec.text import Reading

MODELS = ("tts-1", "tts-1-hd", "gpt-4o-mini-tts")  # OpenAI's, which stand for the voice that is served
OPENAI_VOICES = (
    "alloy",
    "ash",
    "ballad",
    "cedar",
    "coral",
    "echo",
    "fable",
    "marin",
    "nova",
    "onyx",
    "sage",
    "shimmer",
    "verse",
)  # stand for the default speaker unless `voice_names` says otherwise


@dataclass(frozen=True)
class ServerSettings:
    """Settings of the HTTP side.

    characters: most of `input`, and of a WebSocket session. body_bytes: most of a request's body. body_s: within so
    many seconds it has to be there. stall_s: a client that takes nothing for so long is cut off. drain_s: what is being
    spoken when the server is told to end has so long. idle_s: a WebSocket session that sends nothing for so long is
    ended. keys: API keys; empty: none is asked for. origins: what pages of other sites may call from; empty: none.
    voice_names: other names of speakers and prompts, before `OPENAI_VOICES`. prompts: voices beside the speakers, by
    name. reading: the pauses and the lexicon that texts are read with. log_text: whether what is said may stand in the
    log.

    Raises:
        ConfigError: a value that cannot be used.
    """

    characters: int = 4096
    body_bytes: int = 256 * 1024
    body_s: float = 30.0
    stall_s: float = 30.0
    drain_s: float = 30.0
    idle_s: float = 60.0
    keys: tuple[str, ...] = field(default=(), repr=False)
    origins: tuple[str, ...] = ()
    voice_names: Mapping[str, str] = field(default_factory=dict)
    log_text: bool = False
    prompts: Mapping[str, Heard] = field(default_factory=dict, repr=False)
    reading: Reading = field(default=Reading(), repr=False)

    def __post_init__(self) -> None:
        whole("characters", self.characters, 1, 10**7)
        whole("body_bytes", self.body_bytes, 1024, 2**30)
        for name in ("body_s", "stall_s", "idle_s"):
            number(name, getattr(self, name), 0.01, 86400)
        number("drain_s", self.drain_s, 0, 86400)
        require(all(key and key.isascii() and key.isprintable() for key in self.keys), "an API key must be ASCII text")
