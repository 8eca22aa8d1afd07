"""Semantic tokens to text: the same transformer with the sides changed (SPEAR-TTS, arXiv 2302.03540, section 3.2).

Its encoder is the pretrained one and stays as it is; its decoder writes phonemes. What it writes for audio without text
is kept line by line, each with a seed of its own, so that a run that was killed goes on and gives the same.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from spear_spec.config import Clock, SamplingConfig
from spear_spec.decoding.request import Request, encode
from spear_spec.engine import Engine
from spear_spec.models.spear_tts import TextToSemantic
from spear_spec.text import PhonemeTokenizer
from spear_spec.training.data.corpus import DURATION_RATE, Clip
from spear_spec.training.data.utterances import Ids, Utterance
from spear_spec.training.low_resource.corrupt import Source

SYMBOLS_A_TOKEN = 2  # phonemes and marks that a semantic token may stand for at most; speech has about .6


def turned(clip: Clip, tokens: Tensor, front: PhonemeTokenizer, source: Source, clock: Clock) -> Utterance:
    """A clip as a back-translator reads it: its semantic tokens are the text, the ids of its phonemes the tokens.

    align: the encoder position of the semantic token in whose time the middle of each phoneme lies, the end to the end;
    None where the clip has no durations.
    """
    phonemes = clip.phonemes or ""
    ids = np.array(front.encode_phonemes(phonemes, clip.speaker)[1:], dtype=np.int64)
    text = source.write(tokens.tolist())
    align: Ids | None = None
    if clip.frames is not None and len(clip.frames) == len(ids) + 2:
        frames = np.array(clip.frames)
        middle = (np.cumsum(frames) - frames / 2)[1:-1] * (clock.token_rate / DURATION_RATE)
        place = 1 + np.clip(middle.astype(np.int64), 0, len(tokens) - 1)
        align = np.append(place, len(text) - 1)
    return Utterance(text, ids, align, clip.speaker)


@dataclass(frozen=True)
class Heard:
    """What a back-translator wrote for a clip. ended: why it stopped ("eos", "cap", "guard"); likelihood: of the
    phonemes and the end token given the semantic tokens, in nats for each of them, at temperature 1.
    """

    id: str
    phonemes: str
    ended: str
    likelihood: float


@torch.no_grad()
def likelihood(model: TextToSemantic, texts: Sequence[Sequence[int]], written: Sequence[Sequence[int]]) -> list[float]:
    """Mean log-probability of each row's tokens and of the end token behind them, given its text (ids without end)."""
    memory = encode(model, texts)
    width = max(map(len, written)) + 1
    rows = [[model.start_id, *row, *[model.eos_id] * (width - 1 - len(row))] for row in written]
    law = model(torch.tensor(rows), memory).logits.float().log_softmax(-1)
    out = []
    for row, scores in zip(written, law):
        target = torch.tensor([*row, model.eos_id])
        out.append(float(scores[: len(target)].gather(-1, target[:, None]).mean()))
    return out


def hear(
    model: TextToSemantic,
    clips: Sequence[Clip],
    tokens: Mapping[str, Tensor],
    out: Path,
    front: PhonemeTokenizer,
    source: Source,
    sampling: SamplingConfig,
    *,
    clock: Clock,
    batch: int = 48,
    seed: int = 0,
    progress: bool = True,
) -> list[Heard]:
    """Write what is said in these clips into `out` (a JSON object a line), or go on with it.

    Raises:
        OSError: the file cannot be written.
    """
    known = {item.id: item for item in read_heard(out)}
    place = {clip.id: n for n, clip in enumerate(clips)}
    wanted = [clip for clip in clips if clip.id not in known and clip.id in tokens]
    wanted.sort(key=lambda clip: len(tokens[clip.id]))  # a batch ends together
    out.parent.mkdir(parents=True, exist_ok=True)
    _mend(out)
    with out.open("a", encoding="utf-8") as file:
        for first in tqdm(range(0, len(wanted), batch), desc="heard", mininterval=5, disable=not progress):
            group = wanted[first : first + batch]
            texts = [source.write(tokens[clip.id].tolist())[:-1] for clip in group]
            requests = [
                Request(
                    text, seed=seed + place[clip.id], sampling=sampling, cap=16 + SYMBOLS_A_TOKEN * len(tokens[clip.id])
                )
                for clip, text in zip(group, texts)
            ]
            done = Engine(model, frame_rate=clock.token_rate).run(requests)
            scores = likelihood(model, texts, [utterance.speech for utterance in done])
            for clip, utterance, score in zip(group, done, scores):
                phonemes = "".join(front.vocab[i] for i in utterance.speech if len(front.vocab[i]) == 1)
                known[clip.id] = Heard(clip.id, phonemes, str(utterance.ended), round(score, 4))
                file.write(json.dumps(asdict(known[clip.id]), ensure_ascii=False) + "\n")
            file.flush()
    return [known[clip.id] for clip in clips if clip.id in known]


def read_heard(path: Path) -> list[Heard]:
    """The whole lines of what `hear` wrote; none where there is no such file."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")[:-1]
    return [Heard(**json.loads(line)) for line in lines]


def _mend(path: Path) -> None:
    """Cut a last line that was not written to its end."""
    if path.exists() and not (data := path.read_bytes()).endswith(b"\n"):
        with path.open("r+b") as file:
            file.truncate(data.rfind(b"\n") + 1)
