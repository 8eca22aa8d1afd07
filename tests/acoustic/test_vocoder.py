"""Shapes, determinism, streaming on torch against the whole form, the head against torch.istft, and what is refused."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
import torch

from spear_spec.acoustic.contract import AcousticStage
from spear_spec.acoustic.unit.stage import UnitStage, render, render_in_torch
from spear_spec.acoustic.unit.streaming import VocoderStream
from spear_spec.acoustic.unit.vocoder import ContextBlock, UnitVocoder, VocoderConfig, depthwise
from spear_spec.errors import AudioError, ConfigError, NumericsError, SpearSpecError

SMALL = VocoderConfig(
    num_semantic_token_ids=40, dim=48, prosody_dim=32, token_right=(2, 1), prosody_right=(1,), frame_right=(1, 0, 2)
)


@pytest.fixture(scope="module")
def model() -> UnitVocoder:
    torch.manual_seed(0)
    model = UnitVocoder(SMALL).eval()
    with torch.no_grad():
        model.prosody_out.weight.mul_(3)  # F0 that moves
        # Speech falls off towards high frequencies; a flat spectrum would only amplify the rounding of the phase.
        model.head.out.bias[: model.head.bins] -= torch.linspace(0, 6, model.head.bins)
    return model


def tokens(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 40, (count,), generator=torch.Generator().manual_seed(seed))


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def streamed(model: UnitVocoder, pieces: Iterable[torch.Tensor], speaker: int, seed: int) -> list[torch.Tensor]:
    """The samples of each push, and of the end."""
    state = VocoderStream(model, speaker, seeded(seed))
    return [*(state.push(piece) for piece in pieces), state.finish()]


def test_is_an_acoustic_stage(model: UnitVocoder) -> None:
    stage = UnitStage(model, ["one", "two"])
    assert isinstance(stage, AcousticStage)
    assert stage.sample_rate == 24000 and stage.lookahead == SMALL.lookahead and stage.module is model
    ids = tokens(9)
    stream = stage.open("two", generator=seeded(3))
    whole = stage.render(ids, "two", seeded(3))
    assert torch.equal(whole, render(model, ids, 1, seeded(3)))
    assert float((torch.cat([stream.push(ids), stream.finish()]) - whole).abs().max()) < 1e-4
    for refused in (lambda: stage.open("three"), lambda: stage.open("one", rate=2.5), lambda: stage.render(ids, "")):
        with pytest.raises(ConfigError):
            refused()


def test_length_determinism_and_speakers(model: UnitVocoder) -> None:
    ids = tokens(11)
    first = render(model, ids, 0, seeded(4))
    assert first.shape == (11 * 960,) and first.dtype == torch.float32
    assert torch.equal(first, render(model, ids, 0, seeded(4)))
    assert not torch.equal(first, render(model, ids, 0, seeded(5)))
    assert not torch.allclose(first, render(model, ids, 1, seeded(4)), atol=1e-3)
    assert render(model, ids[:0]).shape == (0,)
    assert render(model, ids[:1]).shape == (960,)


@pytest.mark.parametrize("sizes", [[1] * 40, [3] * 13 + [1], [7, 0, 20, 1, 12], [40]])
def test_streaming_equals_the_whole(model: UnitVocoder, sizes: list[int]) -> None:
    ids = tokens(40)
    whole = render_in_torch(model, ids, 1, seeded(9))
    pieces = streamed(model, iter(ids.split(sizes)), 1, 9)
    assert torch.cat(pieces).shape == whole.shape
    assert float((torch.cat(pieces) - whole).abs().max()) < 1e-4
    assert float(whole.abs().max()) > 0.05


def test_streaming_is_exact_in_double_precision() -> None:
    """What is left in float32 is rounding alone: with float64 layers only the float32 sine remains."""
    torch.manual_seed(1)
    model = UnitVocoder(SMALL).eval().double()
    ids = tokens(30, 2)
    whole = render_in_torch(model, ids, 0, seeded(1))
    pieces = torch.cat(streamed(model, ids.split(4), 0, 1))
    assert float((pieces - whole).abs().max()) < 2e-6


def test_the_lookahead_is_the_one_declared(model: UnitVocoder) -> None:
    """Samples of the first n - lookahead tokens are out after n tokens, and do not depend on what comes after."""
    ids = tokens(40)
    state = VocoderStream(model, 0, seeded(2))
    out = 0
    for count, token in enumerate(ids.split(1), start=1):
        out += len(state.push(token))
        assert out >= (count - SMALL.lookahead) * 960
    assert out + len(state.finish()) == 40 * 960
    cut = 20
    other = ids.clone()
    other[cut:] = (other[cut:] + 1) % 40
    same, changed = render(model, ids, 0, seeded(2)), render(model, other, 0, seeded(2))
    final = (cut - SMALL.lookahead) * 960
    assert torch.allclose(same[:final], changed[:final], atol=1e-5)
    assert not torch.allclose(same[final : final + 4 * 960], changed[final : final + 4 * 960], atol=1e-5)


def test_empty_and_finished_streams(model: UnitVocoder) -> None:
    state = VocoderStream(model, 0, seeded(0))
    assert state.finish().numel() == 0
    with pytest.raises(AudioError):
        state.push(tokens(1))


def test_overlap_add_equals_torch_istft(model: UnitVocoder) -> None:
    head, cfg = model.head, model.cfg
    spectrum = torch.randn(2, head.bins, 25, dtype=torch.complex64, generator=torch.Generator().manual_seed(3))
    spectrum[:, 0].imag.zero_()
    spectrum[:, -1].imag.zero_()
    frames = torch.fft.irfft(spectrum.transpose(1, 2), n=cfg.n_fft) * head.window
    ours = head.overlap_add(frames)
    reference = torch.istft(spectrum, cfg.n_fft, cfg.hop, window=head.window, center=True)
    # torch trims n_fft / 2 at both ends; further in, its window sum is our constant
    middle = ours[:, cfg.n_fft // 2 : -(cfg.n_fft // 2)]
    inside = slice(cfg.n_fft, -cfg.n_fft)
    assert torch.allclose(middle[:, inside], reference[:, inside], atol=1e-5)


def test_an_all_pass_filter_returns_the_excitation(model: UnitVocoder) -> None:
    class Flat(torch.nn.Module):
        weight = model.head.out.weight

        def forward(self, hidden: torch.Tensor) -> torch.Tensor:
            out = torch.zeros(*hidden.shape[:2], 5 * model.head.bins)
            out[..., 2 * model.head.bins : 3 * model.head.bins] = -14.0  # noise off
            return out

    kept = model.head.out
    model.head.out = Flat()  # type: ignore[assignment]
    try:
        driven = torch.randn(1, 3, 10 * 240)
        with torch.no_grad():
            out = model.synthesise(torch.zeros(1, 10, SMALL.dim), driven, torch.zeros(1, 2400))
    finally:
        model.head.out = kept
    assert torch.allclose(out[:, 480:-480], driven[:, 0, 480:-480], atol=1e-5)


def test_depthwise_equals_conv1d_and_its_gradient() -> None:
    padded = torch.randn(2, 20, 5, dtype=torch.float64).float().requires_grad_()
    taps = torch.randn(7, 5).requires_grad_()
    ours = depthwise(padded, taps)
    reference = torch.nn.functional.conv1d(padded.transpose(1, 2), taps.T[:, None], groups=5).transpose(1, 2)
    assert torch.allclose(ours, reference, atol=1e-5)
    weight = torch.randn_like(ours)
    got = torch.autograd.grad((ours * weight).sum(), (padded, taps))
    expected = torch.autograd.grad((reference * weight).sum(), (padded, taps))
    for a, b in zip(got, expected, strict=True):
        assert torch.allclose(a, b, atol=1e-5)
    with torch.no_grad():
        assert torch.allclose(depthwise(padded, taps), reference, atol=1e-5)


def test_a_block_sees_only_its_context() -> None:
    block = ContextBlock(8, 2, 7, right=2, depth=1)
    x = torch.randn(1, 30, 8)
    y = x.clone()
    y[:, 15] += 1.0
    with torch.no_grad():
        changed = (block(x) - block(y)).abs().amax(-1)[0] > 1e-7
    assert changed.nonzero().flatten().tolist() == list(range(13, 20))


@pytest.mark.parametrize(
    ("ids", "speaker"),
    [
        (torch.tensor([0, 40]), 0),
        (torch.tensor([-1]), 0),
        (torch.tensor([1.0]), 0),
        (torch.tensor([[1, 2]]), 0),
        (torch.tensor([1]), 2),
        (torch.tensor([1]), -1),
    ],
)
def test_bad_tokens_and_speakers_are_refused(model: UnitVocoder, ids: torch.Tensor, speaker: int) -> None:
    with pytest.raises(AudioError):
        render(model, ids, speaker)
    with pytest.raises(AudioError):
        VocoderStream(model, speaker, seeded(0)).push(ids)


def test_damaged_weights_are_noticed() -> None:
    model = UnitVocoder(SMALL).eval()
    with torch.no_grad():
        model.upsample.weight[0, 0] = float("nan")
    with pytest.raises(NumericsError):
        render(model, tokens(5))
    with pytest.raises(NumericsError):
        streamed(model, [tokens(30)], 0, 0)


def test_configuration_round_trip_and_refusals() -> None:
    assert VocoderConfig.from_dict(SMALL.to_dict()) == SMALL
    for wrong in ({"hop": 241}, {"n_fft": 700}, {"token_right": [9]}, {"dim": 0}, {"f0_floor": 900.0}, {"bogus": 1}):
        with pytest.raises(ConfigError):
            VocoderConfig.from_dict(SMALL.to_dict() | wrong)
    assert issubclass(AudioError, SpearSpecError)


def test_the_shipped_size_fits() -> None:
    size = sum(p.numel() for p in UnitVocoder(VocoderConfig()).parameters())
    assert size <= 8_500_000
    assert VocoderConfig().lookahead <= 12
