"""Stage 7: exports of the trained parts -> one voice folder (half precision, shards of at most 15 MiB).

    python recipes/default_voice/pack.py --t2s RUN/t2s/export --vocoder RUN/voc/export --centroids centroids.safetensors \
        [--draft RUN/draft/export] [--temperature .8 --top-p .95 --gamma 5] --out spear_spec/voices/kokoro-duo
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from safetensors.torch import load_file

from spear_spec.config import DraftConfig, SamplingConfig, SpecConfig, T2SConfig
from spear_spec.errors import SpearSpecError
from spear_spec.pipeline import load_parts
from spear_spec.text import PhonemeTokenizer
from spear_spec.training.checkpoint import load_export
from spear_spec.voice import Bundle, save_voice

LICENCE = "Apache-2.0"
ORIGIN = ("Trained by recipes/default_voice on speech made with Kokoro-82M (Apache-2.0, voices af_heart and am_michael) from LJ Speech "
          "transcripts (public domain) and WordNet usage examples (WordNet licence); semantic tokens from the encoder of OpenAI Whisper base (MIT).")
SEMANTIC = {"encoder": "openai/whisper-base", "layer": 4, "rate": 25}


def pack(out: Path, *, t2s: Path, vocoder: Path, centroids: Path, draft: Path | None, name: str, speakers: list[str],
         licence: str, origin: str, sampling: SamplingConfig, gamma: int, reference: Path | None = None) -> Bundle:
    """Write the bundle and load it once, strictly.

    Raises:
        SpearSpecError: an export is missing or damaged, or the parts do not fit each other.
    """
    t2s_about, t2s_weights = load_export(t2s, "t2s")
    vocoder_about, vocoder_weights = load_export(vocoder, "vocoder")
    clusters = load_file(centroids)
    configs = {"t2s": T2SConfig.from_dict(t2s_about["t2s"]).to_dict(), "vocoder": vocoder_about.get("vocoder", vocoder_about)}
    weights = {"t2s": t2s_weights, "vocoder": vocoder_weights, "centroids": {"centroids": clusters["centroids"]}}
    spec = SpecConfig(drafter="none")
    if draft is not None:
        draft_about, weights["draft"] = load_export(draft, "draft")
        configs["draft"] = DraftConfig.from_dict(draft_about["draft"]).to_dict()
        spec = SpecConfig(drafter="small", verifier="rejection", gamma=gamma)
    bundle = save_voice(
        out, name=name, licence=licence, origin=origin, sample_rate=int(configs["vocoder"]["sample_rate"]), speakers=speakers,
        text=PhonemeTokenizer().to_dict(), semantic={**SEMANTIC, "k": len(clusters["centroids"])}, sampling=sampling, spec=spec,
        configs=configs, weights=weights,
    )
    load_parts(bundle)
    if reference is not None:
        shutil.copyfile(reference, out / "speaker_reference.json")  # what `eval` measures speaker similarity against
    return bundle


def main() -> None:
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--t2s", type=Path, required=True)
    ap.add_argument("--vocoder", type=Path, required=True)
    ap.add_argument("--centroids", type=Path, required=True)
    ap.add_argument("--draft", type=Path, help="without it the voice decodes autoregressively")
    ap.add_argument("--speaker-reference", type=Path, help="speaker_reference.json for eval")
    ap.add_argument("--out", type=Path, required=True)
    ap.add_argument("--name", help="default: the folder's name")
    ap.add_argument("--speakers", default="af_heart,am_michael", help="in the vocoder's order; the first is the default")
    ap.add_argument("--licence", default=LICENCE)
    ap.add_argument("--origin", default=ORIGIN)
    ap.add_argument("--temperature", type=float, default=0.8)
    ap.add_argument("--top-k", type=int, default=0)
    ap.add_argument("--top-p", type=float, default=0.95)
    ap.add_argument("--guidance", type=float, default=1.0)
    ap.add_argument("--gamma", type=int, default=5)
    args = ap.parse_args()
    try:
        sampling = SamplingConfig(args.temperature, args.top_k, args.top_p, args.guidance)
        bundle = pack(args.out, t2s=args.t2s, vocoder=args.vocoder, centroids=args.centroids, draft=args.draft, name=args.name or args.out.name,
                      speakers=args.speakers.split(","), licence=args.licence, origin=args.origin, sampling=sampling, gamma=args.gamma,
                      reference=args.speaker_reference)
    except SpearSpecError as error:
        raise SystemExit(f"pack: {error}") from None
    shards = [shard for shards in bundle.config.files.values() for shard in shards]
    for shard in shards:
        print(f"{shard['file']:32} {shard['bytes'] / 2**20:6.2f} MiB")
    print(f"{bundle.path}: {sum(shard['bytes'] for shard in shards) / 2**20:.2f} MiB in all")


if __name__ == "__main__":
    main()
