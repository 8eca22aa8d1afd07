"""Pack by hand what stage 8 packs: exports of the trained parts -> one voice folder (half precision, shards of at
most 15 MiB).

    python recipes/default_voice/pack.py --t2s RUN/t2s/export --vocoder RUN/voc/export --centroids
    centroids.safetensors \
        [--draft RUN/draft/export] [--drafters RUN/drafters] [--temperature .8 --top-p .95 --gamma 5] --out
        spear_spec/voices/kokoro-duo
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from spear_spec.config import SamplingConfig
from spear_spec.errors import SpearSpecError
from spear_spec.text import PhonemeTokenizer
from spear_spec.training.recipe.pack import pack_voice
from spear_spec.training.recipe.plan import Plan, read_file
from spear_spec.training.recipe.stages.pack import about_tokens

CONFIG = Path(__file__).with_name("config.toml")


def with_stand_ins(values: dict[str, Any]) -> dict[str, Any]:
    """A recipe as its file has it, with something for what only a run of it says."""
    return {"out": ".", **values, "prepare": {"corpora": [], **values.get("prepare", {})}}


def main() -> None:
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--t2s", type=Path, required=True)
    ap.add_argument("--vocoder", type=Path, required=True)
    ap.add_argument("--centroids", type=Path, required=True)
    ap.add_argument("--draft", type=Path, help="without it the voice decodes autoregressively")
    ap.add_argument(
        "--drafters", type=Path, help="folder with NAME/export of further drafts: what the drafters stage leaves"
    )
    ap.add_argument("--supervised", type=Path, help="weights of the tokenizer's supervised encoder")
    ap.add_argument("--speaker-reference", type=Path, help="speaker_reference.json for eval")
    ap.add_argument("--out", type=Path, required=True)
    ap.add_argument("--config", type=Path, default=CONFIG, help="the recipe, for what is not said here")
    ap.add_argument("--name", help="default: the folder's name")
    ap.add_argument("--speakers", help="in the vocoder's order, comma between; the first is the default")
    ap.add_argument("--licence")
    ap.add_argument("--origin")
    ap.add_argument("--temperature", type=float, default=0.8)
    ap.add_argument("--top-k", type=int, default=0)
    ap.add_argument("--top-p", type=float, default=0.95)
    ap.add_argument("--guidance", type=float, default=1.0)
    ap.add_argument("--gamma", type=int, default=5)
    args = ap.parse_args()
    try:
        plan = Plan.from_dict(with_stand_ins(read_file(args.config)))
        if args.supervised:
            plan = replace(plan, tokenize=replace(plan.tokenize, supervised=str(args.supervised)))
        supervised = plan.tokenize.supervised
        speakers = args.speakers.split(",") if args.speakers else list(plan.prepare.speakers)
        sampling = SamplingConfig(args.temperature, args.top_k, args.top_p, args.guidance)
        drafters = (
            {path.parent.parent.name: path.parent for path in sorted(args.drafters.glob("*/export/*.json"))}
            if args.drafters
            else {}
        )
        bundle = pack_voice(
            args.out,
            t2s=args.t2s,
            vocoder=args.vocoder,
            centroids=args.centroids,
            draft=args.draft,
            drafters=drafters,
            name=args.name or args.out.name,
            speakers=speakers,
            licence=args.licence or plan.pack.licence,
            origin=args.origin or plan.pack.origin,
            text=PhonemeTokenizer(speakers).to_dict(),
            semantic=about_tokens(plan),
            sampling=sampling,
            gamma=args.gamma,
            reference=args.speaker_reference,
            supervised=Path(supervised) if supervised else None,
            complete=plan.pack.complete,
            rounded=plan.pack.rounded,
        )
    except SpearSpecError as error:
        raise SystemExit(f"pack: {error}") from None
    shards = [shard for shards in bundle.config.files.values() for shard in shards]
    for shard in shards:
        print(f"{shard['file']:32} {shard['bytes'] / 2**20:6.2f} MiB")
    print(f"{bundle.path}: {sum(shard['bytes'] for shard in shards) / 2**20:.2f} MiB in all")


if __name__ == "__main__":
    main()
