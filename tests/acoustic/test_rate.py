"""Speech at another rate: exact lengths, the pitch kept, C against torch against explicit loops, any cut the same.

The oracle reads the frames of the whole utterance one by one, in float64.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache

import numpy as np
import pytest
import torch
from torch import Tensor

from spear_spec.acoustic.unit.excitation import token_noise
from spear_spec.acoustic.unit.native import NativeStream
from spear_spec.acoustic.unit.rate import RateStream, at_rate, frames_at
from spear_spec.acoustic.unit.stage import UnitStage, open_stream, render, render_in_torch
from spear_spec.acoustic.unit.streaming import VocoderStream
from spear_spec.acoustic.unit.vocoder import UnitVocoder, drive_for, initial_phase
from spear_spec.errors import ConfigError
from spear_spec.kernels import native
from spear_spec.voice.bundle import open_voice
from spear_spec.voice.parts import load_parts
from tests.acoustic.test_native_vocoder import SHAPES, apart, even, made, seeded, tokens

RATES = [0.5, 0.75, 0.83, 1.1, 1.25, 1.5, 2.0]
PAIRS = [*zip(SHAPES, [0.83, 2.0, 0.5, 1.5], strict=True), *zip(SHAPES[:3], [2.0, 0.5, 1.5], strict=True)]
CUTS = ([1] * 75, [8] * 9 + [3], [33, 0, 42], [64, 11], [75])


@pytest.fixture(autouse=True)
def _switched_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(native.SWITCH, raising=False)


def counted(count: int, rate: float) -> int:
    """count / rate rounded, halves upwards, without floating point."""
    return math.floor(Fraction(count) / Fraction(rate) + Fraction(1, 2))


def read(frames: Tensor, rate: float) -> Tensor:
    """[1, F, ...] frame by frame."""
    rows, last = [], frames.shape[1] - 1
    for number in range(counted(last + 1, rate)):
        place = min(max((number + 0.5) * rate - 0.5, 0.0), float(last))
        before = math.floor(place)
        share = place - before
        rows.append((1 - share) * frames[:, before] + share * frames[:, min(before + 1, last)])
    return torch.stack(rows, 1)


def oracle(model: UnitVocoder, ids: Tensor, rate: float, seed: int = 3) -> Tensor:
    cfg, model, generator = model.cfg, copy.deepcopy(model).double(), seeded(seed)
    start, who = initial_phase(generator), model.vectors(torch.tensor([1]))
    noise = [
        torch.randn(cfg.hop * (counted(end, rate) - counted(end - cfg.frames_per_token, rate)), generator=generator)
        for end in range(cfg.frames_per_token, (len(ids) + 1) * cfg.frames_per_token, cfg.frames_per_token)
    ]
    with torch.inference_mode():
        hidden, raw = model.encode(ids[None], who)
        prosody = model.read_prosody(raw)
        frames = read(model.decode(hidden, prosody, who), rate)
        driven = drive_for(read(prosody.f0.double(), rate), start, cfg)
        return model.synthesise(frames, driven, torch.cat(noise)[None])[0].float()


def spoken(model: UnitVocoder, ids: Tensor, cuts: list[int], rate: float, kind: type = NativeStream) -> Tensor:
    stream = open_stream(model, 1, seeded(3), rate) if kind is NativeStream else kind(model, 1, seeded(3), rate)
    assert isinstance(stream, kind), native.reason()
    return torch.cat([*(stream.push(piece) for piece in ids.split(cuts)), stream.finish()])


def test_frames_are_counted_by_their_number_alone() -> None:
    for rate in [*RATES, 1.0, 1 / 3 + 0.5, 0.9999]:
        assert [frames_at(n, rate) for n in range(400)] == [counted(n, rate) for n in range(400)]


@pytest.mark.parametrize("rate", RATES)
def test_frames_are_read_as_by_a_loop_however_they_come(rate: float) -> None:
    frames = torch.randn(1, 61, 3, dtype=torch.float64)
    whole = at_rate(frames, rate)
    assert whole.shape == (1, counted(61, rate), 3)
    assert float((whole - read(frames, rate)).abs().max()) < 1e-12
    for size in (1, 2, 7, 61):
        stream = RateStream(rate)
        pieces = [stream.push(piece) for piece in frames.split(size, 1)]
        known = sum(piece.shape[1] for piece in pieces)
        assert known >= counted(60, rate) - 1  # all but what lies beyond the last
        assert torch.equal(torch.cat([*pieces, stream.push(frames[:, :0], last=True)], 1), whole)


def test_rate_1_is_not_touched() -> None:
    frames = torch.randn(1, 9, 3)
    assert RateStream(1.0).push(frames) is frames


@pytest.mark.parametrize(("shape", "rate"), PAIRS)
def test_equals_explicit_loops_in_double_precision(shape: dict[str, object], rate: float) -> None:
    model, ids = made(shape), tokens(50)
    wide = oracle(model, ids, rate)
    assert len(wide) == model.cfg.hop * counted(50 * model.cfg.frames_per_token, rate)
    # bounds of `test_native_vocoder`; half the speed is twice the phase to add up
    assert apart(render(model, ids, 1, seeded(3), rate), wide) < 6e-3
    assert apart(render_in_torch(model, ids, 1, seeded(3), rate), wide) < 6e-3
    model = even(model)
    wide = oracle(model, ids, rate)
    assert apart(render(model, ids, 1, seeded(3), rate), wide) < 2e-6
    assert apart(render_in_torch(model, ids, 1, seeded(3), rate), wide) < 2e-6


@pytest.mark.parametrize(("shape", "rate"), PAIRS)
def test_any_cut_gives_the_same_bits(shape: dict[str, object], rate: float) -> None:
    model, ids = made(shape), tokens(75, 1)
    whole = render(model, ids, 1, seeded(3), rate)
    for cuts in CUTS:
        assert torch.equal(spoken(model, ids, cuts, rate), whole)
    for count in (1, 2, 5):
        few = spoken(model, ids[:count], [count], rate)
        assert len(few) == model.cfg.hop * counted(count * model.cfg.frames_per_token, rate)
        assert torch.equal(few, spoken(model, ids[:count], [1] * count, rate))
        assert apart(few, oracle(model, ids[:count], rate)) < 3e-3


@pytest.mark.parametrize("rate", [0.5, 1.1, 2.0])
def test_any_cut_gives_the_same_on_torch(rate: float) -> None:
    """In float64 only the float32 sine of the pulses is left."""
    model, ids = made(SHAPES[0]).double(), tokens(75, 1)
    whole = render_in_torch(model, ids, 1, seeded(3), rate)
    for cuts in CUTS:
        assert float((spoken(model, ids, cuts, rate, VocoderStream) - whole).abs().max()) < 2e-6


@pytest.mark.parametrize("rate", RATES)
def test_samples_come_as_early_as_the_lookahead_allows(rate: float) -> None:
    model = made(SHAPES[0])
    cfg = model.cfg
    stream, other = open_stream(model, 0, seeded(0), rate), VocoderStream(model, 0, seeded(0), rate)
    out = 0
    for count, token in enumerate(tokens(30).split(1), 1):
        came = len(stream.push(token))
        out += came
        assert came == len(other.push(token))
        assert out >= cfg.hop * frames_at(max(0, count - cfg.lookahead - 1) * cfg.frames_per_token, rate)
        assert out <= cfg.hop * frames_at(count * cfg.frames_per_token, rate)
    assert len(stream.finish()) == len(other.finish())


def test_noise_belongs_to_the_token() -> None:
    cfg = made(SHAPES[0]).cfg
    sizes = cfg.token_samples_at(1.3, 0, 9)
    assert sizes == cfg.token_samples_at(1.3, 0, 4) + cfg.token_samples_at(1.3, 4, 5)
    assert sum(sizes) == cfg.hop * counted(9 * cfg.frames_per_token, 1.3) and set(sizes) == {720, 960}
    whole, generator = token_noise(seeded(1), sizes), seeded(1)
    assert torch.equal(whole, torch.cat([token_noise(generator, sizes[:4]), token_noise(generator, sizes[4:])]))


@pytest.mark.parametrize("rate", [0.49, 2.01, 0, -1, float("nan"), float("inf"), "1", True, None])
def test_what_is_no_rate_is_refused(rate: object) -> None:
    stage = UnitStage(made(SHAPES[1]), ["one", "two", "three"])
    calls: list[Callable[[], object]] = [
        lambda: stage.open("one", rate),  # type: ignore[arg-type]
        lambda: stage.render(tokens(3), "one", None, rate),  # type: ignore[arg-type]
    ]
    for call in calls:
        with pytest.raises(ConfigError, match=r"rate must lie in 0\.5 to 2"):
            call()


def period(samples: np.ndarray) -> float:
    """Of a steady sound, in samples: the best peak of its autocorrelation, between the samples by a parabola."""
    samples = samples - samples.mean()
    found = np.fft.irfft(np.abs(np.fft.rfft(samples, 2 * len(samples))) ** 2)[:700]
    best = 40 + int(np.argmax(found[40:]))
    left, top, right = found[best - 1 : best + 2]
    return best + 0.5 * (left - right) / (left - 2 * top + right)


VOWEL = 1001  # a token that sounds voiced and steady when it is held


@lru_cache
def shipped() -> UnitVocoder:
    stage = load_parts(open_voice(None), torch.device("cpu"), torch.float32)[2]
    assert isinstance(stage, UnitStage)
    return stage.module


@pytest.mark.parametrize("rate", [0.5, 0.75, 1.25, 1.5, 2.0])
def test_the_pitch_of_a_steady_vowel_is_kept(rate: float) -> None:
    vocoder = shipped()
    ids = torch.full((60,), VOWEL)
    own, other = (render(vocoder, ids, 0, seeded(1), r).numpy() for r in (1.0, rate))
    assert len(other) == 240 * counted(240, rate)
    middle = [x[len(x) // 4 : -len(x) // 4] for x in (own, other)]
    assert 60 < 24000 / period(middle[0]) < 400
    assert period(middle[1]) == pytest.approx(period(middle[0]), rel=0.02)
