"""The target's own samples: what the draft is trained on, and what says whether the target can be understood.

Texts need no audio, so that fresh sentences can be used.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import Path

import torch
from tqdm import tqdm

from spear_spec.audio import write_atomically
from spear_spec.config import Clock, SamplingConfig
from spear_spec.decoding.loop import generate
from spear_spec.decoding.request import encode as read_texts
from spear_spec.decoding.session import Session
from spear_spec.models.spear_tts import TextToSemantic
from spear_spec.training.data.corpus import Clip
from spear_spec.training.data.prepared import Prepared, load_rows, save_rows
from spear_spec.training.order import chance


def sample_tokens(
    model: TextToSemantic, texts: Sequence[Sequence[int]], sampling: SamplingConfig, generator: torch.Generator
) -> list[list[int]]:
    """Decode texts (ids, speaker first, no end) as one batch, on the model's device: per text its tokens, but for the
    end token. generator: on the CPU.
    """
    session = Session(model, read_texts(model, texts), sampling, generator=generator)
    for _ in generate(session):
        pass
    return [session.speech(row) for row in range(len(texts))]


def sample_folder(
    model: TextToSemantic,
    clips: Sequence[Clip],
    out: Prepared,
    laws: Sequence[SamplingConfig],
    encode: Callable[[str, str], list[int]],
    *,
    clock: Clock,
    batch: int = 24,
    minutes: float = 0.0,
    seed: int = 0,
    progress: bool = True,
) -> None:
    """Speak the phonemes of clips into a prepared folder (tokens sampled, no audio, no durations), or go on with it.

    A run that was stopped anywhere leaves what one that was not would have left: who is spoken with whom, and how, is
    laid down in the folder (spoken.json) before the first batch.

    Args:
        laws: used in turn, one a batch. encode: `(phonemes, speaker) -> ids`. minutes: stop after so long; 0: no limit.
    """
    stored = load_rows(out.tokens) if out.tokens.exists() else {}
    by_id = {clip.id: clip for clip in clips}
    spoken = [clip for clip in out.clips() if clip.id in stored] if stored else []
    agenda, file = None, out.folder / "spoken.json"
    if file.exists() and out.tokens.exists():
        agenda = Agenda.read(file)
        if agenda is not None and {*chain.from_iterable(agenda.groups)} != by_id.keys() - {*agenda.before}:
            agenda = None  # of other clips: those that are not spoken yet are laid down anew
    if agenda is None:
        wanted = [clip for clip in clips if clip.id not in stored]
        # similar lengths together, so that a batch ends together; in random order, so that stopping early is fair
        wanted.sort(key=lambda clip: len(clip.phonemes or ""))
        groups = [[clip.id for clip in wanted[i : i + batch]] for i in range(0, len(wanted), batch)]
        random.Random(seed).shuffle(groups)
        agenda = Agenda([clip.id for clip in spoken], groups)
        agenda.write(file)
    finished = {*agenda.before, *chain.from_iterable(agenda.groups[: agenda.done])}
    stored = {key: row for key, row in stored.items() if key in finished}
    spoken = [clip for clip in spoken if clip.id in finished]
    began, first = time.monotonic(), agenda.done
    for number in tqdm(range(first, len(agenda.groups)), desc="samples", mininterval=5, disable=not progress):
        group = [by_id[key] for key in agenda.groups[number]]
        texts = [encode(clip.phonemes or "", clip.speaker) for clip in group]
        draws = chance(seed, "samples", len(agenda.before), number)
        for clip, tokens in zip(group, sample_tokens(model, texts, laws[number % len(laws)], draws)):
            if tokens:
                stored[clip.id] = torch.tensor(tokens, dtype=torch.int16)
                spoken.append(replace(clip, audio="", frames=None, seconds=len(tokens) / clock.token_rate))
        late = bool(minutes) and time.monotonic() - began > 60 * minutes
        agenda.done = number + 1
        if number % 10 == 9 or late or agenda.done == len(agenda.groups):
            save_rows(out.tokens, stored)
            out.write_clips(spoken)
            agenda.write(file)
        if late:
            break
    if first == len(agenda.groups):  # nothing was left to say; the files may be gone
        save_rows(out.tokens, stored)
        out.write_clips(spoken)


@dataclass
class Agenda:
    """What a folder of samples is to hold: ids that were spoken before, groups of ids that are spoken together, and how
    many groups are done.
    """

    before: list[str]
    groups: list[list[str]]
    done: int = 0

    @classmethod
    def read(cls, path: Path) -> Agenda | None:
        """What `write` wrote; None where it is damaged."""
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    def write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(asdict(self), ensure_ascii=False).encode())
