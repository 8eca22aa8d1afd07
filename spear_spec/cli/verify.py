"""`spear-spec verify`."""

from __future__ import annotations

import argparse

from spear_spec.cli.loading import load_tts
from spear_spec.cli.options import sampling_overrides
from spear_spec.cli.report import Status, check_json_target, note, write_json
from spear_spec.cli.texts import read_lines


def run(args: argparse.Namespace) -> int:
    """Is this drafter and verifier exact on this voice? Exit status 1 if not."""
    check_json_target(args.json)
    sentences = read_lines(args.text) if args.text else None
    tts = load_tts(args)
    from spear_spec.bench.verify import run_verify

    status = Status()
    result = run_verify(tts, sentences, samples=args.samples, speaker=args.speaker, seed=args.seed, batch=args.batch or 1,
                        max_tokens=args.max_tokens, progress=status, **sampling_overrides(args))
    status.close()
    for check in result["checks"]:
        note(f"{check['name']}: {'pass' if check['pass'] else 'FAIL'} (n {check['n']}, p {check['p_value']})")
    note(f"{tts.name}, {result['drafter']} / {result['verifier']}: {'exact' if result['pass'] else 'NOT exact'}")
    write_json(result, args.json)
    return 0 if result["pass"] else 1
