"""`spear-spec bench`."""

from __future__ import annotations

import argparse

from spear_spec.cli.loading import load_tts
from spear_spec.cli.options import sampling_overrides
from spear_spec.cli.report import Status, check_json_target, note, write_json
from spear_spec.cli.texts import read_lines


def run(args: argparse.Namespace) -> int:
    """Measure autoregressive and speculative decoding in one run."""
    check_json_target(args.json)
    sentences = read_lines(args.text) if args.text else None
    tts = load_tts(args)
    from spear_spec.bench.speed import SENTENCES, plot, run_bench

    status = Status()
    result = run_bench(tts, sentences or SENTENCES, drafters=args.drafters, batches=args.batch or [1], runs=args.runs,
                       speaker=args.speaker, seed=args.seed, max_tokens=args.max_tokens, progress=status, **sampling_overrides(args))
    status.close()
    for row in result["rows"]:
        rate, gain = row["tokens_per_s"], row["speedup"]
        note(f"batch {row['batch']} {row['drafter']:>10}: {rate['median']:.1f} tokens/s, {gain['median']:.2f} x [{gain['lo']:.2f}, {gain['hi']:.2f}], "
             f"{row['tokens_per_call']:.2f} tokens per target call, RTF {row['rtf']}, TTFA {row['ttfa_s']} s")
    if args.plot:
        plot(result, args.plot)
    write_json(result, args.json)
    return 0
