"""Rows that join at any step and leave at any step, under every drafter: what a row says is what it says alone.

In float64, where the rounding of a batched product moves no draw: token for token, and counts of drafted and accepted
tokens too. Requests differ in text, sampling, guidance (with and without in one batch), prefix, seed and cap.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from spear_spec.config import DraftConfig, SamplingConfig
from spear_spec.decoding import make_drafter, make_verifier
from spear_spec.decoding.drafters import DRAFTERS
from spear_spec.decoding.drafters.decoder import DecoderDrafter
from spear_spec.decoding.drafters.early_exit import EarlyExitDrafter
from spear_spec.engine import Engine, Request, Utterance
from spear_spec.exactness.oracles import TEXTS, Enumerating, UncachedTarget, distance, tiny_model, walk
from spear_spec.models.drafts.block import BlockConfig, BlockDecoder
from spear_spec.models.drafts.decoder import DraftDecoder
from spear_spec.models.drafts.layer_skip import LayerSkipConfig
from spear_spec.models.drafts.medusa import MedusaConfig, MedusaHeads
from spear_spec.models.spear_tts import TextToSemantic
from spear_spec.runtime.eager import EagerRuntime

SEMANTIC = 9
PLAIN = SamplingConfig(temperature=1.0, top_p=1.0)
LAWS = (
    PLAIN,
    SamplingConfig(temperature=1.0, top_p=1.0, guidance=2.0),
    SamplingConfig(temperature=1.4, top_k=5, top_p=0.9),
    SamplingConfig(temperature=0.8, top_p=0.95, guidance=1.5),
)
Parts = Callable[[TextToSemantic], dict[str, Any]]


def parts(model: TextToSemantic) -> dict[str, Any]:
    """Something with random weights for every drafter that draws with a part."""

    def decoder(**settings: Any) -> DraftDecoder:
        torch.manual_seed(1)
        draft = DraftDecoder(DraftConfig(dim=model.cfg.dim, heads=2, dim_head=8, **settings), model.cfg)
        with torch.no_grad():
            for layer in draft.layers:
                layer.self_attn.to_out.weight.mul_(4.0)
                layer.cross_attn.to_out.weight.mul_(4.0)
        return draft.to(model.dtype).eval()

    torch.manual_seed(3)
    shape = BlockConfig(
        model.cfg.dim, model.vocab_size, (1, 2), depth=2, heads=2, dim_head=8, block=3, window=6, rank=4
    )
    block = BlockDecoder(shape, model)
    torch.nn.init.normal_(block.after)
    torch.nn.init.normal_(block.positions)
    torch.manual_seed(2)
    tree = ((0,), (1,), (0, 0), (1, 1), (0, 1), (0, 0, 0))
    heads = MedusaHeads(MedusaConfig(model.cfg.dim, heads=3, inner=8, tree=tree))
    torch.nn.init.normal_(heads.down)
    return {
        "small": decoder(),
        "small2": decoder(depth=2),
        "eagle": decoder(target_layers=(1, 2)),
        "prophet": decoder(target_layers=(2,), window=True),
        "early_exit": decoder(target_layers=(1,), feed="same"),
        "medusa": heads.to(model.dtype).eval(),
        "block": block.to(model.dtype).eval(),
        "layer_skip": LayerSkipConfig(attention=(1,), feed_forward=(0,)).skip(2),
    }


@dataclass(frozen=True)
class Setting:
    name: str
    rule: str = "rejection"
    tree: str | None = None
    num_drafts: int = 1
    gamma: int = 3
    options: tuple[tuple[str, Any], ...] = ()

    def __str__(self) -> str:
        words = [self.name, self.tree, f"k{self.num_drafts}" if self.num_drafts > 1 else None, self.rule]
        return " ".join([*filter(None, words), *(f"{key}={value}" for key, value in self.options)])

    def engine(self, model: TextToSemantic, **more: Any) -> Engine:
        drafter = make_drafter(
            self.name, parts(model), tree=self.tree, num_drafts=self.num_drafts, options=dict(self.options)
        )
        return Engine(model, drafter, make_verifier(self.rule), self.gamma, **more)


GUIDED = (("guided", True),)
SETTINGS = [
    *(Setting(name) for name in ("small", "small2", "eagle", "prophet", "early_exit", "medusa", "layer_skip")),
    *(Setting(name) for name in ("ngram", "lookup")),
    *(Setting(name, "block", options=GUIDED) for name in ("small", "eagle", "prophet")),
    *(Setting("small", options=(("stop", stop),)) for stop in ("adaedl", "confidence", "acceptance")),
    Setting("early_exit", options=(("stop", "confidence"),)),
    Setting("layer_skip", "block", options=(("stop", "adaedl"),)),
    Setting("medusa", options=(("stop", "acceptance"),)),
    Setting("block", gamma=4),
    *(Setting("block", "block", options=(("stop", stop),)) for stop in ("survival", "acceptance", "confidence")),
    Setting("block", "block", options=GUIDED),
    Setting("kpath", "kseq", num_drafts=3),
    Setting("kpath", "kseq", num_drafts=2, options=(("of", "eagle"), *GUIDED)),
    Setting("small", "recursive_wor", "3-2", gamma=2),
    Setting("small", "recursive", "2-2-1", options=(("siblings", "iid"),)),
    Setting("eagle", "matching", "2-2", gamma=2, options=(("siblings", "top"),)),
    Setting("eagle", "recursive_wor", "2-2", gamma=2, options=GUIDED),
    Setting("small", "recursive", "dynamic", options=(("nodes", 6), ("width", 2))),
    Setting("eagle", "recursive", "dynamic", options=(("nodes", 6), ("width", 3), *GUIDED)),
    Setting("medusa", "recursive", "sparse"),
]


def requests(luck: random.Random, count: int) -> list[Request]:
    found = []
    for number in range(count):
        prefix = [luck.randrange(SEMANTIC) for _ in range(luck.choice((0, 0, 1, 4)))]
        law = LAWS[(number + luck.randrange(2)) % len(LAWS)]
        text = luck.choice(TEXTS)[:-1]
        found.append(Request(text, prefix, luck.randrange(2**40), law, len(prefix) + luck.choice((3, 9, 14))))
    return found


def crowded(engine: Engine, asked: list[Request], luck: random.Random) -> list[Utterance]:
    """All of them in one batch of changing rows, some cancelled on the way."""
    waiting, spoken = list(asked), []
    while waiting or engine.running:
        while waiting and (not engine.running or luck.random() < 0.4):
            some = [waiting.pop(0) for _ in range(min(len(waiting), luck.choice((1, 1, 2, 3))))]
            spoken += engine.admit(some)
        if luck.random() < 0.15:
            engine.release([luck.choice(spoken)])
        if engine.running:
            engine.step()
    return spoken


def mismatches(setting: Setting, seed: int, rows: int = 7) -> list[str]:
    """Rows that say something else than alone: a cancelled one must have said the beginning of it."""
    model, luck = tiny_model(semantic=SEMANTIC, seed=seed), random.Random(f"{setting} {seed}")
    asked = requests(luck, rows)
    found = []
    for number, utterance in enumerate(crowded(setting.engine(model), asked, luck)):
        [alone] = setting.engine(model).run([asked[number]])
        same = utterance.tokens == alone.tokens and utterance.ended == alone.ended and utterance.stats == alone.stats
        if utterance.ended == "cancelled":
            same = utterance.tokens == alone.tokens[: len(utterance.tokens)]
        if not same:
            found.append(f"row {number}: {utterance.tokens} ({utterance.ended}), alone {alone.tokens} ({alone.ended})")
    return found


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_a_row_says_what_it_says_alone(setting: Setting) -> None:
    assert [line for seed in range(2) for line in mismatches(setting, seed)] == []


def test_every_drafter_is_here() -> None:
    ours = {name for name, kind in DRAFTERS.items() if kind.drafter.__module__.startswith("spear_spec.")}
    assert {setting.name for setting in SETTINGS} == ours - {"none"}


@pytest.mark.parametrize(
    "setting",
    [
        Setting("eagle", gamma=2),
        Setting("early_exit", "block", gamma=2),
        Setting("medusa", "recursive", "sparse", gamma=2),
        Setting("block", "block", gamma=2, options=(("stop", "survival"), *GUIDED)),
        Setting("small", "recursive_wor", "2-1", gamma=2),
    ],
    ids=str,
)
@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_the_law_of_a_row_that_joined_late(setting: Setting, guidance: float) -> None:
    """By enumeration: two rows run, one of them has left, before the row that is watched joins with a prefix."""
    model = tiny_model(seed=3)
    law = SamplingConfig(temperature=1.0, top_p=1.0, guidance=guidance)
    prefix, cap = (1,), 3
    full = UncachedTarget(model, TEXTS[0], law)
    whole = {}
    for tokens, weight in full.sequences(cap).items():
        if tokens[:1] == prefix:
            whole[tokens] = weight / full(())[prefix[0]]

    def run(chance: Enumerating) -> tuple[int, ...]:
        engine = setting.engine(model, chance=chance)
        others = engine.admit([Request(TEXTS[n][:-1], sampling=LAWS[n % 2], cap=8 - n) for n in (1, 2, 3)])
        engine.step()
        engine.release(others[:1])
        [late] = engine.admit([Request(TEXTS[0][:-1], prefix, sampling=law, cap=cap)])
        chance.watch = late.row
        while late.ended is None:
            engine.step()
        return tuple(late.tokens)

    assert distance(walk(run, -1, 3), whole) < 1e-9


# --- the test itself is tested ---------------------------------------------------------------------------------------


def stale_join(patch: pytest.MonkeyPatch) -> None:
    """A row that joins gets the first row's text."""
    real = DecoderDrafter._begin
    patch.setattr(DecoderDrafter, "_begin", lambda self, session, places: real(self, session, [0] * len(places)))


def exit_forgets_lanes(patch: pytest.MonkeyPatch) -> None:
    """After rows have left, the head goes on with the lengths of the rows that were there before."""

    def leave(self: EarlyExitDrafter, session: Any, state: Any, stay: list[int]) -> None:
        state.head.select(state.lanes.leave(stay))
        state.committed = state.committed[: len(stay)]

    patch.setattr(EarlyExitDrafter, "leave", leave)


def law_of_a_neighbour(patch: pytest.MonkeyPatch) -> None:
    """Sampling of rows that leave stays in place of their neighbours'."""
    from spear_spec.decoding.session import Session

    real = Session._leave

    def leave(self: Session, stay: list[int]) -> None:
        before = self.samplings
        real(self, stay)
        self.samplings = before[: len(stay)]

    patch.setattr(Session, "_leave", leave)


def cache_of_a_neighbour(patch: pytest.MonkeyPatch) -> None:
    """Rows that join find keys and values of the first row in their places."""
    real = EagerRuntime.admit

    def admit(self: EagerRuntime, *args: Any) -> None:
        before = len(self.lanes.places)
        real(self, *args)
        self.cache.k[:, before:] = self.cache.k[:, :1]

    patch.setattr(EagerRuntime, "admit", admit)


@pytest.mark.parametrize(
    ("fault", "setting"),
    [
        (stale_join, Setting("small")),
        (exit_forgets_lanes, Setting("early_exit")),
        (law_of_a_neighbour, Setting("ngram")),
        (cache_of_a_neighbour, Setting("lookup")),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_a_seeded_fault_is_caught(fault: Any, setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    fault(monkeypatch)
    caught = False
    for seed in range(4):
        try:
            caught = caught or bool(mismatches(setting, seed))
        except Exception:  # whatever a broken engine raises
            caught = True
    assert caught
