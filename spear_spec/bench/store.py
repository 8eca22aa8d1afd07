"""The rows of a bench that are finished, kept in its JSON file, so that an interrupted one goes on where it stopped."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from spear_spec.audio import write_atomically

UNFINISHED = "unfinished"  # in a bench/1 object that is not whole: what its rows were measured with


class Store:
    """Rows of bench/1, the peer's measurement and what the judges heard of the autoregressive loop, saved as they come.

    head: schema, commit and so on. source, settings: digests; a file whose own differ is started over. path None:
    nothing is kept. What a run has finished has no mark, and is measured anew by the next one.
    """

    def __init__(self, path: Path | None, head: Mapping[str, Any], source: str, settings: str) -> None:
        self.path, self.head, self.mark = path, dict(head), {"source": source, "settings": settings}
        self.rows: list[dict[str, Any]] = []
        self.peer: dict[str, Any] | None = None
        self.heard: dict[str, list[Any]] | None = None

    def load(self, tell: Callable[[str], None]) -> None:
        """Take up what an interrupted run has left."""
        if self.path is None or not self.path.is_file():
            return
        try:
            found = json.loads(self.path.read_text(encoding="utf-8"))
            mark, rows = found[UNFINISHED], found["rows"]
            before = {name: mark[name] for name in self.mark}
        except (OSError, ValueError, KeyError, TypeError):
            return  # finished, or none of ours: it is replaced
        if before["source"] != self.mark["source"]:
            tell(f"{self.path} was begun with other code (commit {found.get('commit')}): measuring anew")
        elif before != self.mark:
            tell(f"{self.path} was begun with other settings: measuring anew")
        else:
            self.rows, self.peer, self.heard = rows, found.get("peer"), mark.get("heard")
            tell(f"{self.path} holds {len(rows)} finished rows: going on")

    def find(self, cfg: Mapping[str, Any]) -> dict[str, Any] | None:
        """The row that was measured with these settings (CFG)."""
        wanted = json.loads(json.dumps(cfg))
        return next((row for row in self.rows if all(row.get(name) == value for name, value in wanted.items())), None)

    def save(self) -> None:
        """Write what there is.

        Raises:
            AudioError: the file cannot be written.
        """
        if self.path is None:
            return
        whole = {**self.head, "peer": self.peer, "rows": self.rows, UNFINISHED: {**self.mark, "heard": self.heard}}
        write_atomically(self.path, (json.dumps(whole, ensure_ascii=False, allow_nan=False) + "\n").encode())


def digest(*settings: Any) -> str:
    """Of anything that JSON can hold."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]
