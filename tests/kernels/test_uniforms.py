"""The stream of uniforms in C: published vectors of Random123, and its definition written once more in Python."""

from __future__ import annotations

import ctypes
import statistics

import pytest

from spear_spec.errors import ContractError
from spear_spec.kernels import native

LAST = 2**64 - 1
# kat_vectors of Random123 1.14, "philox4x32 10": counter, key, words
PUBLISHED = [
    ([0] * 4, [0] * 2, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
    ([0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
    (
        [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
        [0xA4093822, 0x299F31D0],
        [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
    ),
]


def block(counter: list[int], key: list[int]) -> list[int]:
    """The four words that C makes."""
    words = (ctypes.c_uint32 * 4)()
    native.library().spear_philox((ctypes.c_uint32 * 4)(*counter), (ctypes.c_uint32 * 2)(*key), words)
    return words[:]


def uniform(seed: int, n: int) -> float:
    """u(seed, n) from a block of words."""
    at = n >> 1
    words = block([at & 0xFFFFFFFF, at >> 32, 0, 0], [seed & 0xFFFFFFFF, seed >> 32])
    low, high = words[2:] if n % 2 else words[:2]
    return float(((high << 32 | low) >> 11) * 2.0**-53)


@pytest.mark.parametrize(("counter", "key", "words"), PUBLISHED)
def test_published_vectors(counter: list[int], key: list[int], words: list[int]) -> None:
    assert block(counter, key) == words


def test_the_first_uniforms_follow_from_the_vector_of_zeros() -> None:
    words = PUBLISHED[0][2]
    expected = [((words[1] << 32 | words[0]) >> 11) / 2**53, ((words[3] << 32 | words[2]) >> 11) / 2**53]
    assert native.uniforms(0, 0, 2) == expected


@pytest.mark.parametrize("seed", [0, 1, 2**32, 2**32 + 1, 12345678901234567890, LAST])
@pytest.mark.parametrize("first", [0, 1, 6, 2**33 - 3, 2**33 - 2, LAST - 8])
def test_a_draw_is_the_same_from_wherever_it_is_asked(seed: int, first: int) -> None:
    """Every number by itself, in a run, and in runs that begin at odd and even draws; over the counter's halves."""
    expected = [uniform(seed, first + i) for i in range(9)]
    assert native.uniforms(seed, first, 9) == expected
    for begin in range(9):
        for end in range(begin, 10):
            assert native.uniforms(seed, first + begin, end - begin) == expected[begin:end]


def test_seeds_and_draws_differ_in_all_their_bits() -> None:
    bits = [0, *[1 << i for i in range(64)]]
    assert len({native.uniforms(seed, 7, 1)[0] for seed in bits}) == len(bits)
    assert len({native.uniforms(7, n, 1)[0] for n in bits}) == len(bits)


def test_they_are_uniform() -> None:
    """Mean and variance of 2^16, within five standard errors."""
    drawn = native.uniforms(3, 0, 2**16)
    assert 0 <= min(drawn) < max(drawn) < 1
    assert abs(statistics.fmean(drawn) - 0.5) < 5 * (1 / 12) ** 0.5 / 2**8
    assert abs(statistics.fmean((u - 0.5) ** 2 for u in drawn) - 1 / 12) < 5 * (1 / 180) ** 0.5 / 2**8


@pytest.mark.parametrize(
    ("seed", "first", "count"), [(-1, 0, 1), (LAST + 1, 0, 1), (0, -1, 2), (0, LAST, 2), (0, 0, -1)]
)
def test_what_lies_outside_is_refused(seed: int, first: int, count: int) -> None:
    """ctypes would wrap it around without a word."""
    with pytest.raises(ContractError):
        native.uniforms(seed, first, count)
