"""Word times of speech: through the whole pipeline on a tiny voice of three layers, with random weights."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spear_spec import TTS
from spear_spec.audio import TimedWord
from spear_spec.cli import main
from spear_spec.errors import ConfigError
from spear_spec.models.alignment import letter_attention, letter_starts
from spear_spec.text.front_end import Segment
from spear_spec.timing.timeline import Timeline
from tests.stubs.schemas import check
from tests.stubs.voice import make_voice

TEXT = "Dr. Smith paid $5 million on Jan. 5, 2020. He ran—fast, as ever. “Why?”"
WRITTEN = ["Dr.", "Smith", "paid", "$5", "million", "on", "Jan.", "5,", "2020.", "He", "ran—", "fast,", "as", "ever.",
           "“Why?”"]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_voice(tmp_path_factory.mktemp("voices") / "tiny", depth=3).path


@pytest.fixture(scope="module")
def tts(folder: Path) -> TTS:
    return TTS.load(folder, device="cpu")


def test_words_in_order_within_the_sound(tts: TTS) -> None:
    audio = tts.synthesize(TEXT, seed=2, timestamps=True)
    assert audio.words is not None
    assert [word.text for word in audio.words] == WRITTEN
    assert [word.sentence for word in audio.words] == [0] * 9 + [1] * 5 + [2]
    times = [time for word in audio.words for time in (word.start_s, word.end_s)]
    assert times == sorted(times)
    assert times[0] >= 0
    assert times[-1] <= audio.seconds + 1e-6


def test_nothing_else_changes(tts: TTS, monkeypatch: pytest.MonkeyPatch) -> None:
    timed = tts.synthesize(TEXT, seed=2, timestamps=True)

    def no(*_: Any) -> None:
        raise AssertionError("computed though nobody asked")

    monkeypatch.setattr("spear_spec.timing.timeline.letter_attention", no)
    monkeypatch.setattr(Segment, "words", property(no))
    bare = tts.synthesize(TEXT, seed=2)
    assert bare.words is None
    np.testing.assert_array_equal(bare.samples, timed.samples)


@pytest.mark.parametrize("batch", [1, 3])
def test_each_sentence_from_its_first_sample(tts: TTS, batch: int) -> None:
    """The oracle: where each sentence's samples begin, its pause, and the alignment of its own tokens."""
    chunks = list(tts.stream(TEXT, seed=4, timestamps=True, batch=batch))
    segments = list(tts.front_end.segments(TEXT, "af_heart"))
    samples = 0
    for number, segment in enumerate(segments):
        own = [chunk for chunk in chunks if chunk.sentence == number]
        assert all(not chunk.words for chunk in own[:-1])
        assert own[-1].said is not None
        speech = own[-1].said[1].speech
        starts = letter_starts(letter_attention(tts.target, segment.ids, speech)) / 25
        begin = samples / 24_000 + segment.pause_s
        for word, placed in zip(own[-1].words, segment.words, strict=True):
            assert word.text == placed.text
            assert word.start_s == pytest.approx(begin + starts[placed.first], abs=1e-4)
            assert word.end_s == pytest.approx(begin + starts[placed.last], abs=1e-4)
        samples += sum(len(chunk.samples) for chunk in own)


def test_the_pace_of_the_sound_is_followed(tts: TTS) -> None:
    """A stage that makes twice as many samples of a token stretches all times but those of the pause."""
    [segment, *_] = tts.front_end.segments(TEXT, "af_heart")
    late = Segment(segment.text, segment.ids, 0.5, find_words=segment.find_words)
    tokens = [1, 2, 3, 4] * 10
    found: list[tuple[TimedWord, ...]] = []
    for pace in (960, 1920):
        timeline = Timeline(tts.target, tts.front_end, 24_000)
        for part in (12_000, 10 * pace, 30 * pace):
            timeline.hear(part)
        found.append(timeline.end(late, tokens, 0))
    for one, two in zip(*found, strict=True):
        assert two.start_s - 0.5 == pytest.approx(2 * (one.start_s - 0.5), abs=1e-9)
    assert found[0][-1].end_s <= 0.5 + 1.6 + 1e-9


def test_an_utterance_without_tokens(tts: TTS) -> None:
    [segment, *_] = tts.front_end.segments(TEXT, "af_heart")
    words = Timeline(tts.target, tts.front_end, 24_000).end(segment, [], 0)
    assert {(word.start_s, word.end_s) for word in words} == {(0.0, 0.0)}


class Deaf:
    """A front end that tells nothing of words."""

    def __init__(self, own: Any) -> None:
        self.speakers, self.num_token_ids, self.phonemes = own.speakers, own.num_token_ids, own.phonemes
        self.own = own

    def segments(self, text: str, speaker: str) -> Iterator[Segment]:
        return (Segment(s.text, s.ids, s.pause_s) for s in self.own.segments(text, speaker))


def test_who_cannot_tell_says_so_before_it_speaks(tts: TTS, folder: Path, tmp_path: Path) -> None:
    other = tts.using()
    other.front_end = Deaf(tts.front_end)
    assert other.synthesize("Yes.").words is None
    with pytest.raises(ConfigError, match="no timestamps"):
        other.stream("Yes.", timestamps=True)
    shallow = TTS.load(make_voice(tmp_path / "two").path, device="cpu")
    with pytest.raises(ConfigError, match="3 decoder layers"):
        shallow.stream("Yes.", timestamps=True)
    [segment] = other.front_end.segments("Yes.", "af_heart")
    with pytest.raises(ConfigError, match="no timestamps"):
        _ = segment.words


def test_say(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    common = ["--voice", str(folder), "--device", "cpu", "--json=r.json"]
    assert main(["say", TEXT, "-o", "a.wav", "--timestamps", "a.json", "--seed", "2", *common]) == 0
    result, words = json.loads(Path("r.json").read_text()), json.loads(Path("a.json").read_text())
    check(result, "say/1")
    check(words, "timestamps/1")
    assert result["items"][0]["timestamps"] == "a.json"
    assert [word["text"] for word in words["words"]] == WRITTEN
    assert words["audio_s"] == result["items"][0]["audio_s"]
    told = TTS.load(folder, device="cpu").synthesize(TEXT, seed=2, timestamps=True).words or ()
    assert [w["start_s"] for w in words["words"]] == pytest.approx([w.start_s for w in told], abs=1e-4)
    assert main(["say", TEXT, "-o", "a.flac", "--timestamps", "b.json", "--seed", "2", *common]) == 0
    assert json.loads(Path("b.json").read_text()) == words
    Path("lines.txt").write_text("Yes.\n\nOh no.\n")
    assert main(["say", "--file", "lines.txt", "--out-dir", "d", "--timestamps", "vtt", *common]) == 0
    assert sorted(p.name for p in Path("d").iterdir()) == ["000.vtt", "000.wav", "002.vtt", "002.wav"]
    assert "Oh " in Path("d/002.vtt").read_text()
    capsys.readouterr()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["say", "Yes.", "--timestamps", "a.txt"], "must end in .json, .srt or .vtt"),
        (["say", "Yes.", "--timestamps", "no/a.srt"], "there is no folder no"),
        (["say", "--file", "l.txt", "--out-dir", "d", "--timestamps", "a.srt"], "is an ending"),
    ],
)
def test_what_say_refuses(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("l.txt").write_text("Yes.\n")
    assert main(arguments) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.wav"))


def test_complete_sentences(tts: TTS, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sentence that misses words is spoken from the try that does not, and nothing of it is heard before."""
    from spear_spec import engine
    from spear_spec.acoustic.speaking import sentence_seed
    from spear_spec.decoding import Request
    from spear_spec.decoding.chance import REDRAW, derive

    asked: list[Request] = []

    def second_only(target: object, request: Request, *_: Any) -> int:
        asked.append(request)
        return int(len(asked) == 2)  # at the first try of the second sentence

    usual = engine.Engine.__init__.__defaults__ or ()
    changed = tuple(second_only if value is engine.missed else value for value in usual)
    monkeypatch.setattr(engine.Engine.__init__, "__defaults__", changed)
    chunks = list(tts.stream(TEXT, seed=4, complete=True))
    segments = list(tts.front_end.segments(TEXT, "af_heart"))
    said = [chunk.said[1] for chunk in chunks if chunk.said is not None]
    assert [one.redrawn for one in said] == [0, 1, 0]
    first = sentence_seed(4, 1)
    again = derive(first, 1, REDRAW)
    assert [request.seed for request in asked] == [sentence_seed(4, 0), first, first, sentence_seed(4, 2)]
    [alone] = tts.decoder.engine().run([Request(segments[1].ids, seed=again, sampling=tts.sampling)])
    assert said[1].tokens == alone.tokens
    whole = asked[0].whole
    assert whole is not None
    letters = [tts.front_end.tokenizer.vocab[i] for i in segments[0].ids]  # type: ignore[attr-defined]
    spoken = tts.front_end.phonemes(segments[0].text)
    assert ["".join(letters[a:b]) for a, b in whole.words] == [w.strip(",.") for w in spoken.split()]


def test_complete_is_counted_and_refused_where_it_cannot_be(tts: TTS) -> None:
    audio = tts.synthesize(TEXT, seed=4, complete=True)  # random weights miss words: every try is used up
    assert audio.stats["redrawn"] > 0
    assert tts.synthesize(TEXT, seed=4).stats["redrawn"] == 0
    assert tts.synthesize(TEXT, seed=4, temperature=0.0, max_tokens=20, complete=True).stats["redrawn"] == 0
    other = tts.using()
    other.front_end = Deaf(tts.front_end)
    with pytest.raises(ConfigError, match="leave complete off"):
        other.stream("Yes.", complete=True)
    with pytest.raises(ConfigError, match="complete must be True, False, on, stream or off"):
        tts.stream("Yes.", complete="of")


def test_a_stream_that_goes_back_is_heard_before_the_sentence_is_over(tts: TTS) -> None:
    """And the samples are those of `synthesize`, with and without speculation by shared numbers."""
    text = "It rained all day and nobody minded"
    options: dict[str, Any] = {"seed": 4, "complete": "stream", "max_tokens": 60, "top_k": 3}
    whole = tts.synthesize(text, **options)  # random weights miss words
    assert whole.stats["redrawn"] > 0
    chunks = list(tts.stream(text, **options))
    assert chunks[0].ended is None and len(chunks[0].samples) and chunks[-1].ended is not None
    np.testing.assert_array_equal(np.concatenate([chunk.samples for chunk in chunks]), whole.samples)
    said = next(chunk.said[1] for chunk in chunks if chunk.said is not None)
    assert 26 in {len(look.tokens) for look in said.looked if look.ended is None}
    alone, ahead = (
        tts.using(**spec).synthesize(text, **options) for spec in ({"drafter": "none"}, {"verifier": "coupled"})
    )
    assert ahead.stats["redrawn"] == alone.stats["redrawn"] > 0
    np.testing.assert_array_equal(ahead.samples, alone.samples)
