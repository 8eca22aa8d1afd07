"""The vocoder in C against the torch form in float64, and against itself however the tokens are cut.

The kernel is a part of every build that has a compiler, so nothing here is skipped where it is missing: it fails.
"""

from __future__ import annotations

import copy
import gc
import weakref
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
import torch
from torch import Tensor, nn

from spear_spec.acoustic.unit import native as unit_native
from spear_spec.acoustic.unit.native import NativeStream, fits, native_for
from spear_spec.acoustic.unit.stage import open_stream, render, render_in_torch
from spear_spec.acoustic.unit.streaming import VocoderStream
from spear_spec.acoustic.unit.vocoder import UnitVocoder, VocoderConfig
from spear_spec.errors import AudioError, ContractError, NumericsError
from spear_spec.kernels import native

IDS = 40
# the last is the shipped voice's but for its depth
SHAPES = [
    {"dim": 48, "prosody_dim": 32, "token_right": (2, 1), "prosody_right": (1,), "frame_right": (1, 0, 2)},
    {"dim": 16, "prosody_dim": 48, "token_right": (0,), "prosody_right": (), "frame_right": (0,), "kernel": 5}
    | {"hop": 50, "n_fft": 300, "frames_per_token": 3, "expansion": 3, "num_speakers": 3},
    {"dim": 32, "prosody_dim": 16, "token_right": (4,), "prosody_right": (4, 0), "frame_right": (4, 4), "kernel": 5}
    | {"hop": 18, "n_fft": 324, "frames_per_token": 1, "sample_rate": 8000},
    {"dim": 384, "prosody_dim": 256, "token_right": (2,), "prosody_right": (1,), "frame_right": (1, 1)},
]


def made(shape: dict[str, object], seed: int = 0) -> UnitVocoder:
    """A vocoder in which every weight matters: no gain is 1, no bias 0."""
    torch.manual_seed(seed)
    model = UnitVocoder(VocoderConfig(num_semantic_token_ids=IDS, **shape)).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if not name.startswith("head.out"):
                weight.add_(0.1 * torch.randn_like(weight))
        model.head.out.weight.add_(0.02 * torch.randn_like(model.head.out.weight))
        model.prosody_out.weight.mul_(0.1)
        if model.cfg.dim % 32 == 0:  # as in a voice's file
            for weight in model.parameters():
                weight.copy_(weight.half())
        model.head.out.bias[: model.head.bins] -= torch.linspace(0, 6, model.head.bins)
    return model


def even(model: UnitVocoder) -> UnitVocoder:
    """With F0 at its floor: its rounding, integrated into a phase, would hide everything else."""
    count = model.cfg.frames_per_token
    with torch.no_grad():
        model.prosody_out.bias[count : 2 * count] -= 100
    return model


def tokens(count: int, seed: int = 0) -> Tensor:
    return torch.randint(0, IDS, (count,), generator=torch.Generator().manual_seed(seed))


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def spoken(model: UnitVocoder, ids: Tensor, cuts: list[int], speaker: int = 0, seed: int = 3) -> Tensor:
    stream = open_stream(model, speaker, seeded(seed))
    assert isinstance(stream, NativeStream), native.reason()
    return torch.cat([*(stream.push(piece) for piece in ids.split(cuts)), stream.finish()])


def oracle(model: UnitVocoder, ids: Tensor, speaker: int = 0, seed: int = 3) -> Tensor:
    return render_in_torch(copy.deepcopy(model).double(), ids, speaker, seeded(seed))


def apart(found: Tensor, expected: Tensor) -> float:
    assert found.shape == expected.shape
    return float((found - expected).abs().max() / expected.abs().max())


@pytest.fixture(autouse=True)
def _switched_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(native.SWITCH, raising=False)


@pytest.mark.parametrize("shape", SHAPES)
def test_equals_torch_in_double_precision(shape: dict[str, object]) -> None:
    model = made(shape)
    ids, who = tokens(50), model.cfg.num_speakers - 1
    wide = oracle(model, ids, who)
    assert float(wide.abs().max()) > 0.01
    # a last bit of F0 adds up along the phase, and the highest of a hundred harmonics turns a hundred times as far
    assert apart(render(model, ids, who, seeded(3)), wide) < 3e-3
    model = even(model)
    assert apart(render(model, ids, who, seeded(3)), oracle(model, ids, who)) < 2e-6


@pytest.mark.parametrize("shape", SHAPES)
def test_any_cut_gives_the_same_bits(shape: dict[str, object]) -> None:
    model = made(shape)
    ids = tokens(75, 1)
    whole = render(model, ids, 0, seeded(3))
    for cuts in ([1] * 75, [8] * 9 + [3], [33, 0, 42], [64, 11], [75]):
        assert torch.equal(spoken(model, ids, cuts), whole)
    for count in (1, 2, 5):
        assert torch.equal(spoken(model, ids[:count], [count]), spoken(model, ids[:count], [1] * count))
        assert apart(spoken(model, ids[:count], [count]), oracle(model, ids[:count])) < 3e-3


def test_samples_come_as_early_as_the_lookahead_allows() -> None:
    model = made(SHAPES[0])
    stream, other = open_stream(model, 0, seeded(0)), VocoderStream(model, 0, seeded(0))
    for token in tokens(30).split(1):
        assert len(stream.push(token)) == len(other.push(token))
    assert len(stream.finish()) == len(other.finish())


def test_a_head_that_turns_far_and_swells() -> None:
    """Angles of thousands of turns, magnitudes beyond the clamp, swells from -1 to 1."""
    model = even(made(SHAPES[0]))
    with torch.no_grad():
        weight, bins = model.head.out.weight, model.head.bins
        model.head.out.bias[bins : 2 * bins] += torch.linspace(-3e4, 3e4, bins).round()
        weight[bins : 2 * bins].mul_(1e-3)
        weight[:bins].mul_(5)
        weight[2 * bins : 3 * bins].mul_(20)
        weight[3 * bins :].normal_(std=0.5, generator=seeded(1))
    ids = tokens(20)
    # the oracle's angle is rounded to float32 too: 3e4 leaves it 2e-3
    assert apart(spoken(model, ids, [20]), render_in_torch(model, ids, 0, seeded(3))) < 5e-3
    with torch.no_grad():
        model.head.out.bias[bins : 2 * bins] = torch.linspace(-60, 60, bins)
    assert apart(spoken(model, ids, [20]), oracle(model, ids)) < 5e-5


def test_every_weight_is_seen_when_it_changes() -> None:
    model = made(SHAPES[0])
    ids = tokens(12)
    before = spoken(model, ids, [12])
    for name, weight in model.named_parameters():
        with torch.no_grad():
            kept = weight.clone()
            weight.add_(0.3 * torch.randn(weight.shape, generator=seeded(1)))
            if name == "token_embedding.weight":
                weight.add_(1)
            changed = spoken(model, ids, [12])
            assert not torch.equal(changed, before), name
            assert apart(changed, render_in_torch(model, ids, 0, seeded(3))) < 3e-3, name
            weight.copy_(kept)
    assert torch.equal(spoken(model, ids, [12]), before)
    other = made(SHAPES[0], seed=1)
    model.head.out = other.head.out
    assert apart(spoken(model, ids, [12]), oracle(model, ids)) < 3e-3
    model.load_state_dict(other.state_dict())
    assert torch.equal(spoken(model, ids, [12]), spoken(other, ids, [12]))


def test_packs_once_and_keeps_no_voice_alive() -> None:
    gc.collect()
    model, count = made(SHAPES[1]), len(unit_native._PLANS)
    kernel = native_for(model)
    assert kernel is not None and native_for(model) is kernel
    gone = [weakref.ref(x) for x in (model, kernel, model.head.out.weight)]
    del model, kernel
    gc.collect()
    assert [x() for x in gone] == [None] * 3 and len(unit_native._PLANS) == count


def test_a_stream_keeps_the_weights_it_began_with() -> None:
    model = made(SHAPES[0])
    ids = tokens(20)
    whole = spoken(model, ids, [20])
    stream = open_stream(model, 0, seeded(3))
    first = stream.push(ids[:10])
    with torch.no_grad():
        for weight in model.parameters():
            weight.zero_()
    assert not torch.equal(spoken(model, ids, [20]), whole)
    assert torch.equal(torch.cat([first, stream.push(ids[10:]), stream.finish()]), whole)


def test_threads_share_the_weights() -> None:
    model = made(SHAPES[3])
    texts = [tokens(60, seed) for seed in range(4)]
    alone = [spoken(model, ids, [60]) for ids in texts]
    with torch.no_grad():
        model.head.norm.bias.add_(0)  # packed anew, by whoever comes first
    start = Barrier(4)

    def speak(ids: Tensor) -> Tensor:
        start.wait()
        return spoken(model, ids, [7] * 8 + [4])

    with ThreadPoolExecutor(4) as pool:
        for found, expected in zip(pool.map(speak, texts), alone, strict=True):
            assert torch.equal(found, expected)


def test_torch_takes_what_the_kernel_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    assert native_for(made(SHAPES[0]).double()) is None
    assert native_for(made(SHAPES[0]).to("meta")) is None
    for change in ({"dim": 40}, {"prosody_dim": 24}, {"hop": 14, "n_fft": 84}):
        model = made(SHAPES[0] | change)
        assert not fits(model.cfg) and native_for(model) is None
        assert isinstance(open_stream(model, 0, seeded(0)), VocoderStream)
    with torch.inference_mode():
        assert native_for(made(SHAPES[0])) is None
    model = made(SHAPES[0])
    whole = render(model, tokens(9), 0, seeded(3))
    monkeypatch.setenv(native.SWITCH, "0")
    assert native_for(model) is None and isinstance(open_stream(model, 0, seeded(0)), VocoderStream)
    again = render(model, tokens(9), 0, seeded(3))
    assert torch.equal(again, render_in_torch(model, tokens(9), 0, seeded(3))) and apart(whole, again) < 3e-3


def test_weights_that_do_not_fit_their_shape_never_reach_the_kernel() -> None:
    model = made(SHAPES[0])
    model.upsample = nn.Linear(48, 48)
    with pytest.raises(ContractError, match=r"\[48, 48\]"):
        native_for(model)


def test_damage_and_misuse() -> None:
    model = made(SHAPES[0])
    for ids in (torch.tensor([0, IDS]), torch.tensor([-1]), torch.tensor([1.0]), torch.tensor([[1]])):
        with pytest.raises(AudioError):
            open_stream(model, 0, seeded(0)).push(ids)
    with pytest.raises(AudioError):
        open_stream(model, 2, seeded(0))
    stream = open_stream(model, 0, seeded(0))
    assert stream.push(tokens(0)).shape == (0,) and stream.finish().shape == (0,)
    with pytest.raises(AudioError):
        stream.push(tokens(1))
    for damage in (float("nan"), float("inf")):
        broken = made(SHAPES[0])
        with torch.no_grad():
            broken.upsample.weight[0, 0] = damage
        with pytest.raises(NumericsError, match="damaged"):
            render(broken, tokens(5))


@pytest.mark.parametrize("shape", SHAPES[:3])
def test_a_rounded_vocoder_is_near_and_the_same_however_tokens_are_cut(shape: dict[str, object]) -> None:
    """Products of 8 by 16 bits: some percent of the sound apart, and bit for bit the same in one push and in many."""
    model = even(made(shape))
    tokens = torch.randint(0, IDS, (75,), generator=torch.Generator().manual_seed(4))
    plain = render(model, tokens, generator=torch.Generator().manual_seed(5))
    whole = render(model, tokens, generator=torch.Generator().manual_seed(5), rounded=True)
    apart = float((whole - plain).norm() / plain.norm())
    assert 1e-5 < apart < 0.1
    for sizes in ((1,) * 75, (40, 3, 32)):
        stream = open_stream(model, 0, torch.Generator().manual_seed(5), rounded=True)
        cut = torch.cat([*(stream.push(part) for part in tokens.split(list(sizes))), stream.finish()])
        assert torch.equal(cut, whole)
    assert torch.equal(render(model, tokens, generator=torch.Generator().manual_seed(5)), plain)
