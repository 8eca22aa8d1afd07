"""Lines cut into shards: what one worker does in one go, and what stands on disk whole or not at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from spear_spec.bulk.lines import Line, cut
from spear_spec.bulk.settings import Settings, digest


@dataclass(frozen=True)
class Shard:
    """name: of its folder. key: of the settings and its lines; the same key, the same bytes."""

    name: str
    key: str
    lines: tuple[Line, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; `from_dict` reads it back."""
        return {"name": self.name, "key": self.key, "lines": [line.to_dict() for line in self.lines]}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        return cls(values["name"], values["key"], tuple(Line(**line) for line in values["lines"]))


def cut_shards(lines: Sequence[Line], settings: Settings) -> list[Shard]:
    """All lines, in order, in shards of `settings.shard_lines`."""
    parts = list(cut(list(lines), settings.shard_lines))
    digits, key = max(5, len(str(len(parts) - 1))), settings.key
    return [
        Shard(f"{at:0{digits}d}", digest([key, [line.to_dict() for line in part]]), tuple(part))
        for at, part in enumerate(parts)
    ]
