"""Train the small draft decoder on the finished target's own samples.

The target's features and laws are computed once for each utterance; then the draft alone is trained, on several steps
of its own roll-out (after EAGLE-3, arXiv 2503.01840), so that its guesses hardly get worse with depth.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from spear_spec.config import DraftConfig, SamplingConfig, T2SConfig
from spear_spec.decoding.sampling import probabilities
from spear_spec.models.draft import DraftDecoder
from spear_spec.models.text_to_semantic import TextToSemantic
from spear_spec.nn.attention import rotate
from spear_spec.training.checkpoint import load_checkpoint, load_export, save_checkpoint, save_export
from spear_spec.training.t2s import Utterance, group_by_length, read_utterances, round_up
from spear_spec.voice import Bundle


@dataclass
class DraftTraining:
    """Settings of a run; see RESULTS for what they gave."""

    steps: int = 1200
    minutes: float = 0.0
    batch_tokens: int = 4000
    lr: float = 1e-3
    lr_floor: float = 0.02
    warmup: int = 50
    weight_decay: float = 0.01
    rollout: int = 4
    rollout_decay: float = 0.9
    overlap_weight: float = 0.5  # share of the loss that is 1 - sum min(p, q) at `temperature`, in the second half
    temperature: float = 0.8
    ema: float = 0.995
    seed: int = 0


@dataclass
class Seen:
    """What the target left of one utterance, in half precision.

    tokens [T] (start first), features [T, F x D], hidden [T, D] after the last norm, memory [S, D].
    """

    tokens: Tensor
    features: Tensor
    hidden: Tensor
    memory: Tensor


@dataclass
class DraftBatch:
    tokens: Tensor  # [B, T]
    features: Tensor  # [B, T, F x D]
    hidden: Tensor  # [B, T, D]
    memory: Tensor  # [B, S, D]
    memory_mask: Tensor  # [B, S]
    valid: Tensor  # [B, T]


@torch.no_grad()
def observe(model: TextToSemantic, utterances: list[Utterance], layers: tuple[int, ...]) -> list[Seen]:
    """Run the target over whole utterances, one at a time (no padding), and keep what the draft learns from."""
    from tqdm import tqdm

    model.feature_layers = layers
    out = []
    for u in tqdm(utterances, desc="features", mininterval=5):
        memory = model.encode(torch.tensor([u.text]))
        tokens = torch.cat((torch.tensor([model.start_id]), torch.from_numpy(u.tokens)))
        seen = model(tokens[None], memory)
        out.append(Seen(tokens, torch.cat(seen.features, -1)[0].half(), seen.hidden[0].half(), memory.hidden[0].half()))
    return out


def pad(items: list[Tensor], length: int) -> Tensor:
    out = items[0].new_zeros((len(items), length, *items[0].shape[1:]))
    for row, item in enumerate(items):
        out[row, : len(item)] = item
    return out


def collate(items: list[Seen]) -> DraftBatch:
    t = round_up(max(len(s.tokens) for s in items))
    size = round_up(max(len(s.memory) for s in items))
    ones = [torch.ones(len(s.tokens), dtype=torch.bool) for s in items]
    memory_ones = [torch.ones(len(s.memory), dtype=torch.bool) for s in items]
    return DraftBatch(pad([s.tokens for s in items], t), pad([s.features for s in items], t).float(), pad([s.hidden for s in items], t).float(),
                      pad([s.memory for s in items], size).float(), pad(memory_ones, size), pad(ones, t))


def batches(data: list[Seen], batch_tokens: int, rng: random.Random) -> Iterator[DraftBatch]:
    """Endless batches of similar lengths."""
    while True:
        pool = sorted(data, key=lambda s: len(s.tokens) + rng.uniform(0, 24))
        groups = group_by_length(pool, lambda s: len(s.tokens), batch_tokens)
        rng.shuffle(groups)
        for group in groups:
            yield collate(group)


def shift(x: Tensor, by: int = 1) -> Tensor:
    """Move along time [B, T, ...]: position i gets what stood at i - by; zeros come in."""
    return F.pad(x, (0,) * (2 * (x.ndim - 2)) + (by, -by))


def roll_out(draft: DraftDecoder, model: TextToSemantic, batch: DraftBatch, steps: int) -> list[Tensor]:
    """Logits [B, T, V] of each roll-out step, all positions at once.

    Step s at position i is what the draft says after running s - 1 tokens on its own: it sees true-feature keys up to
    position i - s + 1 and, between there and i, the keys of its earlier steps.
    """
    embedded = model.embed(batch.tokens)
    feature = shift(draft.fuse_target(list(batch.features.split(draft.cfg.dim, dim=-1))))
    cross_mask = F.pad(batch.memory_mask, (1, 0), value=True)[:, None, None]
    length = batch.tokens.shape[1]
    table = draft.rotary(length)[:length]
    at = torch.arange(length)
    crosses = [layer.cross_attn.keys_values(batch.memory) for layer in draft.layers]  # type: ignore[union-attr, operator]
    first: list[tuple[Tensor, Tensor]] = []  # true-feature keys and values of each layer
    later: list[list[tuple[Tensor, Tensor]]] = [[] for _ in draft.layers]  # those of steps 2, 3, ...
    out = []
    for step in range(steps):
        x = draft.enter_vectors(embedded, feature)
        for index, layer in enumerate(draft.layers):
            attn = layer.self_attn
            heads, dim = int(attn.heads), int(attn.dim_head)  # type: ignore[arg-type, union-attr]
            qkv = attn.to_qkv(attn.norm(x)).view(*x.shape[:2], 3 * heads, dim)  # type: ignore[arg-type, operator, union-attr]
            turned = rotate(qkv[:, :, : 2 * heads], table)
            q, k, v = (y.transpose(1, 2) for y in (turned[:, :, :heads], turned[:, :, heads:], qkv[:, :, 2 * heads:]))
            if step == 0:
                first.append((k, v))
            else:
                later[index].append((k, v))
            q = q * dim**-0.5  # type: ignore[operator]
            scores = (q @ first[index][0].transpose(-1, -2)).masked_fill(at[None, :] > at[:, None] - step, -1e4)
            own = later[index]
            extra = []
            for back, (key, _) in enumerate(reversed(own)):  # the key of this step, of the one before at i - 1, ...
                column = (q * F.pad(key, (0, 0, back, -back) if back else (0, 0, 0, 0))).sum(-1, keepdim=True)
                extra.append(column.masked_fill((at < back)[:, None], -1e4))
            weights = torch.cat([scores, *extra], -1).softmax(-1).to(v.dtype)
            mixed = weights[..., :length] @ first[index][1]
            for back, (_, value) in enumerate(reversed(own)):
                column = weights[..., length + back:length + back + 1]
                mixed = mixed + column * (F.pad(value, (0, 0, back, -back)) if back else value)
            x = x + attn.to_out(mixed.transpose(1, 2).reshape(x.shape[0], x.shape[1], -1))  # type: ignore[operator, union-attr]
            x = x + layer.cross_attn(x, *crosses[index], cross_mask)  # type: ignore[operator]
            x = x + layer.ff(x)  # type: ignore[operator]
        out.append(draft.logits(model, x))
        feature = shift(x)
    return out


def acceptance(target: Tensor, logits: list[Tensor], valid: Tensor, sampling: SamplingConfig) -> list[float]:
    """Exact acceptance sum min(p, q) of each roll-out step, under the laws that decoding uses."""
    p = probabilities(target[valid], sampling)
    rates = []
    for step, q in enumerate(logits):
        later = valid.clone()
        later[:, :step] = False
        keep = later[valid]
        rates.append(torch.minimum(p[keep], probabilities(q[later], sampling)).sum(-1).mean().item())
    return rates


def tokens_per_call(rates: list[float], gamma: int) -> float:
    """Expected tokens a call when acceptance at depth i is rates[i] (the last rate goes on)."""
    total, alive = 1.0, 1.0
    for depth in range(gamma):
        alive *= rates[min(depth, len(rates) - 1)]
        total += alive
    return total


@torch.no_grad()
def evaluate(draft: DraftDecoder, model: TextToSemantic, held_out: list[Seen], laws: list[SamplingConfig], steps: int = 5) -> dict[str, list[float]]:
    """Acceptance by depth on held-out utterances for each sampling law."""
    draft.eval()
    sums: dict[str, list[float]] = {}
    count = 0
    for i in range(0, len(held_out), 16):
        batch = collate(held_out[i:i + 16])
        logits = roll_out(draft, model, batch, steps)
        target = model.logits(batch.hidden)
        n = int(batch.valid.sum())
        for law in laws:
            rates = acceptance(target, logits, batch.valid, law)
            key = f"T={law.temperature:g} top_p={law.top_p:g}"
            sums[key] = [a + n * b for a, b in zip(sums.get(key, [0.0] * steps), rates)]
        count += n
    draft.train()
    return {k: [round(x / count, 4) for x in v] for k, v in sums.items()}


def train_draft(model: TextToSemantic, data: list[Seen], held_out: list[Seen], draft_cfg: DraftConfig, cfg: DraftTraining, out: Path, *,
                laws: list[SamplingConfig], every: int = 100, progress_bar: bool = True, start: Bundle | None = None) -> DraftDecoder:
    """Train (or go on from `out`/checkpoint.pt) and leave `out`/export/{draft.json,draft.safetensors}.

    start: a voice whose draft is gone on from; a checkpoint that is there already goes before.

    Raises:
        SpearSpecError: the checkpoint is damaged, or the voice's draft has another shape.
    """
    from tqdm import tqdm

    torch.manual_seed(cfg.seed)
    model.requires_grad_(False)
    draft = DraftDecoder(draft_cfg, model.cfg)
    if start is not None:
        start.load_into(draft, "draft").train().requires_grad_(True)
    ema = {k: v.detach().clone() for k, v in draft.state_dict().items()}
    groups = [{"params": [p for p in draft.parameters() if p.ndim >= 2], "weight_decay": cfg.weight_decay},
              {"params": [p for p in draft.parameters() if p.ndim < 2], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=cfg.lr, betas=(0.9, 0.98), fused=True)
    step, seconds = 0, 0.0
    checkpoint = out / "checkpoint.pt"
    if checkpoint.exists():
        state = load_checkpoint(checkpoint)
        draft.load_state_dict(state["draft"])
        optimizer.load_state_dict(state["optimizer"])
        ema, step, seconds = state["ema"], state["step"], state["seconds"]
    stream = batches(data, cfg.batch_tokens, random.Random(cfg.seed + step))
    out.mkdir(parents=True, exist_ok=True)
    log = (out / "train.log").open("a")
    bar = tqdm(total=cfg.steps, initial=step, disable=not progress_bar, desc="draft", mininterval=5)
    last = time.monotonic()
    while True:
        progress = max(step / cfg.steps, seconds / 60 / cfg.minutes if cfg.minutes else 0.0)
        done = progress >= 1
        if step % every == 0 or done:
            kept = {k: v.clone() for k, v in draft.state_dict().items()}
            draft.load_state_dict(ema)
            rates = evaluate(draft, model, held_out, laws)
            draft.load_state_dict(kept)
            line = {"step": step, "minutes": round(seconds / 60, 1),
                    **{k: {"acceptance": v, "gamma5": round(tokens_per_call(v, 5), 2)} for k, v in rates.items()}}
            log.write(json.dumps(line) + "\n")
            log.flush()
            bar.write(json.dumps(line))
            save_checkpoint(checkpoint, {"draft": draft.state_dict(), "optimizer": optimizer.state_dict(), "ema": ema, "step": step, "seconds": seconds})
            save_export(out / "export", "draft", {"draft": draft_cfg.to_dict(), "training": asdict(cfg), **line}, ema)
            last = time.monotonic()
        if done:
            break
        lr = cfg.lr * min(1.0, (step + 1) / cfg.warmup) * (cfg.lr_floor + (1 - cfg.lr_floor) * 0.5 * (1 + math.cos(math.pi * progress)))
        for group in optimizer.param_groups:
            group["lr"] = lr
        batch = next(stream)
        overlap = cfg.overlap_weight if progress > 0.5 else 0.0
        with torch.no_grad():
            law = model.logits(batch.hidden)[batch.valid]
            p = law.softmax(-1)
            sharp = (law / cfg.temperature).softmax(-1) if overlap else p
        with torch.autocast("cpu", torch.bfloat16):
            logits = roll_out(draft, model, batch, cfg.rollout)
        loss = torch.zeros(())
        norm = 0.0
        for depth, q in enumerate(logits):
            later = batch.valid.clone()
            later[:, :depth] = False
            keep = later[batch.valid]
            q = q[later].float()
            term = -(p[keep] * q.log_softmax(-1)).sum(-1).mean()
            if overlap:
                both = torch.minimum(sharp[keep], (q / cfg.temperature).softmax(-1)).sum(-1)
                term = (1 - overlap) * term + overlap * 4 * (1 - both).mean()
            weight = cfg.rollout_decay**depth
            loss = loss + weight * term
            norm += weight
        loss = loss / norm
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(draft.parameters(), 1.0)
        optimizer.step()
        step += 1
        with torch.no_grad():
            now = draft.state_dict()
            torch._foreach_lerp_(list(ema.values()), [now[k] for k in ema], 1 - min(cfg.ema, step / (step + 10)))
        clock = time.monotonic()
        seconds += min(clock - last, 60.0)
        last = clock
        bar.set_postfix(loss=f"{loss.item():.3f}")
        bar.update(1)
    bar.close()
    draft.load_state_dict(ema)
    return draft.eval()


def load_target(folder: Path) -> TextToSemantic:
    """The target of a T2S run (its export folder), float32, on the CPU."""
    description, weights = load_export(folder, "t2s")
    model = TextToSemantic(T2SConfig.from_dict(description["t2s"]))
    model.load_state_dict({k: v.float() for k, v in weights.items()})
    return model.eval()


def main(argv: list[str] | None = None) -> None:
    """Command line of the stage."""
    from spear_spec.text.symbols import SYMBOLS, encode_phonemes

    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("target", type=Path, help="export folder of the T2S stage")
    ap.add_argument("data", type=Path, help="prepared folder, best the target's own samples (training/sample.py)")
    ap.add_argument("out", type=Path)
    ap.add_argument("--held-out", type=Path)
    ap.add_argument("--held-out-size", type=int, default=80)
    ap.add_argument("--limit", type=int, help="utterances to use")
    ap.add_argument("--depth", type=int, default=1)
    ap.add_argument("--ff-mult", type=int, default=2, help="width of the feed-forward; narrow keeps the voice small and drafting quick")
    ap.add_argument("--layers", default="2,4,6", help="target layers whose features the draft sees")
    ap.add_argument("--every", type=int, default=100)
    ap.add_argument("--threads", type=int, default=1)
    ap.add_argument("--law", nargs="*", default=["0.8,0.95", "1,0.95"], help="temperature,top_p to report")
    ap.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="training settings: " + ", ".join(asdict(DraftTraining())))
    a = ap.parse_args(argv)
    torch.set_num_threads(a.threads)
    cfg = DraftTraining(**{k: json.loads(v) for k, _, v in (pair.partition("=") for pair in a.set)})
    model = load_target(a.target)
    layers = tuple(int(x) for x in a.layers.split(","))
    draft_cfg = DraftConfig(model.cfg.dim, a.depth, model.cfg.heads, model.cfg.dim_head, a.ff_mult, target_layers=layers)
    data = read_utterances(a.data, encode_phonemes, len(SYMBOLS), set())[: a.limit]
    held = read_utterances(a.held_out, encode_phonemes, len(SYMBOLS), set()) if a.held_out else data[-a.held_out_size:]
    data = data if a.held_out else data[: -a.held_out_size]
    held = held[:: max(1, len(held) // a.held_out_size)]
    laws = [SamplingConfig(temperature=float(t), top_p=float(p)) for t, p in (law.split(",") for law in a.law)]
    print(f"{len(data)} utterances, {sum(len(u.tokens) for u in data)} tokens; held out {len(held)}")
    train_draft(model, observe(model, data, layers), observe(model, held, layers), draft_cfg, cfg, a.out, laws=laws, every=a.every)


if __name__ == "__main__":
    main()
