"""All chance in the decoder comes from here: streams of uniforms, and the two draws that are made from them.

A row's chance is the stream u(seed, 0), u(seed, 1), ... of Philox 4x32-10 (Salmon et al., SC 2011): key = the seed's
low and high 32 bits, counter = (n >> 1 as two 32-bit words, 0, 0); of the four words that come out, u(seed, n) takes
the first two where n is even and the last two where it is odd, low word first, and of these 64 bits the upper 53 as a
fraction. It depends on nothing else, so it is the same number on a CPU, in C (`kernels/philox.c`) and on a GPU.

Which draw uses which number: a row's draws are counted from 0 in the order in which it makes them. In the plain loop
draw n is token n. In a speculative step a row uses first one number for each draft token that is drawn (a tree: in the
order of its nodes), then those of the rule's trials in the rule's order, then one for the recovered or bonus token; the
next step goes on where this one stopped. Nothing is used for what involves no chance. A rule that `shares` is the
exception: draft token n is drawn with the number that the target will draw it with, and draw n is token n again.

The last counter word keeps other uses of a seed apart: 0 draws, 1 seeds of the sentences of a text, 2 of their sound,
3 of an utterance that is drawn again.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spear_spec.config import shown
from spear_spec.errors import ConfigError
from spear_spec.kernels import native

_BLOCK = 256  # uniforms made at once: a draw is then a list look-up
_ROUNDS = 10
_MULTIPLY = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_LOW = 0xFFFFFFFF
SEEDS = 2**64  # so many are there
SENTENCE, SOUND, REDRAW, TAKE = 1, 2, 3, 6  # last counter word of `derive`; 5 is a book's


class Chance:
    """A source of randomness. Rows are those of the whole session, also after some of them have left the batch."""

    def open(self, row: int, seed: int) -> None:
        """A row begins, with this seed; a number that was another row's may come again."""

    def bernoulli(self, p: float, row: int) -> bool:
        """True with probability p (values above 1 count as 1)."""
        raise NotImplementedError

    def categorical(self, weights: Tensor, rows: Sequence[int]) -> list[int]:
        """One index for each row of weights [B, V] (non-negative, sum above 0, not necessarily 1)."""
        raise NotImplementedError

    def ahead(self, row: int, count: int) -> list[float] | None:
        """The uniforms in [0, 1) that the row's next `count` draws will use, one a draw; they stay there.

        None: this source cannot tell (it is not made of uniforms), and every draw has to be asked for.
        """
        return None

    def passed(self, row: int, count: int) -> None:
        """So many of them have been used elsewhere: `categorical` of a law is the first token whose running sum
        exceeds u times the law's sum, `bernoulli(p)` is u < p.
        """
        raise NotImplementedError


class Shared(Chance):
    """The numbers that a row's next draws will use, looked at and left where they are.

    What is drafted with them is what the target will draw with them, as far as the two laws agree. For rules that say
    `shares`; new for every draft.

    Where `chance` cannot tell what comes, a draft draws from it like anybody else.
    """

    def __init__(self, chance: Chance) -> None:
        self._chance = chance
        self._given: dict[int, int] = {}

    def ahead(self, row: int, count: int) -> list[float] | None:
        given = self._given.get(row, 0)
        line = self._chance.ahead(row, given + count)
        return None if line is None else line[given:]

    def passed(self, row: int, count: int) -> None:
        self._given[row] = self._given.get(row, 0) + count

    def bernoulli(self, p: float, row: int) -> bool:
        line = self.ahead(row, 1)
        if line is None:
            return self._chance.bernoulli(p, row)
        self.passed(row, 1)
        return line[0] < p

    def categorical(self, weights: Tensor, rows: Sequence[int]) -> list[int]:
        lines = [self.ahead(row, 1) for row in rows]
        known = [line[0] for line in lines if line is not None]
        if len(known) < len(rows):
            return self._chance.categorical(weights, rows)
        for row in rows:
            self.passed(row, 1)
        return drawn(weights, known)


class Uniforms(Chance):
    """Chance from streams of uniforms, one a row.

    Promise: row r's draws depend on its own seed and on how many draws it has made, not on the batch around it. A
    row's tokens can therefore differ between batch sizes only where the rounding of a batched matrix product moves a
    probability across a draw.
    """

    def __init__(self, seeds: Sequence[int] = ()) -> None:
        """seeds: of rows 0, 1, ...; others are opened when they begin."""
        self._seeds: dict[int, int] = {}
        self._next: dict[int, int] = {}  # number of the first uniform that is not in the row's block yet
        self._blocks: dict[int, list[float]] = {}  # taken from the end
        for row, seed in enumerate(seeds):
            self.open(row, seed)

    def open(self, row: int, seed: int) -> None:
        self._seeds[row], self._next[row], self._blocks[row] = seed, 0, []

    def _refill(self, row: int) -> None:
        """Another block behind what is there."""
        seed, first = self._seeds[row], self._next[row]
        fresh = native.uniforms(seed, first, _BLOCK) if native.available() else uniforms(seed, first, _BLOCK).tolist()
        self._blocks[row][:0] = reversed(fresh)
        self._next[row] += _BLOCK

    def _uniform(self, row: int) -> float:
        block = self._blocks[row]
        if not block:
            self._refill(row)
        return block.pop()

    def ahead(self, row: int, count: int) -> list[float]:
        while len(self._blocks[row]) < count:
            self._refill(row)
        return self._blocks[row][: -count - 1 : -1]

    def passed(self, row: int, count: int) -> None:
        if count:
            del self._blocks[row][-count:]

    def bernoulli(self, p: float, row: int) -> bool:
        return self._uniform(row) < p

    def categorical(self, weights: Tensor, rows: Sequence[int]) -> list[int]:
        return drawn(weights, [self._uniform(row) for row in rows])


def drawn(weights: Tensor, uniforms: Sequence[float]) -> list[int]:
    """Of each row of weights [B, V] the first token whose running sum exceeds u times the whole."""
    # in float64; strictly greater, so that a token of weight 0 is never drawn
    table = weights.cumsum(-1, dtype=torch.float64)
    if len(uniforms) == 1:
        return [int(torch.searchsorted(table[0], table[0, -1] * uniforms[0], right=True))]
    u = torch.tensor(uniforms, dtype=torch.float64, device=table.device)[:, None]
    return torch.searchsorted(table, u * table[:, -1:], right=True)[:, 0].tolist()


def uniforms(seed: int, first: int, count: int) -> NDArray[np.float64]:
    """u(seed, first), u(seed, first + 1), ...: float64 [count] in [0, 1)."""
    block = np.arange(first >> 1, ((first + count - 1) >> 1) + 1, dtype=np.uint64)
    zero = np.zeros_like(block)
    words = philox((block & np.uint64(_LOW), block >> np.uint64(32), zero, zero), seed)
    pairs = np.stack([words[1] << np.uint64(32) | words[0], words[3] << np.uint64(32) | words[2]], 1).ravel()
    odd = first & 1
    return (pairs[odd : odd + count] >> np.uint64(11)).astype(np.float64) * 2.0**-53


def derive(seed: int, index: int, use: int) -> int:
    """Seed number `index` of those that follow from a seed for one use (`SENTENCE`, `SOUND`, ...): 64 bits."""
    counter = tuple(np.array([word], dtype=np.uint64) for word in (index & _LOW, index >> 32 & _LOW, 0, use))
    words = philox(counter, seed)
    return int(words[1][0]) << 32 | int(words[0][0])


def philox(counter: Sequence[NDArray[np.uint64]], seed: int) -> list[NDArray[np.uint64]]:
    """Philox 4x32-10: four counter words [N] (32 bits in 64) and a 64-bit key to four words [N]."""
    low, top = np.uint64(_LOW), np.uint64(32)
    c = list(counter)
    key = [seed & _LOW, seed >> 32 & _LOW]
    for _ in range(_ROUNDS):
        one, two = c[0] * np.uint64(_MULTIPLY[0]), c[2] * np.uint64(_MULTIPLY[1])
        c = [(two >> top) ^ c[1] ^ np.uint64(key[0]), two & low, (one >> top) ^ c[3] ^ np.uint64(key[1]), one & low]
        key = [(word + weyl) & _LOW for word, weyl in zip(key, _WEYL)]
    return c


def device_uniforms(seeds: Tensor, first: Tensor, count: int) -> Tensor:
    """The same on a device, without the host: seeds and first int64 [B] -> float64 [B, count].

    A seed above 2^63 is given as the negative number of the same bits. A product of two 32-bit words wraps around in
    64 bits, and its halves are still right.
    """
    numbers = first[:, None] + torch.arange(count, device=first.device, dtype=torch.int64)
    block = numbers >> 1
    zero = torch.zeros_like(block)
    c = [block & _LOW, block >> 32 & _LOW, zero, zero]
    key = [(seeds & _LOW)[:, None], (seeds >> 32 & _LOW)[:, None]]
    for _ in range(_ROUNDS):
        one, two = c[0] * _MULTIPLY[0], c[2] * _MULTIPLY[1]
        c = [(two >> 32 & _LOW) ^ c[1] ^ key[0], two & _LOW, (one >> 32 & _LOW) ^ c[3] ^ key[1], one & _LOW]
        key = [word + weyl & _LOW for word, weyl in zip(key, _WEYL)]
    odd = numbers & 1 == 1
    low, high = torch.where(odd, c[2], c[0]), torch.where(odd, c[3], c[1])
    return (high << 21 | low >> 11).double() * 2.0**-53


def check_seed(seed: object) -> int:
    """A seed as it was given.

    Raises:
        ConfigError: it is no whole number from 0 to 2^64 - 1.
    """
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < SEEDS:
        raise ConfigError(f"seed must be a whole number from 0 to 2^64 - 1, not {shown(seed)}")
    return seed
