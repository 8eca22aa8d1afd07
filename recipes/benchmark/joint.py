"""Do heads that are trained along with the target help or harm it? Runs with and without them, on the same held-out
speech.

    spear_spec.training.recipe.run of one recipe with t2s.training.joint=none, and with joint=prophet in another OUT
    python recipes/benchmark/joint.py HELD_OUT NONE/t2s:PROPHET/t2s [...] [--json FILE]

Runs of the same steps and seed have the same first weights, batches and masks; one of more steps (as many as the
heads' time is
worth) tells what else that time buys. NLL a token with the true past, float32, weights as exported; gap: NLL with the
text of
another sentence minus that. Differences: second minus first, 95 % paired bootstrap over utterances.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

from spear_spec.evaluation.judge import Measurement
from spear_spec.evaluation.statistics import paired_difference, ratio_interval
from spear_spec.text import PhonemeTokenizer
from spear_spec.training.data.prepared import Prepared
from spear_spec.training.data.utterances import Utterance, read_utterances
from spear_spec.training.drafts.trainer import load_target
from spear_spec.training.recipe.plan import CLOCK
from spear_spec.training.t2s.batches import collate
from spear_spec.training.t2s.trainee import Trainee


@torch.no_grad()
def losses(run: Path, held_out: list[Utterance]) -> dict[str, list[Measurement]]:
    """ "nll" and "wrong" (another sentence's text) of each utterance: nats and the tokens they are of."""
    model = load_target(run / "export")
    trainee = Trainee(model).eval()
    out: dict[str, list[Measurement]] = {"nll": [], "wrong": []}
    for index, item in enumerate(held_out):
        other = held_out[(index + 2) % len(held_out)]
        for name, text in (("nll", item.text), ("wrong", other.text)):
            batch = collate([Utterance(text, item.tokens, None, item.speaker)], model.start_id, model.eos_id)
            count = len(item.tokens) + 1
            out[name].append(Measurement(count * trainee(batch, None, None, None)["nll"].item(), count))
    return out


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("held_out", type=Path)
    parser.add_argument("pairs", nargs="+", metavar="RUN:RUN")
    parser.add_argument("--limit", type=int, help="first utterances only")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    folder = Prepared(args.held_out)
    front = PhonemeTokenizer(folder.names())
    held = read_utterances(folder, front.encode_phonemes, len(front.vocab), clock=CLOCK)[: args.limit]
    pairs = [tuple(Path(name) for name in pair.split(":")) for pair in args.pairs]
    scored = {run: losses(run, held) for run in dict.fromkeys(run for pair in pairs for run in pair)}
    found = []
    print("| pair | NLL, first | second | difference | gap, first | second |\n|---|---|---|---|---|---|")
    for first, second in pairs:
        name, one, two = f"{second.name} - {first.name}", scored[first], scored[second]
        nll = [ratio_interval(side["nll"]).value for side in (one, two)]
        gap = [ratio_interval(side["wrong"]).value - value for side, value in zip((one, two), nll)]
        change = paired_difference(two["nll"], one["nll"])
        found.append({"pair": name, "nll": nll, "gap": gap, "difference": change.to_dict()})
        print(
            f"| {name} | {nll[0]:.4f} | {nll[1]:.4f} | "
            f"{change.value:+.4f} [{change.lo:+.4f}, {change.hi:+.4f}] | {gap[0]:.2f} | {gap[1]:.2f} |"
        )
    if args.json:
        training = {run.name: json.loads((run / "export" / "t2s.json").read_text())["training"] for run in scored}
        args.json.write_text(
            json.dumps({"utterances": len(held), "training": training, "pairs": found}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
