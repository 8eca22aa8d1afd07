"""Letters in time: against attention whose boundaries are known, and against the trainer's own scores."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from spear_spec.config import T2SConfig
from spear_spec.errors import ConfigError
from spear_spec.models.alignment import (
    ALIGNED_HEADS,
    ALIGNED_LAYERS,
    FINE,
    check_aligned,
    letter_attention,
    letter_starts,
    strays,
)
from spear_spec.models.spear_tts import TextToSemantic
from spear_spec.training.t2s.settings import T2STraining

SHAPE = T2SConfig(20, 12, dim=32, source_depth=1, target_depth=4, heads=3, dim_head=16)


def attention_of(durations: list[float], *, noise: float = 0.0, seed: int = 0) -> NDArray[np.float64]:
    """Log-probabilities [T, S] of letters that last so many tokens: all at the letter in each token's middle."""
    ends = np.cumsum(durations)
    tokens = round(ends[-1])
    spoken = np.searchsorted(ends, np.arange(tokens) + 0.5, side="right")
    scores = np.random.default_rng(seed).normal(size=(tokens, len(durations))) * noise
    scores[np.arange(tokens), spoken] += 12
    return scores - np.log(np.exp(scores).sum(1, keepdims=True))


@pytest.mark.parametrize("noise", [0.0, 2.0])
def test_known_boundaries_are_found(noise: float) -> None:
    durations = [5, 2, 3, 2, 4, 2, 3, 6]
    found = letter_starts(attention_of([float(d) for d in durations], noise=noise))
    np.testing.assert_allclose(found, np.concatenate([[0], np.cumsum(durations)]), atol=0.26)


def test_finer_than_a_token() -> None:
    """Where a token's attention is shared by the letters that it holds, the shares tell where they meet."""
    rng = np.random.default_rng(1)
    errors, coarse = [], []
    for _ in range(30):
        durations = [4.0, *rng.uniform(0.5, 2.2, size=30), 4.0]
        durations[-1] += np.ceil(sum(durations)) - sum(durations)
        known = np.concatenate([[0.0], np.cumsum(durations)])
        token = np.arange(round(known[-1]))[:, None]
        shares = np.clip(np.minimum(known[1:], token + 1) - np.maximum(known[:-1], token), 1e-5, None)
        attention = np.log(shares / shares.sum(1, keepdims=True))
        errors.append(np.abs(letter_starts(attention) - known)[1:-1])
        path = attention.argmax(1)
        coarse.append(np.abs(np.searchsorted(path, np.arange(1, len(durations)), side="left") - known[1:-1]))
    assert np.mean(errors) < 0.2
    assert np.mean(errors) < 0.75 * np.mean(coarse)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(1, 60), st.integers(0, 2**32 - 1), st.floats(0, 30))
def test_rises_from_the_first_to_the_last_token(letters: int, tokens: int, seed: int, sharp: float) -> None:
    """Whatever the attention says, repeated letters and letters left out included."""
    scores = np.random.default_rng(seed).normal(size=(tokens, letters)) * sharp
    starts = letter_starts(scores - np.log(np.exp(scores - scores.max()).sum(1, keepdims=True)) - scores.max())
    assert starts.shape == (letters + 1,)
    assert np.isfinite(starts).all()
    assert starts[0] == 0
    assert starts[-1] == pytest.approx(tokens)
    assert (np.diff(starts) >= 0).all()


def test_an_attention_that_slips_for_a_moment_moves_nothing() -> None:
    """A token that looks back to a letter of the beginning (a word that comes twice) is overruled by its neighbours."""
    durations = [4.0, *[2.0] * 10, 4.0]
    attention = attention_of(durations)
    known = letter_starts(attention)
    slipped = attention.copy()
    slipped[16] = attention[5]
    np.testing.assert_allclose(letter_starts(slipped), known, atol=1.01)
    assert np.abs(letter_starts(slipped) - known)[:7].max() < 0.3


def test_letters_left_out_take_no_time() -> None:
    durations = [3.0, 2.0, 2.0, 0.0, 0.0, 0.0, 0.0, 2.0, 2.0, 3.0]
    starts = letter_starts(attention_of(durations))
    assert starts[7] - starts[3] < 0.5
    np.testing.assert_allclose(starts[[1, 2, 8, 9]], [3, 5, 9, 11], atol=0.3)


def test_no_tokens() -> None:
    np.testing.assert_array_equal(letter_starts(np.zeros((0, 4))), np.zeros(5))


def test_steps_by_a_sum_over_all_paths() -> None:
    """The oracle: every monotone path of letters, with its probability, summed up."""
    rng = np.random.default_rng(3)
    tokens, letters = 3, 4
    scores = rng.normal(size=(tokens, letters))
    attention = scores - np.log(np.exp(scores).sum(1, keepdims=True))
    steps = tokens * FINE
    at = (np.arange(steps) + 0.5) / FINE - 0.5
    emitted = np.stack([np.interp(at, np.arange(tokens), attention[:, s]) for s in range(letters)], 1) / FINE
    leave, jump = min(letters / steps, 0.95), 1e-3
    total, expected = 0.0, np.zeros(letters + 1)
    for code in range(letters**steps):
        path = [code // letters**n % letters for n in range(steps)]
        if any(b < a for a, b in zip(path, path[1:])):
            continue
        weight = (
            0.5 ** path[0] * 0.5 ** (letters - 1 - path[-1]) * np.exp(sum(emitted[n, s] for n, s in enumerate(path)))
        )
        for a, b in zip(path, path[1:]):
            stay, go = (1 - leave) * (1 - jump), leave * (1 - jump)
            weight *= stay if a == b else (go if b == a + 1 else 0.0) + jump / letters
        total += weight
        expected += weight * np.array([sum(s < n for s in path) for n in range(letters + 1)]) / FINE
    np.testing.assert_allclose(letter_starts(attention), expected / total, atol=1e-9)


def test_attention_is_what_training_supervises() -> None:
    """The heads' scores as the trainer's loss sees them, one by one, from the public pieces of a layer."""
    torch.manual_seed(0)
    model = TextToSemantic(SHAPE).eval()
    ids, tokens = [3, 5, 7, 9], [1, 4, 2, 2, 8]
    found = letter_attention(model, ids, tokens)
    memory = model.encode(torch.tensor([model.text(ids)]))
    x = model.embed(torch.tensor([[model.start_id, *tokens[:-1]]]))
    table = model.rotary(5)[:5]
    kept = []
    with torch.no_grad():
        for index, layer in enumerate(model.decoder):
            x = x + layer.self_attn(x, table, causal=True)
            q, k = layer.cross_attn.queries(x)[0], memory.cross[index][0][0]
            if index in ALIGNED_LAYERS:
                kept += [(q[h] @ k[h, 1:].T / 4).double().log_softmax(-1) for h in range(ALIGNED_HEADS)]
            x = x + layer.cross_attn(x, *memory.cross[index])
            x = x + layer.ff(x)
    mean = torch.stack(kept).mean(0).log_softmax(-1)
    assert found.shape == (5, 5)
    np.testing.assert_allclose(found, mean.numpy(), atol=1e-5)
    assert (T2STraining().align_layers, T2STraining().align_heads) == (ALIGNED_LAYERS, ALIGNED_HEADS)


def test_who_cannot_tell() -> None:
    with pytest.raises(ConfigError, match="does not tell which letter"):
        check_aligned(object())
    shallow = TextToSemantic(T2SConfig(20, 12, dim=32, source_depth=1, target_depth=2, heads=2, dim_head=16))
    with pytest.raises(ConfigError, match="3 decoder layers"):
        letter_attention(shallow, [1, 2], [3])


def test_words_said_twice_are_strays() -> None:
    """A path that goes back over many letters and says them again; a moment's slip is none."""
    clean = attention_of([4.0, *[2.0] * 24, 4.0])
    assert strays(clean, letter_starts(clean), 6) == 0
    again = np.concatenate([clean[:44], clean[8:44], clean[44:]])
    assert strays(again, letter_starts(again), 6) >= 1
    assert strays(again, letter_starts(again), 37) == 0
    slip = clean.copy()
    slip[20:23] = clean[4:7]
    assert strays(slip, letter_starts(slip), 6) == 0
    assert strays(slip, letter_starts(slip), 3) == 1
