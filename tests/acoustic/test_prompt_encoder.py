"""A speaker as a vector: rows of the tables bit for bit, what is heard in a prompt, streams of it, what is refused."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from spear_spec.acoustic.contract import Heard
from spear_spec.acoustic.unit.native import NativeStream, native_for
from spear_spec.acoustic.unit.prompt import PromptConfig, PromptEncoder, listen
from spear_spec.acoustic.unit.stage import HearingStage, UnitStage, render, render_in_torch
from spear_spec.acoustic.unit.streaming import VocoderStream
from spear_spec.acoustic.unit.vocoder import Prosody, UnitVocoder, VocoderConfig
from spear_spec.config import ConfigError
from spear_spec.errors import AudioError

VOCODER = VocoderConfig(
    num_semantic_token_ids=40, dim=48, prosody_dim=32, token_right=(2, 1), prosody_right=(1,), frame_right=(1, 0, 2)
)
PROMPT = PromptConfig(vector=96, dim=32, blocks=2, attention=16, embedding=24)
NAMES = ("one", "two")


@pytest.fixture(scope="module")
def model() -> UnitVocoder:
    torch.manual_seed(0)
    model = UnitVocoder(VOCODER).eval()
    with torch.no_grad():
        model.head.out.bias[: model.head.bins] -= torch.linspace(0, 6, model.head.bins)
    return model


@pytest.fixture(scope="module")
def encoder() -> PromptEncoder:
    torch.manual_seed(1)
    return PromptEncoder(PROMPT).eval()


@pytest.fixture(scope="module")
def stage(model: UnitVocoder, encoder: PromptEncoder) -> HearingStage:
    return HearingStage(model, NAMES, encoder)


def speech(seconds: float, pitch: float = 140.0, rate: int = 24000, seed: int = 0) -> Tensor:
    """Harmonics that swell, with a pause and a little noise."""
    chance = torch.Generator().manual_seed(seed)
    t = torch.arange(int(seconds * rate)) / rate
    wave = sum(torch.cos(2 * math.pi * h * pitch * t + h) / h for h in range(1, 12))
    swell = (0.1 + torch.sin(9 * t).square()) * (torch.sin(2.5 * t) > -0.6)
    return 0.1 * wave * swell + 1e-3 * torch.randn(len(t), generator=chance)


def ids(count: int = 50) -> Tensor:
    return torch.randint(0, 40, (count,), generator=torch.Generator().manual_seed(7))


def seeded(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_a_vector_is_a_row_of_either_table(model: UnitVocoder) -> None:
    """The tables' own formula, written out: what was looked up is added as it always was."""
    who = torch.tensor([1, 0])
    vectors = model.vectors(who)
    assert vectors.shape == (2, 96)
    tokens = ids(12).reshape(2, 6)
    table = model.token_norm(model.token_embedding(tokens) + model.speaker_embedding(who)[:, None])
    assert torch.equal(model.embed(tokens, vectors), table)
    frames, curve = torch.randn(2, 5, 48), torch.rand(2, 5)
    prosody = Prosody(curve, 100 + 50 * curve, curve - 4)
    pitch = (torch.log(prosody.f0) - 5.0) / 0.5
    values = torch.stack([curve, pitch, curve * pitch, (prosody.energy + 5.0) * 0.5], dim=-1)
    table = model.frame_norm(frames + (model.prosody_embedding(values) + model.frame_speaker(who)[:, None]))
    assert torch.equal(model.condition(frames, prosody, vectors), table)


def test_named_speakers_sound_as_their_vectors_do_bit_for_bit(model: UnitVocoder) -> None:
    rows = [model.vectors(torch.tensor([number]))[0] for number in range(2)]
    for number, row in enumerate(rows):
        assert torch.equal(render(model, ids(), number, seeded()), render(model, ids(), row, seeded()))
        in_torch = [render_in_torch(model, ids(), who, seeded()) for who in (number, row)]
        assert torch.equal(*in_torch)
    assert not torch.equal(render(model, ids(), rows[0], seeded()), render(model, ids(), rows[1], seeded()))


def test_both_halves_of_a_vector_count(model: UnitVocoder) -> None:
    """In C as in torch: what is added to the tokens, and what is added to the frames."""
    row = model.vectors(torch.tensor([0]))[0]
    plain = render(model, ids(), row, seeded())
    for half in (slice(0, 48), slice(48, 96)):
        other = row.clone()
        other[half] += torch.linspace(-1, 1, 48)
        native, in_torch = render(model, ids(), other, seeded()), render_in_torch(model, ids(), other, seeded())
        assert float((native - plain).abs().max()) > 1e-3
        assert float((native - in_torch).abs().max()) < 1e-4


def test_streams_of_a_heard_voice_equal_the_whole(stage: HearingStage, model: UnitVocoder) -> None:
    heard = stage.prompt(speech(2.0), 24000)
    whole = stage.render(ids(), heard, seeded())
    stream = stage.open(heard, generator=seeded())
    assert isinstance(stream, NativeStream) == (native_for(model) is not None)
    pieces = [stream.push(ids()[a:b]) for a, b in ((0, 1), (1, 9), (9, 9), (9, 50))]
    assert torch.equal(torch.cat([*pieces, stream.finish()]), whole)
    torch_stream = VocoderStream(model, heard.value, seeded())
    in_torch = torch.cat([torch_stream.push(ids()[:20]), torch_stream.push(ids()[20:]), torch_stream.finish()])
    assert float((in_torch - render_in_torch(model, ids(), heard.value, seeded())).abs().max()) < 1e-4
    assert not torch.equal(whole, stage.render(ids(), "one", seeded()))


def test_a_prompt_gives_one_vector_whatever_its_level(stage: HearingStage, encoder: PromptEncoder) -> None:
    clip = speech(2.0)
    heard = stage.prompt(clip, 24000)
    assert heard.stage == "unit-vocoder" and heard.value.shape == (96,) and heard.value.dtype == torch.float32
    assert not heard.value.requires_grad and not heard.value.is_inference()
    assert torch.equal(stage.prompt(clip, 24000).value, heard.value)
    for gain in (1e-3, 30.0):
        assert torch.allclose(listen(encoder, gain * clip, 24000), heard.value, atol=1e-4)
        mels, quiet = (encoder.features((scale * clip)[None])[0] for scale in (1.0, gain))
        assert torch.allclose(mels, quiet, atol=1e-3)
    assert not torch.allclose(listen(encoder, speech(2.0, 260.0), 24000), heard.value, atol=1e-2)


def test_a_padded_prompt_equals_an_unpadded_one(encoder: PromptEncoder) -> None:
    clips = [speech(seconds, 100 + 40 * seconds) for seconds in (1.0, 1.37, 2.0)]
    longest = max(map(len, clips))
    batch, mask = torch.randn(3, longest), torch.zeros(3, longest, dtype=torch.bool)
    for row, clip in enumerate(clips):
        batch[row, : len(clip)], mask[row, : len(clip)] = clip, True
    with torch.no_grad():
        vectors = encoder(*encoder.features(batch, mask))
        for clip, vector in zip(clips, vectors, strict=True):
            assert torch.allclose(encoder(*encoder.features(clip[None]))[0], vector, atol=1e-5)


def test_silence_in_a_prompt_is_not_heard(encoder: PromptEncoder) -> None:
    """However much of it there is behind the speech."""
    short, long = (torch.cat([speech(1.5), torch.zeros(count)]) for count in (4800, 48000))
    assert torch.allclose(listen(encoder, long, 24000), listen(encoder, short, 24000), atol=1e-5)


def test_pooling_against_its_formula(encoder: PromptEncoder) -> None:
    """Attentive statistics (Okabe et al. 2018, equations 5 and 6) in float64, frame by frame."""
    mels, heard = encoder.features(speech(0.8)[None])
    seen: list[Tensor] = []
    hook = encoder.norm.register_forward_hook(lambda *args: seen.append(args[2].detach()))
    with torch.no_grad():
        embedding = encoder.embed(mels, heard)[0].double()
        hook.remove()
        x = seen[0][0].double()
        scores = [encoder.weigh(torch.tanh(encoder.attend(frame.float()))).double().exp() for frame in x]
        inside = heard[0, ::2]
        total = sum(s for s, there in zip(scores, inside, strict=True) if there)
        shares = [s / total if there else 0 * s for s, there in zip(scores, inside, strict=True)]
        mean = sum(a * frame for a, frame in zip(shares, x, strict=True))
        square = sum(a * frame * frame for a, frame in zip(shares, x, strict=True))
        raw = encoder.embedding(torch.cat([mean, (square - mean * mean).sqrt()]).float()).double()
    assert torch.allclose(embedding, raw / raw.norm(), atol=1e-4)
    assert float(embedding.norm()) == pytest.approx(1.0, abs=1e-5)


def test_other_rates_are_heard_alike(encoder: PromptEncoder) -> None:
    vector = listen(encoder, speech(2.0), 24000)
    other = listen(encoder, speech(2.0, rate=48000), 48000)
    different = listen(encoder, speech(2.0, 260.0), 24000)
    assert float((other - vector).norm()) < 0.5 * float((different - vector).norm())


def test_an_encoder_begins_at_the_vector_it_is_given() -> None:
    encoder, wanted = PromptEncoder(PROMPT), torch.linspace(-1, 1, 96)
    encoder.begin_at(wanted)
    assert torch.equal(listen(encoder.eval(), speech(1.0), 24000), wanted)


@pytest.mark.parametrize(
    ("clip", "complaint"),
    [
        (torch.zeros(2, 24000), "mono"),
        (torch.zeros(24000, dtype=torch.int16), "float"),
        (speech(0.2), "0.5 s or more, this one has 0.20 s"),
        (torch.zeros(24000), "silent"),
        (torch.full((24000,), float("nan")), "NaN"),
    ],
)
def test_clips_that_are_refused(stage: HearingStage, clip: Tensor, complaint: str) -> None:
    with pytest.raises(AudioError, match=complaint):
        stage.prompt(clip, 24000)


def test_vectors_that_are_refused(stage: HearingStage, model: UnitVocoder) -> None:
    for value in (torch.zeros(95), torch.zeros(96, dtype=torch.int64), torch.full((96,), float("inf"))):
        with pytest.raises(AudioError, match="vector"):
            stage.open(Heard(value, "unit-vocoder"))
        with pytest.raises(AudioError, match="vector"):
            render_in_torch(model, ids(), value, seeded())
    for heard in (Heard(torch.zeros(96), "audiolm"), Heard([0.0] * 96, "unit-vocoder")):
        with pytest.raises(ConfigError, match="means nothing"):
            stage.open(heard)
    assert not hasattr(UnitStage(model, NAMES), "prompt")
    with pytest.raises(ConfigError, match="no speaker"):
        stage.open("three")


@pytest.mark.parametrize(
    "values", [{"vector": 0}, {"mels": 10**6}, {"n_fft": 1023}, {"hop": 2048}, {"gate": -1.0}, {"blocks": True}]
)
def test_shapes_that_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        PromptConfig.from_dict(values)
