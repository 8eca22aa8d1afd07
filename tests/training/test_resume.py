"""A trainer that was stopped anywhere goes on bit for bit: weights, moments, means and logs are those of a run that was
not.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from spear_spec.config import SamplingConfig, T2SConfig
from spear_spec.errors import ConfigError
from spear_spec.models.spear_tts import TextToSemantic
from spear_spec.training import loop
from spear_spec.training.checkpoint import load_checkpoint
from spear_spec.training.data.corpus import Clip
from spear_spec.training.data.ctc import Spoken
from spear_spec.training.data.ctc_training import train_ctc
from spear_spec.training.data.prepared import Prepared, load_rows
from spear_spec.training.data.utterances import Utterance
from spear_spec.training.drafts import sample
from spear_spec.training.drafts.observed import observe
from spear_spec.training.drafts.settings import DraftTraining
from spear_spec.training.drafts.trainer import draft_shapes, train_drafts
from spear_spec.training.order import Order, chance, seed_of
from spear_spec.training.recipe.plan import CLOCK
from spear_spec.training.t2s.settings import T2STraining
from spear_spec.training.t2s.trainer import train_t2s

SHAPE = T2SConfig(6, 8, 32, 1, 2, 2, 16)
LAWS = [SamplingConfig(temperature=1.0, top_p=0.95)]


@pytest.fixture(scope="module")
def data() -> list[Utterance]:
    rng = np.random.default_rng(0)
    return [
        Utterance(
            [5, *rng.integers(1, 5, s).tolist(), 6], rng.integers(0, 8, t), np.sort(rng.integers(0, s + 2, t + 1)), "a"
        )
        for s, t in ((6, 20), (4, 9), (5, 12), (3, 14), (6, 7), (7, 31), (5, 16))
    ]


class Killed(BaseException):
    """Nobody catches it, as nobody does a SIGKILL."""


def killed(monkeypatch: pytest.MonkeyPatch, steps: int, train: Callable[[], Any]) -> None:
    """Carry `train` out up to so many steps (of all its runs together), and no further."""
    advance, left = loop.Run.advance, [steps]

    def mortal(self: loop.Run, shared: Any = None) -> None:
        if not left[0]:
            raise Killed
        left[0] -= 1
        advance(self, shared)

    with monkeypatch.context() as patched:
        patched.setattr(loop.Run, "advance", mortal)
        with pytest.raises(Killed):
            train()


def same(a: Any, b: Any, path: str = "") -> None:
    """Equal in every tensor and number but the seconds."""
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b), path
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), path
        for key in a.keys() - {"seconds"}:
            same(a[key], b[key], f"{path}/{key}")
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b), path
        for i, (x, y) in enumerate(zip(a, b)):
            same(x, y, f"{path}/{i}")
    else:
        assert a == b, path


def same_work(one: Path, other: Path) -> None:
    same(load_checkpoint(one / "checkpoint.pt"), load_checkpoint(other / "checkpoint.pt"))
    logs = [
        [json.loads(line) | {"minutes": 0} for line in (f / "train.log").read_text().splitlines()] for f in (one, other)
    ]
    assert logs[0] == logs[1]


def t2s(data: list[Utterance], out: Path, *, every: int = 4, save_s: float = 1e-9, **settings: Any) -> None:
    cfg = T2STraining.from_dict(
        {"steps": 9, "warmup": 2, "batch_tokens": 60, "align_layers": (0, 1), "align_heads": 1, **settings}
    )
    train_t2s(data, data[:3], SHAPE, cfg, out, space=1, clock=CLOCK, every=every, save_s=save_s, progress_bar=False)


@pytest.mark.parametrize(
    ("after", "save_s", "joint"), [(1, 1e-9, "none"), (5, 1e-9, "medusa"), (7, 0.0, "none"), (8, 0.0, "none")]
)
def test_the_transformer(
    after: int, save_s: float, joint: str, data: list[Utterance], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed behind any step, with a checkpoint a step or one a report (then steps are done again); over an epoch."""
    t2s(data, tmp_path / "whole", joint=joint)
    assert len(load_checkpoint(tmp_path / "whole/checkpoint.pt")["order"]["first"]) > 1
    killed(monkeypatch, after, lambda: t2s(data, tmp_path / "cut", joint=joint, save_s=save_s))
    assert load_checkpoint(tmp_path / "cut/checkpoint.pt")["step"] == (after if save_s else after // 4 * 4)
    t2s(data, tmp_path / "cut", joint=joint)
    same_work(tmp_path / "whole", tmp_path / "cut")


def test_no_two_steps_and_purposes_draw_alike() -> None:
    seeds = {seed_of(seed, what, step) for seed in (0, 1, 2) for what in ("masks", "order") for step in range(100)}
    assert len(seeds) == 600 and all(0 <= seed < 2**63 for seed in seeds)
    assert chance(1, "a").initial_seed() == seed_of(1, "a")


def test_an_order_is_of_the_seed_and_the_step_alone() -> None:
    def epoch(rng: random.Random) -> list[int]:
        items = list(range(rng.choice((2, 3, 5))))  # epochs differ in length
        rng.shuffle(items)
        return items

    straight = Order(epoch, 3)
    items = [straight[step] for step in range(40)]
    resumed = Order(epoch, 3)
    resumed.load(json.loads(json.dumps(straight.state())))
    assert [resumed[step] for step in (39, 7, 8, 0)] == [items[step] for step in (39, 7, 8, 0)]
    assert Order(epoch, 3)[39] == items[39]  # without what a checkpoint keeps
    assert items != [Order(epoch, 4)[step] for step in range(40)]
    first = straight.state()["first"]
    epochs = [items[a:b] for a, b in zip(first, first[1:])]
    assert len({tuple(e) for e in epochs}) > 3 and all(sorted(e) == list(range(len(e))) for e in epochs)
    with pytest.raises(ConfigError, match="nothing to train on"):
        Order(lambda rng: list[int](), 0)[0]


@pytest.mark.parametrize("after", [5, 8])
def test_drafts_that_share_their_batches(
    after: int, data: list[Utterance], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between the two in the middle of a step, so that one is ahead of the other."""
    torch.manual_seed(0)
    model = TextToSemantic(SHAPE).eval()
    seen = observe(model, data, (1, 2), progress=False)
    shapes = draft_shapes(SHAPE, exit_layer=1)
    shapes = {name: shapes[name] for name in ("early_exit", "medusa")}

    def train(out: Path) -> None:
        cfg = DraftTraining(steps=6, warmup=1, batch_tokens=60)
        train_drafts(model, seen, seen[:2], shapes, cfg, out, laws=LAWS, every=3, save_s=1e-9, progress_bar=False)

    train(tmp_path / "whole")
    killed(monkeypatch, after, lambda: train(tmp_path / "cut"))
    steps = [load_checkpoint(tmp_path / "cut" / name / "checkpoint.pt")["step"] for name in shapes]
    assert steps == ([2, 2] if after == 5 else [4, 4])
    if after == 8:  # the checkpoint of one was written, the other's was not
        (tmp_path / "cut/medusa/checkpoint.pt").unlink()
        (tmp_path / "cut/medusa/train.log").unlink()
    train(tmp_path / "cut")
    for name in shapes:
        same_work(tmp_path / "whole" / name, tmp_path / "cut" / name)


def test_the_ctc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    data = [Spoken(torch.from_numpy(rng.integers(0, 8, n)), "abc"[: 1 + n % 3], None) for n in (9, 12, 7, 15, 11, 8)]

    def train(out: Path) -> None:
        train_ctc(data, 8, out, clock=CLOCK, steps=7, tokens_a_step=30, dim=16, blocks=1, save_s=1e-9, progress=False)

    train(tmp_path / "whole")
    killed(monkeypatch, 4, lambda: train(tmp_path / "cut"))
    assert load_checkpoint(tmp_path / "cut/checkpoint.pt")["step"] == 4
    train(tmp_path / "cut")
    same_work(tmp_path / "whole", tmp_path / "cut")


def speak(model: TextToSemantic, clips: list[Clip], out: Prepared) -> None:
    sample.sample_folder(
        model,
        clips,
        out,
        LAWS,
        lambda text, speaker: [5, *map(int, text)],
        clock=CLOCK,
        batch=2,
        seed=3,
        progress=False,
    )


@pytest.mark.parametrize("after", [3, 12, 15])
def test_what_a_target_speaks_for_its_drafts(after: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed while it speaks a group: before the first ten were written down, and behind."""
    torch.manual_seed(0)
    model = TextToSemantic(SHAPE).eval()
    torch.nn.init.normal_(model.semantic_emb.weight, std=0.2)
    rng = random.Random(0)
    clips = [Clip(f"c{i}", "a", "", "", "".join(rng.choices("1234", k=3 + i % 7))) for i in range(33)]
    real, left = sample.sample_tokens, [after]
    monkeypatch.setattr(sample, "sample_tokens", lambda *args: [row[:9] for row in real(*args)])

    def mortal(*args: Any) -> list[list[int]]:
        left[0] -= 1
        if left[0] < 0:
            raise Killed
        return [row[:9] for row in real(*args)]

    whole, cut = Prepared(tmp_path / "whole"), Prepared(tmp_path / "cut")
    speak(model, clips, whole)
    with monkeypatch.context() as patched:
        patched.setattr(sample, "sample_tokens", mortal)
        with pytest.raises(Killed):
            speak(model, clips, cut)
    assert cut.tokens.exists() == (after > 10)
    speak(model, clips, cut)
    same(load_rows(cut.tokens), load_rows(whole.tokens))
    assert cut.utterances.read_text() == whole.utterances.read_text()
    before = load_rows(cut.tokens)
    more = [*clips, *(Clip(f"d{i}", "a", "", "", "1234") for i in range(3))]
    speak(model, more, cut)  # asked for more, it keeps what there is
    after_more = load_rows(cut.tokens)
    same(before, {key: after_more[key] for key in before})
    assert {"d0", "d1", "d2"} & {*after_more}
