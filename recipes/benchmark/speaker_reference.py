"""Make a voice's speaker reference: the mean embedding of each speaker over clips of the teacher.

    python recipes/benchmark/speaker_reference.py --corpus CORPUS --voice VOICE_FOLDER [--clips 40]

CORPUS holds <speaker>/*.ogg (or .wav, .flac). Give a training corpus, never the held-out clips.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from tqdm import tqdm

from spear_spec.audio import load_audio
from spear_spec.errors import SpearSpecError
from spear_spec.evaluation.reference import save_reference
from spear_spec.evaluation.speaker import SpeakerJudge
from spear_spec.voice.bundle import open_voice

SHORTEST = 3.0  # seconds: shorter clips give unsteady embeddings


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--voice", required=True, help="a voice folder or the name of an installed voice")
    parser.add_argument("--clips", type=int, default=40, help="clips a speaker (default 40)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    bundle, judge, found = open_voice(args.voice), SpeakerJudge(), {}
    for speaker in bundle.config.speakers:
        paths = sorted(p for p in (args.corpus / speaker).glob("*.*") if p.suffix in (".ogg", ".wav", ".flac"))
        if not paths:
            raise SpearSpecError(f"no clips in {args.corpus / speaker}")
        clips = []
        for path in tqdm(paths[:: max(1, len(paths) // (5 * args.clips))], desc=speaker, unit="clip"):
            audio = load_audio(path, 24_000)
            if audio.seconds >= SHORTEST:
                clips.append(audio.samples)
            if len(clips) == args.clips:
                break
        found[speaker] = judge.embed_voice(clips)
    print(save_reference(bundle.path, found, f"{judge.name} {judge.version}"))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except SpearSpecError as error:
        sys.exit(f"speaker_reference: {error}")
