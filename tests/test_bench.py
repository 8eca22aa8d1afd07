"""`bench`: who races, what the clocks come to, going on after a stop, table and pictures.

No test looks at how long anything took.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from spear_spec.bench import arm as arm_module
from spear_spec.bench import listening, speed
from spear_spec.bench.arm import Arm, accepted_lengths, steps
from spear_spec.bench.peer import Peer
from spear_spec.bench.plots import best, check_plot, plot
from spear_spec.bench.race import contestants, label
from spear_spec.bench.speed import GROUP, _even, run_bench
from spear_spec.bench.table import table
from spear_spec.cli import main
from spear_spec.decoding import DRAFTERS, VERIFIERS, DecodeStats, DrafterKind, Proposal, Request, register
from spear_spec.decoding.chance import SENTENCE, derive
from spear_spec.decoding.drafters import needs
from spear_spec.decoding.rounds import board as board_module
from spear_spec.errors import ConfigError, MissingExtraError
from spear_spec.evaluation.judge import Measurement
from spear_spec.evaluation.statistics import paired_difference
from spear_spec.pipeline import TTS
from tests.stubs.schemas import check
from tests.stubs.voice import make_voice

TEXTS = ["Yes.", "Two words."]
SHORT: dict[str, Any] = {"runs": 1, "max_tokens": 6}


@pytest.fixture(scope="module")
def tts(tmp_path_factory: pytest.TempPathFactory) -> TTS:
    return TTS.load(make_voice(tmp_path_factory.mktemp("voices") / "tiny"), device="cpu")


def names(rows: list[dict[str, Any]]) -> list[tuple[str, int]]:
    return [(row["drafter"], row["gamma"]) for row in rows]


# ---- who races -----------------------------------------------------------------------------------------------------


def test_every_drafter_races_under_its_own_name() -> None:
    for name, kind in DRAFTERS.items():
        assert bool(kind.races) == (name != "none")
        assert {settings["drafter"] for settings in kind.races} == ({name} if kind.races else set())
    for name, rule in VERIFIERS.items():
        assert all(settings["verifier"] == name and rule.lossless for settings in rule.races)


def test_all_are_the_settings_of_the_records(tts: TTS) -> None:
    """Every setting of a drafter whose part the voice has takes part, as its record says; options of `tts` do not
    leak in.
    """
    arms, left_out = contestants(tts.using(drafter="small", options={"stop": "acceptance"}), ["all"])
    missing = {name for name in DRAFTERS if needs(name) is not None and needs(name) not in tts.drafts}
    assert {entry["drafter"] for entry in left_out} == missing
    wanted = [settings for name, kind in DRAFTERS.items() if name not in missing for settings in kind.races]
    assert len(arms) == len(wanted) > 20
    for arm, settings in zip(arms, wanted):
        for field, value in settings.items():
            if field != "gamma" or not str(settings.get("tree"))[0].isdigit():
                assert getattr(arm.spec, field) == value, settings


class Again:
    """Drafts the last token again: a drafter of somebody else's."""

    name, form = "again", "chain"

    def start(self, session: Any) -> None:
        return None

    def propose(self, session: Any, state: None, limits: list[int]) -> Proposal:
        return Proposal([session.tokens[row][-1:] * limit for row, limit in zip(session.rows, limits)])

    def commit(self, session: Any, state: None, verdict: Any) -> None:
        return None


@pytest.fixture
def _again() -> Iterator[None]:
    register(DrafterKind(Again, "the last token again"))
    yield
    del DRAFTERS.known["again"]


@pytest.mark.usefixtures("_again")
def test_a_registered_drafter_races_too(tts: TTS) -> None:
    """As it usually is, among all and by name; options of `tts` do not leak in."""
    with_option = tts.using(drafter="small", options={"stop": "acceptance"})
    [found] = [arm for arm in contestants(with_option, ["all"])[0] if arm.spec.drafter == "again"]
    assert found.spec.options == {}
    [named] = contestants(with_option, ["again"])[0]
    assert named.spec == found.spec
    mine = tts.using(drafter="again", gamma=2)
    [same] = [arm for arm in contestants(mine, ["all"])[0] if arm.spec.drafter == "again"]
    assert (same.spec.gamma, same.spec.verifier) == (2, "rejection")
    rows = run_bench(tts, TEXTS, drafters=["again"], gammas=(2,), **SHORT)["rows"]
    assert names(rows) == [("none", 0), ("again", 2)]
    assert rows[1]["target_calls"] <= rows[1]["tokens"]


def test_what_the_voice_cannot_run_is_left_out_with_a_reason(tmp_path: Path) -> None:
    bare = TTS.load(make_voice(tmp_path / "bare", draft=False), device="cpu")
    arms, left_out = contestants(bare, ["all"])
    assert {arm.spec.drafter for arm in arms} == {name for name in DRAFTERS if name != "none" and needs(name) is None}
    assert [entry["settings"] for entry in left_out if entry["drafter"] == "small"] == ["all"]
    assert all(entry["why"] for entry in left_out)


def test_default_is_the_voice_as_it_is_set(tts: TTS) -> None:
    result = run_bench(tts, TEXTS, **SHORT)
    assert names(result["rows"]) == [("none", 0), ("small", 3)]
    assert result["left_out"] == []
    assert names(run_bench(tts.using(drafter="none"), TEXTS, **SHORT)["rows"]) == [("none", 0)]


def test_the_loop_takes_no_options(tts: TTS) -> None:
    """Options and a rule that only the draft can use are no reason to refuse the row that everything is measured
    against.
    """
    rows = run_bench(tts.using(tree="2-1", options={"siblings": "top"}, verifier="recursive"), TEXTS, **SHORT)["rows"]
    assert [(row["drafter"], row["options"]) for row in rows] == [("none", {}), ("small", {"siblings": "top"})]


def test_named_drafters_have_the_settings_of_the_voice(tts: TTS) -> None:
    arms, _ = contestants(tts, ["kpath", "none", "small", "small"])
    assert [(arm.spec.drafter, arm.spec.verifier, arm.spec.gamma) for arm in arms] == [
        ("kpath", "kseq", 3),
        ("small", "rejection", 3),
    ]


def test_gammas_sweep_the_named_drafters(tts: TTS) -> None:
    result = run_bench(tts, TEXTS, drafters=["small", "kpath"], gammas=(1, 4), **SHORT)
    assert names(result["rows"]) == [("none", 0), ("small", 1), ("small", 4), ("kpath", 1), ("kpath", 4)]
    assert [arm.spec.gamma for arm in contestants(tts, None, (2, 5))[0]] == [2, 5]
    dynamic = contestants(tts.using(tree="dynamic"), None, (2, 5))[0]
    assert [(arm.spec.tree, arm.spec.gamma) for arm in dynamic] == [("dynamic", 2), ("dynamic", 5)]


def test_impossible_contests(tts: TTS) -> None:
    with pytest.raises(ConfigError, match="no drafter 'unknown'"):
        run_bench(tts, TEXTS, drafters=["small", "unknown"])
    with pytest.raises(ConfigError, match="--gammas goes with drafters by name"):
        run_bench(tts, TEXTS, drafters=["all"], gammas=(2,))
    with pytest.raises(ConfigError, match="as deep as its name says"):
        run_bench(tts.using(tree="2-1"), TEXTS, gammas=(2,))


def test_label() -> None:
    assert label({"gamma": 8, "num_drafts": 1, "tree": None, "options": {}}) == "gamma 8"
    assert label({"gamma": 4, "num_drafts": 2, "tree": None, "options": {"of": "eagle"}}) == "k 2, gamma 4, of=eagle"
    assert label({"gamma": 3, "tree": "4-2-1"}) == "tree 4-2-1"
    assert label({"gamma": 3, "tree": "dynamic"}) == "tree dynamic, gamma 3"
    assert label({"gamma": 0}) == ""


# ---- what is measured ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings", [{"drafter": "none"}, {"gamma": 3}, {"drafter": "kpath", "num_drafts": 2}, {"tree": "2-2-1"}]
)
@pytest.mark.parametrize("batch", [1, 2])
def test_accepted_lengths_are_those_of_the_verdicts(tts: TTS, settings: dict[str, Any], batch: int) -> None:
    chosen = tts.using(**settings)
    arm = Arm(chosen, batch, 0)
    ids = tts.texts(TEXTS)
    groups = [ids[i : i + batch] for i in range(0, 2, batch)]
    arm.decode(groups, 5, 30, keep=True)
    counts, kept = Counter[int](), []
    for number, group in enumerate(groups):
        engine = chosen.decoder.engine()
        seeds = [derive(5, number * batch + row, SENTENCE) for row in range(len(group))]
        law = tts.sampling
        spoken = engine.admit([Request(text, seed=seed, sampling=law, cap=30) for text, seed in zip(group, seeds)])
        while engine.running:
            counts.update(engine.step().num_accepted)
        kept += [utterance.tokens for utterance in spoken]
    found = accepted_lengths(arm.stats)
    assert sum(found) == arm.stats.target_calls
    assert {length: count for length, count in enumerate(found) if count} == dict(counts)
    assert [tokens for _, tokens in arm.written] == kept


def test_batches_are_full(tts: TTS, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[int]] = []
    machine = Machine(monkeypatch)
    decode = Arm.decode
    monkeypatch.setattr(
        Arm,
        "decode",
        lambda arm, texts, *rest, **more: (
            seen.append([len(group) for group in texts]),
            decode(arm, texts, *rest, **more),
        ),
    )
    run_bench(tts, ["One.", "Two.", "Three."], runs=1, batches=(2, 8))
    assert seen == [[2, 2]] * 4 + [[8]] * 4
    assert len(machine.ran) == 8


def test_steps_of_a_draft() -> None:
    assert steps(Proposal([[], []])) == 0
    assert steps(Proposal([[1], [1, 2, 3]])) == 3
    assert steps(Proposal([[1, 2, 3, 4], [1]], parents=[[-1, 0, -1, 1], [-1]])) == 3
    assert steps(Proposal([[]], parents=[[]])) == 0


def filled(tts: TTS, target: dict[int, list[float]], draft: dict[int, list[float]], calls: int, tokens: int) -> Arm:
    arm = Arm(tts, 1, 0, target_ms=target, draft_ms=draft, rates=[10.0])
    arm.stats = DecodeStats(calls, tokens, 0, 0, [])
    return arm


def test_predicted_speedup(tts: TTS) -> None:
    """Chains of one length: tokens a call x t1 / (t(gamma + 1) + gamma x draft step). Others: the mean call, size by
    size.
    """
    base = filled(tts.using(drafter="none"), {1: [4.0, 4.0, 40.0]}, {}, 3, 3)
    chain = filled(tts.using(gamma=3), {4: [6.0, 8.0, 60.0], 2: [1.0, 1.0]}, {3: [1.5, 1.5, 1.5], 1: [0.7]}, 4, 12)
    row = chain.row(base)
    assert row["target_step_ms"] == {"1": 4.0, "gamma+1": 8.0}
    assert row["draft_step_ms"] == 0.5
    assert row["draft_step_share"] == 0.125
    assert row["predicted_speedup"] == pytest.approx(3.0 * 4.0 / (8.0 + 3 * 0.5), abs=1e-4)
    stopping = tts.using(drafter="small", gamma=3, options={"stop": "acceptance"})
    adaptive = filled(stopping, {4: [6.0, 6.0, 60.0], 1: [4.0]}, {3: [1.5, 1.5, 15.0], 0: [0.1]}, 4, 8)
    assert adaptive.row(base)["predicted_speedup"] == pytest.approx(
        2.0 * 4.0 / ((3 * 6 + 4) / 4 + (3 * 1.5 + 0.1) / 4), abs=1e-4
    )
    silent = filled(
        tts.using(drafter="small", gamma=3), {4: [6.0], 1: [4.0, 4.0]}, {3: [1.5], 0: [0.1, 0.1]}, 3, 6
    )  # drafts now and then
    assert silent.row(base)["target_step_ms"]["gamma+1"] == 6.0
    assert silent.row(base)["predicted_speedup"] == pytest.approx(
        2.0 * 4.0 / ((6 + 2 * 4) / 3 + (1.5 + 2 * 0.1) / 3), abs=1e-4
    )
    assert base.row(base)["predicted_speedup"] == 1.0
    assert base.row(base)["draft_step_share"] is None


def test_groups_are_even() -> None:
    arms: Any = list(range(13))
    assert [len(group) for group in _even(arms, 6)] == [4, 4, 5]
    assert [arm for group in _even(arms, 6) for arm in group] == arms
    assert _even([], 6) == []
    assert GROUP >= 1


class Machine:
    """In place of decoding: rates that follow the machine's speed, which is another for each group, and who ran
    when.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, stop_at: int | None = None) -> None:
        self.ran: list[tuple[str, int]] = []
        self.bases: list[Arm] = []
        self.stop_at = stop_at

        def decode(arm: Arm, texts: Any, seed: int, max_tokens: int | None, *, keep: bool) -> None:
            if self.stop_at is not None and len(self.ran) >= self.stop_at:
                raise KeyboardInterrupt
            plain = arm.cfg["drafter"] == "none"
            if plain and not any(arm is base for base in self.bases):
                self.bases.append(arm)
            self.ran.append((arm.cfg["drafter"], arm.cfg["gamma"]))
            if keep:
                arm.rates.append(100.0 / 2 ** len(self.bases) * (1 if plain else arm.cfg["gamma"]))
                arm.stats += DecodeStats(10, 10)
                arm.target_ms[1] = [1.0]

        monkeypatch.setattr(Arm, "decode", decode)
        monkeypatch.setattr(Arm, "speak", lambda *args, **options: None)
        monkeypatch.setattr(speed, "GROUP", 2)


def test_each_group_has_autoregressive_runs_of_its_own(tts: TTS, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second group finds the machine half as fast; speed-ups do not change for it."""
    machine = Machine(monkeypatch)
    rows = run_bench(tts, TEXTS, drafters=["small"], gammas=(2, 3, 4, 5), runs=2)["rows"]
    assert names(rows) == [("none", 0), ("small", 2), ("small", 3), ("small", 4), ("small", 5)]
    assert [row["speedup"]["median"] for row in rows] == [1.0, 2.0, 3.0, 4.0, 5.0]
    assert [row["baseline_tokens_per_s"]["median"] for row in rows] == [50.0, 50.0, 50.0, 25.0, 25.0]
    assert [row["tokens_per_s"]["median"] for row in rows] == [50.0, 100.0, 150.0, 100.0, 125.0]
    first, second = [("none", 0), ("small", 2), ("small", 3)], [("none", 0), ("small", 4), ("small", 5)]
    turns = [machine.ran[i : i + 3] for i in range(0, len(machine.ran), 3)]
    assert [sorted(turn) for turn in turns] == [first] * 3 + [second] * 3  # a warm-up and two runs each
    assert turns[1] != turns[2]  # in turning order


# ---- going on after a stop -----------------------------------------------------------------------------------------


def contest(tts: TTS, file: Path, heard: list[str], **changed: Any) -> list[dict[str, Any]]:
    given: dict[str, Any] = {
        "drafters": ["small"],
        "gammas": (2, 3, 4, 5),
        "runs": 1,
        "file": file,
        "tell": heard.append,
    }
    rows: list[dict[str, Any]] = run_bench(tts, TEXTS, **{**given, **changed})["rows"]
    return rows


def test_an_interrupted_bench_goes_on(tts: TTS, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, heard = tmp_path / "r.json", []
    machine = Machine(monkeypatch, stop_at=8)  # in the second group
    with pytest.raises(KeyboardInterrupt):
        contest(tts, file, heard)
    kept = json.loads(file.read_text())
    assert kept["schema"] == "bench/1"
    assert names(kept["rows"]) == [("none", 0), ("small", 2), ("small", 3)]
    assert "unfinished" in kept
    assert [path.name for path in tmp_path.iterdir()] == ["r.json"]

    machine.ran, machine.stop_at = [], None
    rows = contest(tts, file, heard)
    assert set(machine.ran) == {("none", 0), ("small", 4), ("small", 5)}  # only what was missing
    assert names(rows) == [("none", 0), ("small", 2), ("small", 3), ("small", 4), ("small", 5)]
    assert [{**row, "vs_peer": None, "bound_ms": None} for row in rows[:3]] == [
        {**row, "bound_ms": None} for row in kept["rows"]
    ]
    assert heard == [f"{file} holds 3 finished rows: going on"]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({}, "other code"),
        ({"seed": 1}, "other settings"),
        ({"runs": 2}, "other settings"),
        ({"temperature": 0.5}, "other settings"),
    ],
)
def test_other_code_or_settings_start_over(
    tts: TTS, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: dict[str, Any], said: str
) -> None:
    file, heard = tmp_path / "r.json", []
    machine = Machine(monkeypatch, stop_at=8)
    with pytest.raises(KeyboardInterrupt):
        contest(tts, file, heard)
    machine.ran, machine.stop_at = [], None
    if not changed:
        monkeypatch.setattr(speed, "source_digest", lambda: "another")
    rows = contest(tts, file, heard, **changed)
    assert set(machine.ran) == {("none", 0), ("small", 2), ("small", 3), ("small", 4), ("small", 5)}
    assert len(rows) == 5
    assert len(heard) == 1
    assert said in heard[0]


def test_a_finished_file_is_measured_anew(tts: TTS, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine, file, heard = Machine(monkeypatch), tmp_path / "r.json", []
    file.write_text(json.dumps({"schema": "bench/1", "rows": contest(tts, tmp_path / "other.json", heard)}))
    machine.ran = []
    contest(tts, file, heard)
    assert {("none", 0), ("small", 2), ("small", 5)} <= set(machine.ran)
    assert heard == []


def test_batches_are_told_apart(tts: TTS, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine, file, heard = Machine(monkeypatch), tmp_path / "r.json", []
    contest(tts, file, heard, gammas=(2,))
    machine.ran = []
    rows = contest(tts, file, heard, gammas=(2,), batches=(1, 2))
    assert [row["batch"] for row in rows] == [1, 1, 2, 2]
    assert len(machine.ran) == 4  # only batch 2


# ---- the peer ------------------------------------------------------------------------------------------------------


class Slow:
    """A peer that is half as fast as the loop that has just run."""

    def __init__(self, broken: bool = False) -> None:
        self.rates: list[float] = []
        self.broken = broken

    def decode(self, written: Any, *, keep: bool = True) -> None:
        if self.broken:
            raise RuntimeError("no such operator")
        if keep:
            self.rates.append(25.0)


def test_over_the_peer(tts: TTS, monkeypatch: pytest.MonkeyPatch) -> None:
    Machine(monkeypatch)
    monkeypatch.setattr(speed, "find_peer", lambda *args: Slow())
    monkeypatch.setattr(speed, "version", lambda: "0.4.8")
    result = run_bench(tts, TEXTS, drafters=["small"], gammas=(3,), runs=2, batches=(1, 2))
    assert result["peer"]["autoregressive_over_peer"]["median"] == 2.0
    assert result["peer"]["tokens_per_s"]["median"] == 25.0
    check(result, "bench/1")
    assert [row["vs_peer"] for row in result["rows"]] == [2.0, 6.0, None, None]


def test_a_broken_peer_stops_nothing(tts: TTS, monkeypatch: pytest.MonkeyPatch) -> None:
    Machine(monkeypatch)
    heard: list[str] = []
    monkeypatch.setattr(speed, "find_peer", lambda *args: Slow(broken=True))
    result = run_bench(tts, TEXTS, runs=2, tell=heard.append)
    assert result["peer"] is None
    assert [row["vs_peer"] for row in result["rows"]] == [None, None]
    assert heard == ["spear-tts-pytorch cannot be measured: no such operator"]


def test_the_peer_is_made_to_write_our_tokens(tts: TTS) -> None:
    """With a stand-in for the package's model: its draw is replaced token by token, and it stops where we did."""

    class Model:
        device = torch.device("cpu")

        def generate(
            self, text: torch.Tensor, *, filter_logits_fn: Any, max_length: int, **options: Any
        ) -> torch.Tensor:
            return torch.stack([filter_logits_fn(torch.randn(1, 17)).argmax(-1) for _ in range(max_length)], 1)

    peer = Peer.__new__(Peer)
    peer.model, peer.law, peer.rates = Model(), tts.sampling, []
    peer.decode([([1, 2], [5, 0, 16]), ([3], [9])])
    assert len(peer.rates) == 1


# ---- judges --------------------------------------------------------------------------------------------------------


class Loudness:
    """A judge that hears how loud an utterance is."""

    metric, name, version = "wer", "loudness", "1"

    def score(self, samples: Any, reference: Any, sample_rate: int = 24_000) -> Measurement:
        return Measurement(float(np.abs(samples).sum()), float(len(samples)))


@pytest.fixture
def _loudness(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "make_judges", lambda metrics: [Loudness()])


@pytest.mark.usefixtures("_loudness")
def test_change_against_the_autoregressive_loop(tts: TTS) -> None:
    texts = [*TEXTS, "Three more words."]
    result = run_bench(tts, TEXTS, judges=["wer"], judged=texts, batches=(1, 2), **SHORT)
    plain, fast, *others = result["rows"]

    def heard(arm: TTS) -> list[Measurement]:
        spoken = [
            arm.synthesize(text, seed=number, max_tokens=SHORT["max_tokens"]) for number, text in enumerate(texts)
        ]
        return [Loudness().score(audio.samples, None) for audio in spoken]

    change = paired_difference(heard(tts), heard(tts.using(drafter="none")))
    check(result, "bench/1")
    assert fast["quality"]["sentences"] == 3
    assert fast["quality"]["wer_change"] == {
        name: pytest.approx(value, abs=1e-5) for name, value in change.to_dict().items()
    }
    assert change.value != 0
    assert plain["quality"]["wer_change"] is None
    assert plain["quality"]["wer"]["value"] > 0
    assert [row["quality"] for row in others] == [None, None]


@pytest.mark.usefixtures("_loudness")
def test_judging_goes_on_too(tts: TTS, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped after the loop itself was judged: neither that nor the clocks run again, and the change is the same."""
    file, hear, calls = tmp_path / "r.json", listening.Listeners.hear, []
    options: dict[str, Any] = {"judges": ["wer"], "gammas": (2,), "drafters": ["small"], "file": file, **SHORT}

    def stopped(self: listening.Listeners, chosen: TTS, *args: Any) -> Any:
        calls.append(chosen.spec.drafter)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return hear(self, chosen, *args)

    monkeypatch.setattr(listening.Listeners, "hear", stopped)
    with pytest.raises(KeyboardInterrupt):
        run_bench(tts, TEXTS, **options)
    before = json.loads(file.read_text())["rows"]
    assert [row["quality"] is None for row in before] == [False, True]
    monkeypatch.setattr(arm_module.Arm, "decode", lambda *args, **more: pytest.fail("measured again"))
    rows = run_bench(tts, TEXTS, **options)["rows"]
    assert calls == ["none", "small", "small"]
    assert rows[0]["quality"] == before[0]["quality"]
    assert rows[1]["quality"]["wer_change"] is not None


def test_a_missing_judge_is_told_before_anything_runs(tts: TTS, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch)

    def missing(metrics: Any) -> None:
        raise MissingExtraError("the judge package 'jiwer' is not installed")

    monkeypatch.setattr(listening, "make_judges", missing)
    with pytest.raises(MissingExtraError, match="jiwer"):
        run_bench(tts, TEXTS, judges=["wer"])
    assert machine.ran == []


# ---- table and pictures --------------------------------------------------------------------------------------------


def row(**given: Any) -> dict[str, Any]:
    """A row of bench/1."""
    speedup = given.pop("speedup", 2.0)
    return {
        "drafter": "eagle",
        "verifier": "block",
        "lossless": True,
        "runtime": "eager",
        "gamma": 8,
        "num_drafts": 1,
        "tree": None,
        "options": {},
        "batch": 1,
        "tokens_per_call": 5.25,
        "acceptance_by_position": [0.9, 0.8, 0.7, 0.6, 0.5],
        "accepted_lengths": [1, 1, 1, 1, 1, 5],
        "tokens_per_s": {"median": 500.4, "lo": 1.0, "hi": 2.0},
        "speedup": {"median": speedup, "lo": speedup - 0.25, "hi": speedup + 0.5},
        "draft_step_share": 0.0625,
        "predicted_speedup": 2.5,
        "rtf": 0.07,
        "ttfa_s": None,
        "vs_peer": None,
        "quality": None,
        **given,
    }


PLAIN = row(
    drafter="none",
    verifier=None,
    gamma=0,
    acceptance_by_position=[],
    accepted_lengths=[9],
    draft_step_share=None,
    speedup=1.0,
    predicted_speedup=1.0,
)


def result_of(*rows: dict[str, Any]) -> dict[str, Any]:
    return {"schema": "bench/1", "commit": "c", "hardware": "h", "voice": "v", "rows": list(rows)}


def test_table() -> None:
    lossy = row(
        drafter="kpath",
        verifier="typical",
        lossless=False,
        num_drafts=4,
        options={"of": "small"},
        batch=8,
        predicted_speedup=None,
    )
    assert table(result_of(PLAIN, row(), lossy)).splitlines() == [
        "| drafter | settings | verifier | law | runtime | batch | tokens / call | accepted at 1 / 4 / 8 | "
        "draft step / target step | predicted | tokens / s | speed-up | RTF | TTFA, s |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|",
        "| none |  |  | lossless | eager | 1 | 5.25 |  |  | 1.00 | 500 | 1.00 [0.75, 1.50] | 0.070 |  |",
        "| eagle | gamma 8 | block | lossless | eager | 1 | 5.25 | 0.90 / 0.60 / - | 0.062 | 2.50 | 500 | "
        "2.00 [1.75, 2.50] | 0.070 |  |",
        "| kpath | k 4, gamma 8, of=small | typical | LOSSY | eager | 8 | 5.25 | 0.90 / 0.60 / - | 0.062 |  | 500 | "
        "2.00 [1.75, 2.50] | 0.070 |  |",
    ]


def test_table_with_peer_and_judges() -> None:
    judged = {
        "sentences": 5,
        "wer": {"value": 0.05, "lo": 0.0, "hi": 0.1},
        "wer_change": None,
        "mos": None,
        "mos_change": None,
    }
    changed = {**judged, "wer_change": {"value": 0.01, "lo": -0.02, "hi": 0.03}}
    lines = table(
        result_of({**PLAIN, "quality": judged, "vs_peer": 2.4}, row(quality=changed, vs_peer=6.04))
    ).splitlines()
    assert "speed-up | over the peer | WER change | MOS change | RTF" in lines[0]
    assert "1.00 [0.75, 1.50] | 2.4 | (5.00 %) | not judged |" in lines[2]
    assert "2.00 [1.75, 2.50] | 6.0 | +1.00 % [-2.00, +3.00] | not judged |" in lines[3]
    assert len({line.count("|") for line in lines}) == 1


def test_best_setting_of_each() -> None:
    rows = [
        row(gamma=2, speedup=1.5),
        row(gamma=4, speedup=2.5),
        row(gamma=8, speedup=2.0),
        row(drafter="small", gamma=2),
    ]
    assert {name: found["gamma"] for name, found in best(rows).items()} == {"eagle": 4, "small": 2}


@pytest.mark.parametrize("name", ["p.png", "p.svg"])
def test_plot(tmp_path: Path, name: str) -> None:
    from matplotlib import pyplot

    silent = row(drafter="ngram", gamma=3, acceptance_by_position=[], accepted_lengths=[9])
    rows = [
        PLAIN,
        row(),
        row(gamma=4),
        row(options={"stop": "adaedl"}),
        row(drafter="mine"),
        silent,
        {**PLAIN, "batch": 8},
        row(batch=8),
    ]
    plot(result_of(*rows), str(tmp_path / name))
    assert (tmp_path / name).stat().st_size > 5000
    plot(result_of(PLAIN), str(tmp_path / name))
    assert pyplot.get_fignums() == []


def test_impossible_plots(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="folder is missing"):
        check_plot(str(tmp_path / "missing" / "p.png"))
    with pytest.raises(ConfigError, match=r"end in one of .*png"):
        check_plot(str(tmp_path / "p.wav"))


# ---- whole rounds on the device ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def by_rounds(tts: TTS) -> TTS:
    return TTS.load(tts.bundle, device="cpu", runtime="graphs")


def test_who_races_by_rounds(by_rounds: TTS) -> None:
    """What the runtime cannot run is left out with its reason; when it is named, it is refused."""
    arms, left_out = contestants(by_rounds, ["all"])
    assert {arm.spec.drafter for arm in arms} >= {"small", "eagle", "block"}
    assert all(arm.spec.tree is None and arm.spec.num_drafts == 1 for arm in arms)
    assert {"ngram", "medusa"} <= {entry["drafter"] for entry in left_out if "use runtime eager" in entry["why"]}
    with pytest.raises(ConfigError, match="ngram is not: use runtime eager"):
        run_bench(by_rounds, TEXTS, drafters=["ngram"], **SHORT)


@pytest.mark.parametrize(("runtime", "chosen"), [("graphs", "graphs"), ("auto", "eager")])
def test_the_runtime_that_is_asked_for_is_measured(
    tts: TTS, runtime: str, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """auto is what it comes to on a CPU."""
    rounds = 0
    right = board_module.Board.round

    def count(self: Any, *args: Any) -> Any:
        nonlocal rounds
        rounds += 1
        return right(self, *args)

    monkeypatch.setattr(board_module.Board, "round", count)
    loaded = TTS.load(tts.bundle, device="cpu", runtime=runtime)
    result = run_bench(loaded, TEXTS, drafters=["small"], **SHORT)
    check(result, "bench/1")
    loop, small = result["rows"]
    assert [row["runtime"] for row in (loop, small)] == [chosen] * 2
    assert (rounds > loop["tokens"]) == (chosen == "graphs")
    assert (loop["target_calls"], small["verifier"]) == (loop["tokens"], "rejection")
    assert loop["target_step_ms"]["1"] > 0 and small["tokens_per_call"] >= 1
    for name in ("draft_step_ms", "predicted_speedup"):
        assert (small[name] is None) == (chosen == "graphs")
    assert (small["target_step_ms"]["gamma+1"] is None) == (chosen == "graphs")
    assert f"| lossless | {chosen} | 1 |" in table(result)


def test_a_run_that_captured_something_is_made_again(by_rounds: TTS, monkeypatch: pytest.MonkeyPatch) -> None:
    arm = Arm(by_rounds.using(drafter="none"), 1, 0)
    runs: list[int] = []
    right = Arm._run

    def run(self: Arm, texts: Any, seed: int, *rest: Any) -> Any:
        runs.append(seed)
        return right(self, texts, seed, *rest)

    monkeypatch.setattr(Arm, "_run", run)
    texts = [[ids] for ids in by_rounds.texts(TEXTS, "af_heart")]
    for seed in (1, 2):
        arm.decode(texts, seed, 6, keep=True)
    assert runs == [1, 1, 2] and len(arm.rates) == 2 and arm.stats.tokens == arm.stats.target_calls <= 24


# ---- the command line ----------------------------------------------------------------------------------------------


@pytest.fixture
def said(tts: TTS, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Arguments of a short bench in an empty folder."""
    monkeypatch.chdir(tmp_path)
    Path("t.txt").write_text("\n".join(TEXTS))
    return [
        "bench",
        "--voice",
        str(tts.bundle.path),
        "--device",
        "cpu",
        "--text",
        "t.txt",
        "--runs",
        "1",
        "--max-tokens",
        "6",
    ]


def test_table_and_plot_to_files(said: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main([*said, "--drafters", "small", "--gammas", "1,2", "--table", "t.md", "--plot", "p.png", "--json=r.json"])
        == 0
    )
    result = json.loads(Path("r.json").read_text())
    check(result, "bench/1")
    assert names(result["rows"]) == [("none", 0), ("small", 1), ("small", 2)]
    assert Path("t.md").read_text() == table(result) + "\n"
    assert Path("p.png").stat().st_size > 5000
    captured = capsys.readouterr()
    assert "|" not in captured.out + captured.err


def test_the_command_takes_a_runtime(said: list[str]) -> None:
    assert main([*said, "--runtime", "graphs", "--drafters", "small", "--table", "t.md", "--json=r.json"]) == 0
    assert {row["runtime"] for row in json.loads(Path("r.json").read_text())["rows"]} == {"graphs"}


@pytest.mark.usefixtures("_again")
def test_all_with_a_registered_drafter(
    said: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The whole command, table and picture included, knows what to do with a drafter that did not come with it."""
    machine = Machine(monkeypatch)
    assert main([*said, "--drafters", "all", "--plot", "p.png", "--json"]) == 0
    captured = capsys.readouterr()
    result = json.loads(captured.out)
    check(result, "bench/1")
    assert ("again", 3) in names(result["rows"])
    assert ("again", 3) in machine.ran
    assert any(line.startswith("| again | gamma 3 |") for line in captured.err.splitlines())
    assert Path("p.png").stat().st_size > 5000


def test_table_to_standard_error(said: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*said, "--json"]) == 0
    captured = capsys.readouterr()
    assert table(json.loads(captured.out)) in captured.err


def test_interrupted_on_the_command_line(
    said: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    machine = Machine(monkeypatch, stop_at=5)
    args = [*said, "--drafters", "small", "--gammas", "2,3,4", "--json=r.json"]
    assert main(args) == 130
    assert "what is finished is in r.json: the same command goes on" in capsys.readouterr().err
    machine.ran, machine.stop_at = [], None
    assert main(args) == 0
    result = json.loads(Path("r.json").read_text())
    assert len(result["rows"]) == 4
    assert "unfinished" not in result


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--table", "missing/t.md"], "folder is missing"), (["--plot", "missing/p.png"], "folder is missing"),
        (["--sentences", "3"], "give --judges"),
        (["--judges", "taste"], "no judge for taste"),
        (["--gammas", "0"], "1 to 64"),
        (["--drafters", "all", "--gammas", "2"], "drafters by name"),
    ],
)  # fmt: skip
def test_impossible_arguments(
    said: list[str], more: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*said, *more]) == 2
    assert message in capsys.readouterr().err
