"""A copy of a voice whose tables of semantic tokens fit new tokens, to go on from (`t2s.start`, `vocoder.start`).

    python recipes/default_voice/carry_tables.py VOICE OUT --pair OLD.safetensors=NEW.safetensors [--pair ...]

OLD and NEW hold the tokens of the same clips (key = id), at the same rate. Each row of a table, the transformer's and
the vocoder's, becomes the mean of the old rows, weighted by how often old and new token stood at the same time,
and is brought back to the usual length, since a mean of several rows is shorter than any of them. The drafts are
the old ones, and fit what they are trained on next only roughly.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

TABLES = {"t2s": "semantic_emb.weight", "vocoder": "token_embedding.weight"}
LONGEST = 2.0  # times that a mean is stretched at most


def together(pairs: list[tuple[Path, Path]], tokens: int) -> Tensor:
    """How often new token and old token stand at the same time: [new, old]."""
    counts = torch.zeros(tokens, tokens)
    for old_file, new_file in pairs:
        old, new = load_file(old_file), load_file(new_file)
        for clip in sorted(old.keys() & new.keys()):
            length = min(len(old[clip]), len(new[clip]))
            where = (new[clip][:length].long(), old[clip][:length].long())
            counts.index_put_(where, torch.ones(length), accumulate=True)
    return counts


def carried(table: Tensor, counts: Tensor) -> Tensor:
    """The table [tokens or more, D] for new tokens; rows behind the tokens (the end token's) stay."""
    tokens = len(counts)
    old, shares = table[:tokens].float(), counts / counts.sum(1, keepdim=True).clamp_min(1)
    mean = shares @ old
    stretch = old.norm(dim=1).mean() / mean.norm(dim=1).clamp_min(1e-6)
    new = table.clone()
    new[:tokens] = (mean * stretch.clamp(1, LONGEST)[:, None]).to(table.dtype)
    return new


def main() -> None:
    """Command line."""
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("voice", type=Path)
    ap.add_argument("out", type=Path)
    ap.add_argument("--pair", action="append", required=True, metavar="OLD=NEW")
    args = ap.parse_args()
    if args.out.exists():
        ap.error(f"{args.out} is there already")
    shutil.copytree(args.voice, args.out)
    config = json.loads((args.out / "config.json").read_text(encoding="utf-8"))
    pairs = [(Path(old), Path(new)) for old, new in (pair.split("=", 1) for pair in args.pair)]
    counts = together(pairs, config["t2s"]["num_semantic_token_ids"])
    for part, name in TABLES.items():
        for shard in config["files"][part]:
            file = args.out / shard["file"]
            weights = load_file(file)
            if name in weights:
                weights[name] = carried(weights[name], counts)
                save_file(weights, file)
                shard["bytes"] = file.stat().st_size
                shard["sha256"] = hashlib.sha256(file.read_bytes()).hexdigest()
    (args.out / "config.json").write_text(json.dumps(config, indent=1, ensure_ascii=False), encoding="utf-8")
    print(f"{args.out}: {int((counts.sum(1) == 0).sum())} new tokens were never seen")


if __name__ == "__main__":
    main()
