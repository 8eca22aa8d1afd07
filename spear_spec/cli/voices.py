"""`spear-spec voices`: what is installed; fetched from the hub or a folder, brought there, removed."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from spear_spec.cli.report import check_json_target, note, write_json
from spear_spec.errors import SpearSpecError

if TYPE_CHECKING:
    from spear_spec.voice.bundle import Bundle


def run(args: argparse.Namespace) -> int:
    """Do what is asked; without an action: list."""
    check_json_target(args.json)
    action = args.action or "list"
    voices = {"list": _list, "show": _show, "pull": _pull, "push": _push, "remove": _remove}[action](args)
    result: dict[str, Any] = {"schema": "voices/1", "voices": voices}
    write_json(result if action == "list" else {**result, "action": action}, args.json)
    return 0


def _list(args: argparse.Namespace) -> list[dict[str, Any]]:
    """The voices of the search path; one that cannot be used is named with its reason."""
    from spear_spec.voice.bundle import open_voice
    from spear_spec.voice.search import list_voices

    voices = []
    for folder in list_voices():
        try:
            bundle = open_voice(folder.absolute())
        except SpearSpecError as error:
            note(f"spear-spec: {error}")
            continue
        voices.append(entry(bundle) | {"name": folder.name, "path": str(folder)})
        if args.json != "-":
            mark = " (default)" if voices[-1]["default"] else ""
            print(f"{folder.name}{mark}: {_line(bundle)}; {folder}")
    if not voices:
        note("no voices are installed")
    return voices


def _show(args: argparse.Namespace) -> list[dict[str, Any]]:
    from spear_spec.voice.bundle import open_voice
    from spear_spec.voice.hub import Place, look

    of_hub = args.voice.count("/") == 1 and not args.voice.startswith((".", "/", "~"))
    bundle = look(Place.of(args.voice, args.revision)) if of_hub or args.revision else open_voice(args.voice)
    found, config = entry(bundle), bundle.config
    drafters = ", ".join(config.drafts) or "none"
    found |= {
        "parts": {part: sum(shard.bytes for shard in config.shards(part)) for part in config.files},
        "drafters": list(config.drafts),
        "sampling": bundle.sampling.to_dict(),
        "kinds": dict(config.kinds),
    }
    if args.json != "-":
        print(f"{config.name}: {_line(bundle)}")
        print(f"licence     {config.licence}\norigin      {config.origin}")
        print(f"speakers    {', '.join(config.speakers)}\nkinds       {', '.join(config.kinds.values())}")
        print(f"drafters    {drafters} (its own: {config.spec.get('drafter')})")
        for part, size in found["parts"].items():
            print(f"{part:<12}{size / 2**20:.1f} MiB")
        print(bundle.path)
    return [found]


def _pull(args: argparse.Namespace) -> list[dict[str, Any]]:
    from spear_spec.voice.hub import Place, pull

    place = Place.of(args.source, args.revision)
    bundle = pull(place, args.name, force=args.force, told=lambda source: _tell(source, f"fetching from {place}"))
    note(f"{bundle.path.name} is in {bundle.path}: spear-spec say --voice {bundle.path.name}")
    return [entry(bundle)]


def _push(args: argparse.Namespace) -> list[dict[str, Any]]:
    from spear_spec.voice.bundle import open_voice
    from spear_spec.voice.hub import Place, push

    bundle, place = open_voice(args.voice), Place.of(args.target, args.revision)
    seen = "" if place.repo is None else ", for everybody to see" if args.public else ", private where it is new"
    _tell(bundle, f"bringing to {place}{seen}")
    push(bundle, place, force=args.force, public=args.public, message=args.message)
    note(f"{bundle.config.name} is in {place}")
    return [entry(bundle)]


def _remove(args: argparse.Namespace) -> list[dict[str, Any]]:
    from spear_spec.voice.hub import remove

    folder, left = remove(args.voice)
    kept = f"; left in its folder: {', '.join(left[:5])}" if left else ""
    note(f"removed {folder}{kept}")
    return []


def entry(bundle: Bundle) -> dict[str, Any]:
    """An entry of `voices` in voices/1."""
    from spear_spec.voice.search import DEFAULT_VOICE

    config = bundle.config
    return {
        "name": bundle.path.name,
        "path": str(bundle.path),
        "default": bundle.path.name == DEFAULT_VOICE,
        "speakers": list(config.speakers),
        "sample_rate": config.sample_rate,
        "licence": config.licence,
        "origin": config.origin,
        "bytes": _size(bundle),
        "drafter": config.spec.get("drafter"),
    }


def _size(bundle: Bundle) -> int:
    return sum(shard["bytes"] for shards in bundle.config.files.values() for shard in shards)


def _line(bundle: Bundle) -> str:
    config = bundle.config
    speakers, size = ", ".join(config.speakers), _size(bundle) / 2**20
    return f"{speakers}; {config.sample_rate} Hz, {size:.1f} MiB, {config.licence}"


def _tell(bundle: Bundle, what: str) -> None:
    note(f"{what}: {bundle.config.name}, {_size(bundle) / 2**20:.1f} MiB")
    note(f"licence: {bundle.config.licence}")
    note(f"origin: {bundle.config.origin}")
