"""A target from outside that has neither layers nor attention: a recurrent network over the tokens, and the text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from spear_spec.errors import ConfigError, TextError
from spear_spec.models.memory import DecoderOutput, Memory
from spear_spec.nn.tree import Tree
from spear_spec.voice.config import VoiceConfig


class States:
    """The cache: what the network remembers behind each token [B, room, dim]; what lies behind `lengths` is scratch."""

    def __init__(self, states: Tensor) -> None:
        self.states, self.lengths = states, [0] * len(states)

    def crop(self, lengths: list[int]) -> None:
        self.lengths = list(lengths)

    def keep(self, base: list[int], path: list[list[int]]) -> None:
        for row, (start, nodes) in enumerate(zip(base, path)):
            self.states[row, start : start + len(nodes)] = self.states[row, [start + node for node in nodes]]
        self.lengths = [start + len(nodes) for start, nodes in zip(base, path)]

    def select(self, rows: list[int]) -> None:
        self.states, self.lengths = self.states[rows], [self.lengths[row] for row in rows]

    def join(self, other: States) -> None:
        room = max(self.states.shape[1], other.states.shape[1])
        self.states = torch.cat([_roomy(states, room) for states in (self.states, other.states)])
        self.lengths = [*self.lengths, *other.lengths]

    def write(self, states: Tensor) -> None:
        self.states = _roomy(self.states, max(self.lengths) + states.shape[1])
        for row, start in enumerate(self.lengths):
            self.states[row, start : start + states.shape[1]] = states[row]
        self.lengths = [start + states.shape[1] for start in self.lengths]


def _roomy(states: Tensor, room: int) -> Tensor:
    more = states.new_zeros(len(states), max(0, room - states.shape[1]), states.shape[2])
    return torch.cat((states, more), 1)


class GruTarget(nn.Module):
    """state_i = cell(token_i + text, state of the token before); logits follow from the state."""

    depth, heads, max_tokens = 1, 2, None

    def __init__(self, text_ids: int, tokens: int, dim: int) -> None:
        super().__init__()
        self.text_ids, self.dim, self.dim_head = text_ids, dim, dim // 2
        self.eos_id, self.vocab_size, self.start_id = tokens, tokens + 1, tokens + 1
        self.text_emb = nn.Embedding(text_ids, dim)
        self.token_emb = nn.Embedding(self.vocab_size + 1, dim)
        self.cell = nn.GRUCell(dim, dim)
        self.to_logits = nn.Linear(dim, self.vocab_size, bias=False)

    @property
    def device(self) -> torch.device:
        return self.head.device

    @property
    def dtype(self) -> torch.dtype:
        return self.head.dtype

    @property
    def embedding(self) -> Tensor:
        return self.token_emb.weight

    @property
    def head(self) -> Tensor:
        return self.to_logits.weight

    def shared(self) -> tuple[Tensor, ...]:
        return self.embedding, self.head

    def text(self, ids: Sequence[int]) -> list[int]:
        if not ids or not all(isinstance(i, int) and 0 <= i < self.text_ids for i in ids):
            raise TextError(f"text ids must lie below {self.text_ids}")
        return list(ids)

    def encode(self, text_ids: Tensor, mask: Tensor | None = None) -> Memory:
        return Memory.of(self.text_emb(text_ids), torch.ones_like(text_ids).bool() if mask is None else mask, [])

    def new_cache(self, batch: int, capacity: int = 512) -> States:
        return States(self.head.new_zeros(batch, capacity, self.dim))

    def embed(self, tokens: Tensor) -> Tensor:
        return self.token_emb(tokens)

    def logits(self, hidden: Tensor) -> Tensor:
        return self.to_logits(hidden)

    def first_layers(self, tokens: Tensor, memory: Memory, cache: States, count: int) -> Tensor:
        raise ConfigError("this network has no layers to leave early")

    def forward(
        self,
        tokens: Tensor,
        memory: Memory,
        cache: States | None = None,
        *,
        tree: Tree | None = None,
        features: Sequence[int] = (),
        skip: Any = None,
        below: Any = None,
    ) -> DecoderOutput:
        if skip is not None or below is not None:
            raise ConfigError("this network has no layers to leave out")
        said = memory.mask[..., None]
        text = (memory.hidden * said).sum(1) / said.sum(1).clamp(min=1)  # zero where there is none
        vectors = self.embed(tokens) + text[:, None]
        first = vectors.new_zeros(len(tokens), self.dim)
        if cache is not None:
            for row, length in enumerate(cache.lengths):
                if length:
                    first[row] = cache.states[row, length - 1]
        states: list[Tensor] = []
        for at in range(tokens.shape[1]):
            before = first if at == 0 else states[at - 1]
            if tree is not None:
                seen = [line[at, :at].nonzero().flatten().tolist() for line in tree.mask]
                before = torch.stack([states[s[-1]][row] if s else first[row] for row, s in enumerate(seen)])
            states.append(self.cell(vectors[:, at], before))
        hidden = torch.stack(states, 1)
        if cache is not None:
            cache.write(hidden)
        return DecoderOutput(self.logits(hidden), hidden, [hidden for _ in features])


def build(shape: Mapping[str, Any], voice: VoiceConfig) -> GruTarget:
    """The entry point: {"text_ids": N, "dim": D} of a voice's config.json."""
    if set(shape) != {"text_ids", "dim"}:
        raise ConfigError("a gru has text_ids and dim")
    return GruTarget(shape["text_ids"], voice.semantic["k"], shape["dim"])
