"""Semantic tokens to text: the same transformer with the sides changed (SPEAR-TTS, arXiv 2302.03540, section 3.2).

Its encoder is the pretrained one and stays as it is; its decoder writes phonemes. What it writes for audio without text
is kept line by line, each with a seed of its own, so that a run that was killed goes on and gives the same.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from spear_spec.config import Clock, SamplingConfig
from spear_spec.decoding.beam import beam_search
from spear_spec.decoding.request import Request, encode
from spear_spec.decoding.sampling import probabilities
from spear_spec.engine import Engine
from spear_spec.models.spear_tts import TextToSemantic
from spear_spec.text import PhonemeTokenizer
from spear_spec.training.data.corpus import DURATION_RATE, Clip
from spear_spec.training.data.ctc import SILENT, PhonemeCTC
from spear_spec.training.data.utterances import Ids, Utterance
from spear_spec.training.low_resource.corrupt import Source
from spear_spec.training.low_resource.likelihood import ctc_likelihood, likelihood

WAYS = ("guided", "sample", "beam")
MARKS = 3  # stress, blanks and punctuation in a row, at most: ", ˈ"
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


def follow(
    model: TextToSemantic,
    texts: Sequence[Sequence[int]],
    wanted: Sequence[Sequence[int]],
    marks: Sequence[int],
    usual: Collection[tuple[int, int]],
    sampling: SamplingConfig,
    seeds: Sequence[int],
) -> list[list[int]]:
    """What the model writes for texts (ids without end) when its letters are given: for each text the ids `wanted`, in
    order, with marks that the model draws between them, no two of a kind together.

    The law at each step is the model's own over what may stand there, renormalised: the next letter (behind the last
    one the end), and marks, at most `MARKS` in a row, each behind what it stands behind in `usual` pairs of neighbours
    and, if a letter never follows but closely (stress), before such a letter alone. Behind a mark stands what usually
    does.
    """
    before = {mark: {b for a, b in usual if a == mark} for mark in marks}  # what follows each mark
    stress = {mark for mark, after in before.items() if after and not after & set(marks)}
    size = len(texts)
    memory, cache = encode(model, texts), model.new_cache(size, 64)
    rows: list[list[int]] = [[] for _ in texts]
    at, since, ended = [0] * size, [0] * size, [False] * size
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    tokens = torch.full((size, 1), model.start_id)

    def may_stand(n: int, row: Sequence[int]) -> list[int]:
        following = row[at[n]] if at[n] < len(row) else model.eos_id
        last = rows[n][-1] if rows[n] else model.start_id
        out = []
        if since[n] < MARKS:
            out = [m for m in marks if (last, m) in usual and (m not in stress or following in before[m])]
        if not since[n] or not out or (last, following) in usual:
            out.append(following)
        return out

    with torch.inference_mode():
        while not all(ended):
            logits = model(tokens, memory, cache).logits[:, -1].float()
            closed = torch.ones_like(logits, dtype=torch.bool)
            for n, row in enumerate(wanted):
                closed[n, may_stand(n, row)] = False
            law = probabilities(logits.masked_fill(closed, -1e4), sampling)
            for n, row in enumerate(wanted):
                if ended[n]:
                    continue
                token = int(torch.multinomial(law[n], 1, generator=generators[n]))
                if token == model.eos_id:
                    ended[n] = True
                    continue
                rows[n].append(token)
                letter = at[n] < len(row) and token == row[at[n]]
                at[n], since[n] = at[n] + letter, 0 if letter else since[n] + 1
            tokens = torch.tensor([[row[-1] if row else model.start_id] for row in rows])
    return rows


def neighbours(items: Iterable[Utterance], start: int, end: int, least: int = 3) -> set[tuple[int, int]]:
    """Pairs of symbols that stand together in what is written in these utterances (see `turned`) `least` times or more,
    the start and the end among them.
    """
    count: Counter[tuple[int, int]] = Counter()
    for item in items:
        row = [start, *(int(token) for token in item.tokens), end]
        count.update(itertools.pairwise(row))
    return {pair for pair, times in count.items() if times >= least}


class Written(Protocol):
    """What the engine and the beam search give of a text alike."""

    @property
    def speech(self) -> list[int]: ...

    @property
    def ended(self) -> str | None: ...


@dataclass(frozen=True)
class Heard:
    """What a back-translator wrote for a clip. ended: why it stopped ("eos", "cap", "guard"); likelihood: of the
    phonemes and the end token given the semantic tokens, in nats for each of them, at temperature 1.
    """

    id: str
    phonemes: str
    ended: str
    likelihood: float


def hear(
    model: TextToSemantic,
    clips: Sequence[Clip],
    tokens: Mapping[str, Tensor],
    out: Path,
    front: PhonemeTokenizer,
    source: Source,
    sampling: SamplingConfig,
    ctc: PhonemeCTC,
    usual: Collection[tuple[int, int]] = (),
    *,
    way: str = "guided",
    beam: int = 10,
    candidates: int = 1,
    clock: Clock,
    batch: int = 48,
    seed: int = 0,
    progress: bool = True,
) -> list[Heard]:
    """Write what is said in these clips into `out` (a JSON object a line), or go on with it.

    way: "guided": the phones are those that the CTC hears and the back-translator draws what stands between them (see
    `follow`, also for `usual`); "sample": it draws all; "beam": the likeliest that a search of this width finds.
    candidates: texts that are drawn for each clip; the one that back-translator and CTC together find the likeliest
    (log-probabilities a symbol, added) is taken.

    Raises:
        OSError: the file cannot be written.
    """
    known = {item.id: item for item in read_heard(out)}
    place = {clip.id: n for n, clip in enumerate(clips)}
    rest = [clip for clip in clips if clip.id not in known and clip.id in tokens]
    rest.sort(key=lambda clip: len(tokens[clip.id]))  # a batch ends together
    marks = [i for i, symbol in enumerate(front.vocab) if symbol in SILENT]
    out.parent.mkdir(parents=True, exist_ok=True)
    _mend(out)
    with out.open("a", encoding="utf-8") as file:
        for first in tqdm(range(0, len(rest), batch), desc="heard", mininterval=5, disable=not progress):
            group = rest[first : first + batch]
            group = [clip for clip in group for _ in range(candidates)]
            texts = [source.write(tokens[clip.id].tolist())[:-1] for clip in group]
            seeds = [seed + candidates * place[clip.id] + n % candidates for n, clip in enumerate(group)]
            if way == "guided":
                wanted = [[front.vocab.index(c) for c in ctc.transcribe(tokens[clip.id])] for clip in group]
                written = follow(model, texts, wanted, marks, usual, sampling, seeds)
                why = ["eos"] * len(group)
            else:
                caps = [16 + SYMBOLS_A_TOKEN * len(tokens[clip.id]) for clip in group]
                done: Sequence[Written]
                if way == "beam":
                    done = beam_search(model, texts, width=beam, cap=caps, frame_rate=clock.token_rate)
                else:
                    requests = [
                        Request(text, seed=one, sampling=sampling, cap=cap)
                        for text, one, cap in zip(texts, seeds, caps)
                    ]
                    done = Engine(model, frame_rate=clock.token_rate).run(requests)
                written, why = [each.speech for each in done], [str(each.ended) for each in done]
            scores = likelihood(model, texts, written)
            best: dict[str, tuple[float, Heard]] = {}
            for clip, row, ended, score in zip(group, written, why, scores):
                phonemes = "".join(front.vocab[i] for i in row if len(front.vocab[i]) == 1).strip()
                item = Heard(clip.id, phonemes, ended, round(score, 4))
                both = score + ctc_likelihood(ctc, tokens[clip.id], phonemes) if candidates > 1 else 0.0
                both = both if item.ended == "eos" else float("-inf")
                if clip.id not in best or both > best[clip.id][0]:
                    best[clip.id] = both, item
            for name, (_, item) in best.items():
                known[name] = item
                file.write(json.dumps(asdict(item), ensure_ascii=False) + "\n")
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
