"""`spear-spec serve --ray [ADDRESS] --replicas MIN:MAX`: the server as replicas on a Ray cluster."""

from __future__ import annotations

import argparse
import signal
import threading
from pathlib import Path
from typing import Any

from spear_spec.cli.options import spec_overrides
from spear_spec.cli.report import note
from spear_spec.errors import ConfigError, WorkerError


def run(args: argparse.Namespace) -> int:
    """Serve until a signal ends it: 0.

    Raises:
        SpearSpecError: an option cannot be used, the extra is missing, or the replicas do not get ready.
    """
    from spear_spec.cluster import LOCAL, start_ray
    from spear_spec.serving.ray import NAME, Replicas, app
    from spear_spec.voice.acoustic import anywhere
    from spear_spec.voice.bundle import open_voice

    if spec_overrides(args) or args.runtime != "eager":
        raise ConfigError("serve --ray takes none of the speculation options, --runtime")
    if args.port == 0:
        raise ConfigError("serve --ray needs a --port")
    given: dict[str, Any] = {
        "voice": args.voice,
        "device": args.device or "cpu",
        "dtype": args.dtype or "float32",
        "threads": args.threads,
        "min_replicas": args.replicas[0],
        "max_replicas": args.replicas[1],
        "characters": args.max_characters,
        "drain_s": args.drain_s,
        "api_key_file": args.api_key_file,
        "log_text": args.log_text,
        "prompts": None if args.prompts is None else str(Path(args.prompts).resolve()),
        "lexicon": None if args.lexicon is None else str(Path(args.lexicon).resolve()),
        "pause": args.pause,
        "complete": args.complete,
        "best_of": args.best_of,
        "judge": args.judge,
        "origins": args.cors_origin,
        "voice_names": {name: str(speaker) for name, speaker in args.voice_names},
        "acoustic": None if args.acoustic is None else anywhere(open_voice(args.voice), args.acoustic),
    }
    limits = {"queue": args.max_queue, "streams": args.max_streams, "rows": args.max_rows, "seconds": args.max_seconds}
    settings = Replicas.from_dict({**given, **{name: value for name, value in limits.items() if value}})
    ray = start_ray(args.ray, settings.max_replicas * settings.threads)
    from ray import serve

    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    try:
        serve.start(proxy_location="HeadOnly", http_options={"host": args.host, "port": args.port})
        try:
            serve.run(app(settings.to_dict()), name=NAME, route_prefix="/", blocking=False)
        except RuntimeError as error:
            raise WorkerError(f"the replicas do not get ready: {' '.join(str(error).split())[:300]}") from None
        note(f"spear-spec: {args.replicas[0]} to {args.replicas[1]} replicas at http://{args.host}:{args.port}")
        ended.wait()
        note("spear-spec: shutting down")
    finally:
        if args.ray == LOCAL:
            serve.shutdown()
        else:
            serve.delete(NAME)
        ray.shutdown()
    return 0
