"""Semantic tokens of a corpus, by the tokenizer of the voice that will speak through the stage.

    .venv/bin/python recipes/audiolm/prepare.py CORPUS OUT [--voice NAME|FOLDER] [--encoder FOLDER] [--minutes M]

CORPUS: LibriTTS, or any folder of audio files; where it has folders named train-*, these alone are read. OUT gets
`tokens.safetensors` and `clips.tsv`. What stands in OUT already is used again.
"""

from __future__ import annotations

import argparse
import random
import sys
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from clips import INDEX, TOKENS

from spear_spec.audio import load_audio, write_atomically
from spear_spec.errors import ConfigError, SpearSpecError
from spear_spec.voice.bundle import open_voice
from spear_spec.voice.listening import open_tokenizer

SUFFIXES = {".wav", ".flac", ".ogg", ".opus", ".mp3"}


def files(corpus: Path) -> list[Path]:
    """The corpus's audio files, in an order that mixes its speakers."""
    parts = sorted(corpus.glob("train-*")) or [corpus]
    found = sorted(path for part in parts for path in part.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not found:
        raise ConfigError(f"{corpus} holds no audio files (LibriTTS: its train-clean-100 and the like)")
    random.Random(0).shuffle(found)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--voice")
    parser.add_argument("--encoder", help="of the tokenizer, where it is not the one of the hub")
    parser.add_argument("--minutes", type=float, default=float("inf"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    known: dict[str, torch.Tensor] = {}
    if (args.out / TOKENS).is_file():
        with safe_open(args.out / TOKENS, "pt") as file:
            known = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    tokenizer, rate = None, open_voice(args.voice).config.semantic["rate"]
    listed, seconds = [], 0.0
    for path in files(args.corpus.resolve()):
        key = path.relative_to(args.corpus.resolve()).with_suffix("").as_posix()
        if key not in known:
            tokenizer = tokenizer or open_tokenizer(open_voice(args.voice), args.encoder)
            try:
                audio = load_audio(path)
                known[key] = tokenizer(audio.samples, audio.sample_rate).to(torch.int32)
            except SpearSpecError as error:
                print(f"{path}: left out: {error}", flush=True)
                continue
        seconds += len(known[key]) / rate
        listed.append(f"{key}\t{path}\n")
        if seconds >= 60 * args.minutes:
            break
    save_file(known, args.out / f".{TOKENS}.part")
    (args.out / f".{TOKENS}.part").rename(args.out / TOKENS)
    write_atomically(args.out / INDEX, "".join(listed).encode())
    print(f"{len(listed)} clips, {seconds / 60:.1f} minutes")


if __name__ == "__main__":
    main()
