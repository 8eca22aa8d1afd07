"""SoundStream as audiolm-pytorch builds it (release 2.4.0): samples to codes of a residual quantiser, and back."""

from spear_spec.models.soundstream.codec import SoundStream
from spear_spec.models.soundstream.config import SoundStreamConfig

__all__ = ["SoundStream", "SoundStreamConfig"]
