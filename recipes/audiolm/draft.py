"""Train the small drafter of a coarse transformer that `train.py` has left.

    .venv/bin/python recipes/audiolm/draft.py OUT [--steps 500]

Distilled on the corpus's codes, as the drafts of a voice are (`training/drafts/trainer.py`). OUT gets `small/`.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from spear_spec.config import SamplingConfig
from spear_spec.interop import load_audiolm_coarse
from spear_spec.models.audiolm.coarse import CoarseTransformer
from spear_spec.training.data.utterances import Utterance
from spear_spec.training.drafts.observed import observe
from spear_spec.training.drafts.trainer import DraftTraining, draft_shapes, train_drafts

FRAMES = 120  # as many as the transformer was trained on
LAW = SamplingConfig(temperature=1.0, top_k=12, top_p=1.0)  # the package's filter leaves a tenth of 129


def utterances(model: CoarseTransformer, path: Path) -> list[Utterance]:
    """The beginning of each clip: semantic tokens and interleaved coarse ones."""
    cfg, found = model.cfg, []
    with safe_open(path, "pt") as file:
        for key in sorted(name[6:] for name in file.keys() if name.startswith("codes/")):  # noqa: SIM118
            codes, semantic = file.get_tensor(f"codes/{key}"), file.get_tensor(f"semantic/{key}")
            count = min(FRAMES, len(codes), 2 * len(semantic)) // 2 * 2
            own = codes[:count, : cfg.quantizers].long() + torch.arange(cfg.quantizers) * cfg.codebook
            text = model.text(semantic[: count // 2].tolist())
            found.append(Utterance(text, own.flatten().numpy(), None, ""))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=500)
    args = parser.parse_args()
    model = load_audiolm_coarse(args.out / "coarse.pt", unique=False)
    data = utterances(model, args.out / "codes.safetensors")
    held_out, train = data[::20], [one for at, one in enumerate(data) if at % 20]
    shape = draft_shapes(model)["small"]
    quick = DraftTraining(steps=args.steps, warmup=30, lr=3e-3, ema=0.98)
    seen = [observe(model, part, ()) for part in (train, held_out)]
    made = train_drafts(model, seen[0], seen[1], {"small": shape}, quick, args.out / "work", laws=[LAW], every=100)
    folder = args.out / "small"
    folder.mkdir(exist_ok=True)
    save_file({k: v.contiguous() for k, v in made["small"].state_dict().items()}, folder / "draft.safetensors")
    (folder / "shape.json").write_text(json.dumps(shape), encoding="utf-8")
    print((args.out / "work" / "small" / "train.log").read_text(encoding="utf-8").splitlines()[-1])


if __name__ == "__main__":
    main()
