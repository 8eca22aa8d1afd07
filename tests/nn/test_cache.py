"""The key/value cache against lists of vectors."""

from __future__ import annotations

import random

import pytest
import torch
from torch import Tensor

from spear_spec.nn.cache import KVCache

LAYERS, HEADS, WIDTH = 2, 2, 3


class Naive:
    """What the cache should hold: per layer and row, a list of (key, value), each [H, D]."""

    def __init__(self, batch: int) -> None:
        self.rows: list[list[list[tuple[Tensor, Tensor]]]] = [[[] for _ in range(batch)] for _ in range(LAYERS)]

    def check(self, cache: KVCache) -> None:
        assert cache.lengths == [len(row) for row in self.rows[0]]
        for layer, rows in enumerate(self.rows):
            for b, row in enumerate(rows):
                for t, (k, v) in enumerate(row):
                    assert torch.equal(cache.k[layer, b, :, t], k)
                    assert torch.equal(cache.v[layer, b, :, t], v)


def write(cache: KVCache, naive: Naive, n: int) -> None:
    for layer in range(LAYERS):
        k, v = torch.randn(2, cache.batch, HEADS, n, WIDTH)
        keys, values = cache.append(layer, k, v)
        assert keys.shape == values.shape == (cache.batch, HEADS, max(cache.lengths) + n, WIDTH)
        for b, row in enumerate(naive.rows[layer]):
            row.extend((k[b, :, t], v[b, :, t]) for t in range(n))
            assert torch.equal(keys[b, :, : len(row)], torch.stack([key for key, _ in row], 1))
            assert torch.equal(values[b, :, : len(row)], torch.stack([value for _, value in row], 1))
    cache.advance(n)


def act(kind: str, cache: KVCache, naive: Naive, rng: random.Random) -> None:
    if kind == "crop":
        lengths = [rng.randint(0, length) for length in cache.lengths]
        cache.crop(lengths)
        for layer in naive.rows:
            for row, length in zip(layer, lengths):
                del row[length:]
    elif kind == "keep":
        nodes, base = rng.randint(1, 6), list(cache.lengths)
        cache.reserve(max(base) + nodes)
        write(cache, naive, nodes)
        paths = [sorted(rng.sample(range(nodes), rng.randint(0, nodes))) for _ in base]
        longest = max(1, max(map(len, paths)))
        cache.keep(base, torch.tensor([path + [-1] * (longest - len(path)) for path in paths]))
        for layer in naive.rows:
            for row, start, path in zip(layer, base, paths):
                row[start:] = [row[start + node] for node in path]
    elif kind == "select":
        chosen = rng.sample(range(cache.batch), rng.randint(1, cache.batch))
        if rng.random() < 0.7:
            chosen.sort()
        cache.select(chosen)
        naive.rows = [[layer[b] for b in chosen] for layer in naive.rows]
    elif kind == "branch":
        chosen = [rng.randrange(cache.batch) for _ in range(rng.randint(1, cache.batch + 2))]
        cache.select(chosen)
        naive.rows = [[list(layer[b]) for b in chosen] for layer in naive.rows]
    elif kind == "join":
        batch = rng.randint(1, 3)
        other, theirs = KVCache(LAYERS, batch, HEADS, rng.choice([3, 64]), WIDTH), Naive(batch)
        write(other, theirs, rng.randint(1, 3))
        cache.join(other)
        naive.rows = [mine + new for mine, new in zip(naive.rows, theirs.rows)]
    else:
        n = rng.randint(1, 5)
        cache.reserve(cache.longest + n)
        write(cache, naive, n)


@pytest.mark.parametrize("seed", range(12))
def test_random_histories(seed: int) -> None:
    rng = random.Random(seed)
    torch.manual_seed(seed)
    batch = rng.choice([1, 2, 4, 8])
    cache, naive = KVCache(LAYERS, batch, HEADS, rng.choice([1, 3, 64]), WIDTH), Naive(batch)
    for _ in range(25):
        act(
            rng.choice(
                [
                    "write",
                    "crop",
                    "keep",
                    "join",
                    "select" if cache.batch > 1 and rng.random() < 0.6 else "write",
                    "branch" if cache.batch < 16 else "write",
                ]
            ),
            cache,
            naive,
            rng,
        )
        naive.check(cache)


def test_joined_rows_stand_behind_and_keep_what_they_hold() -> None:
    """Rows of another cache, with more room or less, after rows have left."""
    torch.manual_seed(0)
    for mine, theirs in ((2, 9), (9, 2)):
        one, two = (KVCache(2, batch, 3, room, 4) for batch, room in ((3, mine), (2, theirs)))
        for cache, count in ((one, 2), (two, 1)):
            for layer in range(2):
                cache.append(layer, *torch.randn(2, cache.batch, 3, count, 4).unbind(0))
            cache.advance(count)
        one.select([0, 2])
        held = [(cache.k.clone(), cache.v.clone()) for cache in (one, two)]
        one.join(two)
        assert one.lengths == [2, 2, 1, 1] and one.capacity == max(held[0][0].shape[3], held[1][0].shape[3])
        for store, (a, b) in zip((one.k, one.v), zip(*held)):
            assert torch.equal(store[:, :2, :, :2], a[:, :, :, :2]) and torch.equal(store[:, 2:, :, :1], b[:, :, :, :1])


def test_rows_that_join_one_by_one_find_room() -> None:
    """The store is replaced a few times, not each time; and it does not grow while as many leave as join."""
    cache = KVCache(1, 1, 1, 8, 2)
    cache.advance(1)
    stores = set[int]()
    for turn in range(64):
        new = KVCache(1, 1, 1, 8, 2)
        new.k.fill_(turn)
        new.advance(2)
        cache.join(new)
        if cache.batch > 8:
            cache.select(list(range(1, cache.batch)))
        assert bool((cache.k[0, -1, 0, :2] == turn).all())
        stores.add(cache.k.untyped_storage().data_ptr())
    assert len(stores) <= 5 and cache.k.untyped_storage().nbytes() <= 16 * 8 * 2 * 4


@pytest.mark.parametrize("rows", [[1, 0, 2], [2, 2, 0], [1, 2], [2]], ids=str)
def test_rows_in_any_order(rows: list[int]) -> None:
    cache, naive = KVCache(LAYERS, 3, HEADS, 9, WIDTH), Naive(3)
    write(cache, naive, 4)
    lengths = [4, 1, 3]
    cache.crop(lengths)
    naive.rows = [[list(layer[row][: lengths[row]]) for row in rows] for layer in naive.rows]
    cache.select(rows)
    naive.check(cache)
    write(cache, naive, 2)
    naive.check(cache)


def test_growing_keeps_what_was_written_and_never_shrinks() -> None:
    cache, naive = KVCache(LAYERS, 2, HEADS, 2, WIDTH), Naive(2)
    write(cache, naive, 2)
    cache.reserve(100)
    assert cache.capacity >= 100
    capacity = cache.capacity
    cache.reserve(3)
    assert cache.capacity == capacity
    naive.check(cache)


@pytest.mark.parametrize("lengths", [[3, 3], [2, -1], [2]])
def test_a_crop_that_cannot_be_is_refused(lengths: list[int]) -> None:
    cache = KVCache(1, 2, 1, 8, 2)
    cache.advance(2)
    with pytest.raises(ValueError, match="crop"):
        cache.crop(lengths)


def test_a_path_behind_what_was_written_is_refused() -> None:
    cache = KVCache(1, 1, 1, 8, 2)
    cache.advance(4)
    with pytest.raises(ValueError, match="path"):
        cache.keep([2], torch.tensor([[0, 2]]))


def test_element_type_and_device_are_kept_when_growing() -> None:
    cache = KVCache(1, 1, 1, 1, 2, dtype=torch.float64)
    cache.reserve(9)
    assert cache.k.dtype == cache.v.dtype == torch.float64


@pytest.mark.parametrize("seed", range(8))
def test_rows_that_come_and_go(seed: int) -> None:
    """The store has room for rows that join: what was copied, and what another row left behind, must not show."""
    rng = random.Random(seed)
    torch.manual_seed(seed)
    cache, naive = KVCache(LAYERS, 2, HEADS, rng.choice([1, 8, 64]), WIDTH), Naive(2)
    stores = set()
    for _ in range(40):
        if rng.random() < 0.4 and cache.batch < 6:
            joining = rng.randint(1, 2)
            other, fresh = KVCache(LAYERS, joining, HEADS, rng.choice([1, 8, 64]), WIDTH), Naive(joining)
            if rng.random() < 0.5:
                other.reserve(3)
                write(other, fresh, 3)
            cache.join(other)
            naive.rows = [mine + theirs for mine, theirs in zip(naive.rows, fresh.rows)]
        else:
            act(rng.choice(["write", "crop", "keep", "select"]), cache, naive, rng)
        naive.check(cache)
        stores.add(cache.k.untyped_storage().data_ptr())
    assert len(stores) < 15


def test_a_row_that_joins_after_another_left_moves_nobody() -> None:
    cache = KVCache(2, 4, 3, 64, 4)
    cache.join(KVCache(2, 1, 3, 64, 4))
    before = cache.k.data_ptr()
    for _ in range(5):
        cache.select([0, 2, 3, 4])
        cache.join(KVCache(2, 1, 3, 64, 4))
        assert cache.batch == 5 and cache.k.data_ptr() == before
