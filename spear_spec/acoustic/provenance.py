"""Where speech comes from, told in a file's metadata: never in the samples, and nothing of the text.

One comment, in every kind of file: "synthetic speech; software=spear_spec 1.2; voice=...; speaker=...;
prompt-sha256=...".
"""

from __future__ import annotations

import os

from spear_spec.acoustic.contract import Heard
from spear_spec.errors import AudioError

SYNTHETIC = "synthetic speech"
_SEPARATORS = str.maketrans({";": "_", "=": "_"})


def provenance(voice: str, speaker: str, sound: str | Heard) -> dict[str, str]:
    """Tags ("software", "comment") of speech of this voice, read by this speaker.

    sound: another speaker's, or what was heard in a prompt: the SHA-256 of its file is told.
    """
    from spear_spec import __version__

    software = f"spear_spec {__version__}"
    told = {"software": software, "voice": voice, "speaker": speaker}
    if isinstance(sound, Heard):
        told["prompt-sha256"] = sound.sha256 or "unknown"
    elif sound != speaker:
        told["sound"] = sound
    comment = "; ".join([SYNTHETIC, *(f"{name}={_plain(value)}" for name, value in told.items())])
    return {"software": software, "comment": comment}


def read_provenance(path: str | os.PathLike[str]) -> dict[str, str] | None:
    """What a file says of itself: software, voice, speaker and, of a prompt, prompt-sha256; None: nothing of this kind.

    Raises:
        AudioError: it cannot be read.
    """
    head, *parts = _comment(path).split("; ")
    if head != SYNTHETIC:
        return None
    return dict(part.partition("=")[::2] for part in parts if "=" in part)


def _comment(path: str | os.PathLike[str]) -> str:
    import soundfile

    try:
        with soundfile.SoundFile(path) as file:
            if file.comment:
                return str(file.comment)
    except (OSError, RuntimeError, TypeError) as error:
        unread: Exception | None = error
    else:
        unread = None
    try:
        import av

        with av.open(os.fspath(path)) as container:
            # in Ogg the comment belongs to the stream
            found = [container.metadata, *(stream.metadata for stream in container.streams)]
    except ModuleNotFoundError:
        found = []
    except (OSError, av.FFmpegError, ValueError) as error:
        raise AudioError(f"cannot read audio {path}: {error}") from None
    else:
        unread = None
    if unread is not None:
        raise AudioError(f"cannot read audio {path}: {unread}")
    lowered = [{name.lower(): value for name, value in tags.items()} for tags in found]
    return next((tags["comment"] for tags in lowered if tags.get("comment")), "")


def _plain(value: str) -> str:
    return "".join(c if c.isprintable() else "_" for c in value.translate(_SEPARATORS))
