"""Time grows with the text and no faster, whatever it is made of."""

from __future__ import annotations

import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spear_spec.errors import TextError
from spear_spec.text import MOST_PHONEMES, PhonemeFrontEnd
from spear_spec.text.g2p import shared_g2p
from spear_spec.text.normalize import _normalize

LETTERS = 20_000
SECONDS = 1.0

FRAGMENTS = [
    # what took seconds or minutes before
    "a-", "1-", "!?", "W", "😀", ">", "1 + ",
    # marks
    ".", "...", ". ", ",", "'", '"', "(", ")", "-", "--", "—", "*", "**a** ", "*a", "_", "_a_", "`", "~", "==",
    "#", "# ", "|", "^", "{", "\\", "/", "%", "“", "• ",
    # spaces and lines
    " ", "\t", "\n", "\n\n", "a\n", "- a\n", "1. a\n", "> ", "> a\n", "|a|\n",
    "===\n", "a-\n", "\r\n", "\u2028", "\u200b",
    # mark-up, links, formulas
    "[", "](", "[a](b)", "[1]", "[^1]", "<", "<a ", "</", "<!--", "&", "&amp;", "&#39;", "a@", "a@b.", "www.",
    "http://", "a.b/", "$", "$1", "$a$", "\\frac{", "\\(", "^{",
    # numbers
    "1", "12 ", "1,", "1.", "1/", "1/2", "1:", "5:30-", "9am-", "1st ", "1+1=", "$1-", "5% ", "5 km/h ", "5'6\" ",
    "555-1234 ", "2.2.2", "¼", "10⁶", "IV ", "X",
    # words
    "a", "a ", "A", "A ", "A. ", "a.", "a'", "aB", "Ab", "a1", "CO2 ", "Noooo ", "ing", "un", "read ", "St. ", "St. A",
    "no. 1 ", "e.g. ", "U.S.", "Jan 1", "hello ", "Hello. ", "漢", "α", "é", "\u0301",
]  # fmt: skip


def took(text: str) -> tuple[float, int]:
    """(seconds of this process, most ids of a segment) of the whole front end, nothing remembered from before."""
    front_end = PhonemeFrontEnd()
    _normalize.cache_clear()
    shared_g2p()._said.clear()
    began = time.process_time()
    try:
        most = max(len(segment.ids) for segment in front_end.segments(text, "af_heart"))
    except TextError:
        most = 0
    return time.process_time() - began, most


@pytest.fixture(scope="module", autouse=True)
def warm() -> None:
    took("The lexicons are loaded by the first text: Zbigniew, Noooo.")


@pytest.mark.parametrize("fragment", FRAGMENTS)
def test_a_fragment_over_and_over(fragment: str) -> None:
    seconds, most = took((fragment * LETTERS)[:LETTERS])
    assert seconds < SECONDS
    assert most <= MOST_PHONEMES + 1


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(
    st.text("aAxI12.,-'\"!?()[]{}<>*_#$%^&+=/\\:;~`|@ \n", min_size=1, max_size=6),
    st.sampled_from(["", "a", " a", "1", "\n"]),
)
def test_any_fragment_over_and_over(fragment: str, tail: str) -> None:
    seconds, most = took((fragment * LETTERS)[: LETTERS - 2] + tail)
    assert seconds < SECONDS, (fragment, tail)
    assert most <= MOST_PHONEMES + 1, (fragment, tail)


@pytest.mark.parametrize(
    ("fragment", "tail"),
    [(".", "a"), ("!?", "x"), ("a-", "!"), ("(", "a"), (" ", "a"), ("1-", "a"), ("\\frac{", "}"), ("1+", "=")],
)
def test_a_run_with_something_behind_it(fragment: str, tail: str) -> None:
    seconds, _ = took((fragment * LETTERS)[: LETTERS - 1] + tail)
    assert seconds < SECONDS
