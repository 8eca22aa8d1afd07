"""Put what was trained into a stage's folder, OUT/stage, which `say --acoustic OUT/stage` speaks through.

    .venv/bin/python recipes/audiolm/pack.py OUT --conf recipes/audiolm/conf/tiny.toml [--voice NAME|FOLDER]
                                             [--prompt SPEAKER=FILE ...] [--licence TEXT]

--prompt: a clip whose voice a speaker of the voice has from then on (needs the speech encoder, as `prepare.py` does).
"""

from __future__ import annotations

import argparse
import json
import sys
import tomllib
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from draft import codec_of, law_of

from spear_spec.acoustic.audiolm import AudioLMModule, prompt_to_dict
from spear_spec.audio import load_audio
from spear_spec.config import DraftConfig
from spear_spec.interop import load_audiolm_coarse, load_audiolm_fine
from spear_spec.models.drafts.decoder import DraftDecoder
from spear_spec.voice.acoustic import load_acoustic, save_stage
from spear_spec.voice.bundle import open_voice


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--conf", type=Path, required=True)
    parser.add_argument("--voice")
    parser.add_argument("--prompt", action="append", default=[])
    parser.add_argument("--licence", default="that of the corpus")
    args = parser.parse_args()
    conf, bundle = tomllib.loads(args.conf.read_text(encoding="utf-8")), open_voice(args.voice)
    coarse = load_audiolm_coarse(args.out / "coarse.pt", unique=False)
    fine, codec = load_audiolm_fine(args.out / "fine.pt"), codec_of(args.out, conf)
    small = json.loads((args.out / "small" / "shape.json").read_text(encoding="utf-8"))
    draft = DraftDecoder(DraftConfig.from_dict(small), coarse)
    draft.load_state_dict(load_file(args.out / "small" / "draft.safetensors"))
    shape: dict[str, Any] = {
        "coarse": coarse.cfg.to_dict(),
        "fine": fine.cfg.to_dict(),
        "codec": codec.cfg.to_dict(),
        "draft": small,
        "spec": {"drafter": "small", "verifier": "block", "gamma": 4},
        "sampling": law_of(coarse.cfg.codebook).to_dict(),
        "prompts": {},
    }
    told: dict[str, Any] = {
        "name": args.out.resolve().name,
        "licence": args.licence,
        "origin": f"trained by recipes/audiolm/run.sh with {args.conf.name} on semantic tokens of {bundle.config.name}",
        "kind": "audiolm",
        "sample_rate": codec.cfg.sample_rate,
        "weights": AudioLMModule(coarse, fine, codec, draft).state_dict(),
    }
    folder = save_stage(args.out / "stage", bundle, shape=shape, **told)
    if args.prompt:
        stage: Any = load_acoustic(bundle, folder)
        for given in args.prompt:
            speaker, _, path = given.partition("=")
            heard = load_audio(path)
            said = stage.prompt(torch.from_numpy(heard.samples.copy()), heard.sample_rate)
            shape["prompts"][speaker] = prompt_to_dict(said.value)
        save_stage(folder, bundle, shape=shape, **told)
    size = sum(path.stat().st_size for path in folder.iterdir())
    print(f"{folder}: {size / 1e6:.1f} MB, prompts: {', '.join(shape['prompts']) or 'none'}")


if __name__ == "__main__":
    main()
