"""`verify_drafter`, the test for drafters and verifiers of a user's own: what is exact passes, what is wrong is named.

The wrong ones all say that they are lossless. Each is a well-known slip, and must end in the worst message there is.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import spear_spec
from spear_spec import SamplingConfig, verify_drafter
from spear_spec.cli import main
from spear_spec.decoding import DRAFTERS, VERIFIERS, Chance, Proposal, Session, Verdict, make_drafter, probabilities
from spear_spec.decoding.verifiers.rejection import residual
from spear_spec.errors import ConfigError, ContractError, TextError
from spear_spec.exactness.conclusion import conclusion
from spear_spec.exactness.oracles import TEXTS, tiny_draft, tiny_model
from tests.stubs.voice import make_voice

ROOT = Path(__file__).parents[2]
IDS = [text[:-1] for text in TEXTS]  # without the end token
LAW = SamplingConfig(temperature=1.0, top_p=0.95)
# one drafter of every form there is
SHAPES: dict[str, dict[str, Any]] = {
    "chain": {"drafter": "small"},
    "iid paths": {"drafter": "kpath", "num_drafts": 3},
    "iid tree": {"drafter": "small", "tree": "3-1", "options": {"siblings": "iid"}},
    "wor tree": {"drafter": "small", "tree": "3-1", "options": {"siblings": "wor"}},
    "points tree": {"drafter": "small", "tree": "3-1", "options": {"siblings": "top"}},
    "points dynamic": {"drafter": "small", "tree": "dynamic", "options": {"nodes": 6, "width": 2}},
}
EXACT = [
    (shape, rule)
    for shape in SHAPES
    for rule, kind in VERIFIERS.items()
    if kind.lossless and shape.split()[0] in kind.forms
]


@pytest.fixture(scope="module")
def voice(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_voice(tmp_path_factory.mktemp("voices") / "tiny").path)


@pytest.fixture(scope="module")
def tts(voice: str) -> spear_spec.TTS:
    return spear_spec.TTS.load(voice, device="cpu")


@pytest.fixture
def model() -> spear_spec.TextToSemantic:
    return tiny_model(semantic=12, dtype=torch.float32, seed=4)


def on_model(
    model: spear_spec.TextToSemantic, drafter: Any, verifier: Any = "rejection", **options: Any
) -> dict[str, Any]:
    settings: dict[str, Any] = {"samples": 1500, "batch": 8, "gamma": 3, "sampling": LAW, "max_tokens": 30, **options}
    return verify_drafter(model, drafter, verifier, texts=IDS, **settings)


def named(result: dict[str, Any]) -> set[str]:
    return {check["name"] for check in result["checks"] if not check["pass"]}


# --- what is exact passes --------------------------------------------------------------------------------------------


def test_every_form_of_draft_has_a_rule() -> None:
    assert {shape for shape, _ in EXACT} == set(SHAPES)
    assert {rule for _, rule in EXACT} == {rule for rule, kind in VERIFIERS.items() if kind.lossless}
    assert {shape["drafter"] for shape in SHAPES.values()} | {"none"} <= set(DRAFTERS)


@pytest.mark.parametrize(("shape", "rule"), EXACT)
def test_every_exact_pair_passes(tts: spear_spec.TTS, shape: str, rule: str) -> None:
    result = verify_drafter(
        tts,
        verifier=rule,
        gamma=3,
        texts=["One.", "Two or three.", "Four."],
        samples=500,
        batch=4,
        max_tokens=30,
        **SHAPES[shape],
    )
    assert result["pass"], result
    assert result["lossless"]
    assert (result["drafter"], result["verifier"], result["batch"]) == (SHAPES[shape]["drafter"], rule, 4)


class Repeat:
    """Drafts that the last token goes on: a chain of point masses, from no model at all."""

    name = "repeat"
    form = "chain"

    def start(self, session: Session) -> None:
        return None

    def propose(self, session: Session, state: None, limits: list[int]) -> Proposal:
        last = [session.tokens[row][-1:] for row in session.rows]
        return Proposal([token * limit for token, limit in zip(last, limits)])

    def commit(self, session: Session, state: None, verdict: Verdict) -> None:
        return None


class Noisy:
    """A chain from laws of its own, other ones at each depth; some tokens it never drafts."""

    name = "noisy"
    form = "chain"

    def start(self, session: Session) -> None:
        return None

    def law(self, session: Session, row: int, depth: int) -> Tensor:
        generator = torch.Generator().manual_seed(101 * len(session.tokens[row]) + depth)
        return probabilities(
            2 * torch.randn(session.model.vocab_size, generator=generator), session.samplings[session.rows.index(row)]
        )

    def propose(self, session: Session, state: None, limits: list[int]) -> Proposal:
        size, longest = session.model.vocab_size, max(limits)
        tokens: list[list[int]] = [[] for _ in limits]
        probs = torch.zeros(len(limits), longest, size)
        for place, (row, limit) in enumerate(zip(session.rows, limits)):
            for depth in range(limit):
                probs[place, depth] = self.law(session, row, depth)
                tokens[place] += session.chance.categorical(self.drawn_from(probs[place, depth])[None], [row])
        return Proposal(tokens, probs if longest else None)

    def drawn_from(self, law: Tensor) -> Tensor:
        return law

    def commit(self, session: Session, state: None, verdict: Verdict) -> None:
        return None


@pytest.mark.parametrize("rule", ["rejection", "block", "recursive", "matching"])
@pytest.mark.parametrize("drafter", [Repeat(), Noisy()], ids=lambda d: d.name)
def test_a_drafter_of_ones_own_passes(model: spear_spec.TextToSemantic, drafter: Any, rule: str) -> None:
    result = on_model(model, drafter, rule, samples=600)
    assert result["pass"], result
    assert (result["voice"], result["drafter"], result["sampling"]) == ("TextToSemantic", drafter.name, LAW.to_dict())
    assert "by draft/target: distribution" in {check["name"] for check in result["checks"]}


def test_a_drafter_that_learns_from_what_was_said_passes(model: spear_spec.TextToSemantic) -> None:
    """It keeps all it has seen. The copy that is asked about the past must not have seen what came afterwards."""

    class Learner(Repeat):
        name = "learner"

        def __init__(self) -> None:
            self.follows: dict[tuple[int, ...], int] = {}
            self.seen: list[int] = []

        def propose(self, session: Session, state: None, limits: list[int]) -> Proposal:
            guesses = [self.follows.get(tuple(session.tokens[row][-4:]), 0) for row in session.rows]
            return Proposal([[guess] if limit else [] for guess, limit in zip(guesses, limits)])

        def commit(self, session: Session, state: None, verdict: Verdict) -> None:
            for tokens in session.tokens:
                for at, token in enumerate(tokens):
                    self.follows[tuple(tokens[max(0, at - 4) : at])] = token

    assert on_model(model, Learner(), samples=800, seed=1)["pass"]


def test_a_drafter_that_cannot_be_copied_has_an_order_less(model: spear_spec.TextToSemantic) -> None:
    class Single(Repeat):
        def __deepcopy__(self, memo: dict[int, Any]) -> None:
            raise TypeError("there can be only one")

    result = on_model(model, Single(), samples=300)
    assert result["pass"]
    assert "by draft/target: distribution" not in {check["name"] for check in result["checks"]}


def test_named_settings_on_a_bare_model(model: spear_spec.TextToSemantic) -> None:
    """Library drafters as objects, with guidance, one row at a time."""
    drafter = make_drafter("small", tiny_draft(model), options={"guided": True})
    result = on_model(
        model, drafter, "block", samples=300, batch=1, sampling=SamplingConfig(temperature=0.9, top_k=6, guidance=1.5)
    )
    assert result["pass"], result
    assert on_model(model, "none", samples=300)["verifier"] is None


# --- what is declared lossy fails, and says how far off it is
# ----------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "options"),
    [("typical", {}), ("tolerance", {"b": 0.5}), ("lenience", {"l": 0.3}), ("coarse", {"theta": 0.01})],
)
def test_a_lossy_rule_is_told_from_exact(model: spear_spec.TextToSemantic, rule: str, options: dict[str, Any]) -> None:
    result = on_model(model, make_drafter("small", tiny_draft(model)), rule, options=options)
    assert named(result), result
    assert not result["pass"]
    words = conclusion(result)
    assert words.startswith(f"Lossy, as {rule} declares: ")
    assert 0.003 < float(re.search(r"at least ([0-9.]+)", words).group(1)) < 0.9  # type: ignore[union-attr]


def test_a_lossy_rule_on_the_command_line(voice: str, capsys: pytest.CaptureFixture[str]) -> None:
    args = [
        "verify",
        "--voice",
        voice,
        "--device",
        "cpu",
        "--samples",
        "800",
        "--batch",
        "4",
        "--max-tokens",
        "40",
        "--verifier",
        "tolerance",
    ]
    assert main([*args, "--set", "b=0.6", "--json"]) == 1
    captured = capsys.readouterr()
    result = json.loads(captured.out.splitlines()[-1])
    assert (result["lossless"], result["pass"], result["options"]) == (False, False, {"b": 0.6})
    assert "Lossy, as tolerance declares" in captured.err
    assert "off by at least" in captured.err
    assert "FAIL" in captured.err
    assert main([*args, "--set", "b=0"]) == 1
    assert "Lossy by declaration: tolerance does not promise" in capsys.readouterr().err


# --- what claims to be lossless and is not ---------------------------------------------------------------------------


class Rejection:
    """Right; the seeded ones below change one step each."""

    name = "home-made"
    lossless = True
    forms = frozenset({"chain"})

    def chance_of(self, p: float, q: float) -> float:
        return min(1.0, p / q)

    def leftover(self, p: Tensor, q: Tensor, token: int) -> Tensor:
        return residual(p, q, token)

    def bonus(self, p: Tensor, q: Tensor) -> Tensor:
        return p

    def verify(self, proposal: Proposal, target_probs: Tensor, chance: Chance, rows: Sequence[int]) -> Verdict:
        kept = []
        for place, (row, draft) in enumerate(zip(rows, proposal.tokens)):
            p, tokens = target_probs[place], []
            q = (
                proposal.probs[place]
                if proposal.probs is not None
                else torch.nn.functional.one_hot(torch.tensor(draft or [0]), p.shape[-1])
            )
            weights = self.bonus(p[len(draft)], q[len(draft) - 1])
            for at, token in enumerate(draft):
                if not chance.bernoulli(self.chance_of(float(p[at, token]), float(q[at, token])), row):
                    weights = self.leftover(p[at], q[at], token)
                    break
                tokens.append(token)
            kept.append([*tokens, *chance.categorical(weights[None], [row])])
        return Verdict(
            list(rows), kept, [len(tokens) - 1 for tokens in kept], [len(draft) for draft in proposal.tokens]
        )


class SkippedResidual(Rejection):
    def leftover(self, p: Tensor, q: Tensor, token: int) -> Tensor:
        return p


class ResidualTheOtherWay(Rejection):
    def leftover(self, p: Tensor, q: Tensor, token: int) -> Tensor:
        rest = (q - p).clamp(min=0)
        return rest if rest.sum() > 0 else p


class FilteredResidual(Rejection):
    def leftover(self, p: Tensor, q: Tensor, token: int) -> Tensor:
        return probabilities(residual(p, q, token).clamp_min(1e-30).log(), SamplingConfig(temperature=1.0, top_p=0.5))


class BonusFromTheDraft(Rejection):
    def bonus(self, p: Tensor, q: Tensor) -> Tensor:
        return q.to(p.dtype)


class AcceptsAlways(Rejection):
    def chance_of(self, p: float, q: float) -> float:
        return 1.0


class AcceptsATwentiethMore(Rejection):
    def chance_of(self, p: float, q: float) -> float:
        return min(1.0, p / q) + 0.05


class ForgetsQ(Rejection):
    """As if every draft were a point mass."""

    def chance_of(self, p: float, q: float) -> float:
        return p


WRONG = [
    SkippedResidual,
    ResidualTheOtherWay,
    FilteredResidual,
    BonusFromTheDraft,
    AcceptsAlways,
    AcceptsATwentiethMore,
    ForgetsQ,
]


def small(model: spear_spec.TextToSemantic) -> Any:
    return make_drafter("small", tiny_draft(model))


def test_the_right_one_passes(model: spear_spec.TextToSemantic) -> None:
    assert on_model(model, small(model), Rejection(), samples=3000)["pass"]
    assert on_model(model, Repeat(), Rejection())["pass"]


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_verifier_is_caught(model: spear_spec.TextToSemantic, wrong: type[Rejection]) -> None:
    result = on_model(model, small(model), wrong(), samples=3000)
    assert named(result) - {"greedy identity"}, result
    assert not result["pass"]
    words = conclusion(result)
    assert "home-made CLAIMS to be lossless and IS NOT. Do not use it" in words
    assert re.search(r"off by at least 0\.\d+", words)


@pytest.mark.parametrize("wrong", [SkippedResidual, AcceptsAlways])
def test_a_wrong_verifier_is_caught_on_a_drafter_without_laws(
    model: spear_spec.TextToSemantic, wrong: type[Rejection]
) -> None:
    assert named(on_model(model, Repeat(), wrong())) - {"greedy identity"}


def test_a_wrong_verifier_is_caught_on_a_voice(tts: spear_spec.TTS) -> None:
    result = verify_drafter(
        tts, "small", AcceptsAlways(), texts=["One.", "Two or three."], samples=800, batch=2, max_tokens=40
    )
    assert not result["pass"]
    assert "CLAIMS to be lossless" in conclusion(result)


class SaysAnotherLaw(Noisy):
    """Claims the law of its logits, but has drawn at another temperature."""

    name = "hot"

    def drawn_from(self, law: Tensor) -> Tensor:
        return law.sqrt()


@pytest.mark.parametrize("rule", ["rejection", "block"])
def test_a_drafter_that_carries_another_law_is_caught(model: spear_spec.TextToSemantic, rule: str) -> None:
    result = on_model(model, SaysAnotherLaw(), rule, samples=6000)
    assert named(result) - {"greedy identity"}, result
    assert "CLAIMS to be lossless" in conclusion(result)
    assert "not drawn from the law that it carries" in conclusion(result)


# --- bad input -------------------------------------------------------------------------------------------------------


def proposing(proposal: Any, form: str = "chain") -> Repeat:
    class Odd(Repeat):
        def propose(self, session: Session, state: None, limits: list[int]) -> Proposal:
            return proposal(len(limits)) if max(limits) else Proposal([[] for _ in limits])

    drafter = Odd()
    drafter.form = form
    return drafter


LAWS = torch.full((8, 1, 13), 1 / 13)
ODD_DRAFTERS: dict[str, Any] = {
    "form must be one of": proposing(None, "zigzag"),
    "is a class; give an object": Repeat,
    "lacks name, form, start": object(),
    "must return a Proposal": proposing(lambda rows: [[1]] * rows),
    "proposed for 1 rows": proposing(lambda rows: Proposal([[1]])),
    "no token from 0 to 12": proposing(lambda rows: Proposal([[13]] * rows)),
    "deep where at most": proposing(lambda rows: Proposal([[1] * 9] * rows)),
    "but it proposed a tree": proposing(lambda rows: Proposal([[1]] * rows, None, [[-1]] * rows)),
    "one parent for each token": proposing(lambda rows: Proposal([[1]] * rows, None, [[]] * rows), "points"),
    "stand before their children": proposing(lambda rows: Proposal([[1, 2]] * rows, None, [[1, -1]] * rows), "points"),
    "chosen without chance": proposing(lambda rows: Proposal([[1]] * rows, LAWS[:rows], [[-1]] * rows), "points"),
    "probs must be [": proposing(lambda rows: Proposal([[1]] * rows, LAWS[:rows, :, :5])),
    "nothing negative and summing to 1": proposing(lambda rows: Proposal([[1]] * rows, 2 * LAWS[:rows])),
}


@pytest.mark.parametrize("message", ODD_DRAFTERS)
def test_a_drafter_that_breaks_the_protocol(model: spear_spec.TextToSemantic, message: str) -> None:
    drafter = ODD_DRAFTERS[message]
    rule = "recursive" if getattr(drafter, "form", "") == "points" else "rejection"
    with pytest.raises(ContractError, match=re.escape(message)) as error:
        on_model(model, drafter, rule)
    assert "\n" not in str(error.value)


def judging(**changes: Any) -> Rejection:
    class Odd(Rejection):
        def verify(self, *args: Any) -> Any:
            verdict = super().verify(*args)
            for name, change in changes.items():
                setattr(verdict, name, change(getattr(verdict, name)))
            return verdict

    return Odd()


ODD_VERIFIERS: dict[str, Any] = {
    "lacks verify()": type("Half", (), {"name": "half", "lossless": True, "forms": frozenset({"chain"})})(),
    "on the rows": judging(rows=lambda rows: rows[::-1]),
    "no token from 0 to 12": judging(tokens=lambda rows: [[*row[:-1], 99] for row in rows]),
    "and one more": judging(tokens=lambda rows: [[*row, 1] for row in rows]),
    "are not the draft's": judging(tokens=lambda rows: [[*[(t + 1) % 13 for t in row[:-1]], row[-1]] for row in rows]),
}


@pytest.mark.parametrize("message", ODD_VERIFIERS)
def test_a_verifier_that_breaks_the_protocol(model: spear_spec.TextToSemantic, message: str) -> None:
    with pytest.raises(ContractError, match=re.escape(message)):
        on_model(model, small(model), ODD_VERIFIERS[message])


def test_settings_that_cannot_be_used(model: spear_spec.TextToSemantic, tts: spear_spec.TTS) -> None:
    with pytest.raises(ConfigError, match="give texts as lists"):
        verify_drafter(model, Repeat())
    with pytest.raises(TextError, match="text token ids below 7"):
        on_model_texts(model, ["words"])
    with pytest.raises(TextError, match="text token ids below 7"):
        on_model_texts(model, [[1, 7]])
    with pytest.raises(TextError, match="nothing to say"):
        on_model_texts(model, [])
    with pytest.raises(TextError, match="are strings"):
        verify_drafter(tts, Repeat(), texts=[[1, 2]])
    with pytest.raises(ConfigError, match="there is no drafter 'nobody'"):
        verify_drafter(tts, "nobody")
    with pytest.raises(ConfigError, match="no draft decoder"):
        on_model(model, "small")
    with pytest.raises(ConfigError, match="not made for a chain"):
        on_model(model, Repeat(), type("Trees", (Rejection,), {"forms": frozenset({"iid"})})())
    with pytest.raises(ConfigError, match="samples"):
        on_model(model, Repeat(), samples=10)


def on_model_texts(model: spear_spec.TextToSemantic, texts: Any) -> None:
    verify_drafter(model, Repeat(), texts=texts)


# --- README ----------------------------------------------------------------------------------------------------------


def test_the_lines_of_the_readme_run(
    voice: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As they stand, but with the tiny voice in place of the shipped one."""
    section = (ROOT / "README.md").read_text(encoding="utf-8").split("## Is it lossless?")[1].split("\n## ")[0]
    blocks = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    assert blocks
    right = spear_spec.TTS.load
    monkeypatch.setattr(spear_spec.TTS, "load", lambda name=None, **kwargs: right(voice, **{"device": "cpu", **kwargs}))
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        for block in blocks:
            exec(compile(block, "README.md", "exec"), {})
    assert "True" in printed.getvalue()
    commands = re.findall(r"^ {4}(spear-spec verify.*?)(?: #.*)?$", section, re.MULTILINE)
    assert len(commands) >= 3
    for command in commands:
        exact = not re.search("tolerance|typical|lenience|coarse", command)
        shown = shlex.split(command)[1:]
        assert main([*shown, "--voice", voice, "--device", "cpu", "--samples", "300", "--max-tokens", "40"]) == int(
            not exact
        ), command
    capsys.readouterr()
