"""Speed of the coarse stage on the same weights: audiolm-pytorch's `generate`, our cached loop, speculation.

    recipes/audiolm/run.sh CORPUS OUT                         # weights and a small drafter, in minutes
    .venv-peer/bin/python recipes/benchmark/coarse.py OUT [--gamma 4] [--verifier block] [--json FILE]

One thread, batch 1, float32. Held-out clips: their semantic tokens, then as many frames as the clip's beginning has.
The package's filter leaves the best tenth of the codes; ours is told the same (`top_k`). The package's loop goes on
behind an end token; a loop's time is divided by the tokens that it made. Arms take turns; medians of the runs.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "audiolm"))

import train as recipe

from spear_spec.config import DraftConfig, SamplingConfig
from spear_spec.decoding import make_drafter, make_verifier
from spear_spec.decoding.request import Request
from spear_spec.engine import Engine
from spear_spec.interop import load_audiolm_coarse
from spear_spec.models.drafts.decoder import DraftDecoder

FRAMES = 120


def prefixes(path: Path, count: int) -> list[list[int]]:
    """Semantic tokens of held-out clips."""
    with safe_open(path, "pt") as file:
        keys = sorted(name for name in file.keys() if name.startswith("semantic/"))[::20]  # noqa: SIM118
        return [file.get_tensor(key)[: FRAMES // 2].tolist() for key in keys[:count]]


class Package:
    """Its cached `generate`."""

    def __init__(self, weights: Path) -> None:
        peer = recipe.package()
        state = torch.load(weights, weights_only=True)["model"]
        quantizers, codes, dim = state["coarse_logit_weights"].shape
        depth = 1 + max(int(name.split(".")[2]) for name in state if name.startswith("transformer.layers."))
        model = peer.CoarseTransformer(
            codebook_size=codes - 1, num_coarse_quantizers=quantizers, dim=dim, depth=depth, heads=4, dim_head=32,
            num_semantic_tokens=len(state["semantic_embedding.weight"]) - 1,
        )  # fmt: skip
        model.load_state_dict(state)
        codec = peer.SoundStream(channels=4, strides=(2, 2), channel_mults=(2, 2), codebook_dim=8, codebook_size=4,
                                 rq_num_quantizers=quantizers + 1, attn_heads=1)  # fmt: skip
        self.wrapper = peer.CoarseTransformerWrapper(transformer=model.eval(), codec=codec, unique_consecutive=False)
        self.quantizers = quantizers

    def __call__(self, prefix: list[int], frames: int, temperature: float, seed: int) -> tuple[int, int, int]:
        torch.manual_seed(seed)
        self.wrapper.generate(
            semantic_token_ids=torch.tensor([prefix]), max_time_steps=frames, temperature=temperature, filter_thres=0.9
        )
        return frames * self.quantizers, frames * self.quantizers, 0


class Ours:
    """Our loop, with a drafter or without."""

    def __init__(self, model: Any, drafter: Any = None, rule: str = "rejection", gamma: int = 1) -> None:
        self.model = model
        self.engine = Engine(model, drafter, make_verifier(rule), gamma) if drafter else Engine(model)
        self.engine.session.frame_rate = 100.0

    def __call__(self, prefix: list[int], frames: int, temperature: float, seed: int) -> tuple[int, int, int]:
        cfg = self.model.cfg
        sampling = SamplingConfig(temperature, top_k=max((cfg.codebook + 1) // 10, 1), top_p=1.0)
        (one,) = self.engine.admit([Request(prefix, seed=seed, sampling=sampling, cap=frames * cfg.quantizers)])
        calls = 0
        while self.engine.running:
            self.engine.step()
            calls += 1
        return len(one.tokens), calls, int(one.ended == "guard")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--texts", type=int, default=3)
    parser.add_argument("--gamma", type=int, default=4)
    parser.add_argument("--verifier", default="block", help="of the small drafter (default block)")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    model = load_audiolm_coarse(args.out / "coarse.pt", unique=False)
    shape = json.loads((args.out / "small" / "shape.json").read_text(encoding="utf-8"))
    draft = DraftDecoder(DraftConfig.from_dict(shape), model)
    draft.load_state_dict(load_file(args.out / "small" / "draft.safetensors"))
    draft.eval().requires_grad_(False)
    arms = {
        "audiolm-pytorch generate": Package(args.out / "coarse.pt"),
        "our cached loop": Ours(model),
        "speculation, ngram": Ours(model, make_drafter("ngram"), "rejection", args.gamma),
        "speculation, small": Ours(model, make_drafter("small", draft), args.verifier, args.gamma),
    }
    texts = prefixes(args.out / "codes.safetensors", args.texts)
    report: dict[str, Any] = {"torch": torch.__version__, "frames": FRAMES, "gamma": args.gamma,
                              "verifier": args.verifier, "laws": {}}  # fmt: skip
    for temperature in (1.0, 0.7):
        found: dict[str, dict[str, list[float]]] = {name: {"ms": [], "cpu": [], "per_call": []} for name in arms}
        for run in range(args.runs + 1):  # the first one warms up
            for name, arm in arms.items():
                wall, cpu, tokens, calls = time.perf_counter(), time.process_time(), 0, 0
                for at, prefix in enumerate(texts[:1] if run == 0 else texts):
                    made, called, _ = arm(prefix, 10 if run == 0 else FRAMES, temperature, 100 * run + at)
                    tokens, calls = tokens + made, calls + called
                wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
                if run:
                    for key, value in (
                        ("ms", wall / tokens),
                        ("cpu", cpu / tokens),
                        ("per_call", tokens / calls / 1e3),
                    ):
                        found[name][key].append(1e3 * value)
        law = {name: {key: median(values) for key, values in own.items()} for name, own in found.items()}
        report["laws"][f"T={temperature:g}, best tenth"] = law
        best, plain, theirs = (law[n] for n in ("speculation, small", "our cached loop", "audiolm-pytorch generate"))
        print(f"T={temperature:g}")
        for name, own in law.items():
            print(f"  {name:26} {own['ms']:7.2f} ms a token ({own['cpu']:.2f} cpu), {own['per_call']:.2f} a call")
        ratios = plain["cpu"] / best["cpu"], theirs["cpu"] / best["cpu"]
        print("  small over our loop {:.2f}, over the package {:.2f} (cpu)".format(*ratios))
    if args.json:
        args.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
