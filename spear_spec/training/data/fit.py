"""The shards of preparation: phonemes for clips, and which of them are fit to be learnt from."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from spear_spec.text import PhonemeTokenizer
from spear_spec.training.data.checks import Limits, measure
from spear_spec.training.data.corpus import Clip, add_phonemes
from spear_spec.training.data.spread import Do, Hands, forget, spread


@dataclass(frozen=True)
class Fit:
    """A `spread.Task`: phonemes by the package's own front end, then `checks.measure`."""

    limits: Limits

    def open(self) -> Do:
        front = PhonemeTokenizer(())

        def do(clips: list[Clip]) -> bytes:
            spoken, silent = add_phonemes(clips, lambda text: front.phonemes(text)[0], progress=False)
            kept, odd = measure(spoken, self.limits, progress=False)
            told = {"kept": [asdict(clip) for clip in kept], "dropped": silent + odd}
            return json.dumps(told, ensure_ascii=False).encode()

        return do


def fit_clips(
    clips: Sequence[Clip], limits: Limits, folder: Path, hands: Hands
) -> tuple[list[Clip], list[tuple[str, str]]]:
    """The clips that can be learnt from, with phonemes and length, and (id, reason) of the others.

    folder: where the shards are until all are done; a run that was killed goes on with them.
    """
    kept: list[Clip] = []
    dropped: list[tuple[str, str]] = []
    for path in spread(Fit(limits), clips, folder, hands, name=f"prepare {folder.name}"):
        told = json.loads(path.read_text(encoding="utf-8"))
        kept += [Clip(**each) for each in told["kept"]]
        dropped += [(name, reason) for name, reason in told["dropped"]]
    forget(folder)
    return kept, dropped
