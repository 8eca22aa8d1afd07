"""Text to speech: a Spear-TTS text-to-semantic transformer decoded by exact speculative sampling.

    import spear_spec
    tts = spear_spec.TTS.load()
    tts.synthesize("The quick brown fox.").save("fox.wav")

Everything is imported when it is first used, so `import spear_spec` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from spear_spec.audio import Audio
    from spear_spec.config import SamplingConfig, SpecConfig
    from spear_spec.decoding import DRAFTERS, VERIFIERS, generate, speculate
    from spear_spec.errors import SpearSpecError
    from spear_spec.exactness.verify import verify_drafter
    from spear_spec.interop import load_spear_tts, load_whisperspeech
    from spear_spec.models.spear_tts import TextToSemantic
    from spear_spec.pipeline import TTS, AudioChunk

_HOME = {
    "TTS": "pipeline",
    "AudioChunk": "pipeline",
    "Audio": "audio",
    "TextToSemantic": "models.spear_tts",
    "generate": "decoding",
    "speculate": "decoding",
    "DRAFTERS": "decoding",
    "VERIFIERS": "decoding",
    "SamplingConfig": "config",
    "SpecConfig": "config",
    "SpearSpecError": "errors",
    "load_spear_tts": "interop",
    "load_whisperspeech": "interop",
    "verify_drafter": "exactness.verify",
}

__all__ = [
    "DRAFTERS",
    "TTS",
    "VERIFIERS",
    "Audio",
    "AudioChunk",
    "SamplingConfig",
    "SpearSpecError",
    "SpecConfig",
    "TextToSemantic",
    "__version__",
    "generate",
    "load_spear_tts",
    "load_whisperspeech",
    "speculate",
    "verify_drafter",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'spear_spec' has no attribute {name!r}")
    value = getattr(import_module(f"spear_spec.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
