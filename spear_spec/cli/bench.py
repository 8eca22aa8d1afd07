"""`spear-spec bench`."""

from __future__ import annotations

import argparse
from pathlib import Path

from spear_spec.cli.loading import load_tts
from spear_spec.cli.options import sampling_overrides
from spear_spec.cli.report import Status, check_json_target, note, write_json
from spear_spec.cli.texts import read_lines
from spear_spec.errors import ConfigError


def run(args: argparse.Namespace) -> int:
    """Measure autoregressive and speculative decoding in one run."""
    check_json_target(args.json)
    if args.table is not None and not Path(args.table).parent.is_dir():
        raise ConfigError(f"cannot write --table {args.table}: the folder is missing")
    if not args.judges and (args.judge_text or args.sentences):
        raise ConfigError(
            "--judge-text and --sentences say what is judged: give --judges as well, such as --judges wer,mos"
        )
    sentences = read_lines(args.text) if args.text else None
    judged = read_lines(args.judge_text) if args.judge_text else sentences
    if args.plot:
        from spear_spec.bench.plots import check_plot

        check_plot(args.plot)
    tts = load_tts(args)
    from spear_spec.audio import write_atomically
    from spear_spec.bench.speed import SENTENCES, run_bench
    from spear_spec.bench.table import table

    status = Status()

    def tell(message: str) -> None:
        status.close()
        note(message)

    file = None if args.json in (None, "-") else Path(args.json)
    try:
        result = run_bench(
            tts,
            sentences or SENTENCES,
            drafters=args.drafters,
            gammas=args.gammas or (),
            batches=args.batch or [1],
            runs=args.runs,
            speaker=args.speaker,
            seed=args.seed,
            max_tokens=args.max_tokens,
            judges=args.judges or (),
            judged=(judged or SENTENCES)[: args.sentences],
            file=file,
            progress=status,
            tell=tell,
            **sampling_overrides(args),
        )
    except KeyboardInterrupt:
        status.close()
        if file is not None and file.is_file():
            note(f"what is finished is in {file}: the same command goes on")
        raise
    status.close()
    for entry in result["left_out"]:
        note(f"left out: {entry['drafter']} ({entry['settings']}): {entry['why']}")
    lines = table(result)
    if args.table is None:
        note(lines)
    else:
        write_atomically(Path(args.table), (lines + "\n").encode())
    if args.plot:
        from spear_spec.bench.plots import plot

        plot(result, args.plot)
    write_json(result, args.json)
    return 0
