"""The seam between decoding and whoever runs a step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from spear_spec.models.contract import Cache, Target
from spear_spec.models.memory import DecoderOutput, Memory
from spear_spec.runtime.lanes import Lanes


class Runtime(Protocol):
    """Owns the memory, the caches and the buffers of the rows that run; scores a step and rolls it back.

    Rows stand at places 0 to B - 1; a row that joins takes the last place, and when rows leave the others move up. What
    it hands to the rule are logits of fixed shape on the target's device, so a rule on tensors needs no host in
    between.

    on_tensors: whether chain rules settle on tensors alone (`SettlingVerifier.settle`), so that the host reads one
    tensor a step, instead of going through lists. features: layers whose output the drafter wants. memory and output
    are by lane; `output` is what the target computed of the step that was kept last (None before the first), its
    position i predicted fresh token i of the row.
    """

    target: Target
    on_tensors: bool
    features: tuple[int, ...]
    lanes: Lanes
    memory: Memory
    cache: Cache
    output: DecoderOutput | None
    depths: list[int] | None

    def admit(self, memory: Memory, guided: Sequence[bool], prefixes: Sequence[Sequence[int]]) -> None:
        """Rows join behind the others; the target reads all of a prefix but its last token."""
        ...

    def score(
        self,
        newest: Sequence[int],
        drafts: Sequence[Sequence[int]],
        parents: Sequence[Sequence[int]] | None = None,
        below: tuple[int, Tensor] | None = None,
    ) -> Tensor:
        """Logits [lanes, N + 1, V] after each row's newest token and then after each of its draft tokens.

        depths: of each row's tree, None for chains. below: see `Target`.
        """
        ...

    def keep(self, counts: Sequence[int], paths: Sequence[Sequence[int]] | None = None) -> None:
        """Of what was scored, the first counts[b] positions of row b stay: the newest token and accepted draft tokens.

        paths: for trees, the accepted nodes of each row.
        """
        ...

    def leave(self, stay: Sequence[int]) -> None:
        """Only the rows at these places go on."""
        ...
