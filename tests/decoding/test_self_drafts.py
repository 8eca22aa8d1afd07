"""Drafts from the target itself: skipped sublayers, an early exit whose rows verification goes on from, the prophet.

Each drafter's loop has the target's law by enumeration; each draft has the law that an uncached computation in float64
gives it; what verification computes from reused rows is what the plain forward computes. Faults put in on purpose show
that these checks see.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from spear_spec.config import DraftConfig, SamplingConfig, T2SConfig
from spear_spec.decoding.drafters import STOPS
from spear_spec.decoding.drafters.early_exit import EarlyExitDrafter
from spear_spec.decoding.drafters.layer_skip import LayerSkipDrafter
from spear_spec.decoding.drafters.prophet import ProphetDrafter
from spear_spec.decoding.proposal import Proposal, Verdict
from spear_spec.decoding.session import Session
from spear_spec.decoding.verifiers import make_verifier
from spear_spec.errors import ConfigError
from spear_spec.exactness.oracles import SAMPLINGS, TEXTS, loop_error, oracle_law, texts
from spear_spec.models.drafts.decoder import DraftDecoder, DraftState
from spear_spec.models.drafts.layer_skip import LayerSkipConfig
from spear_spec.models.memory import Memory, Skip
from spear_spec.models.spear_tts import TextToSemantic
from spear_spec.nn.cache import KVCache

Patch = pytest.MonkeyPatch
NAMES = ("layer_skip", "early_exit", "prophet")
# every filter and both arms; with three tokens `SAMPLINGS["all"]` leaves one
LAWS = {**SAMPLINGS, "filtered": SamplingConfig(temperature=1.5, top_k=2, top_p=0.95, guidance=1.5)}
CAPS = [3, 1, 3, 2]  # of a ragged batch whose rows leave one by one


def decoder(model: TextToSemantic, **settings: Any) -> DraftDecoder:
    """A draft decoder with random weights and laws that are not flat."""
    torch.manual_seed(1)
    draft = DraftDecoder(DraftConfig(dim=model.cfg.dim, heads=2, dim_head=8, **settings), model.cfg)
    with torch.no_grad():
        for layer in draft.layers:
            layer.self_attn.to_out.weight.mul_(4.0)
            layer.cross_attn.to_out.weight.mul_(4.0)
    return draft.to(model.dtype).eval()


def make(name: str, model: TextToSemantic, **options: Any) -> Any:
    depth = model.cfg.target_depth
    if name == "layer_skip":
        return LayerSkipDrafter(LayerSkipConfig(attention=(1,), feed_forward=(0, depth - 1)).skip(depth), **options)
    if name == "early_exit":
        return EarlyExitDrafter(decoder(model, feed="same", target_layers=(depth // 2,)), **options)
    return ProphetDrafter(decoder(model, window=True, target_layers=(depth,)), **options)


class Moody:
    """A stopping rule of these tests: no draw from a flat law, none behind token 0, and none at all at every fourth
    look.
    """

    def __init__(self, rows: int) -> None:
        self.looks = 0

    def limits(self, limits: list[int]) -> list[int]:
        return limits

    def before(self, laws: torch.Tensor, places: list[int]) -> list[int]:
        self.looks += 1
        return [place for place in places if float(laws[place].max()) > 0.4 and self.looks % 4]

    def after(self, laws: torch.Tensor, places: list[int], drawn: list[int]) -> list[int]:
        return [place for place, token in zip(places, drawn) if token != 0]

    def commit(self, verdict: Verdict) -> None:
        pass

    def join(self, count: int) -> None:
        pass

    def leave(self, stay: list[int]) -> None:
        pass


@pytest.fixture
def moody(monkeypatch: Patch) -> str:
    monkeypatch.setitem(STOPS, "moody", Moody)
    return "moody"


# --- the law of the loop ---------------------------------------------------------------------------------------------


def loop(
    name: str, sampling: str = "plain", rule: str = "rejection", *, batch: int = 1, watch: int = 0, **options: Any
) -> float:
    return loop_error(
        lambda targets: make(name, targets[0].model, **options),
        make_verifier(rule),
        LAWS[sampling],
        batch=batch,
        watch=watch,
        caps=CAPS[:batch] if batch > 1 else None,
    )


@pytest.mark.parametrize("rule", ["rejection", "block"])
@pytest.mark.parametrize("sampling", ["plain", "top_p", "filtered", "guidance"])
@pytest.mark.parametrize("name", NAMES)
def test_loop_law_is_the_targets(name: str, sampling: str, rule: str) -> None:
    assert loop(name, sampling, rule) < 1e-9


@pytest.mark.parametrize(
    ("sampling", "watch", "rule"),
    [
        ("plain", 0, "block"),
        ("plain", 2, "rejection"),
        ("plain", 3, "rejection"),
        ("guidance", 0, "rejection"),
        ("guidance", 2, "block"),
    ],
)
@pytest.mark.parametrize("name", NAMES)
def test_loop_law_in_a_ragged_batch(name: str, sampling: str, watch: int, rule: str) -> None:
    assert loop(name, sampling, rule, batch=4, watch=watch) < 1e-9


@pytest.mark.parametrize("rule", ["rejection", "block"])
@pytest.mark.parametrize("name", NAMES)
def test_loop_law_where_rows_stop_early(name: str, rule: str, moody: str) -> None:
    assert loop(name, "guidance", rule, stop=moody) < 1e-9
    assert loop(name, "plain", rule, batch=4, watch=2, stop=moody) < 1e-9


def test_loop_law_of_a_guided_prophet() -> None:
    assert loop("prophet", "guidance", "block", guided=True) < 1e-9
    assert loop("prophet", "filtered", batch=4, watch=2, guided=True) < 1e-9


# --- the law of each draft, and what verification makes of reused rows -----------------------------------------------


def deep_model(seed: int = 0) -> TextToSemantic:
    """Four decoder layers, two heads on one pair of keys and values; laws as lively as those of `tiny_model`."""
    torch.manual_seed(seed)
    model = (
        TextToSemantic(
            T2SConfig(
                num_text_token_ids=7,
                num_semantic_token_ids=6,
                dim=16,
                source_depth=1,
                target_depth=4,
                heads=2,
                dim_head=8,
                kv_heads=1,
            )
        )
        .double()
        .eval()
    )
    with torch.no_grad():
        model.semantic_emb.weight.mul_(0.5)
        model.semantic_emb.weight[-1].mul_(0.2)
        for layer in model.decoder:
            layer.self_attn.to_out.weight.mul_(4.0)
            layer.cross_attn.to_out.weight.mul_(4.0)
    return model


class Uncached:
    """The laws of drafts of one text, without padding, cache or batch, from sublayers and `DraftDecoder.step`."""

    def __init__(self, drafter: Any, model: TextToSemantic, text: list[int], sampling: SamplingConfig) -> None:
        self.drafter, self.model, self.sampling = drafter, model, sampling
        self.memory = model.encode(torch.tensor([text]))
        self.null = self.memory.unconditional()

    def __call__(self, settled: list[int], drafted: list[int]) -> list[list[float]]:
        """The law that each of these tokens is drawn from. settled: the start token and the kept ones."""
        make_logits = {"layer_skip": self._skipping, "early_exit": self._early, "prophet": self._ahead}[
            self.drafter.name
        ]
        arms = [make_logits(memory, settled, drafted[:-1]).tolist() for memory in (self.memory, self.null)]
        guided = getattr(self.drafter, "guided", True)
        return [oracle_law(own, self.sampling, null if guided else None) for own, null in zip(*arms, strict=True)]

    def _skipping(self, memory: Memory, settled: list[int], drafted: list[int]) -> torch.Tensor:
        """The whole sequence at once, where a sublayer that is left out changes nothing from the newest kept token on.

        Tokens before it see nothing behind them: theirs are the rows of the whole target.
        """
        model, skip = self.model, self.drafter.skip
        x = model.embed(torch.tensor([[*settled, *drafted]]))
        length = x.shape[1]
        whole = (torch.arange(length) < len(settled) - 1)[None, :, None]
        for index, layer in enumerate(model.decoder):
            seen = x + layer.self_attn(x, model.rotary(length)[:length], None, causal=length > 1)
            seen = seen + layer.cross_attn(seen, *memory.cross[index], memory.cross_mask)
            x = torch.where(whole | torch.tensor(index not in skip.attention), seen, x)
            x = torch.where(whole | torch.tensor(index not in skip.feed_forward), x + layer.ff(x), x)
        return model.logits(model.decoder_norm(x))[0, len(settled) - 1 :]

    def _early(self, memory: Memory, settled: list[int], drafted: list[int]) -> torch.Tensor:
        """The head over the whole sequence, fed with a layer of the plain forward at the same positions."""
        model, draft = self.model, self.drafter.draft
        ids = torch.tensor([[*settled, *drafted]])
        features = draft.fuse_target(model(ids, memory, features=draft.cfg.target_layers).features)
        return draft.logits(model, draft.step(model, ids, features, draft.start(memory)))[0, len(settled) - 1 :]

    def _ahead(self, memory: Memory, settled: list[int], drafted: list[int]) -> torch.Tensor:
        """An empty window: the newest kept token with the features that predicted it, then the draft's own output."""
        model, draft = self.model, self.drafter.draft
        hidden = torch.zeros(1, 1, model.cfg.dim, dtype=model.dtype)
        if len(settled) > 1:
            hidden = draft.fuse_target(
                model(torch.tensor([settled[:-1]]), memory, features=draft.cfg.target_layers).features
            )[:, -1:]
        state, out = draft.start(memory), []
        for token in (settled[-1], *drafted):
            hidden = draft.step(model, torch.tensor([[token]]), hidden, state)
            out.append(draft.logits(model, hidden)[0, 0])
        return torch.stack(out)


def by_lane(session: Session) -> list[Any]:
    """What the target computed with the text, by place, and without where there is guidance."""
    lanes, out = session.lanes, session.lane_output
    assert out is not None
    return [out.select(lanes.texts), *([out.select(list(lanes.seconds.values()))] if lanes.seconds else [])]


def calls(
    drafter: Any,
    model: TextToSemantic,
    sampling: SamplingConfig,
    *,
    rule: str = "block",
    batch: int = 4,
    gamma: int = 3,
    seed: int = 0,
    caps: list[int] | None = None,
) -> Iterator[tuple[Session, Proposal]]:
    """The loop, handed out before each verdict: the target has scored the draft."""
    verifier, chance = make_verifier(rule), torch.Generator().manual_seed(seed)
    session = Session(
        model, model.encode(texts(batch)), sampling, generator=chance, max_tokens=caps or [7, 3, 9, 9][-batch:]
    )
    state = drafter.start(session)
    while session.running:
        proposal = drafter.propose(session, state, [min(gamma, left - 1) for left in session.remaining])
        laws = session.laws(proposal)
        yield session, proposal
        drafter.commit(session, state, session.commit(verifier.verify(proposal, laws, session.chance, session.rows)))


@torch.inference_mode()
def draft_law_error(name: str, sampling: str = "plain", *, seeds: int = 5, **options: Any) -> float:
    """Largest difference of the laws in the proposals of a ragged batch from the uncached ones."""
    model = deep_model()
    drafter = make(name, model, **options)
    oracles = [Uncached(drafter, model, text, LAWS[sampling]) for text in TEXTS[:4]]
    worst, compared, ragged = 0.0, 0, False
    for seed in range(seeds):
        for session, proposal in calls(drafter, model, LAWS[sampling], seed=seed):
            ragged = ragged or len({len(row) for row in session.fresh}) > 1
            for place, row in enumerate(session.rows):
                if drafted := proposal.tokens[place]:
                    assert proposal.probs is not None
                    laws = torch.tensor(
                        oracles[row]([model.start_id, *session.tokens[row]], drafted), dtype=torch.float64
                    )
                    worst = max(worst, float((proposal.probs[place, : len(drafted)] - laws).abs().max()))
                    compared += len(drafted)
    assert ragged and compared > 30, "this run compared too little"
    return worst


@pytest.mark.parametrize("sampling", ["plain", "guidance", "filtered"])
@pytest.mark.parametrize("name", NAMES)
def test_draft_law_is_the_uncached_one(name: str, sampling: str) -> None:
    assert draft_law_error(name, sampling) < 1e-12


@pytest.mark.parametrize("name", NAMES)
def test_draft_law_where_rows_stop_early(name: str, moody: str) -> None:
    assert draft_law_error(name, "guidance", stop=moody, seeds=6) < 1e-12


def test_draft_law_of_a_guided_prophet() -> None:
    assert draft_law_error("prophet", "guidance", guided=True) < 1e-12


@torch.inference_mode()
def test_nothing_skipped_drafts_with_the_targets_law() -> None:
    compared = 0
    for session, proposal in calls(LayerSkipDrafter(Skip()), deep_model(), LAWS["filtered"]):
        for place, drafted in enumerate(proposal.tokens):
            for at in range(len(drafted)):
                text, null = (out.logits[place, at].tolist() for out in by_lane(session))
                law = torch.tensor(oracle_law(text, LAWS["filtered"], null), dtype=torch.float64)
                assert proposal.probs is not None
                assert float((proposal.probs[place, at] - law).abs().max()) < 1e-12
                compared += 1
    assert compared > 10


@torch.inference_mode()
def verification_error(name: str, sampling: str = "plain", *, seeds: int = 2, **options: Any) -> float:
    """Largest difference of the target's logits on a draft, of what the cache then holds, and of the features that the
    draft is fed with, from those of one plain forward of the row alone."""
    model = deep_model()
    drafter = make(name, model, **options)
    worst, widths = 0.0, set()
    for seed in range(seeds):
        for session, proposal in calls(drafter, model, LAWS[sampling], seed=seed, batch=1 if seed % 2 else 4):
            outputs = by_lane(session)
            if proposal.below is not None:
                widths.add(outputs[0].logits.shape[1] - proposal.below[1].shape[1])
            for place, row in enumerate(session.rows):
                own = model.encode(torch.tensor([TEXTS[row]]))
                ids = [model.start_id, *session.tokens[row], *proposal.tokens[place]]
                new = 1 + len(proposal.tokens[place])
                for lane, out in enumerate(outputs):
                    cache = model.new_cache(1)
                    plain = model(
                        torch.tensor([ids]),
                        own if lane == 0 else own.unconditional(),
                        cache,
                        features=session.runtime.features,
                    )
                    written = session.lanes.texts[place] if lane == 0 else session.lanes.seconds[place]
                    pairs = [
                        (out.logits[place, :new], plain.logits[0, -new:]),
                        (out.hidden[place, :new], plain.hidden[0, -new:]),
                    ]
                    pairs += [
                        (mine[place, :new], theirs[0, -new:]) for mine, theirs in zip(out.features, plain.features)
                    ]
                    pairs += [
                        (mine[:, written, :, : len(ids)], theirs[:, 0, :, : len(ids)])
                        for mine, theirs in ((session.cache.k, cache.k), (session.cache.v, cache.v))
                    ]
                    worst = max(worst, *(float((mine - theirs).abs().max()) for mine, theirs in pairs))
    if name == "early_exit":
        assert widths == ({0, 1} if options else {1}), (
            "the first layers run for the last draft token, unless a rule stopped behind it"
        )
    return worst


@pytest.mark.parametrize("sampling", ["plain", "guidance"])
@pytest.mark.parametrize("name", ["layer_skip", "early_exit"])
def test_verification_computes_what_the_plain_forward_does(name: str, sampling: str) -> None:
    """For early_exit: on the rows of the first layers that the draft has left; for layer_skip: on none of its own."""
    assert verification_error(name, sampling) < 1e-12


@pytest.mark.parametrize("sampling", ["plain", "guidance"])
def test_verification_of_rows_that_stopped_early(sampling: str, moody: str) -> None:
    assert verification_error("early_exit", sampling, stop=moody, seeds=4) < 1e-12


# --- faults ----------------------------------------------------------------------------------------------------------


def skip_without_crop(patch: Patch) -> None:
    patch.setattr(LayerSkipDrafter, "finish", lambda self, session, state, proposal: proposal)


def skip_crops_too_much(patch: Patch) -> None:
    def finish(self: LayerSkipDrafter, session: Session, state: Any, proposal: Proposal) -> Proposal:
        session.cache.crop([max(0, length - 1) for length in state.base])
        return proposal

    patch.setattr(LayerSkipDrafter, "finish", finish)


def skip_reads_its_own_past(patch: Patch) -> None:
    """Verification leaves the sublayers out as well, so that the settled rows are the draft's."""
    right = TextToSemantic.forward
    patch.setattr(
        TextToSemantic,
        "forward",
        lambda self, *args, **named: right(self, *args, **{"skip": Skip(frozenset({1})), **named}),
    )


def exit_finishes(change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Patch], None]:
    """Verification is handed other rows of the first layers than the draft has computed."""

    def fault(patch: Patch) -> None:
        right = EarlyExitDrafter.finish

        def finish(self: EarlyExitDrafter, session: Session, state: Any, proposal: Proposal) -> Proposal:
            proposal = right(self, session, state, proposal)
            assert proposal.below is not None
            proposal.below = (proposal.below[0], change(proposal.below[1]))
            return proposal

        patch.setattr(EarlyExitDrafter, "finish", finish)

    return fault


def exit_leaves_keys_of_another_token(patch: Patch) -> None:
    right = EarlyExitDrafter.finish

    def finish(self: EarlyExitDrafter, session: Session, state: Any, proposal: Proposal) -> Proposal:
        proposal = right(self, session, state, proposal)
        for row, start in enumerate(state.base):
            keys = session.cache.k[: self.layers, row, :, start : start + len(state.below)]
            keys.copy_(keys.roll(1, dims=2))
        return proposal

    patch.setattr(EarlyExitDrafter, "finish", finish)


def exit_fed_one_too_early(patch: Patch) -> None:
    """The features of the position that predicted a token, not its own."""
    right = EarlyExitDrafter._head

    def head(
        self: EarlyExitDrafter, session: Session, state: Any, tokens: torch.Tensor, features: torch.Tensor
    ) -> torch.Tensor:
        return right(self, session, state, tokens, features.roll(1, dims=1))

    patch.setattr(EarlyExitDrafter, "_head", head)


def window_goes_on(patch: Patch) -> None:
    """The prophet's window is not emptied between calls."""
    right = KVCache.crop
    patch.setattr(KVCache, "crop", lambda self, lengths: right(self, self.lengths if not any(lengths) else lengths))


def drafts_of_another_row(patch: Patch) -> None:
    patch.setattr(DraftState, "select", lambda self, rows, right=DraftState.select: right(self, list(range(len(rows)))))


FAULTS: dict[str, tuple[Callable[[Patch], None], Callable[[], float]]] = {
    "skip_without_crop, loop": (skip_without_crop, lambda: loop("layer_skip")),
    "skip_without_crop, verification": (skip_without_crop, lambda: verification_error("layer_skip")),
    "skip_crops_too_much, loop": (skip_crops_too_much, lambda: loop("layer_skip")),
    "skip_reads_its_own_past, draft": (skip_reads_its_own_past, lambda: draft_law_error("layer_skip")),
    "another token's rows, loop": (exit_finishes(lambda x: x.roll(1, dims=1)), lambda: loop("early_exit")),
    "another token's rows, loop, block": (
        exit_finishes(lambda x: x.roll(1, dims=1)),
        lambda: loop("early_exit", "guidance", "block"),
    ),
    "another token's rows, verification": (
        exit_finishes(lambda x: x.roll(1, dims=1)),
        lambda: verification_error("early_exit"),
    ),
    "another row's rows, loop": (
        exit_finishes(lambda x: x.roll(1, dims=0)),
        lambda: loop("early_exit", batch=4, watch=2),
    ),
    "the other arm's rows, loop": (
        exit_finishes(lambda x: x.roll(len(x) // 2, dims=0)),
        lambda: loop("early_exit", "guidance"),
    ),
    "keys of another token, loop": (exit_leaves_keys_of_another_token, lambda: loop("early_exit")),
    "keys of another token, verification": (
        exit_leaves_keys_of_another_token,
        lambda: verification_error("early_exit"),
    ),
    "exit_fed_one_too_early, draft": (exit_fed_one_too_early, lambda: draft_law_error("early_exit")),
    "window_goes_on, draft": (window_goes_on, lambda: draft_law_error("prophet")),
    "drafts_of_another_row, exit": (drafts_of_another_row, lambda: draft_law_error("early_exit")),
    "drafts_of_another_row, prophet": (
        drafts_of_another_row,
        lambda: draft_law_error("prophet", "guidance", guided=True),
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_seeded_fault_is_caught(name: str, monkeypatch: Patch) -> None:
    """The checks are those of the tests above, which pass without a fault."""
    fault, check = FAULTS[name]
    fault(monkeypatch)
    try:
        error = check()
    except (AssertionError, ValueError, IndexError, RuntimeError):
        return  # it broke down, which is noticed as well
    assert error > 1e-6, f"{name} went unnoticed"


# --- settings --------------------------------------------------------------------------------------------------------


def test_switches_survive_a_round_trip() -> None:
    config = LayerSkipConfig(attention=(3, 1), feed_forward=(0,))
    assert LayerSkipConfig.from_dict(config.to_dict()) == config == LayerSkipConfig((1, 3), (0,))
    assert config.skip(4) == Skip(frozenset({1, 3}), frozenset({0}))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"attention": [4], "feed_forward": []}, "layer 4.*layers 0 to 3"),
        ({"attention": [0, 1, 2, 3], "feed_forward": [0, 1, 2, 3]}, "keep at least one"),
        ({"attention": [1, 1], "feed_forward": []}, "twice"),
        ({"attention": [-1], "feed_forward": []}, "whole number of 0 to 63"),
        ({"attention": [True], "feed_forward": []}, "whole number of 0 to 63"),
        ({"attention": 1, "feed_forward": []}, "list of at most 64"),
        ({"layers": [1]}, "unknown key"),
    ],
)
def test_switches_that_cannot_be(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        LayerSkipConfig.from_dict(values).skip(4)


@pytest.mark.parametrize("name", NAMES)
def test_a_rule_that_is_not_there(name: str) -> None:
    with pytest.raises(ConfigError, match="stopping rule"):
        make(name, deep_model(), stop="no such rule")
