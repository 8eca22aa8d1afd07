"""The target's own samples: what the draft is trained on, and what says whether the target can be understood.

Texts need no audio, so that fresh sentences can be used.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from tqdm import tqdm

from spear_spec.config import Clock, SamplingConfig
from spear_spec.decoding.loop import generate
from spear_spec.decoding.request import encode as read_texts
from spear_spec.decoding.session import Session
from spear_spec.models.spear_tts import TextToSemantic
from spear_spec.training.data.corpus import Clip
from spear_spec.training.data.prepared import Prepared, load_rows, save_rows


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

    Args:
        laws: used in turn, one a batch. encode: `(phonemes, speaker) -> ids`. minutes: stop after so long; 0: no limit.
    """
    stored = load_rows(out.tokens) if out.tokens.exists() else {}
    spoken = [clip for clip in out.clips() if clip.id in stored] if stored else []
    wanted = [clip for clip in clips if clip.id not in stored]
    # similar lengths together, so that a batch ends together; batches in random order, so that stopping early is fair
    wanted.sort(key=lambda clip: len(clip.phonemes or ""))
    groups = [wanted[i : i + batch] for i in range(0, len(wanted), batch)]
    random.Random(seed).shuffle(groups)
    began, generator = time.monotonic(), torch.Generator().manual_seed(seed + len(stored))
    for number, group in enumerate(tqdm(groups, desc="samples", mininterval=5, disable=not progress)):
        texts = [encode(clip.phonemes or "", clip.speaker) for clip in group]
        for clip, tokens in zip(group, sample_tokens(model, texts, laws[number % len(laws)], generator)):
            if tokens:
                stored[clip.id] = torch.tensor(tokens, dtype=torch.int16)
                spoken.append(replace(clip, audio="", frames=None, seconds=len(tokens) / clock.token_rate))
        late = bool(minutes) and time.monotonic() - began > 60 * minutes
        if number % 10 == 9 or late:
            out.write_clips(spoken)
            save_rows(out.tokens, stored)
        if late:
            break
    out.write_clips(spoken)
    save_rows(out.tokens, stored)
