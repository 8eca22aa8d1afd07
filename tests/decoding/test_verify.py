"""`run_verify`: passes what is exact, notices what is not; its statistics: tails, false alarms, power."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import count
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from spear_spec.cli.verify import table
from spear_spec.config import SamplingConfig, SpecConfig
from spear_spec.decoding import Parts, Request, Session, complete, session
from spear_spec.decoding.chance import Uniforms
from spear_spec.decoding.kinds import VerifierKind
from spear_spec.decoding.verifiers import VERIFIERS, block, rejection
from spear_spec.decoding.verifiers import native as judged_in_c
from spear_spec.decoding.verifiers.rejection import RejectionVerifier
from spear_spec.engine import Decoder
from spear_spec.errors import ConfigError, TextError
from spear_spec.exactness import verify
from spear_spec.exactness.conclusion import conclusion
from spear_spec.exactness.oracles import TEXTS, in_parts, spoil_target_laws, tiny_draft, tiny_model
from spear_spec.exactness.uniformity import (
    ALPHA,
    binned_check,
    chi_square_tail,
    holm,
    kolmogorov_tail,
    ks_check,
    never_check,
    pairs_check,
    settle,
    uniform_checks,
)
from spear_spec.exactness.verify import run_verify
from spear_spec.kernels.round import NativeRound
from spear_spec.models.drafts.runner import DraftRunner
from spear_spec.models.memory import Memory
from spear_spec.nn.cache import KVCache


@dataclass
class TinyTTS:
    """What `verify` asks of a voice: tiny random weights, and a front end that knows only `TEXTS`."""

    decoder: Decoder
    name: str = "tiny"

    @property
    def sampling(self) -> SamplingConfig:
        return self.decoder.sampling

    def texts(self, sentences: list[str], speaker: str | None = None) -> list[list[int]]:
        return [ids[:-1] for sentence in sentences if sentence for ids in TEXTS]  # without the end token

    def using(self, **spec: Any) -> TinyTTS:
        parts = self.decoder.parts
        return replace(self, decoder=replace(self.decoder, parts=replace(parts, spec=complete(parts.spec, spec))))


@pytest.fixture
def tts() -> TinyTTS:
    model = tiny_model(semantic=12, dtype=torch.float32, seed=4)
    parts = Parts(SpecConfig(gamma=3), tiny_draft(model))
    return TinyTTS(Decoder(model, parts, SamplingConfig(temperature=1.0, top_p=0.95)))


def check(tts: TinyTTS, **options: Any) -> dict[str, Any]:
    return run_verify(tts, ["x"], **{"samples": 1500, "batch": 8, "max_tokens": 30, **options})


def failed(result: dict[str, Any]) -> list[str]:
    return [row["name"] for row in result["checks"] if not row["pass"]]


@pytest.mark.parametrize(
    "options", [{}, {"guidance": 2.0, "top_k": 5}, {"batch": 1}], ids=["shipped", "guided", "alone"]
)
def test_exact_decoding_passes(tts: TinyTTS, options: dict[str, Any]) -> None:
    result = check(tts, **options)
    assert result["pass"], result
    assert result["schema"] == "verify/1"
    assert all(
        set(row) == {"name", "n", "tv", "null_q99", "p_value", "detectable_tv", "pass"} for row in result["checks"]
    )
    assert {row["n"] for row in result["checks"][:9]} == {1500, 750}
    assert {row["name"].partition(":")[0] for row in result["checks"]} == {
        "by probability",
        "by draft/target",
        "by token",
        "outside the filters",
        "greedy identity",
    }
    assert conclusion(result).startswith("Exact: ")


def test_a_guided_draft_is_sorted_by_its_guided_law(tts: TinyTTS) -> None:
    """The key is the law that the draft has at run time: both arms, mixed as the target's."""
    tts = tts.using(options={"guided": True})
    law = replace(tts.sampling, guidance=2.0)
    drafter, _ = tts.decoder.parts.make()
    running = Session(tts.decoder.target)
    running.admit([Request(TEXTS[0][:-1], sampling=law)])
    with torch.inference_mode():
        seen = drafter.propose(running, drafter.start(running), [1]).probs[0, 0]
    q = verify.Reference(tts.decoder, TEXTS[0][:-1], law).logits([3, 1])[1]
    assert q is not None
    torch.testing.assert_close(q[0], seen, atol=0.03, rtol=0)  # the runner rounds its weights to 8 bits
    assert check(tts, guidance=2.0)["pass"]


def test_the_autoregressive_loop_passes(tts: TinyTTS) -> None:
    result = check(tts.using(drafter="none"))
    assert result["pass"]
    assert "autoregressive" in conclusion(result)


def test_without_filters_nothing_is_excluded(tts: TinyTTS) -> None:
    result = check(tts, top_p=1.0, seed=1)  # seed 0 is one of the exact runs that fail, which one in a thousand may
    assert result["pass"]
    assert "outside the filters" not in {row["name"] for row in result["checks"]}


def test_greedy_is_one_check(tts: TinyTTS) -> None:
    """At temperature 0 the law is a point: every text is compared, nothing else is left to test."""
    result = check(tts, temperature=0.0)
    assert result["pass"]
    assert [row["name"] for row in result["checks"]] == ["greedy identity"]
    assert result["checks"][0]["detectable_tv"] == 1 / len(TEXTS)


def test_a_lossy_rule_never_passes(tts: TinyTTS, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even when its statistics happen to be right; the words say that they were."""
    lossy = type("Lossy", (RejectionVerifier,), {"name": "lossy", "lossless": False})
    monkeypatch.setitem(VERIFIERS.known, "lossy", VerifierKind(lossy, "exact, but it does not say so"))
    result = check(tts.using(verifier="lossy"))
    assert not failed(result)
    assert not result["pass"]
    assert conclusion(result).startswith("Lossy by declaration: ")
    assert f"a distance of {result['checks'][0]['detectable_tv']:.2g} is found" in conclusion(result)


def judge_by_lists(patch: pytest.MonkeyPatch) -> None:
    """A fault in the form on lists shows where that form runs."""
    in_parts(patch)
    for rule in (rejection, block):
        patch.setattr(rule, "judged", lambda *_: None)


def skip_the_residual_in_c(patch: pytest.MonkeyPatch) -> None:
    """The kernel draws the recovered token from the target's whole law."""
    in_parts(patch)
    right = judged_in_c.judge

    def judge(*args: Any) -> Any:
        _, _, _, p, uniforms = args
        found = right(*args)
        lasts = [
            int(torch.searchsorted(p[row, kept].cumsum(-1, dtype=torch.float64), line[used - 1], right=True))
            for row, ((kept, _, used), line) in enumerate(zip(found, uniforms))
        ]
        return [(kept, min(last, p.shape[-1] - 1), used) for (kept, _, used), last in zip(found, lasts)]

    patch.setattr(judged_in_c, "judge", judge)


def leak_the_draft(patch: pytest.MonkeyPatch) -> None:
    """Accept with min(1, p/q) + .4, as tolerance does."""
    judge_by_lists(patch)
    right = rejection._ratios
    patch.setattr(rejection, "_ratios", lambda proposal, p: [[x + 0.4 for x in row] for row in right(proposal, p)])


def skip_the_residual(patch: pytest.MonkeyPatch) -> None:
    judge_by_lists(patch)
    patch.setattr(rejection, "residual", lambda p, q, token: p)


def wrong_temperature(patch: pytest.MonkeyPatch) -> None:
    right = session.probabilities
    spoil_target_laws(patch, lambda logits, s: right(logits, replace(s, temperature=1.25)))


def filter_twice(patch: pytest.MonkeyPatch) -> None:
    right = session.probabilities
    spoil_target_laws(patch, lambda logits, s: right(right(logits, s).clamp_min(1e-30).log(), replace(s, top_p=0.7)))


def forget_the_filter(patch: pytest.MonkeyPatch) -> None:
    right = session.probabilities
    spoil_target_laws(patch, lambda logits, s: right(logits, replace(s, top_p=1.0)))


def forget_to_crop(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(KVCache, "crop", lambda self, lengths: None)


def share_one_stream(patch: pytest.MonkeyPatch) -> None:
    """All rows of a batch draw the same numbers."""
    right, opened = Uniforms.open, count()
    patch.setattr(Uniforms, "open", lambda self, row, seed: right(self, row, next(opened) // 8))


def anothers_text(patch: pytest.MonkeyPatch) -> None:
    """When a row leaves, the others keep the memory of the rows in front."""
    right = Memory.select
    patch.setattr(Memory, "select", lambda self, rows: right(self, list(range(len(rows)))))


def chain_of_other_laws(patch: pytest.MonkeyPatch) -> None:
    """The chain in one call gives flatter laws than it draws from."""
    in_parts(patch)
    right = DraftRunner.chain

    def chain(*args: Any) -> Any:
        tokens, laws = right(*args)
        return tokens, (0.5 * laws + 0.5 / laws.shape[-1])

    patch.setattr(DraftRunner, "chain", chain)


def a_round_that_is_too_easy(patch: pytest.MonkeyPatch) -> None:
    """The rule of a whole round sees every number halved."""
    right = NativeRound.run

    def run(self: NativeRound, newest: Any, samplings: Any, uniforms: Any, *args: Any) -> Any:
        half = len(uniforms[0]) // 2
        return right(
            self, newest, samplings, [[*line[:half], *[u / 2 for u in line[half:]]] for line in uniforms], *args
        )

    patch.setattr(NativeRound, "run", run)


def a_round_that_keeps_too_little(patch: pytest.MonkeyPatch) -> None:
    """A whole round keeps no draft token, and draws what follows as if it had kept some."""
    right = NativeRound.run
    patch.setattr(NativeRound, "run", lambda *args: replace(right(*args), accepted=[0] * len(args[1])))


FAULTS = [
    a_round_that_is_too_easy,
    a_round_that_keeps_too_little,
    chain_of_other_laws,
    leak_the_draft,
    skip_the_residual,
    skip_the_residual_in_c,
    wrong_temperature,
    filter_twice,
    forget_the_filter,
    forget_to_crop,
    share_one_stream,
    anothers_text,
]


@pytest.mark.parametrize("fault", FAULTS)
def test_inexact_decoding_is_noticed(tts: TinyTTS, fault: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    fault(monkeypatch)
    result = check(tts)
    assert failed(result), result
    assert not result["pass"]
    assert "CLAIMS to be lossless and IS NOT" in conclusion(result)


def test_streams_that_start_again_are_noticed_without_a_batch(tts: TinyTTS, monkeypatch: pytest.MonkeyPatch) -> None:
    right = Uniforms.open
    monkeypatch.setattr(Uniforms, "open", lambda self, row, seed: right(self, row, 0))
    assert failed(check(tts.using(drafter="none"), batch=1))


def test_greedy_ties_are_excused_and_nothing_else(tts: TinyTTS) -> None:
    reference = verify.Reference(tts.decoder, TEXTS[0][:-1], replace(tts.sampling, temperature=0.0))
    logits = reference.logits([0])[0][0]
    best, second = logits.topk(2).indices.tolist()
    assert not verify._tied(reference, [best], [second])
    with torch.no_grad():  # the second best becomes as good as the best: now it is a tie
        reference.model.semantic_emb.weight[second] = reference.model.semantic_emb.weight[best]
    assert verify._tied(reference, [best], [second])
    assert not verify._tied(reference, [best, 1], [best])


def test_the_table_is_aligned_and_says_which_failed(tts: TinyTTS, monkeypatch: pytest.MonkeyPatch) -> None:
    skip_the_residual(monkeypatch)
    result = check(tts)
    lines = table(result["checks"])
    assert len(lines) == len(result["checks"]) + 1
    at = lines[0].index("1% of exact") + len("1% of exact")
    assert all(line[at - 6] == "." or line[at - 5] == "." for line in lines[1:])
    assert [line.endswith("FAIL") for line in lines[1:]] == [not row["pass"] for row in result["checks"]]


@pytest.mark.parametrize("options", [{"samples": 99}, {"batch": 0}, {"max_tokens": 0}, {"temperature": -1}])
def test_settings_out_of_range(tts: TinyTTS, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        check(tts, **options)


def test_nothing_to_say(tts: TinyTTS) -> None:
    with pytest.raises(TextError, match="nothing to say"):
        run_verify(tts, [""])


# --- statistics ------------------------------------------------------------------------------------------------------


def test_tails_agree_with_scipy() -> None:
    for x, freedom in ((3.0, 4), (19.0, 19), (60.0, 24)):
        assert chi_square_tail(x, freedom) == pytest.approx(stats.chi2.sf(x, freedom), rel=1e-9)
    for distance, n in ((0.02, 2000), (0.04, 2000), (0.1, 400)):
        assert kolmogorov_tail(distance, n) == pytest.approx(stats.kstwo.sf(distance, n), rel=0.05)


def test_uniform_values_pass_and_others_do_not() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        assert min(row["p_value"] for row in uniform_checks("x", rng.random(2000))) > 1e-5
    assert ks_check("x", rng.random(2000) ** 1.15)["p_value"] < 1e-3
    sticky = np.repeat(rng.random(1000), 2)  # uniform, but neighbours are equal
    assert uniform_checks("x", sticky)[2]["p_value"] < 1e-9


def simulated_run(rng: np.random.Generator, n: int = 1500) -> list[dict[str, Any]]:
    """All checks of a correct build: independent uniform values under three orders, and beside each other."""
    level = ALPHA / 12
    checks = [row for order in "abc" for row in uniform_checks(order, rng.random(n), level)]
    checks += [
        pairs_check("d", rng.random(n // 4), rng.random(n // 4), level),
        never_check("e", 0, n),
        never_check("f", 0, 8),
    ]
    settle(checks)
    return checks


@pytest.mark.parametrize("n", [100, 1500])
def test_a_correct_build_fails_in_less_than_one_run_in_a_thousand(n: int) -> None:
    """Of 300 simulated runs at most one fails (expected: .3), and at the looser 5 % no more than 5 % and chance do."""
    rng = np.random.default_rng(5)
    runs = [simulated_run(rng, n) for _ in range(300)]
    assert sum(not all(row["pass"] for row in checks) for checks in runs) <= 1
    loose = sum(min(row["p_value"] for row in checks) < 0.05 for checks in runs)
    assert 1 <= loose <= stats.binom.ppf(0.999, len(runs), 0.05)


def moved(rng: np.random.Generator, n: int, size: float) -> np.ndarray:
    """Values in [0, 1) with the mass `size` moved from the upper half to the lower."""
    u = rng.random(n)
    return np.where((u >= 0.5) & (rng.random(n) < 2 * size), u - 0.5, u)


@pytest.mark.parametrize("n", [1000, 4000])
@pytest.mark.parametrize("which", [0, 1, 2], ids=["distribution", "bins", "neighbours"])
def test_the_stated_distance_is_found_in_nine_runs_of_ten(n: int, which: int) -> None:
    """Within a run of twelve checks, by the adjusted p-value; and half of that distance is found far less often."""
    rng = np.random.default_rng(1)

    def found(size: float, runs: int) -> float:
        count = 0
        for _ in range(runs):
            if which < 2:
                row = uniform_checks("x", moved(rng, n, size), ALPHA / 12)[which]
            else:  # of the pairs' law: half of the 25 cells gain what the others lose
                weights = np.r_[np.full(12, 1 + 2 * size), 1, np.full(12, 1 - 2 * size)] / 25
                pair = rng.choice(25, n // 2, p=weights / weights.sum())
                row = pairs_check("x", (pair // 5 + 0.5) / 5, (pair % 5 + 0.5) / 5, ALPHA / 12)
            count += holm([row["p_value"], *[1.0] * 11])[0] < ALPHA
        return count / runs

    size = uniform_checks("x", rng.random(n), ALPHA / 12)[which]["detectable_tv"]
    assert 0.83 < found(size, 200) <= 1
    assert found(size / 2, 200) < 0.4


def test_a_binned_distance_that_is_detectable_is_detected() -> None:
    rng = np.random.default_rng(1)
    size = binned_check("x", rng.integers(0, 20, 4000), 20)["detectable_tv"]
    weights = np.where(np.arange(20) < 10, 1 + 2 * size, 1 - 2 * size) / 20
    found = [binned_check("x", rng.choice(20, 4000, p=weights), 20)["p_value"] < ALPHA for _ in range(200)]
    assert 0.83 < np.mean(found) < 0.97


def test_what_never_happens() -> None:
    assert never_check("x", 0, 1000)["p_value"] == 1
    assert never_check("x", 1, 1000)["p_value"] == 0
    size = never_check("x", 0, 1000)["detectable_tv"]
    assert (1 - size) ** 1000 == pytest.approx(0.1, rel=0.01)


def test_holm() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
