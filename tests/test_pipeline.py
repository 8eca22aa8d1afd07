"""From text to samples with the stub voice: the real code of every stage, weights that nobody trained."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from spear_spec import TTS
from spear_spec.acoustic.speaking import sentence_noise
from spear_spec.decoding import DecodeStats, Proposal, Request, Session, Verdict, make_verifier
from spear_spec.decoding.beam import beam_search
from spear_spec.decoding.chance import SENTENCE, SOUND, derive
from spear_spec.errors import ConfigError, DeviceError, NumericsError, SpearSpecError, TextError
from spear_spec.meter import Meter
from spear_spec.text.front_end import PAUSES_S
from spear_spec.text.sentences import Break
from tests.stubs.schemas import check, validator
from tests.stubs.voice import make_voice

TEXT = "The quick brown fox jumps over the lazy dog."
TWO = "It rained for the whole day. Nobody in the town minded it."
PAUSE_S = PAUSES_S[Break.SENTENCE]
TWO_SENTENCES = ["It rained for the whole day.", "Nobody in the town minded it."]


@pytest.fixture(scope="module")
def tts(tmp_path_factory: pytest.TempPathFactory) -> TTS:
    return TTS.load(make_voice(tmp_path_factory.mktemp("voices") / "tiny").path, device="cpu")


def test_synthesize(tts: TTS) -> None:
    audio = tts.synthesize(TEXT)
    assert audio.sample_rate == 24000
    assert audio.samples.dtype == np.float32
    assert np.isfinite(audio.samples).all()
    stats = audio.stats
    assert stats["text"] == TEXT
    check(
        {
            "schema": "say/1",
            "voice": tts.name,
            **tts.describe(),
            "speed": 1.0,
            "beam": None,
            "tuned": None,
            "load_s": 0.0,
            "items": [stats],
        },
        "say/1",
    )
    assert stats["audio_s"] == pytest.approx(audio.seconds, abs=1e-3)
    spoken = stats["tokens"] - (stats["ended"] == "eos")
    assert len(audio.samples) == spoken * tts.stage.module.cfg.token_samples
    assert stats["tokens_per_call"] == pytest.approx(stats["tokens"] / stats["target_calls"], abs=1e-4)
    assert stats["ttfa_s"] > 0
    assert stats["ttfa_s"] < stats["rtf"] * stats["audio_s"] * 1.01
    assert len(stats["acceptance_by_position"]) <= tts.spec.gamma
    assert sum(stats["acceptance_by_position"]) * stats["target_calls"] == pytest.approx(stats["accepted"], abs=0.01)


@pytest.mark.parametrize("drafter", ["small", "none"])
def test_stream_is_synthesize_in_pieces(tts: TTS, drafter: str) -> None:
    arm = tts.using(drafter=drafter)
    chunks = list(arm.stream(TWO, seed=3))
    whole = arm.synthesize(TWO, seed=3).samples
    np.testing.assert_array_equal(np.concatenate([chunk.samples for chunk in chunks]), whole)
    assert [chunk.sentence for chunk in chunks if chunk.ended] == [0, 1]
    assert {chunk.text for chunk in chunks} == set(TWO_SENTENCES)
    assert len(chunks) > 3


def test_streamed_tokens_are_rendered_right(tts: TTS) -> None:
    """The oracle: decode alone, then the vocoder's whole-utterance form with the same noise."""
    [ids] = tts.texts([TEXT], "am_michael")
    [spoken] = tts.decoder.engine().run([Request(ids, seed=derive(5, 0, SENTENCE), sampling=tts.sampling)])
    noise = torch.Generator().manual_seed(derive(5, 0, SOUND) >> 1)
    whole = tts.stage.render(torch.tensor(spoken.speech), "am_michael", noise)
    streamed = tts.synthesize(TEXT, speaker="am_michael", seed=5).samples
    assert len(streamed) == len(whole)
    np.testing.assert_allclose(streamed, whole.numpy(), atol=1e-4 * float(whole.abs().max()))


def test_seed(tts: TTS) -> None:
    one, again, other = (tts.synthesize(TWO, seed=seed).samples for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert len(one) != len(other) or not np.array_equal(one, other)


def test_speakers_differ(tts: TTS) -> None:
    assert tts.speakers == ("af_heart", "am_michael")
    default, heart, michael = (tts.synthesize(TEXT, speaker=who).samples for who in (None, "af_heart", "am_michael"))
    np.testing.assert_array_equal(default, heart)
    assert len(heart) != len(michael) or not np.array_equal(heart, michael)


def test_greedy_with_and_without_speculation(tts: TTS) -> None:
    on = tts.synthesize(TEXT, temperature=0, max_tokens=60)
    off = tts.using(drafter="none").synthesize(TEXT, temperature=0, max_tokens=60)
    np.testing.assert_allclose(on.samples, off.samples, atol=1e-4)
    assert off.stats["tokens_per_call"] == 1
    assert off.stats["drafted"] == 0
    assert on.stats["drafted"] > 0


def test_batch_speaks_the_same_sentences(tts: TTS) -> None:
    audio = tts.synthesize(TWO, batch=8)
    assert list(dict.fromkeys(chunk.text for chunk in tts.stream(TWO, batch=8))) == TWO_SENTENCES
    pause = int(PAUSE_S * 24000)
    ends = 2 if audio.stats["ended"] == "eos" else 0
    assert len(audio.samples) == pause + (audio.stats["tokens"] - ends) * 960


def test_phonemes(tts: TTS) -> None:
    assert tts.front_end.phonemes("It rained all day. Nobody minded.") == "ˌɪt ɹˈAnd ˈɔl dˈA. nˈObˌɑdi mˈIndᵻd."


def test_pause_is_silent(tts: TTS) -> None:
    second = next(chunk for chunk in tts.stream(TWO) if chunk.sentence == 1)
    assert len(second.samples) == int(PAUSE_S * 24000)
    assert not second.samples.any()


def test_long_text_streams_lazily(tts: TTS, monkeypatch: pytest.MonkeyPatch) -> None:
    """A million characters: the first chunk comes after one sentence has been turned into phonemes."""
    encoded = []
    tokenizer = tts.front_end.tokenizer
    phonemes = tokenizer.phonemes
    monkeypatch.setattr(tokenizer, "phonemes", lambda text, *more: encoded.append(text) or phonemes(text, *more))
    chunks = tts.stream("A plain sentence stands here. " * 33_000, max_tokens=8)
    assert len(next(chunks).samples)
    assert len(encoded) == 1


def test_cap_is_reported(tts: TTS, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "spear_spec"):
        found = [tts.synthesize(TEXT, max_tokens=3, seed=seed).stats for seed in range(6)]
    cut = [stats for stats in found if stats["ended"] == "cap"]
    assert cut
    assert all(stats["tokens"] == 3 for stats in cut)
    assert caplog.text.count("cut off after 3 tokens (cap)") == len(cut)


def test_describe(tts: TTS) -> None:
    described = tts.describe(batch=2, seed=9, temperature=0.7)
    assert not list(validator("settings").iter_errors(described))
    assert list(validator("settings").iter_errors({**described, "seed": -1}))
    assert described["sampling"] == {"temperature": 0.7, "top_k": 0, "top_p": 0.95, "guidance": 1.0}
    assert (described["drafter"], described["gamma"], described["lossless"], described["dtype"]) == (
        "small",
        3,
        True,
        "float32",
    )
    plain = tts.using(drafter="none").describe()
    assert (plain["verifier"], plain["gamma"], plain["lossless"]) == (None, 0, True)


def test_a_beam_search_in_place_of_a_draw(tts: TTS) -> None:
    """What is said is what the search finds for each sentence, at any seed, whoever drafts, together or one by one."""
    alone = [
        beam_search(tts.target, [ids], width=3, cap=40, length_penalty=1.0, frame_rate=tts.decoder.frame_rate)[0]
        for ids in tts.texts(TWO_SENTENCES)
    ]
    options = {"beam": 3, "max_tokens": 40, "length_penalty": 1.0}
    for voice, batch, seed in ((tts, 1, 0), (tts.using(drafter="none"), 2, 0), (tts, 2, 7)):
        audio = voice.synthesize(TWO, seed=seed, batch=batch, **options)
        assert audio.stats["tokens"] == sum(len(one.tokens) for one in alone)
        assert audio.stats["target_calls"] == sum(one.calls for one in alone)
        assert audio.stats["drafted"] == 0
        pieces = []
        for index, one in enumerate(alone):
            stream = tts.stage.open(tts.speakers[0], 1.0, sentence_noise(seed, index))
            pieces += [stream.push(torch.tensor(one.speech)), stream.finish()]
        sound = torch.cat(pieces).numpy()
        pause = int(PAUSE_S * tts.sample_rate)
        first = len(alone[0].speech) * tts.stage.module.cfg.token_samples
        assert np.array_equal(audio.samples[:first], sound[:first])
        assert np.array_equal(audio.samples[first + pause :], sound[first:])


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"temperature": 0.5}, "leave temperature out"),
        ({"top_k": 5, "top_p": 0.5, "guidance": 2.0}, "leave top_k, top_p out"),
        ({"complete": True}, "leave complete, best_of out"),
        ({"best_of": 2}, "leave complete, best_of out"),
        ({"length_penalty": -1}, "length_penalty"),
    ],
)
def test_what_does_not_go_with_a_beam(tts: TTS, options: dict, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        tts.stream(TEXT, beam=2, **options)
    with pytest.raises(ConfigError, match="graphs"):
        replace(tts, runtime="graphs").stream(TEXT, beam=2)


def test_no_draft_falls_back_with_a_message(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = make_voice(tmp_path / "plain", draft=False).path
    with caplog.at_level(logging.WARNING, "spear_spec"):
        tts = TTS.load(path, device="cpu")
    assert tts.spec.drafter == "none"
    assert "nothing to draft with as small does" in caplog.text
    with pytest.raises(ConfigError, match="no draft decoder"):
        TTS.load(path, device="cpu", drafter="small")


def test_nan_is_noticed_while_speaking(tts: TTS) -> None:
    import copy

    broken = replace(tts, target=copy.deepcopy(tts.target))
    with torch.no_grad():
        broken.target.start[0] = float("nan")
    with pytest.raises(NumericsError):
        broken.synthesize(TEXT)


@pytest.mark.parametrize("dtype", ["bfloat16", "float64"])
def test_dtypes(tts: TTS, dtype: str) -> None:
    other = TTS.load(tts.bundle.path, device="cpu", dtype=dtype)
    assert len(other.synthesize("Yes.", max_tokens=20).samples)
    assert other.describe()["dtype"] == dtype


@pytest.mark.parametrize(
    "options",
    [
        {"speaker": "nobody"},
        {"temperature": -1},
        {"top_p": 2},
        {"top_p": 0},
        {"top_k": -1},
        {"guidance": 0},
        {"batch": 0},
        {"max_tokens": 0},
        {"temperature": float("nan")},
    ],
)
def test_impossible_options(tts: TTS, options: dict) -> None:
    with pytest.raises(ConfigError):
        tts.synthesize(TEXT, **options)


@pytest.mark.parametrize(
    "options",
    [
        {"drafter": "unknown"},
        {"verifier": "unknown"},
        {"gamma": 0},
        {"gamma": 65},
        {"num_drafts": 0},
        {"threads": 0},
        {"dtype": "int8"},
        {"drafter": "medusa", "tree": "dynamic"},
        {"drafter": "kpath", "verifier": "block"},
        {"options": {"a": 1}},
        {"colour": "red"},
    ],
)
def test_impossible_settings(tts: TTS, options: dict) -> None:
    with pytest.raises(SpearSpecError):
        TTS.load(tts.bundle.path, **{"device": "cpu", **options})


WRONG = {
    "text": [None, 3, b"Yes.", ["Yes."]],
    "speaker": [3, ["af_heart"], b"af_heart", ""],
    "seed": ["a", -1, 2**64, 1.0, None, True, 10**5000],
    "max_tokens": ["9", 0, 2.5, True],
    "batch": ["2", 0, -1, None, 1.0, True, 10**9],
    "meter": ["x", 3],
    "temperature": ["hot", None, float("inf"), True],
    "top_k": [1.5, "5", None],
    "top_p": ["most", None, -0.1],
    "guidance": ["x", 0.5],
    "beam": [0, 4097, "2", 1.0, True],
    "colour": ["red"],
    "gamma": [3],
}


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("call", ["synthesize", "stream"])
def test_arguments_of_another_type(tts: TTS, name: str, call: str) -> None:
    """Our errors, in one line, before anything is spoken: `stream` itself refuses, not its first piece."""
    for value in WRONG[name]:
        with pytest.raises((ConfigError, TextError)) as caught:
            getattr(tts, call)(**{"text": TEXT, name: value})
        assert "\n" not in str(caught.value), value
        assert 10 < len(str(caught.value)) < 300, value


WRONG_SETTINGS = {
    "drafter": [3, ["small"], Path("small"), ""],
    "verifier": [3, b"block", ["block"], ""],
    "gamma": [-1, "3", 2.5, None, True],
    "num_drafts": ["2", 0, None],
    "tree": [3, ["2-1"], b"2-1"],
    "options": ["stop=acceptance", [1], None, {3: 4}, {"stop": [1]}, {"stop": "\n"}],
    "colour": ["red"],
}
WRONG_PLACES = {
    "voice": [3, ["tiny"], b"tiny", ""],
    "device": [3, ["cpu"], b"cpu", ""],
    "dtype": [3, torch.float32, None, ["float32"]],
    "threads": ["1", -1, 1.0, True],
}


@pytest.mark.parametrize("name", WRONG_SETTINGS)
def test_settings_of_another_type(tts: TTS, name: str) -> None:
    for value in WRONG_SETTINGS[name]:
        for call in (tts.using, lambda **given: TTS.load(tts.bundle, device="cpu", **given)):
            with pytest.raises(SpearSpecError) as caught:
                call(**{name: value})
            assert "\n" not in str(caught.value), value
            assert 10 < len(str(caught.value)) < 400, value


@pytest.mark.parametrize("name", WRONG_PLACES)
def test_places_of_another_type(tts: TTS, name: str) -> None:
    for value in WRONG_PLACES[name]:
        with pytest.raises(SpearSpecError) as caught:
            TTS.load(**{"voice": tts.bundle, "device": "cpu", name: value})
        assert "\n" not in str(caught.value), value
        assert 10 < len(str(caught.value)) < 300, value


def test_seeds_above_32_bits_are_seeds_of_their_own(tts: TTS) -> None:
    """Tokens, not only sound: seeds that agree in their low or in their high half differ."""
    ids = tts.texts([TEXT])[0]
    seeds = [7, 7 + 2**32, 7 + 2**63, 7 << 32, 2**64 - 1]
    said = tts.decoder.engine().run([Request(ids, seed=seed, sampling=tts.sampling, cap=40) for seed in seeds])
    assert len({tuple(utterance.tokens) for utterance in said}) == len(seeds)
    counts = [tts.synthesize(TEXT, seed=seed, max_tokens=40).samples.tobytes() for seed in seeds]
    assert len(set(counts)) == len(seeds)


@pytest.mark.parametrize("device", ["cuda:99", "tpu", "gpu please", "mps"])
def test_missing_device(tts: TTS, device: str) -> None:
    with pytest.raises(DeviceError):
        TTS.load(tts.bundle.path, device=device)


@pytest.mark.parametrize("text", ["", " \n\t "])
def test_nothing_to_say(tts: TTS, text: str) -> None:
    with pytest.raises(TextError, match="nothing to speak"):
        tts.synthesize(text)


def test_meter_counts_only_compute() -> None:
    meter = Meter(24000, DecodeStats(2, 6, 6, 4, [2, 1, 1]), samples=24000, front_s=0.1, t2s_s=0.2, acoustic_s=0.2)
    item = meter.item("x")
    assert item["rtf"] == 0.5
    assert item["acceptance_by_position"] == [1.0, 0.5, 0.5]
    quiet = Meter(24000)
    quiet.hear(np.full(10, 1e-4, dtype=np.float32))
    assert quiet.ttfa_s is None
    quiet.hear(np.full(10, 0.1, dtype=np.float32))
    assert quiet.ttfa_s == 0


class Repeat:
    """Drafts that the last token goes on: point masses."""

    name, form = "repeat", "chain"

    def start(self, session: Session) -> None:
        return None

    def propose(self, session: Session, state: None, limits: list[int]) -> Proposal:
        return Proposal([session.tokens[row][-1:] * limit for row, limit in zip(session.rows, limits)])

    def commit(self, session: Session, state: None, verdict: Verdict) -> None:
        return None


def test_a_drafter_and_a_verifier_of_ones_own(tts: TTS) -> None:
    """Loaded or swapped in, they decode: at temperature 0 the plain loop's tokens, so its audio."""
    plain = tts.using(drafter="none").synthesize(TEXT, temperature=0.0, max_tokens=30)
    loaded = TTS.load(tts.bundle.path, device="cpu", drafter=Repeat(), verifier=make_verifier("matching"), gamma=2)
    for own in (loaded, tts.using(drafter=Repeat(), gamma=2)):
        audio = own.synthesize(TEXT, temperature=0.0, max_tokens=30)
        assert audio.stats["tokens"] == plain.stats["tokens"]
        assert np.allclose(audio.samples, plain.samples, atol=1e-4)  # tokens come in other portions to the vocoder
        assert own.describe()["drafter"] == "repeat"
        assert audio.stats["drafted"] > 0
    assert loaded.describe()["verifier"] == "matching"
    assert tts.using(verifier=make_verifier("tolerance")).describe()["lossless"] is False
    with pytest.raises(ConfigError, match="not made for"):
        tts.using(drafter=Tree())
    kept = tts.using(drafter=Repeat()).using(gamma=4)
    assert kept.describe()["drafter"] == "repeat"
    assert kept.using(drafter="small").describe()["drafter"] == "small"


class Tree(Repeat):
    name, form = "tree", "wor"
