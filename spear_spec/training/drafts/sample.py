"""The target's own samples: what the draft is trained on, and what says whether the target can be understood.

Reads phonemes from a prepared folder (or any utterances.jsonl), writes a prepared folder of the same form with sampled
tokens in place of real ones. Texts need no audio, so that fresh sentences can be used.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch.nn.utils.rnn import pad_sequence

from spear_spec.config import SamplingConfig
from spear_spec.decoding.autoregressive import generate
from spear_spec.decoding.session import Session
from spear_spec.models.spear_tts import TextToSemantic
from spear_spec.training.drafts.trainer import load_target


def sample_tokens(
    model: TextToSemantic, texts: list[list[int]], sampling: SamplingConfig, generator: torch.Generator
) -> list[tuple[list[int], str]]:
    """Decode texts (ids, speaker first, text end last) as one batch: per text its tokens (no end token) and how it
    ended.
    """
    rows = [torch.tensor(text) for text in texts]
    with torch.inference_mode():
        memory = model.encode(pad_sequence(rows, batch_first=True))
    session = Session(model, memory, sampling, generator=generator)
    for _ in generate(session):
        pass
    return [(session.speech(row), str(session.ended[row])) for row in range(len(texts))]


def sample_folder(
    model: TextToSemantic,
    items: list[dict[str, Any]],
    out: Path,
    laws: list[SamplingConfig],
    encode: Callable[[str, str], list[int]],
    *,
    batch: int = 24,
    minutes: float = 0.0,
    seed: int = 0,
    progress: bool = True,
) -> None:
    """Speak items (id, speaker, phonemes) into a prepared folder, or go on with it; `encode(phonemes, speaker) ->
    ids`.
    """
    from tqdm import tqdm

    out.mkdir(parents=True, exist_ok=True)
    stored = load_file(out / "tokens.safetensors") if (out / "tokens.safetensors").exists() else {}
    items = [item for item in items if item["id"] not in stored]
    # similar lengths together, so that a batch ends together; batches in random order, so that stopping early is fair
    items.sort(key=lambda item: len(item["phonemes"]))
    groups = [items[i : i + batch] for i in range(0, len(items), batch)]
    random.Random(seed).shuffle(groups)
    began, generator = time.monotonic(), torch.Generator().manual_seed(seed + len(stored))
    with (out / "utterances.jsonl").open("a", encoding="utf-8") as lines:
        for number, group in enumerate(tqdm(groups, desc="samples", mininterval=5, disable=not progress)):
            texts = [[*encode(item["phonemes"], item["speaker"]), model.text_eos_id] for item in group]
            for item, (tokens, ended) in zip(group, sample_tokens(model, texts, laws[number % len(laws)], generator)):
                if not tokens:
                    continue
                stored[item["id"]] = torch.tensor(tokens, dtype=torch.int16)
                lines.write(
                    json.dumps(
                        {
                            "id": item["id"],
                            "speaker": item["speaker"],
                            "phonemes": item["phonemes"],
                            "frames": None,
                            "seconds": len(tokens) / 25,
                            "ended": ended,
                        },
                        ensure_ascii=False,
                    )
                    + "\n"
                )
            late = bool(minutes) and time.monotonic() - began > 60 * minutes
            if number % 10 == 9 or number == len(groups) - 1 or late:
                lines.flush()
                save_file(stored, out / "tokens.safetensors")
            if late:
                break


def main(argv: list[str] | None = None) -> None:
    """Command line of the stage."""
    from spear_spec.text.symbols import encode_phonemes

    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("target", type=Path, help="export folder of the T2S stage")
    ap.add_argument("texts", type=Path, help="utterances.jsonl (speaker, phonemes)")
    ap.add_argument("out", type=Path, help="prepared folder to write or to go on with")
    ap.add_argument("--sampling", nargs="*", default=["0.8,0.95", "1,0.95"], help="temperature,top_p in turn")
    ap.add_argument("--limit", type=int)
    ap.add_argument("--minutes", type=float, default=0.0, help="stop after this long")
    ap.add_argument("--batch", type=int, default=24)
    ap.add_argument("--threads", type=int, default=1)
    ap.add_argument("--seed", type=int, default=0)
    a = ap.parse_args(argv)
    torch.set_num_threads(a.threads)
    model = load_target(a.target)
    laws = [SamplingConfig(temperature=float(t), top_p=float(p)) for t, p in (law.split(",") for law in a.sampling)]
    items = [json.loads(line) for line in a.texts.read_text(encoding="utf-8").splitlines()]
    random.Random(a.seed).shuffle(items)
    sample_folder(model, items[: a.limit], a.out, laws, encode_phonemes, batch=a.batch, minutes=a.minutes, seed=a.seed)


if __name__ == "__main__":
    main()
