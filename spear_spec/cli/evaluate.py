"""`spear-spec eval`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from spear_spec.audio import Audio
from spear_spec.cli.loading import load_tts
from spear_spec.cli.options import sampling_overrides
from spear_spec.cli.report import check_json_target, note, write_json
from spear_spec.cli.texts import read_lines
from spear_spec.errors import AudioError


def run(args: argparse.Namespace) -> int:
    """Speak every line with speculation on and off, and judge both."""
    check_json_target(args.json)
    texts = read_lines(args.text)[: args.limit]
    folder = None if args.out_dir is None else Path(args.out_dir)
    if folder is not None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise AudioError(f"cannot make the folder {folder}: {error.strerror or error}") from None
    tts = load_tts(args)
    from tqdm import tqdm

    from spear_spec.evaluation.evaluate import evaluate

    def keep(index: int, arm: str, audio: Audio) -> None:
        if folder is not None:
            audio.save(folder / f"{index:03d}.{arm}.wav")

    with tqdm(total=0, unit="utterance", file=sys.stderr, disable=None) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        found = evaluate(
            tts,
            texts,
            speaker=args.speaker,
            seed=args.seed,
            max_tokens=args.max_tokens,
            batch=args.batch or 1,
            speed=args.speed,
            keep=keep,
            progress=progress,
            **sampling_overrides(args),
        )
    note(found.table())
    write_json(found.to_dict(), args.json)
    return 0
