"""SubRip and WebVTT, read back by readers written for these tests; JSON against its schema."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spear_spec.audio import TimedWord
from spear_spec.errors import AudioError, ConfigError
from spear_spec.timing.subtitles import LINE, LINES, SHORTEST_S, cues, save_words, to_json, to_srt, to_vtt
from tests.stubs.schemas import check

TIME = r"(\d\d):(\d\d):(\d\d)[,.](\d\d\d)"


def seconds(*parts: str) -> float:
    hours, minutes, whole, ms = map(int, parts)
    return 3600 * hours + 60 * minutes + whole + ms / 1000


def read(text: str, point: str) -> list[tuple[float, float, list[str]]]:
    """(start, end, lines) of each cue; fails on what no player would read."""
    blocks = text.strip("\n").split("\n\n")
    if point == ".":
        assert blocks.pop(0) == "WEBVTT"
    out = []
    for number, block in enumerate(blocks, 1):
        lines = block.split("\n")
        if point == ",":
            assert lines.pop(0) == str(number)
        line = re.fullmatch(f"{TIME} --> {TIME}", lines.pop(0).replace(",", "." if point == "." else ","))
        assert line is not None
        assert lines
        assert all(line.strip() and "-->" not in line for line in lines)
        out.append((seconds(*line.groups()[:4]), seconds(*line.groups()[4:]), lines))
    return out


def unescaped(text: str) -> str:
    return text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")


def timed(sentences: list[list[str]], each: float = 0.4) -> list[TimedWord]:
    words, at = [], 0.3
    for number, sentence in enumerate(sentences):
        for word in sentence:
            words.append(TimedWord(word, at, at + 0.9 * each, number))
            at += each
        at += 0.5
    return words


WORDS = st.text(st.sampled_from("abcdefghij,.;'&<>-—é"), min_size=1, max_size=14).filter(
    lambda w: "--" not in w and w[-1] not in "-—>"
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(WORDS, min_size=1, max_size=40), min_size=1, max_size=4), st.floats(0.02, 1.5))
def test_read_back(sentences: list[list[str]], each: float) -> None:
    words = timed(sentences, each)
    said = " ".join(word.text for word in words)
    plain, marked = read(to_srt(words), ","), read(to_vtt(words), ".")
    assert " ".join(line for *_, lines in plain for line in lines) == said
    bare = [[unescaped(re.sub(f"<{TIME}>", "", line)) for line in lines] for *_, lines in marked]
    assert bare == [lines for *_, lines in plain]
    assert [cue[:2] for cue in plain] == [cue[:2] for cue in marked]
    for (_, end, _), (start, _, _) in zip(plain, plain[1:]):
        assert end <= start + 1e-9
    for start, end, lines in plain:
        assert start < end
        assert len(lines) <= LINES
        assert all(len(line) <= LINE or " " not in line for line in lines)
    firsts = {round(word.start_s, 3) for word in words}
    for start, end, lines in marked:
        times = [seconds(*m.groups()) for line in lines for m in re.finditer(f"<{TIME}>", line)]
        assert all(a < b for a, b in zip([start, *times], [*times, end]))
        assert all(any(abs(time - known) < 2e-3 for known in firsts) for time in times)


def test_each_word_has_its_time() -> None:
    words = timed([["Tom", "&", "Jerry", "ran—", "fast."]])
    assert to_vtt(words) == (
        "WEBVTT\n\n00:00:00.300 --> 00:00:02.260\n"
        "Tom <00:00:00.700>&amp; <00:00:01.100>Jerry <00:00:01.500>ran—<00:00:01.900>fast.\n"
    )
    assert to_srt(words) == "1\n00:00:00,300 --> 00:00:02,260\nTom & Jerry ran—fast.\n"


def test_no_cue_holds_two_sentences_and_short_ones_stay() -> None:
    found = list(cues(timed([["One."], ["Two."], ["Three."]], 0.2)))
    assert [cue.lines[0][0].text for cue in found] == ["One.", "Two.", "Three."]
    assert found[0].end_s == found[1].start_s  # not over the next one
    assert found[2].end_s == pytest.approx(found[2].start_s + SHORTEST_S)


def test_cuts_are_fair_and_at_a_clause() -> None:
    text = "one two three four five six seven eight nine, ten eleven twelve thirteen fourteen fifteen sixteen so on."
    found = list(cues(timed([text.split()])))
    assert len(found) == 2
    assert found[0].lines[-1][-1].text == "nine,"


def test_nothing_looks_like_a_time_line() -> None:
    words = timed([["1", "-->", "2"]])
    assert "1 -> 2" in to_srt(words)
    assert read(to_vtt(words), ".")


def test_hours() -> None:
    assert "01:01:01,500 --> 01:01:02,500" in to_srt([TimedWord("Late.", 3661.5, 3661.7, 0)])


def test_json(tmp_path: Path) -> None:
    words = timed([["Yes.", "“No”"], ["So."]])
    found = json.loads(to_json(words, voice="v", text="t", audio_s=3.0))
    check(found, "timestamps/1")
    assert [word["text"] for word in found["words"]] == ["Yes.", "“No”", "So."]
    assert [word["sentence"] for word in found["words"]] == [0, 0, 1]
    save_words(tmp_path / "a.JSON", words, voice="v", text="t", audio_s=3.0)
    assert json.loads((tmp_path / "a.JSON").read_text()) == found
    save_words(tmp_path / "a.srt", words)
    assert (tmp_path / "a.srt").read_text() == to_srt(words)


def test_what_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"\.json, \.srt or \.vtt"):
        save_words(tmp_path / "a.txt", [])
    with pytest.raises(AudioError, match="cannot write"):
        save_words(tmp_path / "no" / "a.srt", [])
    assert list(tmp_path.iterdir()) == []
