"""Train the small drafter of a coarse transformer that `train.py` has left.

    .venv/bin/python recipes/audiolm/draft.py OUT --conf recipes/audiolm/conf/tiny.toml

Distilled on codes of the corpus, which our SoundStream makes of it, as the drafts of a voice are
(`training/drafts/trainer.py`). OUT gets `codes.safetensors` and `small/`.
"""

from __future__ import annotations

import argparse
import json
import sys
import tomllib
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from clips import Clips

from spear_spec.config import SamplingConfig
from spear_spec.interop import load_audiolm_coarse, load_soundstream
from spear_spec.models.audiolm.coarse import CoarseTransformer
from spear_spec.models.soundstream import SoundStream
from spear_spec.training.data.utterances import Utterance
from spear_spec.training.drafts.observed import observe
from spear_spec.training.drafts.trainer import DraftTraining, draft_shapes, train_drafts


def codec_of(out: Path, conf: dict[str, Any]) -> SoundStream:
    """The SoundStream that was trained, as ours."""
    said = conf["codec"]
    return load_soundstream(out / "soundstream.pt", sample_rate=said["sample_rate"], window=said["attn_window_size"])


def law_of(codebook: int) -> SamplingConfig:
    """The package's: its filter leaves a tenth of the codes and the end token."""
    return SamplingConfig(temperature=1.0, top_k=max((codebook + 1) // 10, 1), top_p=1.0)


def codes_of(clips: Clips, codec: SoundStream, count: int) -> dict[str, torch.Tensor]:
    """Codes int32 [frames, quantizers] of so many clips, by id."""
    with torch.inference_mode():
        return {key: codec.encode(clips.samples(key)[None])[0].int() for key in list(clips.paths)[:count]}


def utterances(model: CoarseTransformer, clips: Clips, codes: dict[str, torch.Tensor], most: int) -> list[Utterance]:
    """The beginning of each clip, at most so many semantic tokens of it, and its interleaved coarse codes."""
    cfg, found = model.cfg, []
    for key, own in codes.items():
        tokens = clips.tokens[key]
        count = min(most, len(tokens))
        frames = count * len(own) // len(tokens)
        said = own[:frames, : cfg.quantizers].long() + torch.arange(cfg.quantizers) * cfg.codebook
        found.append(Utterance(model.text(tokens[:count].tolist()), said.flatten().numpy(), None, ""))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--conf", type=Path, required=True)
    args = parser.parse_args()
    conf = tomllib.loads(args.conf.read_text(encoding="utf-8"))
    torch.manual_seed(0)
    model = load_audiolm_coarse(args.out / "coarse.pt", unique=False)
    clips = Clips(args.out, conf["codec"]["sample_rate"], conf["data"]["span"])
    codes = codes_of(clips, codec_of(args.out, conf), conf["draft"]["clips"])
    held = {f"codes/{key}": value.contiguous() for key, value in codes.items()}
    semantic = {f"semantic/{key}": clips.tokens[key].int() for key in codes}
    save_file({**held, **semantic}, args.out / "codes.safetensors")
    data = utterances(model, clips, codes, conf["coarse"]["tokens"][1])
    held_out, train = data[::20], [one for at, one in enumerate(data) if at % 20]
    shape = draft_shapes(model)["small"]
    quick = DraftTraining(steps=conf["draft"]["steps"], warmup=30, lr=3e-3, ema=0.98)
    seen = [observe(model, part, ()) for part in (train, held_out)]
    law = law_of(model.cfg.codebook)
    made = train_drafts(model, seen[0], seen[1], {"small": shape}, quick, args.out / "work", laws=[law], every=100)
    folder = args.out / "small"
    folder.mkdir(exist_ok=True)
    save_file({k: v.contiguous() for k, v in made["small"].state_dict().items()}, folder / "draft.safetensors")
    (folder / "shape.json").write_text(json.dumps(shape), encoding="utf-8")
    print((args.out / "work" / "small" / "train.log").read_text(encoding="utf-8").splitlines()[-1])


if __name__ == "__main__":
    main()
