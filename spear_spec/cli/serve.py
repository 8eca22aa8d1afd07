"""`spear-spec serve`: the voice over HTTP."""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from importlib.util import find_spec

from spear_spec.cli.loading import load_tuned
from spear_spec.cli.options import COMPLETE
from spear_spec.cli.report import note
from spear_spec.errors import MissingExtraError
from spear_spec.text import Reading

NEEDED = ("fastapi", "uvicorn", "websockets", "av", "prometheus_client")


def run(args: argparse.Namespace) -> int:
    """Serve until a signal ends it: 0.

    Raises:
        SpearSpecError: an option, the address or the voice cannot be used, or the extra is missing.
    """
    began = time.perf_counter()
    if missing := [name for name in NEEDED if find_spec(name) is None]:
        raise MissingExtraError(f"serve needs {', '.join(missing)}: pip install 'spear_spec[serve]'")
    if args.ray is not None:
        from spear_spec.cli import serve_ray

        return serve_ray.run(args)
    from spear_spec.acoustic.takes import check_takes
    from spear_spec.serving.auth import VARIABLE, read_keys
    from spear_spec.serving.limits import Limits
    from spear_spec.serving.settings import ServerSettings

    settings = ServerSettings(
        characters=args.max_characters,
        body_bytes=args.max_body_bytes,
        stall_s=args.stall_s,
        drain_s=args.drain_s,
        keys=read_keys(args.api_key_file, os.environ.get(VARIABLE)),
        origins=tuple(args.cors_origin),
        voice_names={name: str(speaker) for name, speaker in args.voice_names},
        log_text=args.log_text,
        reading=Reading.of(args.pause, args.lexicon),
    )
    given = {"queue": args.max_queue, "streams": args.max_streams, "rows": args.max_rows, "seconds": args.max_seconds}
    most = {"takes": max(args.best_of, Limits.takes)}
    check_takes(args.best_of, args.judge, 1.0)
    limits = Limits(characters=args.max_characters, **most, **{n: v for n, v in given.items() if v is not None})
    from spear_spec.serving.listen import bind
    from spear_spec.serving.prompts import hear_prompts, prompt_files
    from spear_spec.serving.voices import Names
    from spear_spec.voice.bundle import open_voice

    config = open_voice(args.voice).config
    files = {} if args.prompts is None else prompt_files(args.prompts, config.speakers)
    Names(config.name, config.speakers, settings.voice_names, dict.fromkeys(files))

    taken = bind(args.host, args.port)
    with ExitStack() as stack:
        stack.enter_context(taken)
        with _uncollected():
            web = threading.Thread(target=_import_the_rest)  # while the voice is loaded
            web.start()
            tts, tuned = load_tuned(args)
            settings = replace(settings, prompts=hear_prompts(tts, files))
            _log(settings.log_text)
            from spear_spec.serving.scheduler import Scheduler, for_serving
            from spear_spec.serving.warm_up import warm_up

            lengths = None if tuned is None else tuned.lengths
            scheduler = stack.enter_context(
                Scheduler(
                    for_serving(tts, lengths),
                    limits,
                    complete=COMPLETE[args.complete],
                    best_of=args.best_of,
                    judge=args.judge,
                )
            )
            warm_up(scheduler, settings.reading)
            web.join()
        from spear_spec.serving.app import create_app
        from spear_spec.serving.server import Server

        server = Server(create_app(scheduler, settings), args.host, args.port)
        host, port = taken.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        server.when_started = lambda: note(
            f"spear-spec: {tts.name} at http://{shown}:{port} after {time.perf_counter() - began:.1f} s"
        )
        asyncio.run(server.serve(sockets=[taken]))
    return 0


@contextmanager
def _uncollected() -> Iterator[None]:
    """What is made inside stays for good: it is not looked through for garbage, now (a tenth of the start) or later."""
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        gc.enable()


def _import_the_rest() -> None:
    import av  # noqa: F401

    import spear_spec.serving.app
    import spear_spec.serving.server  # noqa: F401


def _log(text: bool) -> None:
    """Lines on standard error. What the front end says quotes the text: it stays out unless text may be logged."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    if not text:
        handler.addFilter(lambda record: not str(record.msg).startswith(("text:", "SSML:")))
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    logging.getLogger("spear_spec").setLevel(logging.INFO)
