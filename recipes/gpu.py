"""What gpu.sh does in Python: data into a small parcel, and out of it again; checkpoints to shards and back."""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
import tarfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

from spear_spec.errors import SpearSpecError
from spear_spec.training.data.shards import read_shards, write_shards
from spear_spec.training.recipe.layout import Layout
from spear_spec.training.recipe.plan import CLOCK


def opus(path: str, kbit: int, rate: int) -> bytes:
    """The clip as Opus, mono, at so many Hz. libsndfile maps its level 0 to 1 linearly to 256 to 6 kbit/s."""
    import soundfile

    from spear_spec.audio import load_audio

    buffer = io.BytesIO()
    soundfile.write(
        buffer,
        load_audio(path, rate).samples,
        rate,
        format="OGG",
        subtype="OPUS",
        compression_level=1 - (kbit - 6) / 250,
    )
    return buffer.getvalue()


def pack(recipe: Path, parcel: Path, kbit: int, limit: int, audio: bool, workers: int) -> None:
    """Prepared folders of a recipe into parcel/data.tar: tokens, phonemes and, for the vocoder, Opus audio.

    Raises:
        SpearSpecError: it would be larger than `limit` bytes.
    """
    parcel.mkdir(parents=True, exist_ok=True)
    at, rate = Layout(recipe), CLOCK.sample_rate
    clips = at.prepared.clips()
    with tarfile.open(parcel / "data.tar", "w") as tar, ProcessPoolExecutor(workers) as pool:

        def add(name: str, content: bytes) -> None:
            about = tarfile.TarInfo(name)
            about.size = len(content)
            tar.addfile(about, io.BytesIO(content))

        side = [path for path in (at.centroids, at.ctc, at.sampling) if path.exists()]
        for path in (*at.prepared.files, *at.dev.files, *side):
            add(str(path.relative_to(recipe)), path.read_bytes())
        if audio:
            sound = pool.map(partial(opus, kbit=kbit, rate=rate), [c.audio for c in clips], chunksize=16)
            for clip, content in zip(clips, sound, strict=True):
                add(str(parcelled(at, clip.id).relative_to(recipe)), content)
    size = (parcel / "data.tar").stat().st_size
    if size > limit:
        raise SpearSpecError(
            f"{parcel / 'data.tar'} has {size / 2**20:.1f} MiB, more than {limit / 2**20:.0f}: lower --kbit, "
            "or pack --no-audio for t2s alone"
        )
    print(f"{parcel / 'data.tar'}: {size / 2**20:.1f} MiB, {len(clips)} clips")


def parcelled(at: Layout, clip: str) -> Path:
    """Where the audio of a clip lies once it is unpacked."""
    return at.audio / f"{clip}.ogg"


def unpack(parcel: Path, recipe: Path) -> None:
    """The parcel's data as a recipe folder; utterances point to the unpacked audio."""
    with tarfile.open(parcel / "data.tar") as tar:
        tar.extractall(recipe, filter="data")
    at = Layout(recipe)
    for folder in (at.prepared, at.dev):
        folder.write_clips([replace(clip, audio=str(parcelled(at, clip.id).resolve())) for clip in folder.clips()])


def main() -> int:
    ap = argparse.ArgumentParser(description=__doc__)
    ap.add_argument("action", choices=("pack", "unpack", "shard", "unshard"))
    ap.add_argument("source", type=Path)
    ap.add_argument("target", type=Path)
    ap.add_argument("--name", default="t2s", help="stage, for shard and unshard")
    ap.add_argument("--kbit", type=int, default=24)
    ap.add_argument("--limit", type=int, default=56, help="MiB that the parcel may have")
    ap.add_argument("--no-audio", action="store_true")
    ap.add_argument("--workers", type=int, default=1)
    args = ap.parse_args()
    try:
        if args.action == "pack":
            pack(args.source, args.target, args.kbit, args.limit * 2**20, not args.no_audio, args.workers)
        elif args.action == "unpack":
            unpack(args.source, args.target)
        elif args.action == "shard":
            files = write_shards(args.source, args.target, args.name)
            print(json.dumps({file.name: os.path.getsize(file) for file in files}))
        elif not read_shards(args.source, args.name, args.target):
            print(f"no shards of {args.name} in {args.source}: starting anew")
    except SpearSpecError as error:
        print(f"gpu: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
