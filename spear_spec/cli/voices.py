"""`spear-spec voices`: what is installed."""

from __future__ import annotations

import argparse

from spear_spec.cli.report import check_json_target, note, write_json
from spear_spec.errors import SpearSpecError


def run(args: argparse.Namespace) -> int:
    """List the voices of the search path; one that cannot be used is listed with its reason."""
    check_json_target(args.json)
    from spear_spec.voice.bundle import open_voice
    from spear_spec.voice.search import DEFAULT_VOICE, list_voices

    voices = []
    for folder in list_voices():
        entry = {"name": folder.name, "path": str(folder), "default": folder.name == DEFAULT_VOICE}
        try:
            config = open_voice(folder.absolute()).config
        except SpearSpecError as error:
            note(f"spear-spec: {error}")
            continue
        size = sum(shard["bytes"] for shards in config.files.values() for shard in shards)
        voices.append(
            {
                **entry,
                "speakers": list(config.speakers),
                "sample_rate": config.sample_rate,
                "licence": config.licence,
                "origin": config.origin,
                "bytes": size,
                "drafter": config.spec.get("drafter"),
            }
        )
        if args.json != "-":
            mark = " (default)" if entry["default"] else ""
            print(
                f"{folder.name}{mark}: {', '.join(config.speakers)}; {config.sample_rate} Hz, {size / 2**20:.1f} MiB, "
                f"{config.licence}; {folder}"
            )
    if not voices:
        note("no voices are installed")
    write_json({"schema": "voices/1", "voices": voices}, args.json)
    return 0
