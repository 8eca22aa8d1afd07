"""`spear-spec say --play`: sound out of the machine while it is spoken, by PortAudio (python-sounddevice)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from spear_spec.audio import FloatArray
from spear_spec.errors import AudioError, MissingExtraError

if TYPE_CHECKING:
    from spear_spec.pipeline import TTS

_NO_FILE = "write a file instead, with -o"


def check_device() -> None:
    """Refuse to speak for nobody before the voice is loaded.

    Raises:
        MissingExtraError: sounddevice or PortAudio is not installed. AudioError: there is no sound device.
    """
    library = _library()
    try:
        library.query_devices(kind="output")
    except (library.PortAudioError, ValueError) as error:
        raise AudioError(f"no sound device to play on ({error}): {_NO_FILE}") from None


def play(tts: TTS, text: str, options: dict[str, Any]) -> dict[str, Any]:
    """Speak a text to the default sound device; returns its item of say/1 when all of it has been heard.

    Raises:
        AudioError: the device fails. SpearSpecError: the text cannot be spoken.
    """
    from spear_spec.meter import Meter

    meter = Meter(tts.sample_rate)
    with _device(tts.sample_rate) as device:
        for chunk in tts.stream(text, meter=meter, **options):
            device.write(chunk.samples)
    return meter.item(text)


class _Device:
    """An open stream of the device, at the voice's rate or, where it cannot, at its own."""

    def __init__(self, library: Any, rate: int) -> None:
        self._resampler: Any = None
        try:
            self._stream = library.OutputStream(samplerate=rate, channels=1, dtype="float32")
        except library.PortAudioError:
            import soxr

            own = int(library.query_devices(kind="output")["default_samplerate"])
            if own == rate:
                raise
            self._stream = library.OutputStream(samplerate=own, channels=1, dtype="float32")
            self._resampler = soxr.ResampleStream(rate, own, 1, dtype="float32")
        self._stream.start()

    def write(self, samples: FloatArray, *, last: bool = False) -> None:
        """Waits while the device has enough."""
        if self._resampler is not None:
            samples = self._resampler.resample_chunk(samples, last=last)
        if len(samples):
            self._stream.write(np.clip(samples, -1.0, 1.0)[:, None])

    def close(self, *, heard: bool) -> None:
        """heard: wait until everything has been."""
        if heard:
            if self._resampler is not None:
                self.write(np.zeros(0, dtype=np.float32), last=True)
            self._stream.stop()
        else:
            self._stream.abort()
        self._stream.close()


@contextmanager
def _device(rate: int) -> Iterator[_Device]:
    library = _library()
    heard = False
    try:
        device = _Device(library, rate)
        try:
            yield device
            heard = True
        finally:
            device.close(heard=heard)
    except library.PortAudioError as error:
        raise AudioError(f"the sound device fails ({error}): {_NO_FILE}") from None


def _library() -> Any:
    try:
        import sounddevice
    except ModuleNotFoundError:
        raise MissingExtraError("--play needs sounddevice: pip install 'spear_spec[play]'") from None
    except OSError:  # the Python part is there, the library it is for is not
        raise MissingExtraError(
            f"--play needs PortAudio (on Debian and Ubuntu: apt install libportaudio2); or {_NO_FILE}"
        ) from None
    return sounddevice
