"""Drafts run ahead of WhisperSpeech's transformer exactly: its law enumerated, greedy and seeded output unchanged."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch

from spear_spec.config import DraftConfig, SamplingConfig
from spear_spec.decoding import Session, generate, make_drafter, make_verifier, speculate
from spear_spec.decoding.request import Request
from spear_spec.engine import Engine
from spear_spec.errors import ConfigError
from spear_spec.exactness.oracles import SAMPLINGS, UncachedTarget
from spear_spec.exactness.verify import verify_drafter
from spear_spec.models.drafts.decoder import DraftDecoder
from spear_spec.models.whisperspeech import WhisperSpeechConfig, WhisperSpeechT2S
from spear_spec.text.bytes import ByteFrontEnd
from spear_spec.training.drafts.observed import observe
from spear_spec.training.drafts.trainer import DraftTraining, draft_shapes, train_drafts
from spear_spec.training.t2s.trainer import Utterance
from tests.decoding.laws import law_error

TEXTS = [[256, 259, 72, 105], [257, 260, 3, 4, 5, 6, 200], [258, 261, 9]]
PLAIN = SAMPLINGS["plain"]


def tiny(dtype: torch.dtype = torch.float64, **change: Any) -> WhisperSpeechT2S:
    """Random weights whose laws are neither flat nor one-sided; the end token is not the last id."""
    torch.manual_seed(0)
    shape = {
        "dim": 8, "heads": 2, "source_depth": 1, "target_depth": 2, "ff_inner": 12, "vocab_size": 3, "eos_id": 1,
        "max_tokens": 24, "text_length": 10, "languages": 3, "rate_bins": 4,
    }  # fmt: skip
    model = WhisperSpeechT2S(WhisperSpeechConfig(**{**shape, **change}))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, 0, 0.6)
    return model.to(dtype).eval().requires_grad_(False)


class Uncached(UncachedTarget):
    """The oracle's law; there is no text-free one."""

    def __init__(self, model: WhisperSpeechT2S, text: list[int], sampling: SamplingConfig) -> None:
        self.model, self.sampling, self.known = model, sampling, {}  # type: ignore[assignment]
        with torch.no_grad():
            self.memory = self.null = model.encode(torch.tensor([text]))


def random_draft(model: WhisperSpeechT2S, fed: bool) -> DraftDecoder:
    torch.manual_seed(1)
    shape = DraftConfig(dim=model.dim, heads=2, dim_head=4, target_layers=(1, 2) if fed else ())
    return DraftDecoder(shape, model).to(model.dtype).eval()


DRAFTERS = {
    "ngram": lambda model: make_drafter("ngram"),
    "small": lambda model: make_drafter("small", random_draft(model, fed=False)),
    "fed": lambda model: make_drafter("eagle", random_draft(model, fed=True)),
    "tree": lambda model: make_drafter(
        "small", random_draft(model, fed=False), tree="2-1", options={"siblings": "wor"}
    ),
}


@pytest.mark.parametrize(
    ("caps", "watch", "sampling"), [([3], 0, "top_p"), ([2, 3, 1], 1, "plain")], ids=["alone", "ragged"]
)
@pytest.mark.parametrize("name", DRAFTERS)
def test_the_law_is_the_targets(name: str, sampling: str, caps: list[int], watch: int) -> None:
    rule = "recursive_wor" if name == "tree" else "rejection"
    model, law = tiny(), SAMPLINGS[sampling]
    target = Uncached(model, TEXTS[watch], law)
    assert law_error(model, TEXTS, target, DRAFTERS[name](model), rule, law, caps, watch) < 1e-9


def lively() -> WhisperSpeechT2S:
    """Random weights under which greedy output wanders; float32."""
    sizes = {"dim": 24, "heads": 3, "ff_inner": 48, "vocab_size": 40, "eos_id": 39, "max_tokens": 60}
    model = tiny(torch.float32, **sizes, text_length=24, languages=9, rate_bins=8)
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "norm" not in name:
            torch.nn.init.normal_(parameter, 0, 0.5 if "emb" in name else parameter.shape[-1] ** -0.5)
        else:
            torch.nn.init.constant_(parameter, float(name.endswith("weight")))
    return model


def spoken(model: WhisperSpeechT2S, temperature: float, run: Any = generate) -> list[list[int]]:
    """Tokens of each text, same seeds every time."""
    session = Session(model, sampling=SamplingConfig(temperature=temperature, top_p=1.0))
    requests = [Request(ids, seed=40 + row, sampling=SamplingConfig(temperature=temperature, top_p=1.0))
                for row, ids in enumerate(texts_of())]  # fmt: skip
    session.admit(requests)
    for _ in run(session):
        pass
    return session.tokens


def texts_of() -> list[list[int]]:
    front = ByteFrontEnd(text_length=24, languages=9, rate_bins=8)
    return [front.encode(*request) for request in (("One", "en", 9.0), ("Zwei, drei!", "de", 16.0), ("quatre", "fr"))]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[WhisperSpeechT2S, DraftDecoder, list[float]]:
    """A target, a draft that our recipe's trainer distilled from it for some steps, its acceptance before and after."""
    model = lively()
    texts = texts_of()
    rng = np.random.default_rng(0)
    data = [Utterance(texts[i % 3], rng.integers(0, model.eos_id, 30), None, "") for i in range(9)]
    seen = observe(model, data, ())
    shape = {"small": draft_shapes(model)["small"]}
    folder = tmp_path_factory.mktemp("draft")
    quick = DraftTraining(steps=50, warmup=5, lr=1e-2, ema=0.5)
    draft = train_drafts(model, seen, seen, shape, quick, folder, laws=[PLAIN], every=50, progress_bar=False)["small"]
    log = (folder / "small" / "train.log").read_text(encoding="utf-8").splitlines()
    rates = [json.loads(line)["T=1 top_p=1"]["acceptance"][0] for line in log]
    assert isinstance(draft, DraftDecoder)
    return model, draft, rates


def test_the_recipe_distils_a_draft(trained: tuple[WhisperSpeechT2S, DraftDecoder, list[float]]) -> None:
    _, _, rates = trained
    assert rates[-1] > rates[0] + 0.05


@pytest.mark.parametrize("name", ["ngram", "small"])
def test_greedy_output_is_unchanged(trained: tuple[WhisperSpeechT2S, DraftDecoder, list[float]], name: str) -> None:
    model, draft, _ = trained
    plain = spoken(model, 0.0)
    assert max(len(set(tokens)) for tokens in plain) > 2 and max(map(len, plain)) > 8
    drafter, calls = make_drafter(name, draft if name == "small" else None), 0

    def ahead(session: Session) -> Any:
        nonlocal calls
        for verdict in speculate(session, drafter, make_verifier("rejection"), 4):
            calls += 1
            yield verdict

    assert spoken(model, 0.0, ahead) == plain
    assert calls < 0.9 * max(map(len, plain))  # it does run ahead


@pytest.mark.parametrize("temperature", [0.7, 1.2])
def test_seeded_output_is_unchanged_where_the_rule_draws_as_the_plain_loop_does(
    trained: tuple[WhisperSpeechT2S, DraftDecoder, list[float]], temperature: float
) -> None:
    """Matching draws each token once, from the target's law; an n-gram draft draws nothing."""
    model, _, _ = trained
    plain = spoken(model, temperature)
    ahead = spoken(model, temperature, lambda s: speculate(s, make_drafter("ngram"), make_verifier("matching"), 4))
    assert ahead == plain and len({tuple(tokens) for tokens in plain}) == 3


@pytest.mark.parametrize("name", ["ngram", "small"])
def test_it_passes_verify(trained: tuple[WhisperSpeechT2S, DraftDecoder, list[float]], name: str) -> None:
    model, draft, _ = trained
    drafter = make_drafter(name, draft if name == "small" else None)
    found = verify_drafter(model, drafter, texts=texts_of(), samples=400, batch=3, gamma=3, sampling=PLAIN)
    assert found["pass"] is True


def test_rows_join_and_leave_and_none_goes_past_the_last_position() -> None:
    """Requests of other texts, rates and lengths join one under way; each says what it says alone."""
    model = tiny(torch.float32, vocab_size=30, eos_id=29)
    requests = [
        Request(ids, seed=row, sampling=PLAIN, cap=cap) for row, (ids, cap) in enumerate(zip(TEXTS, (None, 300, 7)))
    ]

    def alone(request: Request) -> list[int]:
        engine = Engine(model)
        (one,) = engine.admit([request])
        while engine.running:
            engine.step()
        return one.tokens

    engine = Engine(model, make_drafter("ngram"), make_verifier("matching"), gamma=3)
    said = engine.admit(requests[:1])
    for request in requests[1:]:
        engine.step()
        said += engine.admit([request])
    while engine.running:
        engine.step()
    assert [one.tokens for one in said] == [alone(request) for request in requests]
    assert max(len(one.tokens) for one in said) <= model.max_tokens


def test_a_cap_is_at_most_the_positions() -> None:
    model = tiny(vocab_size=30, eos_id=29)
    model.to_logits.bias[29] = -1e9  # it never ends by itself
    for run in (generate, lambda s: speculate(s, DRAFTERS["small"](model), make_verifier("rejection"), 5)):
        session = Session(model)
        session.admit([Request(ids, seed=row, sampling=PLAIN, cap=cap) for row, (ids, cap) in
                       enumerate(zip(TEXTS, (9999, 5, None)))])  # fmt: skip
        for _ in run(session):
            pass
        assert [len(tokens) for tokens in session.tokens] == [24, 5, 24]


def test_guidance_is_refused() -> None:
    with pytest.raises(ConfigError, match="text-free"):
        Session(tiny()).admit([Request(TEXTS[0], sampling=SamplingConfig(guidance=2.0))])
