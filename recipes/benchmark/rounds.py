"""What whole rounds cost on a device, and what they give: loop and speculation, by target, batch and dtype.

    recipes/gpu.sh bench                                              # on a GPU machine, with the tests of tests/gpu
    python recipes/benchmark/rounds.py --out runs/rounds.jsonl [--device cuda] [--minutes 4] [--tiny]

Targets: the shipped voice (10 M), and 72 M and 300 M with random weights. Nothing drafts well for random weights, and
a round costs the same whatever it keeps: their speculation has a random draft of the shipped draft's shape, and
`tokens_per_s_at` is what its rounds would give with the tokens a round that the shipped voice keeps at the same batch
and gamma in this run. A random target's own `tokens_per_s` says nothing of speculation. `block` (one pass for a whole
draft) has random weights everywhere, the shipped voice has none of its own: what counts is its `us_round` beside
eagle's. Runtime "graphs-torch" is graphs without the kernels in Triton, `fused_faster` what these save; "graphs-laws"
has all but whole chains, `chain_faster` is what these save.

The batch is kept full: a request joins when one has ended, until none is waiting; only till then is measured. us_round
is the time of `Engine.step` alone, tokens_per_s counts joining (the encoder too). bound_us: bytes of weights and of the
cache that a round must read, once, over the bandwidth of a large copy, measured here first. One line of JSON a result,
written as it comes, cheapest and most telling first; what does not fit into --minutes is left out and named.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from spear_spec.bench.machine import commit, now
from spear_spec.config import DraftConfig, SamplingConfig, SpecConfig, T2SConfig
from spear_spec.decoding import DecodeStats, Parts, Request
from spear_spec.decoding.rounds.board import Board
from spear_spec.decoding.rounds.fused import ops
from spear_spec.decoding.rounds.fused.chain import LAWS_ALONE
from spear_spec.engine import Decoder
from spear_spec.models.drafts.block import BlockConfig, BlockDecoder
from spear_spec.models.drafts.decoder import DraftDecoder
from spear_spec.models.spear_tts import TextToSemantic
from spear_spec.voice.bundle import open_voice
from spear_spec.voice.drafts import Drafts
from spear_spec.voice.parts import load_target

IDS = Path(__file__).parent / "ids.json"
PEER = {"num_text_token_ids": 256, "num_semantic_token_ids": 1024}
TARGETS = {
    "72M": T2SConfig(**PEER, dim=512, source_depth=6, target_depth=12, heads=8),
    "300M": T2SConfig(**PEER, dim=1024, source_depth=6, target_depth=15, heads=16),
}
TINY = {name: T2SConfig(**PEER, dim=32, source_depth=1, target_depth=2, heads=2, dim_head=16) for name in TARGETS}
GAMMA = {1: 10, 8: 6, 64: 4}  # by batch
CAP = 120  # tokens, where the target does not end by itself
SHIPPED = "10M"


@dataclass(frozen=True)
class Case:
    target: str
    batch: int
    dtype: str
    drafter: str  # none: the loop
    runtime: str = "graphs"  # or eager, graphs-torch, graphs-laws

    @property
    def name(self) -> str:
        return f"{self.target} {self.dtype} batch {self.batch} {self.drafter} {self.runtime}"


def cases(tiny: bool) -> Iterator[Case]:
    """Cheapest and most telling first; tiny: a few of each kind."""
    for batch in (1, 64) if tiny else (1, 64, 8):
        for dtype in ("float32",) if tiny else ("bfloat16", "float32"):
            for target in (SHIPPED, "300M") if tiny else (SHIPPED, "300M", "72M"):
                for drafter in ("none", "eagle"):
                    yield Case(target, batch, dtype, drafter)
                    if batch == 1 and target != "72M" and dtype == "float32":
                        yield Case(target, batch, dtype, drafter, "eager")
                        if target == SHIPPED:
                            yield Case(target, batch, dtype, drafter, "graphs-torch")
                    if drafter == "eagle" and target == SHIPPED and batch != 8:
                        yield Case(target, batch, dtype, drafter, "graphs-laws")
                if target == SHIPPED and batch == 1:
                    yield Case(target, batch, dtype, "block")
    if not tiny:
        for batch, target in ((1, "300M"), (64, SHIPPED), (64, "300M"), (8, SHIPPED)):
            yield Case(target, batch, "bfloat16", "block")


class Bench:
    """Targets are made once a dtype."""

    def __init__(self, device: torch.device, tiny: bool, tell: Callable[[dict[str, Any]], None]) -> None:
        self.device, self.tiny, self.tell = device, tiny, tell
        self.bundle = open_voice(None)
        self.ids: list[list[int]] = json.loads(IDS.read_text())["ids"]
        self.bandwidth = 0.0
        self.per_round: dict[tuple[int, str], float] = {}  # tokens a round of the shipped voice
        self._made: dict[tuple[str, str], Decoder] = {}
        self._blocks: dict[tuple[str, str], BlockDecoder] = {}

    def machine(self) -> dict[str, Any]:
        """Bandwidth of a copy, bytes read and written counted, and what one launch costs inside a graph."""
        size = 2**16 if self.tiny else 2**29
        one, two = (torch.empty(size, dtype=torch.float32, device=self.device) for _ in range(2))
        one.normal_()
        seconds = self._median(lambda: two.copy_(one), 3 if self.tiny else 10)
        self.bandwidth = 8 * size / seconds
        found = {"bandwidth_gb_s": self.bandwidth / 1e9, "torch": torch.__version__, "commit": commit()}
        if self.device.type == "cuda":
            found["device"] = torch.cuda.get_device_name(self.device)
            small = torch.zeros(256, device=self.device)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                for _ in range(1000):
                    small.add_(1.0)
            found["us_launch_in_graph"] = self._median(graph.replay, 10) * 1e3
        return found

    def _median(self, function: Callable[[], Any], runs: int) -> float:
        times = []
        for number in range(runs + 1):
            began = now(self.device)
            function()
            if number:
                times.append(now(self.device) - began)
        return sorted(times)[len(times) // 2]

    def decoder(self, case: Case) -> Decoder:
        """Of the target with its draft; made when it is first asked for."""
        key = (case.target, case.dtype)
        dtype = getattr(torch, case.dtype)
        if key not in self._made:
            if case.target == SHIPPED:
                target = load_target(self.bundle, self.device, dtype)
                parts = Parts(self.bundle.spec, Drafts(self.bundle, target, self.device, dtype))
                self._made[key] = Decoder(target, parts, self.bundle.sampling, self.bundle.config.clock.token_rate)
            else:
                torch.manual_seed(0)
                shape = (TINY if self.tiny else TARGETS)[case.target]
                layers = tuple(sorted({-(-shape.target_depth * i // 3) for i in (1, 2, 3)}))
                with torch.device(self.device):
                    target = TextToSemantic(shape).to(dtype).eval()
                    draft = DraftDecoder(DraftConfig(shape.dim, 1, shape.heads, shape.dim_head, 2, layers), shape)
                parts = Parts(self.bundle.spec, {"eagle": draft.to(dtype).eval()})
                self._made[key] = Decoder(target, parts, SamplingConfig(temperature=0.7, top_p=0.9))
        decoder = self._made[key]
        gamma, parts = GAMMA[case.batch], decoder.parts
        spec = replace(self.bundle.spec, gamma=gamma, gammas={}) if case.drafter != "none" else SpecConfig("none")
        if case.drafter == "block":
            parts, spec = Parts(spec, {"block": self._block(case, decoder.target)}), replace(spec, drafter="block")
        runtime = case.runtime.partition("-")[0]
        return replace(decoder, parts=replace(parts, spec=spec), runtime=runtime)

    def _block(self, case: Case, target: Any) -> BlockDecoder:
        """Random, of the shape that is trained for a target."""
        key = (case.target, case.dtype)
        if key not in self._blocks:
            cfg = target.cfg
            layers = tuple(sorted({-(-cfg.target_depth * i // 3) for i in (1, 2, 3)}))
            torch.manual_seed(0)
            with torch.device(self.device):
                shape = BlockConfig(cfg.dim, target.vocab_size, layers, 2, cfg.heads, cfg.dim_head)
                self._blocks[key] = BlockDecoder(shape, cfg).to(target.dtype).eval()
        return self._blocks[key]

    def run(self, case: Case) -> dict[str, Any]:
        """Speak under full load."""
        gc.collect()  # boards of cases before, with what they had captured
        # looked at when a board is made
        os.environ[ops.SWITCH] = {"graphs-torch": "0", "graphs-laws": LAWS_ALONE}.get(case.runtime, "1")
        decoder = self.decoder(case)
        cap = 9 if self.tiny else CAP if case.target != SHIPPED else None
        batch = min(case.batch, 2) if self.tiny else case.batch
        texts = self.ids[2:3] if self.tiny else self.ids
        if case.target != SHIPPED:
            texts = [[1 + i % 250 for i in range(60)]]

        def requests(count: int, seed: int) -> list[Request]:
            return [
                Request(texts[n % len(texts)], seed=seed + n, sampling=decoder.sampling, cap=cap) for n in range(count)
            ]

        # random targets all end at their cap, together: till then the batch is full
        count = batch + (0 if case.target != SHIPPED else 1 if self.tiny else max(batch, 8))
        self._speak(decoder, requests(count, 5000), batch, to_the_end=True)  # captures all that is needed
        measured = self._speak(decoder, requests(count, 5000), batch)
        measured |= self._about(case, decoder, batch)
        return measured

    def _speak(
        self, decoder: Decoder, waiting: list[Request], batch: int, *, to_the_end: bool = False
    ) -> dict[str, Any]:
        engine = decoder.engine()
        known = len(engine.runtime.made) if isinstance(engine.runtime, Board) else 0
        said = engine.admit(waiting[:batch])
        waiting = waiting[batch:]
        began, stepping, rounds, tokens = now(self.device), 0.0, 0, 0
        stats = DecodeStats()
        while engine.running:
            before = now(self.device) if decoder.runtime == "eager" else time.perf_counter()
            verdict = engine.step()
            stepping += time.perf_counter() - before
            rounds += 1
            tokens += sum(map(len, verdict.tokens))
            ended = sum(end is not None for end in verdict.ended)
            if ended and not waiting and not to_the_end:
                break
            said += engine.admit(waiting[:ended])
            waiting = waiting[ended:]
        seconds = now(self.device) - began
        for utterance in said:
            stats += utterance.stats
        engine.release([utterance for utterance in said if utterance.ended is None])
        new = len(engine.runtime.made) - known if isinstance(engine.runtime, Board) else 0
        return {
            **({"captured_meanwhile": new} if new else {}),
            "tokens_per_s": tokens / seconds,
            "us_round": 1e6 * stepping / rounds,
            "rounds": rounds,
            "tokens": tokens,
            "tokens_per_round": stats.tokens_per_call,
        }

    def _about(self, case: Case, decoder: Decoder, batch: int) -> dict[str, Any]:
        """The bound, and the rates that follow from it and from the shipped voice's tokens a round."""
        target, size = decoder.target, torch.finfo(decoder.target.dtype).bits // 8
        assert isinstance(target, TextToSemantic)
        cfg = target.cfg
        read = sum(p.numel() for layer in target.decoder for p in layer.parameters()) + target.head.numel()
        position = 2 * (cfg.kv_heads or cfg.heads) * cfg.dim_head * batch
        read += cfg.target_depth * position * (CAP // 2 + 64)
        gamma = 0 if case.drafter == "none" else decoder.parts.spec.gamma
        if gamma:
            draft = decoder.parts.made[0].draft
            once = sum(p.numel() for p in draft.parameters()) + target.head.numel() + position * (CAP // 2 + 64)
            read += once if case.drafter == "block" else gamma * once
        found: dict[str, Any] = {"gamma": gamma, "bound_us": 1e6 * read * size / self.bandwidth}
        return found

    def conclude(self, case: Case, result: dict[str, Any], rows: list[dict[str, Any]]) -> None:
        """Ratios and real-time factor, from what this run has measured before."""
        result["over_bound"] = result["us_round"] / result["bound_us"]
        rate, key = self.bundle.config.clock.token_rate, (case.batch, case.dtype)
        if case.target == SHIPPED and case.drafter == "eagle" and case.runtime == "graphs":
            self.per_round[key] = result["tokens_per_round"]
        if case.drafter == "block":  # what a trained one keeps is not known here
            return
        if case.target != SHIPPED:
            per_round = 1.0 if case.drafter == "none" else self.per_round.get(key)
            if per_round is not None:
                result["tokens_per_s_at"] = case.batch * per_round * 1e6 / result["us_round"]
        speed = result.get("tokens_per_s_at", result["tokens_per_s"])
        result["times_real_time"] = speed / rate
        loop = replace(case, drafter="none").name
        for other in rows:
            if case.drafter != "none" and other.get("case") == loop and "us_round" in other:
                result["over_loop"] = speed / other.get("tokens_per_s_at", other["tokens_per_s"])
            if other.get("case") == replace(case, runtime="graphs").name and "us_round" in other:
                # in lines of the other runtimes
                name = {"eager": "graphs_faster", "graphs-torch": "fused_faster", "graphs-laws": "chain_faster"}.get(
                    case.runtime
                )
                if name:
                    result[name] = result["us_round"] / other["us_round"]

    def profile(self) -> dict[str, Any]:
        """What a round of the shipped voice spends its time on: kernels by time."""
        from torch.profiler import ProfilerActivity, profile

        found: dict[str, Any] = {}
        kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if self.device.type == "cuda" else [])]
        for drafter in ("none", "eagle"):
            decoder = self.decoder(Case(SHIPPED, 1, "float32", drafter))
            engine = decoder.engine()
            engine.admit([Request(self.ids[0], seed=3, sampling=decoder.sampling, cap=60)])
            engine.step()
            rounds = 2 if self.tiny else 6
            with profile(activities=kinds) as seen:
                for _ in range(rounds):
                    if engine.running:
                        engine.step()
                now(self.device)
            device = self.device.type == "cuda"
            lines = [
                (getattr(e, "self_device_time_total" if device else "self_cpu_time_total"), e.count, e.key)
                for e in seen.key_averages()
            ]
            lines = sorted((line for line in lines if line[0] > 0), reverse=True)
            found[drafter] = {
                "rounds": rounds,
                "us": sum(line[0] for line in lines) / rounds,
                "calls": sum(line[1] for line in lines) / rounds,
                "most": [[round(us / rounds, 2), count / rounds, name[:90]] for us, count, name in lines[:14]],
            }
        return found


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--out", type=Path, required=True)
    options.add_argument("--device", default="cuda")
    options.add_argument("--minutes", type=float, default=4.0)
    options.add_argument("--tiny", action="store_true", help="a rehearsal: small targets, short utterances")
    args = options.parse_args()
    began = time.monotonic()
    rows: list[dict[str, Any]] = []
    args.out.parent.mkdir(parents=True, exist_ok=True)

    def tell(row: dict[str, Any]) -> None:
        row = {key: float(f"{value:.4g}") if isinstance(value, float) else value for key, value in row.items()}
        rows.append(row)
        print(json.dumps(row), flush=True)
        with args.out.open("a") as file:
            file.write(json.dumps(row) + "\n")

    bench = Bench(torch.device(args.device), args.tiny, tell)

    def attempt(name: str, work: Callable[[], dict[str, Any]]) -> bool:
        """One that breaks is told, and the rest goes on."""
        if time.monotonic() - began > 60 * args.minutes:
            tell({"case": name, "left_out": True})
            return False
        try:
            tell({"case": name, **work()})
        except Exception as error:
            tell(
                {
                    "case": name,
                    "error": f"{type(error).__name__}: {error}"[:400],
                    "where": traceback.format_exc()[-1500:],
                }
            )
            return False
        return True

    def measure(case: Case) -> dict[str, Any]:
        result = bench.run(case)
        bench.conclude(case, result, rows)
        return result

    good = attempt("machine", bench.machine)
    for number, case in enumerate(cases(args.tiny)):
        good &= attempt(case.name, lambda case=case: measure(case))  # type: ignore[misc]
        if number == 3:
            good &= attempt("profile", bench.profile)
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
