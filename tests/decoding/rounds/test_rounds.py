"""Whole rounds on tensors: token for token what the eager engine says, whoever comes and goes."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
import torch

from spear_spec.config import DraftConfig, SamplingConfig, SpecConfig
from spear_spec.decoding import Parts, Request, Uniforms, make_drafter, make_verifier
from spear_spec.decoding.chance import SENTENCE, derive
from spear_spec.decoding.rounds import board, rows
from spear_spec.decoding.rounds.board import Board
from spear_spec.engine import Decoder, Engine, Utterance
from spear_spec.errors import ConfigError, ContractError, NumericsError
from spear_spec.exactness.oracles import tiny_block, tiny_draft, tiny_model
from spear_spec.models.drafts.decoder import DraftDecoder
from spear_spec.models.spear_tts import TextToSemantic
from spear_spec.models.whisperspeech import WhisperSpeechConfig, WhisperSpeechT2S

TEXTS = [[3, 1, 4], [2], [5, 5, 6, 2, 1], [6], [1, 2, 3], [4, 4], [2, 6, 1, 5], [3]]
MIXED = [
    SamplingConfig(temperature=1.0, top_p=1.0),
    SamplingConfig(temperature=1.2, top_p=0.9),
    SamplingConfig(temperature=0.5, top_k=4, top_p=1.0),
    SamplingConfig(temperature=0.0),
    SamplingConfig(temperature=0.8, top_k=6, top_p=0.7),
]
GUIDED = SamplingConfig(temperature=1.2, top_p=0.9, guidance=2.0)
RULES: dict[str, dict[str, Any]] = {
    "rejection": {}, "block": {}, "matching": {}, "coupled": {}, "tolerance": {"b": 0.2}, "lenience": {"l": 0.6},
    "typical": {"eps": 0.2, "delta": 0.6}, "coarse": {"theta": 0.3},
}  # fmt: skip


def requests(count: int, seed: int = 0, samplings: list[SamplingConfig] = MIXED, longest: int = 24) -> list[Request]:
    """Of all kinds: texts of several lengths, samplings, prefixes, caps."""
    rng = random.Random(seed)
    return [
        Request(
            TEXTS[n % len(TEXTS)],
            prefix=tuple(rng.randrange(20) for _ in range(rng.choice((0, 0, 1, 4)))),
            seed=derive(seed, n, SENTENCE),
            sampling=rng.choice(samplings),
            cap=rng.randint(6, longest),
        )
        for n in range(count)
    ]


def restless(engine: Engine, wanted: list[Request], seed: int) -> list[Utterance]:
    """Requests that join at random steps; some are cancelled on the way."""
    rng, waiting, all_ = random.Random(seed), list(wanted), list[Utterance]()
    doomed: list[Utterance] = []
    while waiting or engine.running:
        count = min(len(waiting), rng.randint(0 if engine.running else 1, 3))
        joined, waiting = engine.admit(waiting[:count]), waiting[count:]
        all_ += joined
        doomed += [utterance for utterance in joined if rng.random() < 0.3]
        if engine.running:
            engine.step()
        for utterance in list(doomed):
            if rng.random() < 0.6:
                engine.release([utterance])
                doomed.remove(utterance)
    return all_


def drafter(model: TextToSemantic, name: str = "eagle") -> Any:
    if name == "eagle":
        return make_drafter("eagle", tiny_draft(model))
    if name == "block":
        return make_drafter("block", tiny_block(model))
    torch.manual_seed(5)
    shape: dict[str, Any] = {"target_layers": (2,), "window": True} if name == "prophet" else {}
    draft = DraftDecoder(DraftConfig(dim=16, depth=1 + (name == "small2"), heads=2, dim_head=8, **shape), model.cfg)
    return make_drafter(name, draft.to(model.dtype).eval())


def engine(
    model: TextToSemantic,
    rule: str | None,
    runtime: str,
    name: str = "eagle",
    ahead: int = 1,
    gamma: int = 4,
    frame_rate: float = 25.0,
) -> Engine:
    made: tuple[Any, ...] = (None, None, gamma)
    if rule is not None:
        near = model.semantic_emb.weight[:-1]
        made = (drafter(model, name), make_verifier(rule, RULES[rule], embedding=near), gamma)
    board = Board(model, *made) if runtime == "graphs" else None
    found = Engine(model, *made, board, frame_rate=frame_rate)
    if runtime == "graphs":
        found.session.ahead = ahead  # type: ignore[attr-defined]
    return found


@pytest.fixture(scope="module")
def model() -> TextToSemantic:
    return tiny_model(semantic=20, seed=4)  # in float64 rounding moves no draw


def told(utterances: list[Utterance]) -> list[Any]:
    return [(u.tokens, u.ended, vars(u.stats)) for u in utterances]


def alike(one: Engine, other: Engine, wanted: list[Request]) -> list[Utterance]:
    """Both say the same, stats included."""
    eager, rounds = one.run(wanted), other.run(wanted)
    assert told(eager) == told(rounds)
    return rounds


@pytest.mark.parametrize(("rule", "ahead"), [(None, 1), ("block", 3), *((rule, 1) for rule in RULES)])
def test_a_batch_says_what_the_eager_engine_says(model: TextToSemantic, rule: str | None, ahead: int) -> None:
    wanted = requests(9, 2)
    said = alike(engine(model, rule, "eager"), engine(model, rule, "graphs", ahead=ahead), wanted)
    assert rule is None or any(u.stats.accepted for u in said)
    assert {u.ended for u in said} == {"eos", "cap"}


@pytest.mark.parametrize("name", ["small", "small2", "prophet"])
def test_other_chains_of_a_decoder(model: TextToSemantic, name: str) -> None:
    wanted = requests(7, 3)
    alike(engine(model, "block", "eager", name), engine(model, "block", "graphs", name, ahead=2), wanted)


@pytest.mark.parametrize(("rule", "gamma", "ahead"), [("block", 4, 2), ("rejection", 9, 1), ("coupled", 1, 1)])
def test_a_block_in_one_pass(model: TextToSemantic, rule: str, gamma: int, ahead: int) -> None:
    """Drafts up to its own length, sees its window alone; guided rows draft from their plain law."""
    wanted = requests(9, 3, [*MIXED, GUIDED], longest=34)
    rounds = engine(model, rule, "graphs", "block", ahead, gamma)
    said = alike(engine(model, rule, "eager", "block", gamma=gamma), rounds, wanted)
    assert max(len(u.stats.reached) for u in said) <= min(gamma, 6)
    assert sum(u.stats.accepted for u in said) > 5
    assert rounds.session.board.gamma == min(gamma, 6)  # type: ignore[attr-defined]


def test_blocks_of_rows_that_come_and_go(model: TextToSemantic) -> None:
    wanted = requests(12, 7)
    together = restless(engine(model, "block", "graphs", "block", 2), wanted, 7)
    for request, utterance in zip(wanted, together, strict=True):
        (alone,) = engine(model, "block", "eager", "block").run([request])
        if utterance.ended == "cancelled":
            assert utterance.tokens == alone.tokens[: len(utterance.tokens)]
        else:
            assert told([utterance]) == told([alone])


def test_draft_lengths_by_the_number_of_rows(model: TextToSemantic) -> None:
    wanted = requests(6, 2, longest=40)
    made = (drafter(model), make_verifier("block"), lambda rows: {1: 7, 2: 1, 3: 4}.get(rows, 3))
    rounds = Engine(model, *made, Board(model, *made))
    alike(Engine(model, *made), rounds, wanted)
    assert len({key[2] for key in rounds.runtime.made}) > 2  # type: ignore[union-attr]


@pytest.mark.parametrize("gamma", [1, 2, 9])
def test_every_gamma(model: TextToSemantic, gamma: int) -> None:
    wanted = requests(6, gamma, longest=30)
    alike(engine(model, "block", "eager", gamma=gamma), engine(model, "block", "graphs", gamma=gamma), wanted)


@pytest.mark.parametrize(
    ("rule", "ahead", "seed"), [(None, 3, 0), ("rejection", 2, 1), ("block", 1, 0), ("block", 4, 1)]
)
def test_an_utterance_does_not_notice_who_comes_and_goes(
    model: TextToSemantic, rule: str | None, ahead: int, seed: int
) -> None:
    """Guided ones among them. Slots are used again, buffers grow on the way, rounds are read late."""
    wanted = requests(14, seed, [*MIXED, GUIDED])
    together, cancelled = restless(engine(model, rule, "graphs", ahead=ahead), wanted, seed), 0
    for request, utterance in zip(wanted, together, strict=True):
        (alone,) = engine(model, rule, "eager").run([request])
        if utterance.ended == "cancelled":
            cancelled += 1
            assert utterance.tokens == alone.tokens[: len(utterance.tokens)]
        else:
            assert told([utterance]) == told([alone])
        assert utterance.tokens[: len(request.prefix)] == list(request.prefix)
    assert cancelled >= 1


@pytest.mark.parametrize("samplings", [MIXED, [GUIDED, *MIXED]], ids=["plain", "guided"])
def test_rows_join_without_the_host(model: TextToSemantic, samplings: list[SamplingConfig]) -> None:
    """Where there is room and no prefix; three at a time fill up four, one of them twice."""
    wanted = [replace(request, prefix=()) for request in requests(10, 6, samplings)]
    busy = engine(model, "block", "graphs", ahead=2)
    said = busy.admit(wanted[:7])
    rounds: Any = busy.session
    while len(rounds.rows) > 5:
        busy.step()
    assert not rounds.board.begins
    said += busy.admit(wanted[7:])
    assert [key[1] for key in rounds.board.begins] == [4]
    while busy.running:
        busy.step()
    assert told(said) == told([engine(model, "block", "eager").run([request])[0] for request in wanted])


def test_guidance(model: TextToSemantic) -> None:
    """Guided rows beside others, and a first one that comes when the others are under way: lanes move apart."""
    wanted = requests(6, 8, [GUIDED, MIXED[0], MIXED[3]])
    alike(engine(model, "block", "eager"), engine(model, "block", "graphs", ahead=2), wanted)
    plain, late = requests(3, 9), requests(2, 10, [GUIDED])
    busy = engine(model, "block", "graphs", ahead=2)
    said = busy.admit(plain)
    busy.step()
    assert not busy.session.runtime.pairs  # type: ignore[attr-defined]
    said += busy.admit(late)
    assert busy.session.runtime.pairs  # type: ignore[attr-defined]
    while busy.running:
        busy.step()
    assert told(said) == told([engine(model, "block", "eager").run([request])[0] for request in [*plain, *late]])


@pytest.mark.parametrize("ahead", [1, 3])
def test_the_guard_cuts_where_it_would(model: TextToSemantic, ahead: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The host alone knows it, some rounds late; what the device has kept behind is dropped."""
    wanted = requests(12, 4, [SamplingConfig(temperature=0.6, top_k=3, top_p=1.0), MIXED[3]], longest=60)
    runs = []
    for runtime in ("eager", "graphs"):
        made = engine(model, "block", runtime, ahead=ahead, frame_rate=1.3)
        runs.append(told(restless(made, wanted, 4)))
    assert not made.session.board.rows.active.any()  # type: ignore[attr-defined]
    endings = [line[1] for line in runs[0]]
    assert endings.count("guard") > 2 and set(endings) > {"guard"}
    for eager, rounds in zip(*runs, strict=True):
        if "cancelled" not in (eager[1], rounds[1]):  # these leave when they are told to, which is later here
            assert eager == rounds


def test_seeds_of_all_64_bits(model: TextToSemantic) -> None:
    wanted = [Request(TEXTS[n], seed=seed, cap=12) for n, seed in enumerate((0, 2**63 - 1, 2**63, 2**64 - 1))]
    alike(engine(model, "block", "eager"), engine(model, "block", "graphs"), wanted)


@pytest.mark.parametrize("rule", [None, "rejection"])
def test_uniforms_run_out_and_are_made_anew(
    model: TextToSemantic, rule: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "POOL", 34)
    wanted = [Request(TEXTS[n], seed=n, sampling=MIXED[n % 2], cap=150) for n in range(6)]
    made = engine(model, rule, "graphs", ahead=2)
    refilled = 0
    right = rows.Rows.refill

    def refill(self: rows.Rows) -> None:
        nonlocal refilled
        refilled += 1
        right(self)

    monkeypatch.setattr(rows.Rows, "refill", refill)
    alike(engine(model, rule, "eager"), made, wanted)
    assert refilled > 2


def test_long_utterances_see_all_of_their_past(model: TextToSemantic, monkeypatch: pytest.MonkeyPatch) -> None:
    """Views of the cache grow with what rows have read: every one of them is used."""
    monkeypatch.setattr(board, "LEAST", 8)
    sampling = SamplingConfig(temperature=1.5, top_p=1.0)
    wanted = [Request(TEXTS[n], seed=n, sampling=sampling, cap=80) for n in range(8)]
    made = engine(model, "block", "graphs")
    said = alike(engine(model, "block", "eager"), made, wanted)
    assert max(len(u.tokens) for u in said) > 40
    assert len({key[1] for key in made.session.board.made}) > 2  # type: ignore[attr-defined]


def test_float32_draws_from_the_same_laws(model: TextToSemantic) -> None:
    """Rounding may move a draw, hardly ever: most utterances are the same, token for token."""
    small = tiny_model(semantic=20, seed=4, dtype=torch.float32)
    wanted = requests(16, 5)
    eager, rounds = (engine(small, None, runtime).run(wanted) for runtime in ("eager", "graphs"))
    assert sum(one.tokens == other.tokens for one, other in zip(eager, rounds)) >= 14


def test_rows_are_used_again_and_nothing_grows(model: TextToSemantic) -> None:
    busy = engine(model, "block", "graphs", ahead=2)
    said: list[Utterance] = []
    for n in range(40):
        said += busy.admit([Request(TEXTS[n % 8], seed=n, cap=5)])
        while len(busy.session.rows) > 3:
            busy.step()
    while busy.running:
        busy.step()
    runtime: Any = busy.session.runtime
    assert (runtime.rows, runtime.positions, runtime.slots, len(busy.session.tokens)) == (4, 64, [], 4)
    assert told(said) == told([engine(model, "block", "eager").run([u.request])[0] for u in said])


def test_a_target_that_is_told_its_positions_and_rate() -> None:
    """WhisperSpeech's: no null slot, a vector that is added to every token, no more positions than there are."""
    torch.manual_seed(0)
    sizes = {"dim": 8, "heads": 2, "source_depth": 1, "target_depth": 2, "ff_inner": 12, "vocab_size": 30, "eos_id": 29}
    target = WhisperSpeechT2S(
        WhisperSpeechConfig(**sizes, max_tokens=24, text_length=10, languages=3, rate_bins=4)
    ).double()
    for parameter in target.eval().requires_grad_(False).parameters():
        torch.nn.init.normal_(parameter, 0, 0.6)
    draft = DraftDecoder(DraftConfig(dim=8, heads=2, dim_head=4, target_layers=(1, 2)), target).double().eval()
    texts = [[256, 259, 72, 105], [257, 260, 3, 4, 5, 6, 200], [258, 261, 9]]
    wanted = [Request(ids, seed=n, sampling=MIXED[n], cap=300) for n, ids in enumerate(texts)]
    for parts in ((None, None), (make_drafter("eagle", draft), make_verifier("block"))):
        said = alike(Engine(target, *parts, 4), Engine(target, *parts, 4, Board(target, *parts, 4)), wanted)
        assert max(len(u.tokens) for u in said) == 24


# --- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("change", "why"), [
    ({"drafter": "ngram"}, "ngram is not"), ({"stop": "adaedl"}, "stop=adaedl"), ({"guided": True}, "guided"),
    ({"drafter": "block", "stop": "survival"}, "stop=survival"), ({"verifier": "kseq"}, "kseq has no form"),
    ({"chance": Uniforms()}, "chance"),
    ({"target": object()}, "is none: use runtime eager"),
])  # fmt: skip
def test_what_cannot_be_run_is_refused(model: TextToSemantic, change: dict[str, Any], why: str) -> None:
    options = dict(change)
    name, rule, chance = options.pop("drafter", "eagle"), options.pop("verifier", "block"), options.pop("chance", None)
    target: Any = options.pop("target", model)
    draft = {"eagle": tiny_draft, "block": tiny_block}[name](model) if name != "ngram" else None
    made = (make_drafter(name, draft, options=options), make_verifier(rule), 4)
    with pytest.raises(ConfigError, match=why):
        Engine(target, *made, Board(target, *made), chance)


def test_a_decoder_has_its_engines_use_a_board_again(model: TextToSemantic) -> None:
    """One after the other, whatever the one before left; two at a time have one each."""
    decoder = Decoder(model, Parts(SpecConfig("eagle", "block", 4), tiny_draft(model)), runtime="graphs")
    (wanted,) = decoder.engine().run(requests(1, 20))
    first = decoder.engine()
    board_ = first.runtime
    first.admit(requests(3, 21))
    first.step()
    second = decoder.engine()
    assert second.runtime is not board_
    del first
    third = decoder.engine()
    assert third.runtime is board_
    (again,) = third.run(requests(1, 20))
    assert told([again]) == told([wanted])
    assert decoder.alone().engine().runtime.drafts is None  # type: ignore[union-attr]


def test_the_runtime_that_a_decoder_chooses(model: TextToSemantic) -> None:
    parts = Parts(SpecConfig("eagle", "block", 4), tiny_draft(model))
    assert Decoder(model, parts).engine().runtime is None
    assert Decoder(model, parts, runtime="auto").engine().runtime is None  # on a CPU
    with pytest.raises(ConfigError, match="eager, graphs, auto"):
        Decoder(model, parts, runtime="fast").engine()
    with pytest.raises(ConfigError, match="ngram is not"):
        Decoder(model, Parts(SpecConfig("ngram", "block", 4)), runtime="graphs").engine()


def test_numbers_that_are_none_end_the_session(model: TextToSemantic) -> None:
    """Told late, but told; the row that has them stops at once, and its memory is clean for the next."""
    sick = tiny_model(semantic=20, seed=4)
    with torch.no_grad():
        sick.semantic_emb.weight[7] = torch.nan
    busy = engine(sick, None, "graphs", ahead=2)
    busy.admit([Request(TEXTS[0], seed=1, cap=20)])
    with pytest.raises(NumericsError):
        busy.run([Request(TEXTS[1], seed=2, cap=20)])
    with pytest.raises(ContractError, match="broken off"):
        busy.step()


def test_a_slot_that_held_nan_is_clean_for_the_next(model: TextToSemantic) -> None:
    busy = engine(model, "block", "graphs")
    first, second = busy.admit(requests(2, 11))
    busy.step()
    busy.release([first])
    runtime, drafts = busy.session.board.runtime, busy.session.board.drafts  # type: ignore[attr-defined]
    with torch.inference_mode():
        for store in (runtime._k, runtime._v, drafts._k, drafts._v):
            store[:, 0] = torch.nan
    (third,) = busy.admit(requests(1, 12))
    while busy.running:
        busy.step()
    assert told([third]) == told(engine(model, "block", "eager").run(requests(1, 12)))
