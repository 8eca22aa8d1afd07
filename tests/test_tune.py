"""`spear-spec tune`: what is chosen, on a machine whose clock and speed are made up; where it is kept; who uses it."""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from spear_spec import TTS, SpecConfig
from spear_spec.cli import main
from spear_spec.cli.loading import load_tts, load_tuned
from spear_spec.cli.options import build_parser
from spear_spec.decoding import Request, is_lossless
from spear_spec.decoding.chance import SENTENCE, derive
from spear_spec.errors import ConfigError, NumericsError
from spear_spec.serving.scheduler import for_serving
from spear_spec.tuning import candidates as field
from spear_spec.tuning import tune as race
from spear_spec.tuning.candidates import candidates, neighbours
from spear_spec.tuning.store import tune_file
from spear_spec.tuning.tune import Sample, faster, spec_of, tune
from tests.stubs.schemas import check
from tests.stubs.voice import make_voice

OWN = SpecConfig("eagle", "block", 3)  # what the voice of these tests ships with
NONE = SpecConfig(drafter="none")
Speed = Callable[[SpecConfig], float]


def own_setting(folder: Path, spec: SpecConfig) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "spec": spec.to_dict()}))


@pytest.fixture(scope="module")
def voice(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_voice(tmp_path_factory.mktemp("voices") / "tiny").path
    own_setting(folder, OWN)
    return folder


@pytest.fixture(scope="module")
def tts(voice: Path) -> TTS:
    return TTS.load(voice, device="cpu")


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(race, "commit", lambda: "0123456789ab")  # git takes its time


class Machine:
    """Tokens a second by setting; each sample is 50 tokens and moves the clock on by what it takes, and by nothing
    else does time pass.
    """

    def __init__(self, speed: Speed, noise: float = 0.0, seed: int = 0) -> None:
        self.speed, self.noise, self.random = speed, noise, random.Random(seed)
        self.now, self.log = 1000.0, []
        self.together: Callable[[int], Speed] = lambda batch: self.speed

    def clock(self) -> float:
        return self.now

    def __call__(self, tts: TTS, number: int) -> Sample:
        self.log.append((tts.spec, number))
        return self.sample(self.speed(tts.spec))

    def sample(self, speed: float) -> Sample:
        seconds = 50 / speed * math.exp(self.random.gauss(0, self.noise))
        self.now += seconds
        return Sample(50, 10, seconds)

    def at(self, batch: int) -> Any:
        return lambda tts, number: self.sample(self.together(batch)(tts.spec))

    def tune(self, tts: TTS, seconds: float = 100.0, **options: Any) -> dict[str, Any]:
        return tune(tts, seconds=seconds, clock=self.clock, measure=self, **options)


def eagle_best_at(gamma: int) -> Speed:
    """The autoregressive loop 200, chains of the eagle up to 400, everything else 250."""

    def speed(spec: SpecConfig) -> float:
        if spec.drafter == "none":
            return 200.0
        return 400.0 - 10 * abs(spec.gamma - gamma) if replace(spec, gamma=OWN.gamma) == OWN else 250.0

    return speed


# what is raced


def test_candidates(tts: TTS) -> None:
    """The loop, the voice's own setting, then the rest, none twice, every one exact and one that the voice can run."""
    specs = [arm.spec for arm in candidates(tts)]
    assert specs[:2] == [NONE, OWN]
    assert all(specs.count(spec) == 1 for spec in specs)
    assert all(is_lossless(spec) for spec in specs)
    assert sum(spec.drafter == "none" for spec in specs) == 1
    assert {spec.verifier for spec in specs} >= {"block", "kseq", "recursive", "recursive_wor"}
    assert {spec.gamma for spec in specs if spec.drafter == "eagle" and spec.tree is None and not spec.options} >= {
        3,
        5,
        8,
        12,
    }
    for arm in candidates(tts):
        arm.decoder.parts.make()
    assert [arm.spec.drafter for arm in candidates(tts.using(drafter="none"))].count("none") == 1


def test_a_setting_that_the_voice_cannot_run_is_left_out(tts: TTS, monkeypatch: pytest.MonkeyPatch) -> None:
    good = SpecConfig("eagle", "block", 9)
    monkeypatch.setattr(
        field,
        "settings",
        lambda: iter([SpecConfig("nobody", "block"), SpecConfig("eagle", "block", options={"depth": 1}), good]),
    )
    assert [arm.spec for arm in candidates(tts)] == [NONE, OWN, good]


def test_neighbours(tts: TTS) -> None:
    def lengths(**spec: Any) -> list[int]:
        return [other.spec.gamma for other in neighbours(tts.using(**spec))]

    assert lengths(drafter="eagle", gamma=5) == [3, 4, 6, 7]
    assert lengths(drafter="eagle", gamma=1) == [2, 3]
    assert lengths(drafter="eagle", gamma=64) == [62, 63]
    assert lengths(drafter="eagle", tree="dynamic", gamma=5) == [3, 4, 6, 7]
    assert lengths(drafter="eagle", tree="3-2-1") == []
    assert lengths(drafter="none") == []


# what is chosen


@pytest.mark.parametrize("gamma", [4, 7, 10, 12])
def test_the_fastest_is_found(tts: TTS, gamma: int) -> None:
    """Also where its gamma is not among those that are tried first."""
    machine = Machine(eagle_best_at(gamma))
    result = machine.tune(tts)
    check(result, "tune/1")
    assert spec_of(result) == replace(OWN, gamma=gamma)
    assert result["changed"] is True
    assert result["tokens_per_s"]["median"] == pytest.approx(400)
    assert result["speedup"]["median"] == pytest.approx(2)
    assert result["gain"]["median"] == pytest.approx(400 / machine.speed(OWN), abs=1e-4)
    best = result["candidates"][0]
    assert (best["drafter"], best["gamma"], best["tokens_per_call"]) == ("eagle", gamma, 5)
    assert [c["speedup"]["median"] for c in result["candidates"]] == sorted(
        (c["speedup"]["median"] for c in result["candidates"]), reverse=True
    )


def test_a_tree_can_win(tts: TTS) -> None:
    result = Machine(lambda spec: 300.0 if spec.verifier == "recursive_wor" else 200.0).tune(tts)
    assert (result["verifier"], result["tree"], result["changed"]) == ("recursive_wor", "3-2-1-1", True)
    assert spec_of(result).gamma == 4


def test_none_where_nothing_helps(tts: TTS) -> None:
    result = Machine(lambda spec: 200.0 if spec.drafter == "none" else 150.0).tune(tts)
    assert (result["drafter"], result["verifier"], result["gamma"], result["changed"]) == ("none", None, 0, True)
    assert spec_of(result) == NONE
    assert result["speedup"]["median"] == 1
    assert result["gain"]["median"] == pytest.approx(4 / 3, abs=1e-3)


def test_noise_changes_nothing(tts: TTS) -> None:
    """All drafts are equally fast, but no two samples are.

    The best of so many always looks better than the voice's own.
    """
    looked_better = changed = 0
    for seed in range(8):
        result = Machine(lambda spec: 200.0 if spec.drafter == "none" else 400.0, noise=0.2, seed=seed).tune(tts)
        first = result["candidates"][0]
        looked_better += {name: first[name] for name in ("drafter", "verifier", "gamma")} != {
            "drafter": "eagle",
            "verifier": "block",
            "gamma": 3,
        }
        changed += result["changed"]
        if not result["changed"]:
            assert spec_of(result) == OWN
            assert result["gain"]["median"] == 1
    assert looked_better > 5
    assert changed <= 1


def test_a_real_gain_is_seen_through_noise(tts: TTS) -> None:
    for seed in range(4):
        assert spec_of(Machine(eagle_best_at(12), noise=0.15, seed=seed).tune(tts)).gamma > 9


def test_faster() -> None:
    assert faster([1.1, 1.2, 1.05, 1.15, 1.1, 1.2])
    assert not faster([1.1, 1.2, 1.05, 1.15, 1.1])  # too few
    assert not faster([1.0] * 20)
    assert not faster([2.0, 0.5, 2.0, 0.5, 2.0, 0.6])
    assert not faster([0.9] * 20)


def test_the_decision_is_made_on_rounds_that_chose_nobody(tts: TTS) -> None:
    """A setting that was only lucky while it was being picked does not stay ahead in the last rounds."""
    lucky = SpecConfig("eagle", "block", 8)
    machine = Machine(lambda spec: 400.0)
    started = machine.now
    machine.speed = lambda spec: (
        900.0 if spec == lucky and machine.now - started < 70 else 200.0 if spec.drafter == "none" else 400.0
    )
    result = machine.tune(tts)
    assert result["candidates"][0]["gamma"] == 8
    assert (spec_of(result), result["changed"]) == (OWN, False)


def test_lossy_is_never_chosen(tts: TTS, monkeypatch: pytest.MonkeyPatch) -> None:
    lossy, exact = SpecConfig("eagle", "tolerance", 6), SpecConfig("eagle", "rejection", 6)
    tts.using(**lossy.to_dict())  # it could be run
    monkeypatch.setattr(field, "settings", lambda: iter([lossy, exact]))
    machine = Machine(lambda spec: 900.0 if not is_lossless(spec) else 300.0 if spec == exact else 200.0)
    result = machine.tune(tts)
    assert spec_of(result) == exact
    assert all(is_lossless(spec) for spec, _ in machine.log)
    # nor kept where the voice itself ships with it
    result = machine.tune(tts.using(verifier="tolerance"))
    assert spec_of(result) == exact
    assert all(is_lossless(spec) for spec, _ in machine.log)
    assert result["gain"]["median"] == pytest.approx(1.5)  # over the loop
    machine.speed = lambda spec: 900.0 if not is_lossless(spec) else 200.0
    assert spec_of(machine.tune(tts.using(verifier="tolerance"))) == NONE


def test_turns_are_fair(tts: TTS) -> None:
    """Every setting speaks the same rounds as its rivals, after a warm-up that does not count, and none is always
    first.
    """
    machine = Machine(eagle_best_at(7))
    result = machine.tune(tts)
    by_round: dict[int, list[SpecConfig]] = {}
    for spec, number in machine.log:
        by_round.setdefault(number, []).append(spec)
    for specs in by_round.values():
        assert all(specs.count(spec) == 1 for spec in specs)
    assert len(by_round[race.WARM_UP]) == len(result["candidates"])
    assert by_round[0] == [arm.spec for arm in candidates(tts)]
    final = [specs for number, specs in by_round.items() if number >= max(by_round) + 1 - result["rounds"]]
    rivals = [OWN, replace(OWN, gamma=7)]
    assert all(spec in specs for specs in final[:-1] for spec in rivals)
    assert all(spec in [specs[0] for specs in final] for spec in rivals)
    assert all(
        c["rounds"] == sum(spec_of(c) == spec and number >= 0 for spec, number in machine.log)
        for c in result["candidates"]
    )


def at_batch(best: dict[int, int]) -> Callable[[int], Speed]:
    """Chains of these lengths are the fastest."""

    def together(batch: int) -> Speed:
        return lambda spec: 400.0 - 10 * abs(spec.gamma_at(1) - best[batch])

    return together


def test_draft_lengths_for_larger_batches(tts: TTS) -> None:
    """Each from what was found for the size before; 0 is tried too, where the drafter can pass over a step."""
    machine = Machine(eagle_best_at(8), noise=0.003)
    machine.together = at_batch({2: 6, 4: 3, 8: 0, 16: 5})
    began = machine.now
    result = machine.tune(tts, larger=(2, 4, 8, 16))
    check(result, "tune/1")
    assert [(found["batch"], found["gamma"]) for found in result["lengths"]] == [(2, 6), (4, 3), (8, 0), (16, 1)]
    assert result["lengths"][0]["tokens_per_s"]["median"] == pytest.approx(400, rel=0.02)
    spec = spec_of(result)
    assert (spec.gamma, spec.gammas) == (8, {"2": 6, "4": 3, "8": 0, "16": 1})
    assert tts.using(**spec.to_dict()).spec == spec
    assert machine.now - began < 101


def test_no_draft_lengths_of_what_is_no_chain_nor_without_time(tts: TTS) -> None:
    machine = Machine(lambda spec: 300.0 if spec.verifier == "recursive_wor" else 200.0)
    result = machine.tune(tts, larger=(2, 4))
    assert (result["lengths"], result["gammas"], result["tree"]) == ([], {}, "3-2-1-1")
    slow = Machine(eagle_best_at(3))
    slow.together = lambda batch: lambda spec: 0.4  # the warm-up is over when the time is
    result = slow.tune(tts, larger=(2, 4))
    assert (result["lengths"], spec_of(result)) == ([], OWN)


def test_the_price_of_a_draft_token_is_measured_and_raced_with(tts: TTS) -> None:
    def speed(spec: SpecConfig) -> float:
        return 20.0 if spec.drafter == "none" else 250.0 / (1 + 0.15 * spec.gamma_at(1))

    result = Machine(speed).tune(tts)
    check(result, "tune/1")
    assert result["price"] == pytest.approx(0.15, abs=1e-3)
    raced = [c["options"] for c in result["candidates"] if c["rounds"] and "cost" in c["options"]]
    assert raced == [{"stop": "acceptance", "cost": pytest.approx(0.15, abs=1e-3)}]
    alone = [race.Arm(tts)]
    assert race.price(alone, "eagle") is None  # nothing measured, then one length only
    alone[0].samples[0] = Sample(50, 10, 1.0)
    assert race.price(alone, "eagle") is None


def test_speaking_at_another_batch(tts: TTS) -> None:
    say = speaking(tts, max_tokens=16)
    three, same = say.at(3), speaking(tts, max_tokens=16, batch=3)
    assert three.groups == same.groups and len(say.groups[0]) == 1
    plain = tts.using(drafter="none")
    one, other = three(plain, 0), same(plain, 0)
    assert (one.tokens, one.calls) == (other.tokens, other.calls)


# when it stops


@pytest.mark.parametrize("speed", [0.25, 1.0, 30.0, 1e5])
def test_budget(tts: TTS, speed: float) -> None:
    """However slow the machine, at most one sample goes past the time (a real one stops inside); a fast one does not
    use it up.
    """
    machine = Machine(lambda spec: speed / 200 * eagle_best_at(8)(spec))
    began, longest = machine.now, 50 / speed
    if speed > 1:
        result = machine.tune(tts)
        assert result["seconds"] == pytest.approx(machine.now - began, abs=0.1)
        assert result["changed"]  # how close to the best depends on how many are reached
    else:
        with pytest.raises(ConfigError, match="--seconds"):
            machine.tune(tts)
    assert machine.now - began < 100 + longest
    assert (machine.now - began > 95) is (speed < 100)


def test_making_ready_counts_too(tts: TTS, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where reading weights takes long, fewer settings race, and the two that must are among them."""
    machine = Machine(eagle_best_at(8))
    everyone = list(candidates(tts))

    def slowly(tts: TTS) -> Iterator[TTS]:
        for arm in everyone:
            machine.now += 5
            yield arm

    monkeypatch.setattr(race, "candidates", slowly)
    began = machine.now
    result = machine.tune(tts)
    assert [arm.spec for arm in everyone[:2]] == [NONE, OWN]
    raced = [spec_of(c) for c in result["candidates"]]
    assert len(raced) < 10 < len(everyone)
    assert NONE in raced and OWN in raced
    assert machine.now - began < 105


def test_what_was_not_reached_has_no_figures(tts: TTS) -> None:
    result = Machine(lambda spec: 25.0 if spec.drafter == "none" else 50.0).tune(tts)
    check(result, "tune/1")
    missed = [c for c in result["candidates"] if not c["rounds"]]
    assert missed
    assert all(c["tokens_per_s"] is c["speedup"] is c["tokens_per_call"] is None for c in missed)
    assert result["candidates"][-len(missed) :] == missed


def speaking(tts: TTS, **options: Any) -> race.Speaking:
    usual: dict[str, Any] = {
        "batch": 1,
        "speaker": None,
        "seed": 0,
        "max_tokens": None,
        "sampling": {},
        "deadline": math.inf,
        "clock": lambda: 0.0,
    }
    return race.Speaking(tts, **{**usual, **options})


def test_speaking(tts: TTS) -> None:
    """Real decoding: the same round is the same sentence and draw, tokens are counted as bench counts them."""
    say, plain = speaking(tts), tts.using(drafter="none")
    one, again, next_one = say(tts, 0), say(tts, 0), say(tts, 1)
    assert (one.tokens, one.calls) == (again.tokens, again.calls)
    assert (one.tokens, one.calls) != (next_one.tokens, next_one.calls)
    assert one.tokens > one.calls
    assert one.seconds > 0
    sample = say(plain, 0)
    assert sample.tokens == sample.calls
    [ids] = tts.texts(race.SENTENCES[:1], "af_heart")
    # round 0 is the second: a warm-up comes before it
    [alone] = plain.decoder.engine().run([Request(ids, seed=derive(0, 1, SENTENCE), sampling=tts.sampling)])
    assert sample.tokens == len(alone.tokens)
    both = speaking(tts, batch=2)(plain, 7)
    assert both.tokens == both.calls > 16


def test_a_sentence_ends_at_the_deadline(tts: TTS) -> None:
    plain = tts.using(drafter="none")
    long = next(number for number in range(8) if speaking(tts)(plain, number).tokens > 8)
    ticks = itertools.count()
    with pytest.raises(race.OutOfTime):
        speaking(tts, deadline=4, clock=lambda: next(ticks))(plain, long)
    assert next(ticks) == 5  # asked after each target call, and no longer
    ticks = itertools.count()
    with pytest.raises(ConfigError, match="too short"):
        tune(tts, seconds=40, clock=lambda: next(ticks))


def test_sentences_are_cut_on_a_slow_machine(tts: TTS, monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = itertools.count()
    monkeypatch.setattr(race, "_now", lambda tts: next(ticks))  # one second a sentence, so a sixteenth a token
    plain = tts.using(drafter="none")
    # a voice of random weights: of this seed the first sentence lasts for the whole warm-up
    seed = next(n for n in range(50) if speaking(tts, seed=n)(plain, race.WARM_UP).tokens == race.SHORT)
    for seconds, cut in ((1.5, 24), (0.1, 16), (600, 9600)):
        say = speaking(tts, seed=seed)
        say.shorten(plain, seconds)
        assert say.cap == cut
    say = speaking(tts, max_tokens=20, batch=3)
    say.shorten(plain, 600)
    assert say.cap == 20
    assert say(plain, 2).tokens <= 60


def test_a_drafter_that_fails_is_left_out_and_says_why(tts: TTS) -> None:
    machine = Machine(eagle_best_at(3))

    def fails(spec: SpecConfig) -> float:
        if spec.drafter == "kpath":
            raise NumericsError("kpath is broken")
        return eagle_best_at(7)(spec)

    machine.speed = fails
    result = machine.tune(tts)
    assert spec_of(result).gamma == 7
    broken = [c for c in result["candidates"] if c["error"] is not None]
    assert {c["drafter"] for c in broken} == {"kpath"}
    assert all(c["error"] == "kpath is broken" and c["rounds"] == 0 for c in broken)
    for needed in ("none", "eagle"):

        def stops(spec: SpecConfig, needed: str = needed) -> float:
            if spec.drafter == needed:
                raise NumericsError("NaN")
            return 100.0

        with pytest.raises(NumericsError):
            Machine(stops).tune(tts)


def test_with_real_decoding(tts: TTS, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(race, "ROUNDS", 2)
    monkeypatch.setattr(race, "FINAL_ROUNDS", 6)
    monkeypatch.setattr(
        field,
        "settings",
        lambda: iter([SpecConfig("eagle", "block", 5), SpecConfig("eagle", "recursive", 3, tree="dynamic")]),
    )
    said: list[str] = []
    result = tune(tts, seconds=3000, max_tokens=24, progress=said.append, temperature=0.9)
    assert result["rounds"] == 6
    assert result["sampling"]["temperature"] == 0.9
    assert result["lossless"] is True
    assert {c["drafter"] for c in result["candidates"]} == {"none", "eagle"}
    assert all(c["error"] is None and c["rounds"] >= 1 for c in result["candidates"])
    [loop] = [c for c in result["candidates"] if c["drafter"] == "none"]
    assert loop["speedup"] == {"median": 1, "lo": 1, "hi": 1}
    assert any("first look" in line and "eagle / block, gamma 5" in line for line in said)


def test_whole_rounds_are_tuned(tts: TTS, monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings that this runtime cannot run do not race; what was captured in a round does not count."""
    rounds = TTS.load(tts.bundle, device="cpu", runtime="graphs")
    arms = list(candidates(rounds))
    assert {arm.spec.drafter for arm in arms} >= {"none", "eagle", "block"}
    assert all(arm.spec.tree is None and not arm.spec.options.get("stop") for arm in arms)
    say = speaking(rounds)
    spoken: list[int] = []
    right = race.Speaking._speak

    def speak(self: race.Speaking, tts: TTS, number: int) -> Any:
        spoken.append(number)
        return right(self, tts, number)

    monkeypatch.setattr(race.Speaking, "_speak", speak)
    arm = rounds.using(gamma=3)
    samples = [say(arm, number) for number in (race.WARM_UP, 0, 0)]
    assert spoken in ([race.WARM_UP, 0, 0], [race.WARM_UP, 0, 0, 0])
    assert samples[1].tokens == samples[2].tokens > 0
    spoken.clear()
    fresh = rounds.using(gamma=2)
    assert say(fresh, 0).tokens > 0 and spoken == [0, 0]
    found = fresh.describe()
    assert found["runtime"] == "graphs"


# the command, and what `say` makes of it


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    """The command measures on this machine: eagle / block, gamma 7 is the fastest."""
    made = Machine(eagle_best_at(7))

    class Fake:
        def __init__(self, *args: Any, **options: Any) -> None:
            pass

        def shorten(self, plain: TTS, seconds: float) -> None:
            pass

        def __call__(self, tts: TTS, number: int) -> Sample:
            return made(tts, number)

        def at(self, batch: int) -> Any:
            return made.at(batch)

    monkeypatch.setattr(race, "Speaking", Fake)
    monkeypatch.setattr(race, "ROUNDS", 3)
    monkeypatch.setattr(race, "FINAL_ROUNDS", 8)
    return made


def command(name: str, voice: Path, *more: str) -> list[str]:
    return [name, *(["Yes."] if name == "say" else []), "--voice", str(voice), "--device", "cpu", *more]


def say(voice: Path, capsys: pytest.CaptureFixture[str], *more: str) -> tuple[dict[str, Any], str]:
    """The say/1 object, and standard error."""
    capsys.readouterr()
    assert main(command("say", voice, *more, "--json")) == 0
    captured = capsys.readouterr()
    return json.loads(captured.out), captured.err


def setting(result: dict[str, Any]) -> SpecConfig:
    return spec_of(result)


def stored() -> list[dict[str, Any]]:
    return json.loads(tune_file().read_text())["entries"]


def test_tests_do_not_read_the_users_own_file(tmp_path_factory: pytest.TempPathFactory) -> None:
    assert tune_file().is_relative_to(tmp_path_factory.getbasetemp())
    assert not tune_file().exists()


def test_tuned_and_used_by_say(voice: Path, machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    before, _ = say(voice, capsys)
    check(before, "say/1")
    assert (before["tuned"], setting(before)) == (None, OWN)
    assert main(command("tune", voice, "--json")) == 0
    captured = capsys.readouterr()
    result = json.loads(captured.out.splitlines()[-1])
    check(result, "tune/1")
    assert result["file"] == str(tune_file())
    table, last = captured.err.splitlines()[:-1], captured.err.splitlines()[-1]
    assert table[0].split() == ["setting", "rounds", "tokens/s", "speed-up", "tokens/call"]
    assert table[1].startswith("eagle / block, gamma 7 ")
    assert len({len(line) for line in table if " / " in line}) == 1
    assert last.startswith(
        "tiny: eagle / block, gamma 7, 400 tokens/s, 2.00 x the autoregressive loop, "
        "1.11 x the voice's own setting; kept in "
    )
    assert str(tune_file()) in last
    [entry] = stored()
    assert entry["spec"] == replace(OWN, gamma=7).to_dict()
    assert (entry["voice"], entry["device"], entry["threads"], entry["dtype"], entry["batch"]) == (
        "tiny",
        "cpu",
        1,
        "float32",
        1,
    )
    assert (entry["tokens_per_s"], entry["speedup"], entry["measured"]) == (400, 2, date.today().isoformat())
    assert len(entry["fingerprint"]) == 64
    after, err = say(voice, capsys)
    assert (after["tuned"], setting(after)) == (entry["measured"], replace(OWN, gamma=7))
    assert f"tuned on {entry['measured']}" in err
    assert len(err.splitlines()) == 1
    Path("lines.txt").write_text("One.\nTwo.\n")
    assert (
        main(["say", "--file", "lines.txt", "--out-dir", "d", "--voice", str(voice), "--device", "cpu", "--json"]) == 0
    )
    assert json.loads(capsys.readouterr().out)["tuned"] == entry["measured"]


def test_what_was_measured_for_larger_batches_is_used(
    voice: Path, machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.together = at_batch({2: 5, 4: 1, 8: 1})
    assert main(command("tune", voice)) == 0
    assert "; gamma 5 from batch 2 on, gamma 1 from batch 4 on; kept in" in capsys.readouterr().err
    [entry] = stored()
    assert (entry["batch"], entry["batches"], entry["runtime"]) == (1, [2, 4, 8], "eager")
    assert (entry["spec"]["gamma"], entry["spec"]["gammas"]) == (7, {"2": 5, "4": 1})
    for batch, gamma in ((1, 7), (3, 5), (20, 1)):
        result, _ = say(voice, capsys, "--batch", str(batch))
        assert (result["tuned"], result["gamma"]) == (entry["measured"], gamma)
    args = parsed("serve", "--voice", str(voice), "--device", "cpu")
    tts, tuned = load_tuned(args)
    assert tuned is not None
    served = for_serving(tts, tuned.lengths).spec
    assert (served.drafter, served.verifier, served.gamma) == ("eagle", "coupled", 7)
    assert [served.gamma_at(rows) for rows in (1, 2, 3, 4, 8, 15, 16, 40)] == [7, 5, 5, 1, 1, 1, 1, 1]
    args.untuned = True
    assert load_tuned(args)[1] is None
    # one size alone says nothing of others
    tune_file().unlink()
    assert main(command("tune", voice, "--batch", "2")) == 0
    assert say(voice, capsys, "--batch", "2")[0]["tuned"] is not None
    for batch in ("1", "4"):
        assert say(voice, capsys, "--batch", batch)[0]["tuned"] is None
    values = json.loads(tune_file().read_text())
    for entry in values["entries"]:  # as an older version wrote it
        del entry["batches"], entry["runtime"]
    tune_file().write_text(json.dumps(values))
    assert say(voice, capsys, "--batch", "2")[0]["tuned"] is not None


def test_the_loop_can_be_what_is_stored(voice: Path, machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    machine.speed = lambda spec: 200.0 if spec.drafter == "none" else 150.0
    assert main(command("tune", voice)) == 0
    assert "tiny: none (autoregressive), 200 tokens/s, 1.33 x the voice's own setting" in capsys.readouterr().err
    after, _ = say(voice, capsys)
    assert (after["tuned"], after["drafter"]) == (date.today().isoformat(), "none")


def test_the_voices_own_setting_is_stored_too(
    voice: Path, machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.speed = eagle_best_at(3)
    assert main(command("tune", voice)) == 0
    assert "nothing is faster for certain than this, the voice's own setting; kept in" in capsys.readouterr().err
    assert stored()[0]["spec"] == OWN.to_dict()
    assert say(voice, capsys)[0]["tuned"] == date.today().isoformat()


EXPLICIT = [
    ("--untuned",),
    ("--drafter", "none"),
    ("--drafter", "eagle"),
    ("--verifier", "rejection"),
    ("--gamma", "2"),
    ("--num-drafts", "2", "--set", "of=eagle"),
    ("--tree", "2-1"),
    ("--set", "stop=adaedl"),
]


@pytest.mark.parametrize("options", EXPLICIT, ids=" ".join)
def test_what_was_asked_for_wins(
    voice: Path, machine: Machine, options: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    """With any option of speculation all is as if nothing had been tuned."""
    plain, _ = say(voice, capsys, *options)
    assert main(command("tune", voice)) == 0
    after, _ = say(voice, capsys, *options)
    assert after["tuned"] is None
    assert setting(after) == setting(plain) != replace(OWN, gamma=7)
    assert say(voice, capsys, "--temperature", "0.5", "--seed", "3")[0]["tuned"] is not None


def test_only_for_what_was_measured(
    voice: Path, machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command("tune", voice)) == 0
    for options in (("--threads", "2"), ("--dtype", "float64"), ("--runtime", "auto")):
        assert say(voice, capsys, *options)[0]["tuned"] is None, options
    other = Path(shutil.copytree(voice, tmp_path / "other" / "tiny"))
    assert say(other, capsys)[0]["tuned"] is not None  # the same voice in another place
    own_setting(other, replace(OWN, gamma=4))  # another one of the same name
    assert setting(say(other, capsys)[0]).gamma == 4
    config = json.loads((voice / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "name": "else"}))
    assert say(other, capsys)[0]["tuned"] is None
    with monkeypatch.context() as patch:
        patch.setattr("spear_spec.bench.machine.hardware", lambda device: "another processor")
        assert say(voice, capsys)[0]["tuned"] is None
    assert say(voice, capsys)[0]["tuned"] is not None
    # each is found by its own
    machine.speed = eagle_best_at(5)
    for options in (("--threads", "2"), ("--dtype", "float64"), ("--batch", "2")):
        assert main(command("tune", voice, *options)) == 0
        assert setting(say(voice, capsys, *options)[0]).gamma == 5
    assert setting(say(voice, capsys)[0]).gamma == 7
    assert len(stored()) == 4
    assert main(command("tune", voice)) == 0  # anew: in place of the old one
    assert setting(say(voice, capsys)[0]).gamma == 5
    assert len(stored()) == 4


def parsed(*argv: str) -> argparse.Namespace:
    return build_parser().parse_args(argv)


def test_nobody_else_uses_it(voice: Path, machine: Machine) -> None:
    """bench, verify, eval and the library measure and do what they are told."""
    assert main(command("tune", voice)) == 0
    assert TTS.load(voice, device="cpu").spec == OWN
    for argv in (["bench"], ["verify"], ["eval", "--text", "f"], ["tune"]):
        assert load_tts(parsed(*argv, "--voice", str(voice), "--device", "cpu")).spec == OWN


def test_dry_run(voice: Path, machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command("tune", voice, "--dry-run", "--json")) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["file"] is None
    assert "gamma 7" in captured.err and "nothing is stored" in captured.err
    assert not tune_file().exists()


def test_forget(voice: Path, machine: Machine, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = Path(shutil.copytree(voice, tmp_path / "other"))
    config = json.loads((voice / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "name": "else"}))
    for options in ((), ("--threads", "2")):
        assert main(command("tune", voice, *options)) == 0
    assert main(command("tune", other)) == 0
    measured = len(machine.log)
    capsys.readouterr()
    assert main(command("tune", voice, "--forget", "--json")) == 0
    captured = capsys.readouterr()
    check(json.loads(captured.out), "tune/1")
    assert json.loads(captured.out) == {"schema": "tune/1", "voice": "tiny", "forgotten": 2, "file": str(tune_file())}
    assert "tiny: 2 tuned settings forgotten" in captured.err
    assert len(machine.log) == measured
    assert say(voice, capsys)[0]["tuned"] is None
    assert say(other, capsys)[0]["tuned"] is not None
    assert main(command("tune", voice, "--forget")) == 0
    assert "tiny: 0 tuned settings forgotten" in capsys.readouterr().err
    tune_file().unlink()
    assert main(command("tune", voice, "--forget")) == 0
    assert not tune_file().exists()


DAMAGED = {
    "empty": b"",
    "cut": b'{"schema": "tuned/1", "entries": [{"voice": "ti',
    "list": b"[]",
    "version": b'{"schema": "tuned/2", "entries": []}',
    "bytes": b"\xff\xfe\x00",
    "deep": b"[" * 100_000,
    "entry": b'{"schema": "tuned/1", "entries": [{"voice": "tiny"}]}',
    "number": b'{"schema": "tuned/1", "entries": [3]}',
    "no entries": b'{"schema": "tuned/1"}',
}


@pytest.mark.parametrize("data", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_file(voice: Path, machine: Machine, data: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    """`say` says so in one line and speaks as the voice ships."""
    tune_file().write_bytes(data)
    result, err = say(voice, capsys)
    assert (result["tuned"], setting(result)) == (None, OWN)
    warning, spoken = err.splitlines()
    assert warning.startswith(f"spear-spec: {tune_file()} is damaged")
    assert "tune" in warning
    assert spoken.startswith("out.wav")


@pytest.mark.parametrize("data", [DAMAGED["cut"], DAMAGED["entry"]], ids=["no JSON", "JSON of another form"])
def test_a_damaged_file_is_written_anew(
    voice: Path, machine: Machine, data: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    """By `tune`, whatever it does; who does not ask for what was tuned does not hear of it."""
    tune_file().write_bytes(data)
    assert len(say(voice, capsys, "--untuned")[1].splitlines()) == 1
    assert main(command("tune", voice)) == 0
    assert "is damaged" in capsys.readouterr().err
    result, err = say(voice, capsys)
    assert (setting(result).gamma, len(err.splitlines())) == (7, 1)
    tune_file().write_bytes(data)
    assert main(command("tune", voice, "--forget")) == 0
    assert stored() == []


UNUSABLE = {
    "drafter": {"drafter": "warp"},
    "verifier": {"verifier": "hope"},
    "gamma": {"gamma": 1000},
    "field": {"speed": 3},
    "kind": {"gamma": "7"},
    "option": {"options": {"depth": 1}},
    "tree": {"tree": [1]},
    "lossy": {"verifier": "tolerance"},
    "misfit": {"drafter": "kpath", "options": {"of": "eagle"}},
    "source": {"drafter": "kpath", "verifier": "kseq", "options": {"of": "nobody"}},
}


@pytest.mark.parametrize("spec", UNUSABLE.values(), ids=UNUSABLE)
def test_an_entry_that_cannot_be_used(
    voice: Path, machine: Machine, spec: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command("tune", voice)) == 0
    [entry] = stored()
    spec = {**entry["spec"], **spec}
    tune_file().write_text(json.dumps({"schema": "tuned/1", "entries": [{**entry, "spec": spec}]}))
    result, err = say(voice, capsys)
    assert (result["tuned"], setting(result)) == (None, OWN)
    warning, spoken = err.splitlines()
    assert warning.startswith("spear-spec: what was tuned for tiny")
    assert "run spear-spec tune again" in warning


def refused(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    capsys.readouterr()
    assert main(list(argv)) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    last = captured.err.splitlines()[-1]
    assert last.startswith("spear-spec: ")
    return last


def test_a_folder_that_cannot_be_written(
    voice: Path, machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Refused before anything is measured; `say` does not mind."""
    Path("file").write_text("")
    for folder in (Path("file"), Path("file/deeper"), Path("taken")):
        monkeypatch.setenv("SPEAR_SPEC_CONFIG", str(folder))
        if folder.name == "taken":
            tune_file().mkdir(parents=True)
        assert f"cannot write {folder}/tune.json" in refused(capsys, *command("tune", voice))
        assert machine.log == []
        assert say(voice, capsys)[0]["tuned"] is None
    with monkeypatch.context() as patch:
        patch.setattr(os, "access", lambda path, mode: False)
        monkeypatch.setenv("SPEAR_SPEC_CONFIG", "new/folder")
        assert "cannot write new/folder/tune.json: no permission in ." in refused(capsys, *command("tune", voice))
    assert machine.log == []
    assert main(command("tune", voice, "--dry-run")) == 0
    assert not Path("new").exists()
    assert main(command("tune", voice)) == 0  # folders that are missing are made
    assert say(voice, capsys)[0]["tuned"] is not None


@pytest.mark.parametrize("function", ["replace", "mkdir"])
def test_a_full_disk(
    voice: Path, machine: Machine, function: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SPEAR_SPEC_CONFIG", "config/new")

    def full(*args: Any, **options: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(*((os, "replace", full) if function == "replace" else (Path, "mkdir", full)))
        line = refused(capsys, *command("tune", voice))
    assert (
        "cannot write config/new/tune.json: No space left on device; name another folder in $SPEAR_SPEC_CONFIG" in line
    )
    assert [path for path in Path().rglob("*") if path.is_file()] == []


def test_what_is_there_stays_when_the_disk_is_full(
    voice: Path, machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command("tune", voice)) == 0
    before = tune_file().read_bytes()

    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    machine.speed = eagle_best_at(5)
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        refused(capsys, *command("tune", voice))
    assert tune_file().read_bytes() == before
    assert [path.name for path in tune_file().parent.iterdir()] == ["tune.json"]


def test_where_the_file_lies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", "/shared/config")
    monkeypatch.setenv("SPEAR_SPEC_CONFIG", "/own")
    assert tune_file() == Path("/own/tune.json")
    monkeypatch.setenv("SPEAR_SPEC_CONFIG", "")
    assert tune_file() == Path("/shared/config/spear_spec/tune.json")
    for value in ("", "not/absolute"):
        monkeypatch.setenv("XDG_CONFIG_HOME", value)
        assert tune_file() == tmp_path / ".config/spear_spec/tune.json"
    monkeypatch.delenv("XDG_CONFIG_HOME")
    assert tune_file() == tmp_path / ".config/spear_spec/tune.json"


def test_bad_arguments(voice: Path, machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    for options, what in (
        (("--seconds", "1"), "5 to 3600"),
        (("--dry-run", "--forget"), "not allowed with"),
        (("--drafter", "eagle"), "unrecognized"),
        (("--json=missing/x.json",), "folder is missing"),
        (("--speed", "2"), "unrecognized"),
    ):
        assert what in refused(capsys, *command("tune", voice, *options))
    assert "no voice 'nobody'" in refused(capsys, "tune", "--voice", "nobody")
    assert machine.log == []
