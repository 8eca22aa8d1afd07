"""A file that fails while it is written: one error, the file's own, and nothing printed by the libraries below."""

from __future__ import annotations

import io

import numpy as np
import pytest

from spear_spec.books.write import FORMATS, write_sound


class Full(io.BytesIO):
    """A disk with so much room."""

    room = 4096

    def write(self, data: object) -> int:
        if self.tell() + len(data) > self.room:  # type: ignore[arg-type]
            raise OSError(28, "No space left on device")
        return super().write(data)  # type: ignore[arg-type]


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("room", [0, 4096])
def test_a_full_disk_is_one_error(
    suffix: str, room: int, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Full, "room", room)
    noise = np.random.default_rng(0).integers(-9000, 9000, 24_000 * 3).astype(np.int16)
    with pytest.raises(OSError, match="No space left on device"):
        write_sound(Full(), suffix, 24_000, [noise])
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_disk_with_room_gets_all(suffix: str) -> None:
    from av import open as opened

    file = io.BytesIO()
    write_sound(file, suffix, 24_000, [np.zeros(24_000, np.int16)] * 3)
    file.seek(0)
    with opened(file) as container:
        stream = container.streams.audio[0]
        samples = sum(frame.samples for frame in container.decode(stream))
        assert samples / stream.rate == pytest.approx(3, abs=0.1)
