"""Dispatch and exit statuses: 0 done, 1 verify found a difference, 2 bad input, 130 interrupted, 141 reader gone,
143 terminated."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module

from spear_spec.cli.options import LATER, build_parser, normalise
from spear_spec.errors import SpearSpecError

COMMANDS = {
    name: f"spear_spec.cli.{module}"
    for name, module in [
        ("say", "say"),
        ("bench", "bench"),
        ("verify", "verify"),
        ("eval", "evaluate"),
        ("tune", "tune"),
        ("train", "train"),
        ("voices", "voices"),
        ("serve", "serve"),
    ]
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit status."""
    _occupy()
    if sys.stderr is None:  # closed: `print` would write to standard output instead
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115  for as long as the process lives
    try:
        with _stoppable():
            return _run(list(sys.argv[1:] if argv is None else argv))
    except SpearSpecError as error:
        _complain(str(error))
        return 2
    except KeyboardInterrupt:
        _complain("interrupted")
        return 130
    except BrokenPipeError:
        _abandon_stdout()
        return 141
    except OSError as error:
        _complain(error.strerror or str(error))
        _abandon_stdout()
        return 2


def _occupy() -> None:
    """Take the numbers of closed standard files, so that no file or pipe of ours gets one and is taken for standard
    output; `sys.stdout` and `sys.stderr` stay None.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest that is free


@contextlib.contextmanager
def _stoppable() -> Iterator[None]:
    """SIGTERM and SIGHUP end the command as an exception does, so that half-written files are deleted: 143, 129."""

    def stop(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    ours = threading.current_thread() is threading.main_thread()
    signals = [s for s in (signal.SIGTERM, signal.SIGHUP) if ours and signal.getsignal(s) is signal.SIG_DFL]
    for number in signals:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number in signals:
            signal.signal(number, signal.SIG_DFL)


def _run(argv: list[str]) -> int:
    parser = build_parser()
    args = parser.parse_args(normalise(argv))
    if args.version:
        from spear_spec import __version__

        print(f"spear-spec {__version__}")
        return 0
    if args.command is None:
        parser.error("no command")
    if args.command in LATER:
        parser.error(f"{args.command} ({LATER[args.command]}) comes with a later version")
    run: Callable[..., int] = import_module(COMMANDS[args.command]).run
    status = run(args)
    if sys.stdout is not None:  # it may be closed
        sys.stdout.flush()
    return status


def _abandon_stdout() -> None:
    """What is still in its buffer cannot be written; Python would complain again when it flushes at exit."""
    if sys.stdout is None:
        return
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):
        return  # not a real file: a test's or a notebook's


def _complain(message: str) -> None:
    print(f"spear-spec: {' '.join(message.split())}", file=sys.stderr)
