"""Train the text-to-semantic transformer.

Left alone, the decoder learns to babble fluently and to ignore its text. Three things make it listen: the raw scores of
a few cross-attention heads are pulled to the phoneme being spoken, a linear head on the encoder predicts the token of
each phoneme, and part of the decoder's own past is masked. The TEXT GAP in the log (NLL with another sentence's text
minus NLL with the right one) says whether it does; the loss does not.

Reads a prepared folder: utterances.jsonl (id, speaker, phonemes, frames or null, seconds) and tokens.safetensors.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from spear_spec.config import T2SConfig
from spear_spec.errors import ConfigError
from spear_spec.models.spear_tts import TextToSemantic
from spear_spec.nn.attention import attend
from spear_spec.training.averaged import adamw, copy_weights, follow
from spear_spec.training.checkpoint import load_checkpoint, save_checkpoint, save_export
from spear_spec.training.precision import mixed
from spear_spec.training.recipe.plan import set_value
from spear_spec.training.t2s.joint import IGNORE, JOINT, Joint, View, same_joint
from spear_spec.voice.bundle import Bundle, open_voice

FRAMES_PER_TOKEN = 960 / 600  # a semantic token is 960 samples, a duration frame 600 (both at 24 kHz)

Item = TypeVar("Item")


@dataclass
class T2STraining:
    """Settings that worked on one CPU core (see FINDINGS and RESULTS).

    joint: heads that are trained along with the target (see joint.py): "none", "medusa" or "prophet". joint_steps: how
    many tokens they look ahead. The k-th one's loss counts joint_weight x joint_decay^k. joint_warmup: share of the run
    during which they learn on a detached state.
    """

    steps: int = 3000
    minutes: float = 0.0  # if set, the schedule also ends after this much training time
    batch_tokens: int = 4000
    lr: float = 8e-4
    lr_floor: float = 0.02
    warmup: int = 300
    weight_decay: float = 0.01
    dropout: float = 0.1
    align_weight: float = 1.0
    align_floor: float = 0.1
    auxiliary_weight: float = 0.5
    align_layers: tuple[int, ...] = (1, 2)
    align_heads: int = 2
    history_max: float = 0.9
    history_all: float = 0.1
    history_max_late: float = 0.3
    no_text: float = 0.1
    join_share: float = 0.25
    join_seconds: float = 20.0
    ema: float = 0.999
    seed: int = 0
    joint: str = "none"
    joint_weight: float = 0.2
    joint_decay: float = 0.8
    joint_steps: int = 4
    joint_warmup: float = 0.1

    def __post_init__(self) -> None:
        if self.joint not in JOINT:
            raise ConfigError(f"joint must be {', '.join(JOINT[:-1])} or {JOINT[-1]}, not {self.joint!r}")
        if not isinstance(self.joint_steps, int) or isinstance(self.joint_steps, bool) or self.joint_steps < 1:
            raise ConfigError(f"joint_steps must be a whole number above 0, not {self.joint_steps!r}")
        if self.joint_weight <= 0 or not 0 < self.joint_decay <= 1 or not 0 <= self.joint_warmup <= 1:
            raise ConfigError(
                "joint_weight must be above 0, joint_decay above 0 and at most 1, joint_warmup 0 to 1 (1: the target never feels the heads)"
            )


@dataclass
class Utterance:
    """text [S] ids with speaker first and the text end token last; tokens [T]; align [T + 1] text position spoken at
    each token.
    """

    text: list[int]
    tokens: np.ndarray
    align: np.ndarray | None
    speaker: str


def alignment(frames: list[int], tokens: int) -> np.ndarray:
    """Text position (0 = the speaker token: leading silence; last = the text end: trailing silence) spoken at each
    token.
    """
    ends = np.cumsum(frames)
    middle = (np.arange(tokens) + 0.5) * FRAMES_PER_TOKEN
    return np.minimum(np.searchsorted(ends, middle, side="right"), len(frames) - 1)


def read_utterances(folder: Path, encode, text_eos: int, drop: set[str]) -> list[Utterance]:  # type: ignore[no-untyped-def]
    """Read a prepared folder; `encode(phonemes, speaker) -> ids`."""
    stored = load_file(folder / "tokens.safetensors")
    out = []
    for line in (folder / "utterances.jsonl").read_text(encoding="utf-8").splitlines():
        item = json.loads(line)
        if item["id"] in drop or item["id"] not in stored:
            continue
        tokens = stored[item["id"]].numpy().astype(np.int64)
        text = [*encode(item["phonemes"], item["speaker"]), text_eos]
        align = None
        if item.get("frames") and len(item["frames"]) == len(text):
            align = np.append(alignment(item["frames"], len(tokens)), len(text) - 1)
        if len(tokens):
            out.append(Utterance(text, tokens, align, item["speaker"]))
    return out


def join(parts: list[Utterance], space: int) -> Utterance:
    """One longer utterance: texts joined by a space, which also gets the silence between them."""
    text = list(parts[0].text[:1])
    tokens, aligns, known = [], [], all(p.align is not None for p in parts)
    for i, part in enumerate(parts):
        last = i == len(parts) - 1
        base = len(text) - 1  # where the part's leading silence goes: the speaker token or the space before it
        body = part.text[1:] if last else [*part.text[1:-1], space]
        text.extend(body)
        tokens.append(part.tokens)
        if known:
            align = part.align[: len(part.tokens)] + base  # type: ignore[index]
            aligns.append(align)
    joined = np.concatenate(tokens)
    align = np.append(np.concatenate(aligns), len(text) - 1) if known else None
    return Utterance(text, joined, align, parts[0].speaker)


@dataclass
class Batch:
    text: Tensor  # [B, S]
    text_mask: Tensor  # [B, S]
    tokens: Tensor  # [B, T] decoder input, start first
    target: Tensor  # [B, T], IGNORE where padded
    align: Tensor  # [B, T], IGNORE where unknown

    def to(self, device: torch.device) -> Batch:
        """The same batch on a device."""
        return Batch(*(tensor.to(device) for tensor in vars(self).values()))


def round_up(n: int, to: int = 16) -> int:
    return -(-n // to) * to


def collate(items: list[Utterance], start_id: int, eos_id: int) -> Batch:
    size = len(items)
    s = round_up(max(len(u.text) for u in items))
    t = round_up(max(len(u.tokens) for u in items) + 1)
    text = torch.zeros(size, s, dtype=torch.long)
    tokens = torch.full((size, t), eos_id)
    target, align = torch.full((size, t), IGNORE), torch.full((size, t), IGNORE)
    for i, u in enumerate(items):
        n = len(u.tokens)
        text[i, : len(u.text)] = torch.tensor(u.text)
        tokens[i, 0] = start_id
        tokens[i, 1 : n + 1] = torch.from_numpy(u.tokens)
        target[i, :n] = tokens[i, 1 : n + 1]
        target[i, n] = eos_id
        if u.align is not None:
            align[i, : n + 1] = torch.from_numpy(u.align)
    return Batch(text, text != 0, tokens, target, align)


def group_by_length(pool: Sequence[Item], length: Callable[[Item], int], batch_tokens: int) -> list[list[Item]]:
    """Cut a pool, sorted by length, into runs whose padded size stays within batch_tokens (or that hold one item)."""
    groups: list[list[Item]] = [[]]
    longest = 0
    for item in pool:
        longest = max(longest, round_up(length(item)))
        if groups[-1] and longest * (len(groups[-1]) + 1) > batch_tokens:
            groups.append([])
            longest = round_up(length(item))
        groups[-1].append(item)
    return groups


def batches(
    data: list[Utterance], cfg: T2STraining, start_id: int, eos_id: int, space: int, rng: random.Random
) -> Iterator[Batch]:
    """Endless batches of about batch_tokens, similar lengths together, some clips joined to longer ones."""
    limit = int(cfg.join_seconds * 25)
    while True:
        order = list(data)
        rng.shuffle(order)
        pool: list[Utterance] = []
        joined_tokens, all_tokens = 0, 0
        by_speaker: dict[str, list[Utterance]] = {}
        for u in order:
            all_tokens += len(u.tokens)
            if joined_tokens >= cfg.join_share * all_tokens:
                pool.append(u)
                continue
            parts = by_speaker.setdefault(u.speaker, [])
            if sum(len(p.tokens) for p in parts) + len(u.tokens) > limit and parts:
                pool.append(join(parts, space))
                by_speaker[u.speaker] = parts = []
            joined_tokens += len(u.tokens)
            parts.append(u)
        pool.extend(join(parts, space) for parts in by_speaker.values() if parts)
        pool.sort(key=lambda u: len(u.tokens) + rng.uniform(0, 24))
        groups = group_by_length(pool, lambda u: len(u.tokens) + 1, cfg.batch_tokens)
        rng.shuffle(groups)
        for group in groups:
            yield collate(group, start_id, eos_id)


class Trainee(nn.Module):
    """The model with what only training needs: the history mask vector and the encoder's auxiliary head."""

    def __init__(self, model: TextToSemantic) -> None:
        super().__init__()
        self.model = model
        self.history = nn.Parameter(
            torch.randn(model.cfg.dim) * model.cfg.dim**-0.5
        )  # never zero: the norm of a zero vector has no gradient
        self.auxiliary = nn.Linear(model.cfg.dim, model.cfg.num_semantic_token_ids)

    def forward(
        self,
        batch: Batch,
        masked: Tensor | None,
        no_text: Tensor | None,
        align: tuple[tuple[int, ...], int] | None,
        ahead: Callable[[View], dict[str, Tensor]] | None = None,
    ) -> dict[str, Tensor]:
        """masked [B, T] True where the decoder's input is hidden; no_text [B] True where the text is; align: layers,
        heads;
        ahead: further losses (see joint.py)."""
        m = self.model
        hidden = m.encode_hidden(batch.text, batch.text_mask)
        cross_mask = F.pad(
            batch.text_mask if no_text is None else batch.text_mask & ~no_text[:, None], (1, 0), value=True
        )
        x = m.embed(batch.tokens)
        if masked is not None:
            x = torch.where(masked[..., None], self.history.to(x.dtype), x)
        table = m.rotary(x.shape[1])[: x.shape[1]]
        bias = torch.zeros(
            cross_mask.shape,
            dtype=torch.bfloat16 if torch.is_autocast_enabled(x.device.type) else x.dtype,
            device=x.device,
        )
        bias = bias.masked_fill(~cross_mask, -1e4)[:, None, None]
        losses: dict[str, Tensor] = {}
        align_target = batch.align if no_text is None else batch.align.masked_fill(no_text[:, None], IGNORE)
        for index, layer in enumerate(m.decoder):
            x = x + layer.self_attn(x, table, None, causal=True)  # type: ignore[operator]
            cross = layer.cross_attn
            k, v = cross.keys_values(hidden)  # type: ignore[operator, union-attr]
            q = cross.queries(x)  # type: ignore[operator, union-attr]
            if align is not None and index in align[0] and bool((align_target != IGNORE).any()):
                heads = align[1]
                scores = q[:, :heads] @ k[:, :heads, 1:].transpose(-1, -2) * cross.dim_head**-0.5  # type: ignore[union-attr, operator]
                scores = scores.float().masked_fill(~batch.text_mask[:, None, None], -1e4)
                goal = align_target[:, None].expand(-1, heads, -1)
                # a batch may hold no text at all: the mean over nothing would be NaN
                term = F.cross_entropy(scores.flatten(0, 2), goal.flatten(), ignore_index=IGNORE, reduction="sum")
                term = term / (goal != IGNORE).sum().clamp(min=1)
                losses["align"] = losses.get("align", 0) + term / len(align[0])
            out = attend(q, k, v, bias)
            x = x + cross.to_out(out.transpose(1, 2).reshape(x.shape))  # type: ignore[operator, union-attr]
            x = x + layer.ff(x)  # type: ignore[operator]
        keep = batch.target.flatten() != IGNORE
        target = batch.target.flatten()[keep]
        last = m.decoder_norm(x)
        logits = m.logits(last.flatten(0, 1)[keep]).float()
        losses["nll"] = F.cross_entropy(logits, target)
        losses["accuracy"] = (logits.argmax(-1) == target).float().mean().detach()
        if align is not None:
            spoken = (batch.align != IGNORE) & (batch.target != m.eos_id) & (batch.target != IGNORE)
            state = hidden[
                torch.arange(len(hidden), device=hidden.device)[:, None].expand_as(spoken)[spoken], batch.align[spoken]
            ]
            losses["auxiliary"] = (
                F.cross_entropy(self.auxiliary(state).float(), batch.target[spoken]) if len(state) else x.sum() * 0
            )
        if ahead is not None:
            losses |= ahead(View(batch.target, x, last, hidden, bias, m.embed(batch.tokens), m.semantic_emb.weight))
        return losses


@torch.no_grad()
def evaluate(
    trainee: Trainee, held_out: list[Utterance], ahead: Callable[[View], dict[str, Tensor]] | None = None
) -> dict[str, float]:
    """Held-out NLL and accuracy without history masking, the text gap (other sentence of the same voice), and
    further losses.
    """
    trainee.eval()
    model = trainee.model
    total: dict[str, float] = {}
    count = 0
    for i in range(0, len(held_out), 20):
        group = held_out[i : i + 20]
        batch = collate(group, model.start_id, model.eos_id).to(model.device)
        n = int((batch.target != IGNORE).sum())
        with mixed(model.device):
            right = trainee(batch, None, None, None, ahead)
        batch.text, batch.text_mask = batch.text.roll(2, 0), batch.text_mask.roll(2, 0)
        with mixed(model.device):
            wrong = trainee(batch, None, None, None)
        for key, value in {**right, "wrong": wrong["nll"]}.items():
            total[key] = total.get(key, 0.0) + n * value.item()
        count += n
    trainee.train()
    out = {k: v / count for k, v in total.items()}
    gap = out.pop("wrong") - out["nll"]
    return {"nll": out.pop("nll"), "accuracy": out.pop("accuracy"), "gap": gap, **out}


def history_mask(batch: Batch, cfg: T2STraining, progress: float) -> Tensor:
    """Which of the decoder's inputs are hidden; the start token never is."""
    size = batch.tokens.shape[0]
    top = cfg.history_max_late if progress > 0.8 else cfg.history_max
    share = torch.rand(size, 1) * top
    if progress <= 0.8:
        share = torch.where(torch.rand(size, 1) < cfg.history_all, torch.ones(()), share)
    masked = torch.rand(batch.tokens.shape) < share
    masked[:, 0] = False
    return masked


def train_t2s(
    data: list[Utterance],
    held_out: list[Utterance],
    model_cfg: T2SConfig,
    cfg: T2STraining,
    out: Path,
    *,
    space: int,
    meta: dict | None = None,
    device: str = "cpu",
    every: int = 100,
    progress_bar: bool = True,
    start: Bundle | None = None,
) -> TextToSemantic:
    """Train (or go on from `out`/checkpoint.pt) and leave `out`/export/{t2s.json,t2s.safetensors} in half precision,
    and the heads that were trained along, if any, in `out`/export_joint.

    start: a voice whose transformer is gone on from; a checkpoint that is there already goes before.

    Raises:
        SpearSpecError: the checkpoint or the voice belongs to another model.
    """
    from tqdm import tqdm

    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(cfg.seed)
    model = TextToSemantic(model_cfg, dropout=cfg.dropout)
    nn.init.normal_(model.semantic_emb.weight, std=model_cfg.dim**-0.5)
    nn.init.normal_(model.text_emb.weight, std=1.0)
    if start is not None:
        start.load_into(model, "t2s").train().requires_grad_(True)
    trainee = Trainee(model).to(device)
    ema, optimizer = copy_weights(model), adamw(trainee, cfg.lr, cfg.weight_decay)
    joint = None if cfg.joint == "none" else Joint(cfg, model, device)
    step, seconds, tokens_seen = 0, 0.0, 0
    checkpoint = out / "checkpoint.pt"
    if checkpoint.exists():
        state = load_checkpoint(checkpoint)
        same_joint(joint, state, checkpoint)
        if joint is not None:
            joint.load(state["joint"])
        trainee.load_state_dict(state["trainee"])
        optimizer.load_state_dict(state["optimizer"])
        ema = {k: v.to(device) for k, v in state["ema"].items()}
        step, seconds, tokens_seen = state["step"], state["seconds"], state["tokens"]
    rng = random.Random(cfg.seed + step)
    torch.manual_seed(cfg.seed + step)
    stream = batches(data, cfg, model.start_id, model.eos_id, space, rng)
    log = (out / "train.log").open("a")
    bar = tqdm(total=cfg.steps, initial=step, disable=not progress_bar, desc="t2s")
    shown: dict[str, float] = {}
    last = time.monotonic()
    while True:
        progress = step / cfg.steps
        if cfg.minutes:
            progress = max(progress, seconds / 60 / cfg.minutes)
        done = progress >= 1
        if step % every == 0 or done:
            result = evaluate(trainee, held_out, None if joint is None else joint.hook(progress))
            line = {
                "step": step,
                "tokens": tokens_seen,
                "minutes": round(seconds / 60, 1),
                **{k: round(v, 4) for k, v in result.items()},
                **{f"train_{k}": round(v, 4) for k, v in shown.items()},
            }
            log.write(json.dumps(line) + "\n")
            log.flush()
            bar.write(json.dumps(line))
            last = time.monotonic()
        if (step % (2 * every) == 0 and step) or done:
            save_checkpoint(
                checkpoint,
                {
                    "trainee": trainee.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "ema": ema,
                    "step": step,
                    "seconds": seconds,
                    "tokens": tokens_seen,
                    **({} if joint is None else {"joint": joint.state()}),
                },
            )
            about = {"training": asdict(cfg), "step": step, "tokens": tokens_seen, **result, **(meta or {})}
            save_export(out / "export", "t2s", {"t2s": model_cfg.to_dict(), **about}, ema)
            if joint is not None:
                joint.export(out / "export_joint", about)
            last = time.monotonic()
        if done:
            break
        lr = (
            cfg.lr
            * min(1.0, (step + 1) / cfg.warmup)
            * (cfg.lr_floor + (1 - cfg.lr_floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))
        )
        for group in optimizer.param_groups:
            group["lr"] = lr
        batch = next(stream).to(torch.device(device))
        align_weight = cfg.align_floor + (cfg.align_weight - cfg.align_floor) * max(0.0, 1 - progress / 0.6)
        no_text = torch.rand(batch.tokens.shape[0], device=device) < cfg.no_text
        masked = history_mask(batch, cfg, progress).to(device) & ~no_text[:, None]
        with mixed(device):
            losses = trainee(
                batch,
                masked,
                no_text,
                (cfg.align_layers, cfg.align_heads),
                None if joint is None else joint.hook(progress),
            )
        loss = losses["nll"] + align_weight * losses.get("align", 0) + cfg.auxiliary_weight * losses["auxiliary"]
        if joint is not None:
            loss = loss + losses["joint"]
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trainee.parameters(), 1.0)
        optimizer.step()
        step += 1
        if joint is not None:
            joint.update(lr, step)
        tokens_seen += int((batch.target != IGNORE).sum())
        follow(ema, model, cfg.ema, step)
        for k, v in losses.items():
            shown[k] = 0.95 * shown.get(k, v.item()) + 0.05 * v.item()
        clock = time.monotonic()
        seconds += min(clock - last, 60.0)  # a pause (SIGSTOP) does not count
        last = clock
        bar.set_postfix(nll=f"{shown['nll']:.2f}", align=f"{shown.get('align', 0):.2f}")
        bar.update(1)
    bar.close()
    model.load_state_dict(ema)
    return model.eval()


def main(argv: list[str] | None = None) -> None:
    """Command line of the stage."""
    from spear_spec.text.symbols import SYMBOLS, encode_phonemes

    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("data", type=Path, help="prepared folder")
    ap.add_argument("out", type=Path)
    ap.add_argument(
        "--held-out", type=Path, help="prepared folder to report on; default: the last 200 utterances of the data"
    )
    ap.add_argument("--held-out-size", type=int, default=120, help="utterances of it to score")
    ap.add_argument("--drop", type=Path, help="file of ids to leave out")
    ap.add_argument("--dim", type=int, default=256)
    ap.add_argument("--heads", type=int, default=4)
    ap.add_argument("--encoder-layers", type=int, default=4)
    ap.add_argument("--decoder-layers", type=int, default=6)
    ap.add_argument("--semantic-tokens", type=int, default=1024)
    ap.add_argument("--start", help="a voice whose transformer is gone on from")
    ap.add_argument("--every", type=int, default=100)
    ap.add_argument("--threads", type=int, default=1)
    ap.add_argument("--device", default="cpu")
    ap.add_argument(
        "--set",
        nargs="*",
        default=[],
        metavar="KEY=VALUE",
        help="training settings: " + ", ".join(asdict(T2STraining())),
    )
    a = ap.parse_args(argv)
    torch.set_num_threads(a.threads)
    settings: dict = {}
    for pair in a.set:
        set_value(settings, pair)
    cfg = T2STraining(**settings)
    model_cfg = T2SConfig(len(SYMBOLS), a.semantic_tokens, a.dim, a.encoder_layers, a.decoder_layers, a.heads)
    drop = set(a.drop.read_text().split()) if a.drop and a.drop.exists() else set()
    data = read_utterances(a.data, encode_phonemes, len(SYMBOLS), drop)
    held = read_utterances(a.held_out, encode_phonemes, len(SYMBOLS), set()) if a.held_out else data[-200:]
    data = data if a.held_out else data[:-200]
    held = held[:: max(1, len(held) // a.held_out_size)]
    space = SYMBOLS.index(" ")
    print(
        f"{len(data)} utterances, {sum(len(u.tokens) for u in data)} tokens; held out {len(held)}; "
        f"with durations {sum(u.align is not None for u in data)}"
    )
    train_t2s(
        data,
        held,
        model_cfg,
        cfg,
        a.out,
        space=space,
        device=a.device,
        every=a.every,
        meta={"symbols": list(SYMBOLS)},
        start=open_voice(a.start) if a.start else None,
    )


if __name__ == "__main__":
    main()
