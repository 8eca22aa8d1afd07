"""Which letter of the text is spoken when, from the cross-attention that training pulled to the letter being spoken.

The scores of a few heads (`HEADS`) at the position that writes a token point to the letter in the middle of that token.
They become a monotone alignment by a hidden Markov model: its states are the letters in order, its steps `FINE` to a
token, and the mean of its posterior is where each letter begins, finer than a token.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from spear_spec.errors import ConfigError
from spear_spec.models.spear_tts import TextToSemantic
from spear_spec.nn.attention import attend, seeing

Array = npt.NDArray[np.float64]

ALIGNED_LAYERS = (1, 2)  # decoder layers, from 0, in which durations supervise ...
ALIGNED_HEADS = 2  # ... so many heads, the first ones (training/t2s)

FINE = 2  # steps a token
_FLOOR = -9.0  # log-probability: no token forbids a letter
_JUMP = 1e-3  # chance that letters are left out, a step
_FAR = 5  # letters
_PACE = 0.25  # chance that a letter is over, a step, where it is not known how many there are: two tokens a letter
_EDGE = 0.5  # each letter further from the first at the beginning, and from the last at the end, is so much less likely


def check_aligned(target: object) -> TextToSemantic:
    """The target, if its attention can be read.

    Raises:
        ConfigError: it is another transformer, or has too few layers or heads.
    """
    if not isinstance(target, TextToSemantic):
        raise ConfigError(
            f"{type(target).__name__} does not tell which letter it speaks: no timestamps with this transformer"
        )
    if target.depth <= max(ALIGNED_LAYERS) or target.heads < ALIGNED_HEADS:
        raise ConfigError(
            f"timestamps need {max(ALIGNED_LAYERS) + 1} decoder layers of {ALIGNED_HEADS} heads; this voice has "
            f"{target.depth} of {target.heads}"
        )
    return target


class Letters:
    """Tells of tokens which letter of a text they speak. The text is encoded when this is asked first, and once.

    target: the transformer that wrote them. ids: a segment's text ids.
    """

    def __init__(self, target: object, ids: Sequence[int]) -> None:
        self._target, self._ids = target, ids
        self._cross: list[tuple[Tensor, Tensor]] = []

    @torch.inference_mode()
    def attention(self, tokens: Sequence[int]) -> Array:
        """See `letter_attention`."""
        model = check_aligned(self._target)
        if not self._cross:
            self._cross = model.encode(torch.tensor([model.text(self._ids)], device=model.device)).cross
        x = model.embed(torch.tensor([[model.start_id, *tokens[:-1]]], device=model.device))
        table, see, last = model.rotary(x.shape[1])[: x.shape[1]], seeing(None, causal=True), max(ALIGNED_LAYERS)
        kept = []
        for index in range(last + 1):
            layer, (keys, values) = model.decoder[index], self._cross[index]
            x = layer.add_past(x, see(*layer.past(x, table)))
            queries = layer.ask(x)
            if index in ALIGNED_LAYERS:
                asked, there = queries[0, :ALIGNED_HEADS], keys[0, :ALIGNED_HEADS, 1:]  # without the null slot
                kept.append((asked @ there.transpose(-1, -2) * asked.shape[-1] ** -0.5).double().log_softmax(-1))
            if index < last:
                x = layer.add_feed_forward(layer.add_text(x, attend(queries, keys, values, None)))
        mean: Array = torch.cat(kept).mean(0).log_softmax(-1).cpu().numpy()
        return mean[: len(tokens)]


def letter_attention(target: object, ids: Sequence[int], tokens: Sequence[int]) -> Array:
    """Log-probabilities [T, S] of the letter that each of the T tokens speaks, the heads' geometric mean.

    One uncached forward of the first layers. ids: a segment's text ids (S = their number, and one for the end of the
    text, which stands for the silence behind; the first, the speaker, stands for the silence before).

    Raises:
        ConfigError: see `check_aligned`. TextError: ids that the target does not know.
    """
    return Letters(target, ids).attention(tokens)


def letter_starts(attention: Array, ended: bool = True) -> Array:
    """Where each letter begins, in tokens [S + 1], rising from 0 to the number of tokens: the last is the end.

    attention [T, S]: log-probabilities of the letter that each token speaks, in its middle (`letter_attention`).
    ended: whether the text was spoken to its end; if not, letters that were not reached begin at the last token's end.
    """
    tokens, letters = attention.shape
    if not tokens:
        return np.zeros(letters + 1)
    at = (np.arange(tokens * FINE) + 0.5) / FINE - 0.5  # middles of the steps, on the tokens' middles
    left = np.clip(np.floor(at).astype(int), 0, tokens - 1)
    right, share = np.minimum(left + 1, tokens - 1), np.clip(at - left, 0, 1)[:, None]
    known = np.maximum(attention, _FLOOR)
    emitted = np.exp((known[left] * (1 - share) + known[right] * share) / FINE)
    leave = min(letters / (tokens * FINE), 0.95) if ended else _PACE
    passed = np.cumsum(_posterior(emitted, leave, ended), axis=1)
    starts = np.concatenate([[0.0], passed.sum(0) / FINE])
    return np.minimum(np.maximum.accumulate(starts), tokens)


def _posterior(emitted: Array, leave: float, ended: bool) -> Array:
    """P(letter | all steps) [N, S] of a chain that stays, goes on with probability `leave`, or (`_JUMP`) leaves letters
    out; emitted [N, S]: likelihoods. ended: it comes to the last letter.
    """
    steps, letters = emitted.shape
    stay, go, jump = (1 - leave) * (1 - _JUMP), leave * (1 - _JUMP), _JUMP / letters
    before, after = np.empty_like(emitted), np.empty_like(emitted)
    edge = _EDGE ** np.minimum(np.arange(letters), 500.0)
    before[0] = _unit(emitted[0] * edge)
    for n in range(1, steps):
        was = before[n - 1]
        now = was * stay
        now[1:] += go * was[:-1] + jump * np.cumsum(was[:-1])
        before[n] = _unit(now * emitted[n])
    after[-1] = edge[::-1] if ended else 1.0
    for n in range(steps - 2, -1, -1):
        then = after[n + 1] * emitted[n + 1]
        now = then * stay
        now[:-1] += go * then[1:] + jump * np.cumsum(then[:0:-1])[::-1]
        after[n] = _unit(now)
    both = before * after
    return both / both.sum(1, keepdims=True)


def _unit(row: Array) -> Array:
    return row / row.sum()


def strays(attention: Array, starts: Array, least: int, kept: int = 0) -> int:
    """How often at least `least` tokens in a row look for the most part at letters far (`_FAR`) from those that the
    alignment gives them: words that are said twice, or out of order. Those that end among the first `kept` tokens are
    not counted.
    """
    tokens, letters = attention.shape
    middle = np.minimum(np.searchsorted(starts[1:], np.arange(tokens) + 0.5, side="right"), letters - 1)
    far = np.abs(np.arange(letters) - middle[:, None]) > _FAR
    away = np.concatenate([[False], (np.exp(attention) * far).sum(1) > 0.5, [False]])
    edges = np.flatnonzero(np.diff(away.astype(np.int8)))
    return int(((edges[1::2] - edges[::2] >= least) & (edges[1::2] > kept)).sum())
