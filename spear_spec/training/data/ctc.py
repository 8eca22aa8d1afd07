"""A small token-to-phoneme CTC (Graves et al. 2006): judges sampled tokens, and aligns phonemes where no durations
are given.

It hears semantic tokens only, never audio, so that a text-to-semantic model can be judged before there is a vocoder.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional as F

from spear_spec.audio import write_atomically
from spear_spec.errors import BundleError
from spear_spec.evaluation.edits import edit_distance
from spear_spec.nn.transformer import Layers
from spear_spec.text.symbols import PUNCTUATION, STRESS

SILENT = frozenset((*PUNCTUATION, *STRESS))  # characters of a phoneme string that make no phone of their own
UPSAMPLE = 2  # outputs a token: one would be too slow for the fastest phones
BLANK = 0


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
        self.blocks = Layers(Block(dim, kernel, dropout) for _ in range(blocks))
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
        tokens = tokens.long().to(self.head.weight.device)
        path = torch.unique_consecutive(self.eval()(tokens[None])[0].argmax(-1)).cpu()
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
        weights = {k: v.contiguous() for k, v in self.state_dict().items()}
        write_atomically(Path(path), save(weights, metadata={"ctc": json.dumps(self.settings)}))

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
