"""A small token-to-phoneme CTC (Graves et al. 2006): judges sampled tokens, and aligns phonemes where no durations
are given.

It hears semantic tokens only, never audio, so that a text-to-semantic model can be judged before there is a vocoder.
"""

from __future__ import annotations

import json
import math
import os
import random
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from spear_spec.errors import BundleError, ConfigError
from spear_spec.evaluation.edits import edit_distance
from spear_spec.text.symbols import PUNCTUATION, STRESS
from spear_spec.training.precision import mixed

SILENT = frozenset((*PUNCTUATION, *STRESS))  # characters of a phoneme string that make no phone of their own
UPSAMPLE = 2  # two outputs a token: 25 Hz is too slow for the fastest phones
BLANK = 0
FRAMES_PER_TOKEN = 960 / 600  # a duration frame is 600 samples, a token 960 (both at 24 kHz)


class Spoken(NamedTuple):
    """tokens int [T]; phonemes; frames: durations of silence, each phoneme, silence (`Clip.frames`), or None."""

    tokens: Tensor
    phonemes: str
    frames: Sequence[int] | None = None


def phones(phonemes: str) -> str:
    """The phoneme string without stress, blanks and punctuation: what the CTC writes and the error counts."""
    return "".join(c for c in phonemes if c not in SILENT)


class Block(nn.Module):
    """ConvNeXt over time (Liu et al. 2022): depthwise convolution, then a feed-forward, residual."""

    def __init__(self, dim: int, kernel: int, dropout: float) -> None:
        super().__init__()
        self.conv = nn.Conv1d(dim, dim, kernel, padding=kernel // 2, groups=dim)
        self.norm = nn.LayerNorm(dim)
        self.up = nn.Linear(dim, 2 * dim)
        self.down = nn.Linear(2 * dim, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.conv(x.transpose(1, 2)).transpose(1, 2))
        return x + self.dropout(self.down(F.gelu(self.up(y))))


class PhonemeCTC(nn.Module):
    """Semantic tokens to phones.

    Args:
        num_tokens: size of the semantic vocabulary.
        alphabet: the phones, one character each; output 0 is the blank, output i + 1 is `alphabet[i]`.
    """

    def __init__(
        self, num_tokens: int, alphabet: str, dim: int = 256, blocks: int = 4, kernel: int = 7, dropout: float = 0.1
    ) -> None:
        super().__init__()
        self.settings = {"num_tokens": num_tokens, "alphabet": alphabet, "dim": dim, "blocks": blocks, "kernel": kernel}
        self.alphabet = alphabet
        self.mask_id, self.pad_id = num_tokens, num_tokens + 1
        self.embedding = nn.Embedding(num_tokens + 2, dim)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(Block(dim, kernel, dropout) for _ in range(blocks))
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, UPSAMPLE * (len(alphabet) + 1))

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens int64 [B, T], padded with `pad_id`, to log-probabilities [B, 2 T, phones + 1]."""
        pad = (tokens == self.pad_id)[..., None]
        x = self.dropout(self.embedding(tokens)).masked_fill(pad, 0)
        for block in self.blocks:
            x = block(x).masked_fill(pad, 0)  # so that padding cannot leak into a short row
        x = self.head(self.norm(x)).float()
        return x.unflatten(-1, (UPSAMPLE, -1)).flatten(1, 2).log_softmax(-1)

    def encode(self, phonemes: str) -> Tensor:
        """Output indices int64 of the phones that the alphabet knows."""
        return torch.tensor(
            [self.alphabet.index(c) + 1 for c in phones(phonemes) if c in self.alphabet], dtype=torch.long
        )

    @torch.no_grad()
    def transcribe(self, tokens: Tensor) -> str:
        """The most likely path of tokens [T], collapsed."""
        if not len(tokens):
            return ""
        path = torch.unique_consecutive(self.eval()(tokens.long()[None])[0].argmax(-1))
        return "".join(self.alphabet[int(i) - 1] for i in path if i != BLANK)

    def phoneme_error(self, tokens: Tensor, phonemes: str) -> tuple[int, int]:
        """Edit distance between what these tokens [T] say and the phones of `phonemes`, and the number of those phones.
        The rate over a set is the sum of the first over the sum of the second."""
        wanted = phones(phonemes)
        return edit_distance(self.transcribe(tokens), wanted), len(wanted)

    def error_rate(self, data: Iterable[Spoken]) -> float:
        """Phoneme error rate over a set."""
        counts = [self.phoneme_error(item.tokens, item.phonemes) for item in data]
        return sum(e for e, _ in counts) / max(1, sum(n for _, n in counts))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Weights and settings to one safetensors file."""
        save_file(
            {k: v.contiguous() for k, v in self.state_dict().items()}, path, metadata={"ctc": json.dumps(self.settings)}
        )

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> PhonemeCTC:
        """Read what `save` wrote, in evaluation mode.

        Raises:
            BundleError: the file is missing, damaged or not a CTC.
        """
        try:
            with safe_open(Path(path), "pt") as file:
                model = cls(**json.loads((file.metadata() or {})["ctc"]))
                model.load_state_dict({key: file.get_tensor(key) for key in file.keys()})  # noqa: SIM118  (a file handle, not a dict)
        except (OSError, KeyError, RuntimeError, ValueError, SafetensorError) as error:
            raise BundleError(f"cannot read a CTC from {path}: {error}") from None
        return model.eval()


def train_ctc(
    data: Sequence[Spoken],
    num_tokens: int,
    *,
    minutes: float = 1.0,
    steps: int | None = None,
    tokens_a_step: int = 1000,
    learning_rate: float = 3e-3,
    seed: int = 0,
    dim: int = 256,
    blocks: int = 4,
    centroids: Tensor | None = None,
    framewise: float = 0.5,
    progress: bool = True,
) -> PhonemeCTC:
    """Train for `minutes` of CPU time (or `steps`), the learning rate falling to 0 on a cosine.

    For the first `framewise` of the run each output learns the phone that the durations say is spoken there: a CTC left
    alone spends most of such a short run writing nothing but blanks. Without durations there is no such help, and the
    run
    must be several times as long. A tenth of the tokens is masked, so that it listens to the neighbours as well.
    `centroids` [K, D] of the tokens start the embedding (a random projection of them).

    Raises:
        ConfigError: there is nothing to train on.
    """
    usable = [
        item for item in data if phones(item.phonemes) and len(item.tokens) * UPSAMPLE > len(phones(item.phonemes))
    ]
    if not usable:
        raise ConfigError("no utterance with tokens and phonemes to train the CTC on")
    torch.manual_seed(seed)
    model = PhonemeCTC(
        num_tokens, "".join(sorted({c for item in usable for c in phones(item.phonemes)})), dim, blocks
    ).train()
    if centroids is not None:
        spread = centroids.float() - centroids.float().mean(0)
        projected = spread @ torch.randn(centroids.shape[1], dim)
        model.embedding.weight.data[:num_tokens] = projected / projected.std()
    if all(item.frames is None for item in usable):
        framewise = 0.0
    optimizer = torch.optim.AdamW(model.parameters(), learning_rate, betas=(0.9, 0.98), weight_decay=0.01)
    bar = tqdm(
        total=steps or round(minutes * 60),
        desc="ctc",
        unit="step" if steps else "s",
        disable=not progress,
        mininterval=5,
    )
    started = time.process_time()
    for step, batch in enumerate(_batches(model, usable, tokens_a_step, seed)):
        done = step / steps if steps else (time.process_time() - started) / (60 * minutes)
        if done >= 1:
            break
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * min(1.0, (step + 1) / 20) * 0.5 * (1 + math.cos(math.pi * done))
        hidden = (torch.rand(batch.tokens.shape) < 0.1) & (batch.tokens != model.pad_id)
        masked = batch.tokens.masked_fill(hidden, model.mask_id)
        with mixed("cpu"):
            log_probs = model(masked)
        if done < framewise and bool((batch.labels >= 0).any()):
            loss = F.nll_loss(log_probs.flatten(0, 1), batch.labels.flatten(), ignore_index=-1)
        else:
            sizes = torch.tensor([len(t) for t in batch.targets])
            loss = F.ctc_loss(
                log_probs.transpose(0, 1), torch.cat(batch.targets), batch.lengths, sizes, zero_infinity=True
            )
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        bar.set_postfix(loss=f"{loss.item():.3f}", steps=step + 1, refresh=False)
        bar.update(1 if steps else round(min(1.0, done) * bar.total) - bar.n)
    bar.close()
    return model.eval()


@dataclass
class _Batch:
    tokens: Tensor  # [B, T], padded with pad_id
    lengths: Tensor  # [B], outputs of each row
    targets: list[Tensor]  # the phones of each row
    labels: Tensor  # [B, 2 T], the phone (or blank) spoken at each output, -1 where padded or not known


def output_labels(model: PhonemeCTC, item: Spoken) -> Tensor:
    """What each of the 2 T outputs should write by the durations, int64 [2 T]; -1 throughout without them."""
    length = len(item.tokens) * UPSAMPLE
    if item.frames is None or len(item.frames) != len(item.phonemes) + 2:
        return torch.full((length,), -1)
    known = {c: i + 1 for i, c in enumerate(model.alphabet)}
    ids = np.array([BLANK, *(known.get(c, BLANK) for c in item.phonemes), BLANK])
    middle = (np.arange(length) + 0.5) * FRAMES_PER_TOKEN / UPSAMPLE
    return torch.from_numpy(
        ids[np.minimum(np.searchsorted(np.cumsum(item.frames), middle, side="right"), len(ids) - 1)]
    )


def _batches(model: PhonemeCTC, data: Sequence[Spoken], tokens_a_step: int, seed: int) -> Iterator[_Batch]:
    """Endless batches of like lengths."""
    pad = nn.utils.rnn.pad_sequence
    groups: list[list[Spoken]] = [[]]
    for item in sorted(data, key=lambda item: len(item.tokens)):
        if groups[-1] and (len(groups[-1]) + 1) * len(item.tokens) > tokens_a_step:
            groups.append([])
        groups[-1].append(item)
    rng = random.Random(seed)
    while True:
        rng.shuffle(groups)
        for group in groups:
            tokens = pad([item.tokens.long() for item in group], batch_first=True, padding_value=model.pad_id)
            labels = pad([output_labels(model, item) for item in group], batch_first=True, padding_value=-1)
            lengths = torch.tensor([len(item.tokens) * UPSAMPLE for item in group])
            yield _Batch(tokens, lengths, [model.encode(item.phonemes) for item in group], labels)
