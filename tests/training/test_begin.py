"""A transformer and a vocoder that go on from a voice of other speakers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from spear_spec.acoustic.unit.vocoder import UnitVocoder, VocoderConfig
from spear_spec.config import T2SConfig
from spear_spec.errors import BundleError, ConfigError
from spear_spec.models.spear_tts import TextToSemantic
from spear_spec.text import PhonemeTokenizer
from spear_spec.text.symbols import SYMBOLS, speaker_symbol
from spear_spec.training.t2s.begin import begin_with, same_alphabet
from spear_spec.training.vocoder.begin import begin_with as begin_vocoder
from spear_spec.voice.bundle import open_voice


@pytest.fixture(scope="module")
def voice():  # type: ignore[no-untyped-def]
    return open_voice("kokoro-duo")


def model_for(front: PhonemeTokenizer, **other: int) -> TextToSemantic:
    shape = open_voice("kokoro-duo").config.t2s
    return TextToSemantic(T2SConfig.from_dict({**shape, "num_text_token_ids": len(front.vocab), **other}))


def test_known_speakers_keep_their_rows_and_new_ones_begin_as_the_mean(voice) -> None:  # type: ignore[no-untyped-def]
    """Who is known stands elsewhere in the alphabet now; what they say stays the same to the last bit."""
    front = PhonemeTokenizer(["1034", "am_michael", "84"])
    model = model_for(front)
    begin_with(model, voice, front)
    theirs, there = voice.tensors("t2s"), list(voice.config.text["symbols"])
    old, new = theirs["text_emb.weight"].float(), model.state_dict()["text_emb.weight"]
    assert len(new) == len(front.vocab) + 1 == len(old) + 1

    def row(name: str) -> torch.Tensor:
        return old[there.index(speaker_symbol(name))]

    mean = (row("af_heart") + row("am_michael")) / 2
    assert torch.equal(new[: len(SYMBOLS)], old[: len(SYMBOLS)])
    assert torch.equal(new[front.vocab.index(speaker_symbol("am_michael"))], row("am_michael"))
    assert all(torch.allclose(new[front.vocab.index(speaker_symbol(name))], mean) for name in ("1034", "84"))
    assert torch.equal(new[len(front.vocab)], old[len(there)])  # the end of the text
    for name, tensor in model.state_dict().items():
        if name != "text_emb.weight":
            assert torch.equal(tensor, theirs[name].float()), name
    before = model_for(PhonemeTokenizer(voice.config.speakers))
    begin_with(before, voice)
    said = []
    for which, alphabet in ((before, PhonemeTokenizer(voice.config.speakers)), (model, front)):
        memory = which.eval().encode(torch.tensor([which.text(alphabet.encode_phonemes("hˈəlO", "am_michael"))]))
        said.append(which.logits(which(torch.tensor([[which.start_id, 3, 5]]), memory).hidden))
    assert torch.equal(said[0], said[1])
    assert all(p.requires_grad for p in model.parameters())


def test_with_the_same_speakers_it_is_a_copy(voice) -> None:  # type: ignore[no-untyped-def]
    front = PhonemeTokenizer(voice.config.speakers)
    model = model_for(front)
    begin_with(model, voice, front)
    for name, tensor in voice.tensors("t2s").items():
        assert torch.equal(model.state_dict()[name], tensor.float()), name
    assert model.training


def test_what_is_drawn_next_does_not_depend_on_it(voice) -> None:  # type: ignore[no-untyped-def]
    front = PhonemeTokenizer(["x"])
    model = model_for(front)
    torch.manual_seed(1)
    wanted = torch.rand(3)
    torch.manual_seed(1)
    begin_with(model, voice, front)
    assert torch.equal(torch.rand(3), wanted)


def test_another_alphabet_or_shape_is_an_error(voice, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    swapped = [SYMBOLS[0], SYMBOLS[2], SYMBOLS[1], *SYMBOLS[3:], speaker_symbol("x")]
    other = PhonemeTokenizer(["x"], swapped)
    with pytest.raises(ConfigError, match="'kokoro-duo' has another alphabet of phonemes"):
        same_alphabet(voice, other, "kokoro-duo")
    with pytest.raises(ConfigError, match="another alphabet"):
        begin_with(model_for(other), voice, other)
    front = PhonemeTokenizer(["x"])
    with pytest.raises(BundleError, match="shape"):
        begin_with(model_for(front, dim=128), voice, front)


def test_a_vocoder_of_other_speakers(voice) -> None:  # type: ignore[no-untyped-def]
    shape, names = voice.config.vocoder, ["1034", "am_michael", "84"]
    model = UnitVocoder(VocoderConfig.from_dict({**shape, "num_speakers": 3}))
    begin_vocoder(model, voice, names)
    theirs, known = voice.tensors("vocoder"), list(voice.config.speakers)
    for name, tensor in model.state_dict().items():
        old = theirs[name].float()
        if name in ("speaker_embedding.weight", "frame_speaker.weight"):
            assert torch.equal(tensor[1], old[known.index("am_michael")]), name
            assert torch.allclose(tensor[0], old.mean(0)) and torch.equal(tensor[0], tensor[2]), name
        else:
            assert torch.equal(tensor, old), name
    same = UnitVocoder(VocoderConfig.from_dict(shape))
    begin_vocoder(same, voice, known)
    assert all(torch.equal(tensor, theirs[name].float()) for name, tensor in same.state_dict().items())
    with pytest.raises(BundleError, match="shape"):
        begin_vocoder(UnitVocoder(VocoderConfig.from_dict({**shape, "num_speakers": 3, "dim": 64})), voice, names)
