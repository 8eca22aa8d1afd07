"""Every exact verifier with every draft that it is stated for: closed form, many rows, whole sequences. The table of
RESULTS.md.

    python recipes/benchmark/exactness.py --out runs/exactness.json [--rows 125000] [--sequences 20000] [--batches 1,8]
        [--parts law,rows,loop] [--only TEXT]

law: largest error of the enumerated law of the next tokens in float64 (the oracles of tests/decoding).
rows: so many drafts through `verify` in float32, batches of ragged rows, chi-square of the next tokens against their
exact law.
loop: so many whole sequences of a tiny model with a tiny draft decoder through `speculate`, against the enumerated law.
p-values are Holm-adjusted over everything of their part. Run again after a stop: finished cells are kept.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from spear_spec.bench.speed import commit, hardware
from spear_spec.config import SamplingConfig, SpecConfig
from spear_spec.decoding import VERIFIERS, Session, make, make_verifier, speculate
from spear_spec.decoding.chance import Chance
from spear_spec.decoding.proposal import Proposal
from spear_spec.exactness.oracles import TEXTS, UncachedTarget, chi_square, texts, tiny_draft, tiny_model
from spear_spec.exactness.rules import SHAPES, Laws, tree_error
from spear_spec.exactness.uniformity import holm

# vocabularies are tiny here: top-k 50 of 1,025 becomes top-k 3 of 4
SAMPLINGS = {
    "T=1": SamplingConfig(temperature=1.0, top_p=1.0),
    "T=.7, top-k": SamplingConfig(temperature=0.7, top_k=3, top_p=1.0),
    "top-p .95": SamplingConfig(temperature=1.0, top_p=0.95),
    "guidance 2": SamplingConfig(temperature=1.0, top_p=1.0, guidance=2.0),
}
CASES = [
    (name, form) for name, rule in VERIFIERS.items() if rule.lossless for form in sorted(rule.forms | {"point_chain"})
]
RAGGED = ["chain", "empty", "one", "chain", "chain", "one", "chain", "chain"]
RAGGED_TREES = ["paths", "empty", "pair", "ragged", "three", "one", "late", "paths"]
SPECS = {
    ("rejection", "chain"): SpecConfig(verifier="rejection", gamma=3),
    ("block", "chain"): SpecConfig(verifier="block", gamma=3),
    ("kseq", "iid"): SpecConfig(drafter="kpath", verifier="kseq", num_drafts=3, gamma=2),
    ("recursive", "iid"): SpecConfig(verifier="recursive", tree="2-2"),
    ("recursive", "points"): SpecConfig(
        verifier="recursive", tree="dynamic", gamma=3, options={"nodes": 6, "width": 2}
    ),
    ("recursive_wor", "wor"): SpecConfig(verifier="recursive_wor", tree="3-2"),
    ("matching", "points"): SpecConfig(verifier="matching", tree="dynamic", gamma=3, options={"nodes": 6, "width": 2}),
    ("matching", "wor"): SpecConfig(verifier="matching", tree="2-2", options={"siblings": "wor"}),
}


def shapes(form: str, batch: int) -> list[str]:
    """The drafts of a batch; the last row is the one that `law` watches."""
    ragged = RAGGED if form in ("chain", "point_chain") else RAGGED_TREES
    return ragged[-batch:]


def law(name: str, form: str, sampling: SamplingConfig, batch: int) -> dict[str, Any]:
    """Largest error over drafts that are random, wrong, right, disjoint or lack tokens."""
    *others, shape = shapes(form, batch)
    kinds = ("random", "right", "never", "disjoint", "zeros")
    errors = [tree_error(make_verifier(name), sampling, kind, form, shape, others=others) for kind in kinds]
    return {"error": max(errors)}


class OneStream(Chance):
    """Chance for many independent rows from one generator: `Uniforms` would keep one for each."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.block: list[float] = []

    def bernoulli(self, p: float, row: int) -> bool:
        if not self.block:
            self.block = torch.rand(1 << 16, generator=self.generator, dtype=torch.float64).tolist()
        return self.block.pop() < p

    def categorical(self, weights: Tensor, rows: Sequence[int]) -> list[int]:
        table = weights.cumsum(-1, dtype=torch.float64)
        u = torch.rand(len(rows), 1, generator=self.generator, dtype=torch.float64)
        return torch.searchsorted(table, u * table[:, -1:], right=True)[:, 0].tolist()


class Table:
    """A row's laws by the tokens so far, as tensors: prefix () has number 0, prefix n with token t behind it n V + t
    + 1.
    """

    def __init__(self, laws: Laws, row: int, deepest: int) -> None:
        self.vocab = laws.vocab
        prefixes: list[tuple[int, ...]] = [()]
        for prefix in prefixes:
            if len(prefix) < deepest:
                prefixes += [(*prefix, token) for token in range(self.vocab)]
        self.target = torch.stack([laws.library(row, prefix) for prefix in prefixes])
        self.draft = torch.stack([laws.draft(row, prefix) for prefix in prefixes])

    def grow(
        self, shape: Sequence[int], form: str, copies: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens [N, copies], the number of the prefix that each node follows, and whether it came to be."""
        tokens, above = (
            torch.zeros(len(shape), copies, dtype=torch.long),
            torch.zeros(len(shape), copies, dtype=torch.long),
        )
        real = torch.ones(len(shape), copies, dtype=torch.bool)
        for node, parent in enumerate(shape):
            if parent >= 0:
                above[node] = above[parent] * self.vocab + tokens[parent] + 1
                real[node] = real[parent]
            law = self.draft[above[node]].clone()
            siblings = [other for other in range(node) if shape[other] == parent]
            if form in ("points", "point_chain"):
                tokens[node] = law.argsort(dim=-1, descending=True, stable=True)[:, len(siblings)]
                continue
            if form == "wor":
                for other in siblings:
                    law.scatter_(1, tokens[other][:, None], 0.0)
                real[node] &= law.sum(-1) > 0
                law[~real[node]] = 1.0
            tokens[node] = torch.multinomial(law, 1, generator=generator)[:, 0]
        return tokens, above, real


def rows(name: str, form: str, sampling: SamplingConfig, batch: int, count: int) -> dict[str, Any]:
    """`count` rows through `verify`, batches of the ragged shapes; the smallest p-value of any row of the batch,
    Bonferroni's way.
    """
    verifier, chance = make_verifier(name), OneStream(1)
    laws, length = Laws(sampling, "random", 4, 0, torch.float32), 3
    nodes = [SHAPES[shape] for shape in shapes(form, batch)]
    tables = [Table(laws, row, 4) for row in range(batch)]
    chain, points = form in ("chain", "point_chain"), form in ("points", "point_chain")
    seen = torch.zeros(batch, 4**length, dtype=torch.long)
    copies, done = max(1, 512 // batch), 0
    longest = max(len(shape) for shape in nodes)
    while done < count:
        tokens_of, parents_of = [], []
        p, q = torch.zeros(batch, copies, longest + 1, 4), torch.zeros(batch, copies, max(longest, 1), 4)
        for row, (shape, table) in enumerate(zip(nodes, tables)):
            tokens, above, real = table.grow(shape, form, copies, chance.generator)
            p[row, :, 0] = table.target[0]
            for copy_, (line, here) in enumerate(zip(tokens.T.tolist(), real.T.tolist())):
                number = {-1: -1}
                for node, there in enumerate(here):
                    if there:
                        number[node] = len(number) - 1
                kept = [node for node, there in enumerate(here) if there]
                tokens_of.append([line[node] for node in kept])
                parents_of.append([number[shape[node]] for node in kept])
                if len(kept) < len(shape):  # rare: rows close up where a law ran out of tokens
                    tokens[: len(kept), copy_], above[: len(kept), copy_] = tokens[kept, copy_], above[kept, copy_]
            if shape:
                q[row, :, : len(shape)] = table.draft[above].transpose(0, 1)
                p[row, :, 1 : len(shape) + 1] = table.target[above * 4 + tokens + 1].transpose(0, 1)
        proposal = Proposal(
            tokens_of, None if points else q.flatten(0, 1)[:, :longest], None if chain else parents_of, form != "wor"
        )
        verdict = verifier.verify(proposal, p.flatten(0, 1), chance, list(range(batch * copies)))
        said = torch.tensor([(line + [-1] * length)[:length] for line in verdict.tokens]).view(batch, copies, length)
        for row, table in enumerate(tables):
            prefix, code = torch.zeros(copies, dtype=torch.long), torch.zeros(copies, dtype=torch.long)
            for at in range(length):  # what the call left open follows the exact law
                drawn = torch.multinomial(table.target[prefix], 1, generator=chance.generator)[:, 0]
                token = torch.where(said[row, :, at] < 0, drawn, said[row, :, at])
                prefix, code = prefix * 4 + token + 1, code * 4 + token
            seen[row] += torch.bincount(code, minlength=4**length)
        done += batch * copies
    values = []
    for row in range(batch):
        counts = Counter({(n // 16, n // 4 % 4, n % 4): c for n, c in enumerate(seen[row].tolist()) if c})
        values.append(chi_square(counts, laws.expected(row, length), done // batch))
    return {"n": done, "p": min(1.0, min(values) * batch)}


def loop(spec: SpecConfig, sampling: SamplingConfig, batch: int, count: int) -> dict[str, Any]:
    """`count` whole sequences (all rows of the ragged batches together), the smallest p-value of any row,
    Bonferroni's way.
    """
    model = tiny_model(semantic=3, dtype=torch.float32, seed=3)
    drafter, verifier = make(spec, tiny_draft(model))
    exact, caps = copy.deepcopy(model).double(), [3 - row % 2 for row in range(batch)]
    counts: list[Counter[tuple[int, ...]]] = [Counter() for _ in range(batch)]
    generator, rounds = torch.Generator().manual_seed(7), -(-count // batch)
    with torch.inference_mode():
        memory = model.encode(texts(batch))
    for _ in range(rounds):
        session = Session(model, memory, sampling, generator=generator, max_tokens=caps)
        for _ in speculate(session, drafter, verifier, spec.gamma):
            pass
        for row in range(batch):
            counts[row][tuple(session.tokens[row])] += 1
    values = [
        chi_square(counts[row], UncachedTarget(exact, TEXTS[row], sampling).sequences(caps[row]), rounds)
        for row in range(batch)
    ]
    return {"n": rounds * batch, "p": min(1.0, min(values) * batch)}


def cells(args: argparse.Namespace) -> Iterator[tuple[str, Any]]:
    """Key and how to fill it, for every cell of the table."""
    for part in args.parts.split(","):
        for batch in map(int, args.batches.split(",")):
            for sampling, settings in SAMPLINGS.items():
                if part == "loop":
                    for (name, form), spec in SPECS.items():
                        yield (
                            f"loop|{name}|{form}|{batch}|{sampling}",
                            lambda a=(spec, settings, batch, args.sequences): loop(*a),
                        )
                    continue
                for name, form in CASES if part == "law" else SPECS:
                    key = f"{part}|{name}|{form}|{batch}|{sampling}"
                    if part == "law":
                        yield key, lambda a=(name, form, settings, batch): law(*a)
                    else:
                        yield key, lambda a=(name, form, settings, batch, args.rows): rows(*a)


def summary(found: dict[str, Any]) -> str:
    """One line a verifier and form: the largest error, the smallest adjusted p-value of rows and of sequences."""
    adjusted = {}
    for part in ("rows", "loop"):
        keys = [key for key in found if key.startswith(part)]
        adjusted |= dict(zip(keys, holm([found[key]["p"] for key in keys])))
    lines = [
        "| verifier | draft | largest error, closed form | smallest adjusted p: rows | whole sequences |",
        "|---|---|---|---|---|",
    ]
    for name, form in dict.fromkeys(tuple(key.split("|")[1:3]) for key in found):
        mine = [key for key in found if key.split("|")[1:3] == [name, form]]
        errors = [found[key]["error"] for key in mine if key.startswith("law")]
        cell = {
            part: [(adjusted[key], found[key]["n"]) for key in mine if key.startswith(part)]
            for part in ("rows", "loop")
        }
        texts_ = [
            f"{min(p for p, _ in values):.3g} ({len(values)} x {values[0][1]:,})" if values else ""
            for values in cell.values()
        ]
        lines.append(
            f"| {name} | {form} | {max(errors):.1e} | {texts_[0]} | {texts_[1]} |"
            if errors
            else f"| {name} | {form} | | {texts_[0]} | {texts_[1]} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--rows",
        type=int,
        default=125_000,
        help="rows a cell: four samplings by two batch sizes make a million for each verifier and draft",
    )
    parser.add_argument("--sequences", type=int, default=20_000)
    parser.add_argument("--batches", default="1,8")
    parser.add_argument("--parts", default="law,rows,loop")
    parser.add_argument(
        "--only", default="", help="only cells with this in their key, such as a sampling's name: to share the work"
    )
    args = parser.parse_args()
    torch.set_num_threads(1)
    result = json.loads(args.out.read_text()) if args.out.exists() else {}
    result |= {
        "schema": "exactness/1",
        "commit": commit(),
        "hardware": hardware(torch.device("cpu")),
        "command": " ".join(sys.argv),
    }
    found: dict[str, Any] = result.setdefault("cells", {})
    began = time.monotonic()
    for key, fill in cells(args):
        if key not in found and args.only in key:
            found[key] = fill()
            print(f"{time.monotonic() - began:7.0f} s  {key}: {found[key]}", flush=True)
            args.out.parent.mkdir(parents=True, exist_ok=True)
            args.out.write_text(json.dumps(result, indent=0) + "\n")
    print(summary(found))


if __name__ == "__main__":
    main()
