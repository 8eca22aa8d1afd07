"""SoundStream against the real audiolm-pytorch's (golden files), and what a stage relies on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from audiolm_cases import CODECS, Case

from spear_spec.errors import AudioError, ConfigError
from spear_spec.models.soundstream import SoundStream, SoundStreamConfig


@pytest.fixture(autouse=True)
def _no_grad() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.mark.parametrize("name", CODECS)
def test_codes_and_samples_are_the_packages(name: str) -> None:
    case = Case.read(name)
    codec, found = case.soundstream(), case.found
    assert torch.equal(codec.encode(found["samples"]), found["codes"])
    assert (codec.decode(found["codes"]) - found["decoded"]).abs().max() < 1e-5
    assert found["decoded"].std() > 0.1


@pytest.mark.parametrize("name", CODECS)
def test_a_frame_hears_nothing_of_what_comes_later(name: str) -> None:
    case = Case.read(name)
    codec, cfg = case.soundstream(), case.soundstream().cfg
    samples, codes = case.found["samples"], case.found["codes"]
    assert torch.equal(codec.encode(samples[:, : 20 * cfg.hop + 1]), codes[:, :20])
    assert torch.allclose(codec.decode(codes[:, :20]), case.found["decoded"][:, : 20 * cfg.hop], atol=1e-6)


def test_few_frames_are_filled_up() -> None:
    """Mirrored beginnings need more than there is; the package fails on so few."""
    case = Case.read("soundstream")
    codec = case.soundstream()
    hop = codec.cfg.hop
    assert codec.cfg.least == 14 and len(case.weights)
    for frames in (1, 3, 13):
        assert codec.decode(case.found["codes"][:1, :frames]).shape == (1, frames * hop)
        assert codec.encode(case.found["samples"][:1, : frames * hop + 2]).shape == (1, frames, 5)
    short = case.found["samples"][:1, : 3 * hop]
    filled = torch.nn.functional.pad(short, (0, 40 * hop))
    assert torch.equal(codec.encode(short), codec.encode(filled)[:, :3])
    with pytest.raises(AudioError, match="8 samples at 16000 Hz"):
        codec.encode(short[:, : hop - 1])


SHAPE = {"sample_rate": 16000, "channels": [4, 8, 8], "strides": [2, 4], "dim": 8, "codebook": 9, "quantizers": 5}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"strides": [2]}, "one more than strides"),
        ({"channels": [4], "strides": []}, "one more than strides"),
        ({"strides": [64, 64, 64], "channels": [1, 1, 1, 1]}, "hop"),
        ({"groups": 3}, "multiple of groups"),
        ({"dim_head": 3}, "even"),
        ({"pad": "circular"}, "pad must be one of"),
        ({"encoder_dilations": [1, 3]}, "three"),
        ({"depth": 1000}, "depth"),
        ({"codebook": 2.5}, "codebook"),
        ({"window": 10**9}, "window"),
        ({"more": 1}, "unknown key"),
    ],
)
def test_shapes_that_are_none(change: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SoundStreamConfig.from_dict({**SHAPE, **change})


def test_a_shape_goes_there_and_back() -> None:
    cfg = SoundStreamConfig.from_dict(SHAPE)
    assert SoundStreamConfig.from_dict(cfg.to_dict()) == cfg and (cfg.hop, cfg.codes) == (8, 5)
    assert sum(p.numel() for p in SoundStream(cfg).parameters()) > 1000
