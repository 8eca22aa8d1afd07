"""Laws and whole chains in C: against the token-by-token oracle in float64, and against the chain drawn token by
token.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch

from spear_spec.config import DraftConfig, SamplingConfig, T2SConfig
from spear_spec.decoding import Chance, Session, Uniforms, make_drafter, make_verifier, probabilities, speculate
from spear_spec.decoding.drafters.adaptive import STOPS, AdaEDL
from spear_spec.decoding.drafters.chain import ChainDrafter
from spear_spec.decoding.drafters.decoder import DecoderChain
from spear_spec.decoding.proposal import Proposal
from spear_spec.errors import ContractError, NumericsError
from spear_spec.exactness.oracles import SAMPLINGS, TEXTS, oracle_law, texts, tiny_model
from spear_spec.kernels import native
from spear_spec.kernels.round import NativeRound
from spear_spec.models.drafts.decoder import DraftDecoder
from spear_spec.models.drafts.runner import _RUNNERS, DraftRunner
from spear_spec.models.spear_tts import TextToSemantic

LAWS = [
    SamplingConfig(temperature=t, top_k=k, top_p=p)
    for t in (0.02, 0.7, 1.0, 10.0)
    for k in (0, 1, 7, 900, 5000)
    for p in (0.1, 0.9, 1.0)
]


@pytest.fixture(autouse=True)
def _switched_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(native.SWITCH, raising=False)
    assert native.available(), native.reason()


@pytest.mark.parametrize("size", [1, 2, 9, 1025])
def test_laws_equal_the_oracle(size: int) -> None:
    """Peaked, flat and wide logits. Drawn so that no running sum comes near top-p, where rounding would decide."""
    generator = torch.Generator().manual_seed(size)
    for law in LAWS:
        logits = torch.randn(3, size, generator=generator) * torch.tensor([[0.1], [3.0], [20.0]])
        found = native.law_of(logits, law)
        for row in range(3):
            expected = torch.tensor(oracle_law(logits[row].tolist(), law), dtype=torch.float64)
            assert ((found[row] > 1e-30) == (expected > 1e-30)).all(), law
            torch.testing.assert_close(found[row].double(), expected, atol=1e-7, rtol=2e-5)


def test_ties_with_the_last_one_kept_stay() -> None:
    logits = torch.tensor([[0.0, 2.0, 0.0, 2.0, 0.0, 2.0, 0.0], [1.0] * 7])
    for law, kept in (
        (SamplingConfig(top_k=2, top_p=1.0), [3, 7]),
        (SamplingConfig(top_p=0.3), [3, 7]),
        (SamplingConfig(top_k=4, top_p=1.0), [7, 7]),
        (SamplingConfig(top_k=3, top_p=0.5), [3, 7]),
    ):
        assert (native.law_of(logits, law) > 0).sum(-1).tolist() == kept


def test_greedy_takes_the_first_best() -> None:
    found = native.law_of(
        torch.tensor([[0.0, 3.0, 3.0], [-5.0, -9.0, -5.0]]), SamplingConfig(temperature=0.0, top_k=1, top_p=0.2)
    )
    assert found.tolist() == [[0, 1, 0], [1, 0, 0]]


def test_shapes_and_strides() -> None:
    logits = torch.randn(4, 3, 50)[:, 1:].transpose(0, 1)
    assert not logits.is_contiguous()
    found = native.law_of(logits, SamplingConfig(top_p=0.8))
    assert found.shape == (2, 4, 50)
    assert torch.equal(found[1, 2], native.law_of(logits[1, 2].clone(), SamplingConfig(top_p=0.8)))


@pytest.mark.parametrize(
    "sampling", [SamplingConfig(top_p=0.9), SamplingConfig(top_k=3), SamplingConfig(temperature=0.0), SamplingConfig()]
)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_bad_logits_are_refused(bad: float, sampling: SamplingConfig) -> None:
    logits = torch.zeros(2, 40)
    logits[1, 39] = bad
    with pytest.raises(NumericsError):
        native.law_of(logits, sampling)


@pytest.mark.parametrize("shape", [(3,), (3, 2), (3, 2, 4)])
def test_each_row_has_its_own_sampling(shape: tuple[int, ...]) -> None:
    """As that row alone, bit for bit."""
    rows = [
        SamplingConfig(temperature=0.0),
        SamplingConfig(temperature=1.7, top_k=5, top_p=0.6),
        SamplingConfig(temperature=0.4, top_p=1.0),
    ]
    logits = torch.randn(*shape, 50)
    found = native.law_of(logits, rows)
    for row, sampling in enumerate(rows):
        assert torch.equal(found[row], native.law_of(logits[row], sampling))
    assert torch.equal(native.law_of(logits, [rows[1]] * 3), native.law_of(logits, rows[1]))
    for count in (0, 2, 4):
        with pytest.raises(ContractError, match="3 rows need as many sampling settings"):
            native.law_of(logits, (rows * 2)[:count])


def test_a_top_k_beyond_every_integer_of_c_is_off() -> None:
    logits = torch.randn(1, 50)
    expected = native.law_of(logits, SamplingConfig(top_k=0, top_p=1.0))
    assert torch.equal(native.law_of(logits, SamplingConfig(top_k=2**20, top_p=1.0)), expected)


@pytest.mark.parametrize("layers", [(), (1, 2)], ids=["independent", "fed"])
def test_a_chain_of_rows_with_their_own_sampling(layers: tuple[int, ...]) -> None:
    """Tokens and laws of each row are those of the row drafted alone with its setting, bit for bit."""
    model = tiny_model(semantic=30, dtype=torch.float32)
    draft = DraftDecoder(DraftConfig(dim=16, depth=2, heads=2, dim_head=8, target_layers=layers), model.cfg).eval()
    runner = DraftRunner(draft, model)
    settings = [
        SamplingConfig(temperature=0.0),
        SamplingConfig(temperature=2.0, top_k=3, top_p=1.0),
        SamplingConfig(temperature=1.0, top_p=0.5),
        SamplingConfig(temperature=1.5, top_p=1.0),
    ]
    limits, uniforms = [5, 3, 6, 1], [native.uniforms(row, 0, 6) for row in range(4)]
    ids, hidden = torch.tensor([TEXTS[0]] * 4), torch.randn(4, 1, 16)
    found, laws = runner.chain(hidden, limits, uniforms, settings, model.eos_id, draft.start(model.encode(ids), 9))
    assert laws is not None
    short = 0
    for row, setting in enumerate(settings):
        alone, law = runner.chain(
            hidden[row : row + 1],
            limits[row : row + 1],
            [uniforms[row][: limits[row]]],
            setting,
            model.eos_id,
            draft.start(model.encode(ids[:1]), 9),
        )
        assert found[row] == alone[0] and law is not None
        assert torch.equal(laws[row, : len(found[row])], law[0])
        short += len(found[row]) < 6
    assert short
    with pytest.raises(ContractError, match="sampling settings"):
        runner.chain(hidden, limits, uniforms, settings[:3], model.eos_id, draft.start(model.encode(ids), 9))


@torch.inference_mode()
def test_rows_that_do_not_fit_into_the_cache_step_in_turn() -> None:
    """As each alone, bit for bit, also keys and values; what there is no law of is 0."""
    torch.manual_seed(4)
    model = TextToSemantic(T2SConfig(12, 40, 64, 1, 2, 4, 64)).eval()
    draft = DraftDecoder(DraftConfig(dim=64, depth=2, heads=4, dim_head=64, target_layers=(1,)), model.cfg).eval()
    runner, lengths, limits = DraftRunner(draft, model), [150, 20, 90, 3, 120], [2, 4, 3, 6, 1]
    text = torch.tensor([[3, 1, 4, 12, 0], [2, 5, 12, 0, 0], [1, 12, 0, 0, 0], [4, 4, 4, 4, 12], [7, 12, 0, 0, 0]])
    tokens, features = torch.randint(0, 40, (5, 150)), torch.randn(5, 150, 64)
    uniforms = [native.uniforms(row, 0, 6) for row in range(5)]
    sampling = SamplingConfig(temperature=1.2)

    def drafted(rows: list[int]) -> tuple[Any, ...]:
        state = draft.start(model.encode(text[rows]), 160)
        for begin in range(0, 150, 25):  # few enough for the kernel
            counts = [min(max(lengths[row] - begin, 0), 25) for row in rows]
            here = slice(begin, begin + 25)
            runner.step(tokens[rows, here], features[rows, here], state, counts=counts)
            state.cache.crop([min(lengths[row], begin + 25) for row in rows])
        hidden, longest = features[rows, :1].clone(), max(limits[row] for row in rows)
        chances = [uniforms[row][:longest] for row in rows]
        return *runner.chain(hidden, [limits[row] for row in rows], chances, sampling, 99, state), state

    found, laws, state = drafted([0, 1, 2, 3, 4])
    for row in range(5):
        (alone,), law, own = drafted([row])
        assert found[row] == alone and len(alone) == limits[row]
        assert torch.equal(laws[row, : len(alone)], law[0])
        reached = slice(0, lengths[row] + limits[row] - 1)
        assert torch.equal(state.cache.k[:, row, :, reached], own.cache.k[:, 0, :, reached])
        assert torch.equal(state.cache.v[:, row, :, reached], own.cache.v[:, 0, :, reached])
    assert laws.shape[1] == 6 and not laws[0, 4:].any() and not laws[4, 1:].any() and laws[1, 3].any()


def test_without_the_kernel_torch_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    logits = torch.randn(5, 1025) * 3
    differ = 0
    for law in LAWS:
        monkeypatch.setenv(native.SWITCH, "1")
        ours = probabilities(logits, law)
        monkeypatch.setenv(native.SWITCH, "0")
        theirs = probabilities(logits, law)
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-4)
        differ += not torch.equal(ours, theirs)
    assert differ  # the switch took


def test_uniforms_ahead_are_those_that_come() -> None:
    """Across blocks, and whatever was looked at before."""
    plain, looked = Uniforms([3, 4]), Uniforms([3, 4])
    law = torch.ones(1, 4)
    for turn in range(700):
        ahead = looked.ahead(1, 1 + turn % 7)
        assert looked.ahead(1, 3)[: len(ahead)] == ahead[:3]
        used = turn % (len(ahead) + 1)
        looked.passed(1, used)
        for u in ahead[:used]:
            assert plain.categorical(law, [1]) == [int(4 * u)]
    assert looked.ahead(0, 2) == Uniforms([3, 9]).ahead(0, 2)


class ByToken(DecoderChain):
    """The chain as it is drawn where something has a say in between."""

    propose = ChainDrafter.propose


def decoded(
    model: TextToSemantic,
    draft: DraftDecoder,
    drafter: type[DecoderChain],
    sampling: SamplingConfig,
    batch: int,
    seed: int,
    stop: str | None = None,
) -> tuple[Any, ...]:
    """What was kept, why rows ended, the next uniforms of each row; and every proposal."""
    with torch.inference_mode():
        memory = model.encode(texts(batch))
    chance = Uniforms(range(seed, seed + batch))
    session = Session(model, memory, sampling, chance=chance, max_tokens=[4, 17, 9, 23][:batch])
    proposals = []

    class Watched(drafter):  # type: ignore[misc, valid-type]
        def propose(self, *args: Any) -> Proposal:
            proposals.append(super().propose(*args))
            return proposals[-1]

    for _ in speculate(session, Watched(draft, stop=stop), make_verifier("block"), 5):
        pass
    return session.tokens, session.ended, [chance.ahead(row, 3) for row in range(batch)], proposals


CASES = [
    *[(sampling, None) for sampling in (*SAMPLINGS.values(), SamplingConfig(temperature=0.0))],
    *[(SamplingConfig(temperature=1.3, top_p=0.8), stop) for stop in STOPS],
]


@pytest.mark.parametrize(("sampling", "stop"), CASES, ids=str)
@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("layers", [(), (1, 2)], ids=["independent", "fed"])
def test_a_chain_in_one_call_is_the_chain_by_token(
    layers: tuple[int, ...], batch: int, sampling: SamplingConfig, stop: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit for bit: tokens, laws, and the chance that is left, of ragged rows that leave, end, and come near their
    caps.
    """
    model = tiny_model(semantic=12, dtype=torch.float32)
    torch.manual_seed(2)
    draft = DraftDecoder(DraftConfig(dim=16, depth=2, heads=2, dim_head=8, target_layers=layers), model.cfg).eval()
    if stop == "adaedl":
        monkeypatch.setitem(
            STOPS, stop, partial(AdaEDL, start=0.35, step=0.5)
        )  # a threshold that laws lie on both sides of
    calls = []
    inner = DraftRunner.chain
    monkeypatch.setattr(DraftRunner, "chain", lambda *args: calls.append(1) or inner(*args))
    drafted, short = 0, False
    for seed in range(0, 120, 10):
        if seed >= 40 and short and drafted > 8 * batch:
            break
        one = decoded(model, draft, DecoderChain, sampling, batch, seed, stop)
        made = len(calls)
        two = decoded(model, draft, ByToken, sampling, batch, seed, stop)
        assert made == len(calls)
        assert one[:3] == two[:3]
        assert len(one[3]) == len(two[3])
        for ours, theirs in zip(one[3], two[3]):
            assert ours.tokens == theirs.tokens
            assert (ours.probs is None) == (theirs.probs is None)
            assert ours.probs is None or torch.equal(ours.probs, theirs.probs)
            drafted += sum(map(len, ours.tokens))
            short |= any(len(row) < 4 and model.eos_id not in row for row in ours.tokens)
    assert calls and drafted > 8 * batch
    assert short  # also for want of room before the cap


def test_where_the_chain_is_drawn_by_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """A guided draft, another source of chance, more rows than the kernel takes, no kernel."""
    model = tiny_model(semantic=12, dtype=torch.float32)
    draft = DraftDecoder(DraftConfig(dim=16, depth=1, heads=2, dim_head=8, target_layers=(2,)), model.cfg).eval()

    def never(*args: Any) -> Any:
        raise AssertionError("in one call")

    monkeypatch.setattr(DraftRunner, "chain", never)
    monkeypatch.setattr(NativeRound, "run", never)

    class Other(Chance):
        """Chance that cannot tell what comes."""

        def __init__(self) -> None:
            self.inner = Uniforms(range(150))
            self.bernoulli, self.categorical = self.inner.bernoulli, self.inner.categorical

    def speak(rows: int = 1, chance: Any = None, guidance: float = 1.0, **options: Any) -> None:
        with torch.inference_mode():
            memory = model.encode(texts(1).repeat(rows, 1))
        session = Session(
            model,
            memory,
            SamplingConfig(guidance=guidance),
            chance=chance or Uniforms(range(rows)),
            max_tokens=9,
        )
        next(speculate(session, make_drafter("eagle", draft, options=options), make_verifier("rejection"), 4))

    speak(guided=True, guidance=2.0)
    speak(chance=Other())
    speak(rows=129)
    with pytest.raises(AssertionError, match="in one call"):
        speak(rows=128)
    monkeypatch.setenv(native.SWITCH, "0")
    _RUNNERS.clear()
    speak()
    _RUNNERS.clear()


def test_a_draft_that_gives_nan_is_refused() -> None:
    model = tiny_model(semantic=12, dtype=torch.float32)
    draft = DraftDecoder(DraftConfig(dim=16, depth=1, heads=2, dim_head=8, target_layers=()), model.cfg).eval()
    with torch.no_grad():
        draft.layers[0].ff.up.bias[3] = torch.nan  # type: ignore[index, union-attr]
    with torch.inference_mode():
        memory = model.encode(texts(1))
    session = Session(model, memory, SamplingConfig(), chance=Uniforms([0]), max_tokens=9)
    with pytest.raises(NumericsError, match="NaN or infinity"):
        next(speculate(session, DecoderChain(draft), make_verifier("block"), 4))
