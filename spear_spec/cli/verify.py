"""`spear-spec verify`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from spear_spec.cli.loading import load_tts
from spear_spec.cli.options import COMPLETE, sampling_overrides
from spear_spec.cli.report import Status, check_json_target, note, write_json
from spear_spec.cli.texts import read_lines

HEAD = ("check", "n", "distance", "1% of exact", "p (Holm)", "detectable", "")


def run(args: argparse.Namespace) -> int:
    """Is this drafter and verifier exact on this voice? Exit status 1 if not."""
    check_json_target(args.json)
    sentences = read_lines(args.text) if args.text else None
    tts = load_tts(args)
    from spear_spec.exactness.conclusion import conclusion
    from spear_spec.exactness.verify import run_verify

    status = Status()
    try:
        result = run_verify(
            tts,
            sentences,
            samples=args.samples,
            speaker=args.speaker,
            seed=args.seed,
            batch=args.batch or 1,
            max_tokens=args.max_tokens,
            complete=COMPLETE[args.complete],
            progress=status,
            **sampling_overrides(args),
        )
    finally:
        status.close()
    for line in table(result["checks"]):
        note(line)
    note(f"{result['voice']}: {conclusion(result)}")
    write_json(result, args.json)
    return 0 if result["pass"] else 1


def table(checks: Sequence[dict[str, Any]]) -> list[str]:
    """Aligned lines: what was measured, what 1 % of exact builds would exceed, the smallest distance that is found."""
    rows = [HEAD, *(_row(check) for check in checks)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEAD))]
    return [
        "  ".join(
            cell.ljust(width) if i in (0, len(HEAD) - 1) else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths))
        ).rstrip()
        for row in rows
    ]


def _row(check: dict[str, Any]) -> tuple[str, ...]:
    p = check["p_value"]
    return (
        check["name"],
        str(check["n"]),
        f"{check['tv']:.4f}",
        f"{check['null_q99']:.4f}",
        f"{p:.3f}" if p >= 0.001 else f"{p:.0e}",
        f"{check['detectable_tv']:.4f}",
        "pass" if check["pass"] else "FAIL",
    )
