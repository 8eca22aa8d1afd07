"""`verify` of utterances that are drawn again where words are missing: what is exact passes, faults are noticed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from spear_spec.cli import main
from spear_spec.config import SamplingConfig, SpecConfig
from spear_spec.decoding import Parts, Request
from spear_spec.decoding.completeness import Tried, Tries, missed
from spear_spec.decoding.request import Whole
from spear_spec.decoding.session import Session
from spear_spec.engine import Decoder, Engine
from spear_spec.errors import ConfigError
from spear_spec.exactness import verify
from spear_spec.exactness.completed import KEPT, SHARED
from spear_spec.exactness.conclusion import conclusion
from spear_spec.exactness.oracles import TEXTS, in_parts, tiny_draft, tiny_model
from spear_spec.exactness.scores import TRIES
from spear_spec.exactness.uniformity import shift_check, two_sample_check
from spear_spec.exactness.verify import verify_drafter
from tests.stubs.schemas import check as check_schema
from tests.stubs.voice import make_voice

LAW = SamplingConfig(temperature=1.0, top_p=0.95)
SENTENCES = [text[:-1] for text in TEXTS[:3]]


def whole(first: int) -> Any:
    """Every letter is a word; of those of random weights some are missed, and some not."""
    return lambda ids: Whole(tuple((at, at + 1) for at in range(len(ids))), 3, 0.8, 100, first, 3)


@pytest.fixture(scope="module")
def decoder() -> Decoder:
    model = tiny_model(semantic=12, dtype=torch.float32, seed=4, depth=3)
    return Decoder(model, Parts(SpecConfig(gamma=3), tiny_draft(model)), LAW)


def check(
    decoder: Decoder, first: int = 0, rule: str | None = None, samples: int = 700, seed: int = 1
) -> dict[str, Any]:
    if rule is not None:
        parts = Parts(SpecConfig(gamma=3, verifier=rule), decoder.parts.drafts)
        decoder = Decoder(decoder.target, parts, decoder.sampling)
    return verify._verify(
        "tiny",
        decoder,
        SENTENCES,
        samples=samples,
        batch=4,
        seed=seed,
        max_tokens=24,
        whole=whole(first),
        progress=None,
    )


def failed(result: dict[str, Any]) -> list[str]:
    return [row["name"] for row in result["checks"] if not row["pass"]]


@pytest.mark.parametrize("first", [0, 4], ids=["sentence", "pieces"])
def test_exact_decoding_passes(decoder: Decoder, first: int) -> None:
    result = check(decoder, first, "coupled")
    assert result["pass"], result
    names = {row["name"] for row in result["checks"]}
    assert {KEPT, SHARED, TRIES, "completeness: against the loop: draws", "greedy identity"} <= names
    told = result["complete"]
    assert told["law"] == ("pieces" if first else "sentence")
    assert told["redrawn"] > 5 and 0 < told["short"] < told["utterances"]
    assert conclusion(result).startswith("Exact: ") and "drawn again" in conclusion(result)


@pytest.mark.parametrize("first", [0, 4], ids=["sentence", "pieces"])
def test_whole_rounds_draw_again_what_the_eager_engine_does(first: int) -> None:
    """The host hears of a round later than the device goes on: what lies behind a look is dropped there too."""
    model = tiny_model(semantic=12, seed=4, depth=3)  # in float64 rounding moves no draw
    decoder = Decoder(model, Parts(SpecConfig(gamma=3), tiny_draft(model)), LAW)
    requests = [Request(ids, (), seed, LAW, 24, whole(first)(ids)) for seed in range(2) for ids in SENTENCES[:2]]
    eager, rounds = (replace(decoder, runtime=name).engine().run(requests) for name in ("eager", "graphs"))
    assert [(u.tokens, u.ended, u.redrawn) for u in eager] == [(u.tokens, u.ended, u.redrawn) for u in rounds]
    assert sum(u.redrawn for u in eager) > 0


def same_stream(patch: pytest.MonkeyPatch) -> None:
    """Every try draws with the numbers of the first."""
    right = Tries.anew

    def anew(self: Tries, tokens: Sequence[int]) -> Request:
        again = right(self, tokens)
        return Request(again.ids, again.prefix, self.request.seed, again.sampling, again.cap, again.whole)

    patch.setattr(Tries, "anew", anew)


def streams_of_the_loop(patch: pytest.MonkeyPatch) -> None:
    """Under speculation tries are counted from another number."""
    right = Tries.anew

    def anew(self: Tries, tokens: Sequence[int]) -> Request:
        again = right(self, tokens)
        return Request(again.ids, again.prefix, again.seed + SPECULATIVE[0], again.sampling, again.cap, again.whole)

    look = Engine._look

    def told(self: Engine, row: int, ended: str | None) -> None:
        SPECULATIVE[0] = self.drafter is not None
        look(self, row, ended)

    patch.setattr(Tries, "anew", anew)
    patch.setattr(Engine, "_look", told)


SPECULATIVE = [False]


def judged_on_drafts(patch: pytest.MonkeyPatch) -> None:
    """Judged is what was drafted and not what was kept: here without the token that every call adds."""
    right = Engine._look

    def look(self: Engine, row: int, ended: str | None) -> None:
        usual = self.misses
        if self.drafter is not None:
            self.misses = lambda target, request, speech, *rest: missed(target, request, speech[:-1], *rest)
        right(self, row, ended)
        self.misses = usual

    patch.setattr(Engine, "_look", look)


def last_of_equals(patch: pytest.MonkeyPatch) -> None:
    """Of tries with equally few misses the last one stays."""
    right = Tries.settle

    def settle(self: Tries, tokens: list[int], ended: str | None, misses: int) -> Tried | None:
        if self._best is not None and misses == self._best.misses:
            self._best = None
        return right(self, tokens, ended, misses)

    patch.setattr(Tries, "settle", settle)


def one_try_less(patch: pytest.MonkeyPatch) -> None:
    right = Tries.settle

    def settle(self: Tries, tokens: list[int], ended: str | None, misses: int) -> Tried | None:
        return right(self, tokens, ended, misses if self._count < 1 else 0)

    patch.setattr(Tries, "settle", settle)


def looks_ahead(patch: pytest.MonkeyPatch) -> None:
    """All that calls have settled is looked at, wherever they happened to end."""
    right = Tries.due

    def due(self: Tries, tokens: Sequence[int], ended: str | None) -> Any:
        found = right(self, tokens, ended)
        return found if found is None else (list(tokens), ended)

    patch.setattr(Tries, "due", due)


@pytest.mark.parametrize(
    ("fault", "first", "noticed"),
    [
        (same_stream, 0, TRIES),
        (streams_of_the_loop, 0, SHARED),
        (judged_on_drafts, 0, KEPT),
        (last_of_equals, 0, KEPT),
        (one_try_less, 0, KEPT),
        (looks_ahead, 4, KEPT),
    ],
)
def test_faults_are_noticed(
    decoder: Decoder, fault: Any, first: int, noticed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault(monkeypatch)
    # of six utterances some must be drawn again, for streams to matter
    result = check(decoder, first, "coupled", 400, 2 if noticed == SHARED else 1)
    assert noticed in failed(result), result
    assert "CLAIMS to be lossless and IS NOT" in conclusion(result)


def test_drafts_that_are_kept_as_they_are_fail_in_every_try(decoder: Decoder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Speculation that is wrong is seen in the tries, kept or not."""
    in_parts(monkeypatch)
    right = Session.laws
    monkeypatch.setattr(Session, "laws", lambda self, proposal=None: right(self, proposal).square())
    assert any(name.startswith("by ") for name in failed(check(decoder, 0, "rejection")))


def test_the_command(tmp_path: Path) -> None:
    voice = make_voice(tmp_path / "tiny", depth=3).path
    (tmp_path / "text.txt").write_text("It rained.\n")
    options = ["--text", str(tmp_path / "text.txt"), "--samples", "100", "--max-tokens", "30", "--drafter", "none"]
    told = f"--json={tmp_path / 'result.json'}"
    assert main(["verify", "--voice", str(voice), "--complete", "stream", *options, told]) == 0
    result = json.loads((tmp_path / "result.json").read_text())
    check_schema(result, "verify/1")
    assert (result["complete"]["law"], result["complete"]["tries"]) == ("pieces", 4)
    assert result["complete"]["redrawn"] > 0


def test_a_bare_transformer_has_no_words(decoder: Decoder) -> None:
    with pytest.raises(ConfigError, match="leave complete off"):
        verify_drafter(decoder.target, texts=SENTENCES, complete=True)


def test_a_value_beside_one_that_was_selected() -> None:
    rng = np.random.default_rng(4)
    failed_tries = rng.random(600) ** 2  # those that failed are no fair sample
    assert shift_check("x", failed_tries, rng.random(600))["p_value"] > 1e-3
    again = (failed_tries + 0.1 * rng.random(600)) % 1
    assert shift_check("x", failed_tries, again)["p_value"] < 1e-9


def test_rank_sums_agree_with_scipy_and_are_calibrated() -> None:
    rng = np.random.default_rng(3)
    x, y = rng.integers(0, 6, 40).astype(float), rng.integers(1, 7, 30).astype(float)
    mine = two_sample_check("x", [x], [y])
    assert mine["p_value"] == pytest.approx(
        stats.mannwhitneyu(x, y, use_continuity=False, method="asymptotic").pvalue, rel=1e-6
    )
    above = (x[:, None] > y).mean() + (x[:, None] == y).mean() / 2
    assert mine["tv"] == pytest.approx(abs(above - 0.5))
    runs = [
        two_sample_check("x", [rng.random(9), rng.random(12) + 5], [rng.random(7), rng.random(12) + 5])["p_value"]
        for _ in range(400)
    ]
    assert stats.kstest(runs, "uniform").pvalue > 1e-3  # a shift from text to text is none between the loops
    none = two_sample_check("x", [np.zeros(5)], [np.zeros(5)])
    assert (none["p_value"], none["tv"], none["detectable_tv"]) == (1.0, 0.0, 1.0)
