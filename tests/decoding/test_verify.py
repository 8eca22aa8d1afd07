"""`run_verify`: passes what is exact, notices what is not; its statistics against scipy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from decoding_oracles import TEXTS, tiny_draft, tiny_model
from scipy import stats
from torch.nn.utils.rnn import pad_sequence

from spear_spec.bench import verify
from spear_spec.bench.uniformity import binned_check, chi_square_tail, holm, kolmogorov_tail, ks_check, uniform_checks
from spear_spec.bench.verify import run_verify
from spear_spec.config import SamplingConfig, SpecConfig
from spear_spec.decoding import Session, decode, is_lossless, session
from spear_spec.decoding.verifiers import VERIFIERS, rejection
from spear_spec.decoding.verifiers.rejection import RejectionVerifier
from spear_spec.models.draft import DraftDecoder
from spear_spec.models.text_to_semantic import TextToSemantic
from spear_spec.nn.cache import KVCache


@dataclass
class TinyTTS:
    """The part of `TTS` that verify calls, around tiny random weights."""

    t2s: TextToSemantic
    draft: DraftDecoder
    spec: SpecConfig
    sampling: SamplingConfig
    name: str = "tiny"
    bundle: Any = None

    def using(self, **spec: Any) -> TinyTTS:
        return replace(self, spec=replace(self.spec, **spec))

    def sentences(self, text: str, speaker: str) -> Iterator[tuple[str, list[int]]]:
        for ids in TEXTS:
            yield text, ids

    def decode(self, ids: list[list[int]], law: SamplingConfig, generator: torch.Generator, max_tokens: int | None = None):
        rows = pad_sequence([torch.tensor([*text, self.t2s.text_eos_id]) for text in ids], batch_first=True)
        with torch.inference_mode():
            memory = self.t2s.encode(rows)
        state = Session(self.t2s, memory, law, generator=generator, max_tokens=max_tokens)
        return state, decode(state, self.spec, self.draft)

    def describe(self, **options: Any) -> dict[str, Any]:
        return {"drafter": self.spec.drafter, "lossless": is_lossless(self.spec)}


@pytest.fixture
def tts(monkeypatch: pytest.MonkeyPatch) -> TinyTTS:
    monkeypatch.setattr(verify, "choose_speaker", lambda bundle, speaker: "any")
    model = tiny_model(semantic=12, dtype=torch.float32, seed=4)
    return TinyTTS(model, tiny_draft(model), SpecConfig(gamma=3), SamplingConfig(temperature=1.0, top_p=0.95))


def check(tts: TinyTTS, **options: Any) -> dict[str, Any]:
    return run_verify(tts, ["x"], samples=1500, batch=8, max_tokens=30, **options)  # type: ignore[arg-type]


def failed(result: dict[str, Any]) -> list[str]:
    return [row["name"] for row in result["checks"] if not row["pass"]]


@pytest.mark.parametrize("options", [{}, {"guidance": 2.0, "top_k": 5}], ids=["shipped", "guided"])
def test_exact_decoding_passes(tts: TinyTTS, options: dict[str, Any]) -> None:
    result = check(tts, **options)
    assert result["pass"], result
    assert result["schema"] == "verify/1"
    assert all(set(row) == {"name", "n", "tv", "null_q99", "p_value", "detectable_tv", "pass"} for row in result["checks"])
    assert {row["n"] for row in result["checks"][:-1]} <= {1500, 750}


def test_the_autoregressive_loop_passes(tts: TinyTTS) -> None:
    assert check(tts.using(drafter="none"))["pass"]


def test_a_lossy_rule_never_passes(tts: TinyTTS, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even when its statistics happen to be right."""
    lossy = type("Lossy", (RejectionVerifier,), {"name": "lossy", "lossless": False})
    monkeypatch.setitem(VERIFIERS, "lossy", lossy)
    result = check(tts.using(verifier="lossy"))
    assert not failed(result)
    assert not result["pass"]


def leak_the_draft(patch: pytest.MonkeyPatch) -> None:
    """Accept with min(1, p/q) + .4, as tolerance does."""
    right = rejection._ratios
    patch.setattr(rejection, "_ratios", lambda proposal, p: [[x + 0.4 for x in row] for row in right(proposal, p)])


def skip_the_residual(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(rejection, "residual", lambda p, q, token: p)


def wrong_temperature(patch: pytest.MonkeyPatch) -> None:
    right = session.probabilities
    patch.setattr(session, "probabilities", lambda logits, s: right(logits, replace(s, temperature=1.25)))


def forget_to_crop(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(KVCache, "crop", lambda self, lengths: None)


@pytest.mark.parametrize("fault", [leak_the_draft, skip_the_residual, wrong_temperature, forget_to_crop])
def test_inexact_decoding_is_noticed(tts: TinyTTS, fault: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    fault(monkeypatch)
    result = check(tts)
    assert failed(result)
    assert not result["pass"]


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


def test_detectable_distance_is_detected() -> None:
    """A law that far from uniform is found in most draws."""
    rng = np.random.default_rng(1)
    size = binned_check("x", rng.integers(0, 20, 4000), 20)["detectable_tv"]
    weights = np.where(np.arange(20) < 10, 1 + 2 * size, 1 - 2 * size) / 20
    found = [binned_check("x", rng.choice(20, 4000, p=weights), 20)["p_value"] < 1e-3 for _ in range(40)]
    assert 0.75 < np.mean(found) <= 1


def test_holm() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
