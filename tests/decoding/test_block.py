"""The block drafter: the law of the loop, and each law of a draft against the formula, token by token, in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from spear_spec.config import SamplingConfig
from spear_spec.decoding import Session, make_drafter, make_verifier, speculate
from spear_spec.decoding.drafters.adaptive import best_length
from spear_spec.decoding.drafters.block import BlockDrafter, BlockState
from spear_spec.decoding.sampling import probabilities
from spear_spec.errors import ConfigError
from spear_spec.exactness.oracles import SAMPLINGS, TEXTS, loop_error, texts, tiny_model
from spear_spec.models.drafts.block import BlockConfig, BlockDecoder
from spear_spec.models.drafts.block_runner import BlockRunner
from spear_spec.models.spear_tts import TextToSemantic

COST = 0.052


def tiny_block(model: TextToSemantic, **settings: Any) -> BlockDecoder:
    torch.manual_seed(4)
    shape = {"depth": 2, "heads": 2, "dim_head": 8, "block": 3, "window": 4, "rank": 3, **settings}
    draft = BlockDecoder(BlockConfig(model.cfg.dim, model.vocab_size, (1, 2), **shape), model)
    with torch.no_grad():
        for weight in draft.parameters():
            weight.add_(torch.randn_like(weight) * 0.3)
    return draft.to(model.dtype).eval()


def error(rule: str, sampling: str, options: dict[str, Any] | None = None, cap: int = 3, **how: Any) -> float:
    def drafter(targets: Any) -> Any:
        return make_drafter("block", tiny_block(targets[0].model), options=options)

    return loop_error(drafter, make_verifier(rule), SAMPLINGS[sampling], cap=cap, gamma=3, **how)


@pytest.mark.parametrize(("rule", "sampling"), [("rejection", "top_p"), ("block", "plain"), ("block", "guidance")])
def test_loop_law_is_the_targets(rule: str, sampling: str) -> None:
    assert error(rule, sampling) < 1e-9


@pytest.mark.parametrize("options", [{"stop": "adaedl"}, {"guided": True, "stop": "survival"}])
def test_loop_law_with_options(options: dict[str, Any]) -> None:
    assert error("block", "guidance", options) < 1e-9


def test_loop_law_in_a_ragged_batch() -> None:
    assert error("block", "plain", {"stop": "survival"}, batch=3, watch=2, caps=[3, 1, 3]) < 1e-9


# --- the formula, one number after the other -------------------------------------------------------------------------


def norm(x: Tensor, gain: Tensor) -> Tensor:
    return x / x.square().sum().sqrt().clamp_min(1e-12) * len(x) ** 0.5 * gain


def turn(x: Tensor, position: int) -> Tensor:
    out = x.clone()
    for pair in range(len(x) // 2):
        angle = torch.tensor(position, dtype=x.dtype) * torch.tensor(1 / 10000 ** (2 * pair / len(x))).double()
        a, b = x[2 * pair], x[2 * pair + 1]
        out[2 * pair], out[2 * pair + 1] = a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()
    return out


def look(q: Tensor, keys: list[Tensor], values: list[Tensor]) -> Tensor:
    scores = torch.stack([q @ key for key in keys]) * len(q) ** -0.5
    return (scores.softmax(0)[:, None] * torch.stack(values)).sum(0)


def formula(
    draft: BlockDecoder, model: TextToSemantic, text: list[int], tokens: list[int], count: int
) -> tuple[list[Tensor], Tensor, list[Tensor]]:
    """What a pass of `count` positions behind these tokens (start first) says, uncached: h_k normed, chances, logits
    without the token before.
    """
    cfg, size = draft.cfg, draft.cfg.dim_head
    memory = model.encode(torch.tensor([text]))
    features = model(torch.tensor([tokens]), memory, features=cfg.target_layers).features
    contexts = []
    for at, token in enumerate(tokens):
        fused = torch.zeros(cfg.dim, dtype=torch.float64)
        if at:
            sides = [norm(f[0, at - 1], layer.gamma) for f, layer in zip(features, draft.fuse_norm)]
            fused = draft.fuse.weight @ torch.cat(sides)
        entering = torch.cat((norm(model.embed(torch.tensor([[token]]))[0, 0], draft.token_norm.gamma),
                              norm(fused, draft.feature_norm.gamma)))  # fmt: skip
        contexts.append(draft.enter.weight @ entering)
    newest = len(tokens) - 1
    x = [contexts[-1] + draft.positions[k] for k in range(count)]
    for layer in draft.layers:
        own, cross, ff = layer.self_attn, layer.cross_attn, layer.ff

        def heads(vector: Tensor, part: int) -> list[Tensor]:
            weight = own.to_qkv.weight.view(3, cfg.heads, size, cfg.dim)[part]  # noqa: B023
            return [head @ norm(vector, own.norm.gamma) for head in weight]  # noqa: B023

        seen = [(at, contexts[at]) for at in range(max(0, newest + 1 - cfg.window), newest + 1)]
        seen += [(newest + 1 + k, x[k]) for k in range(count)]
        after = []
        for k in range(count):
            out = []
            for h in range(cfg.heads):
                keys = [turn(heads(vector, 1)[h], at) for at, vector in seen]
                q = turn(heads(x[k], 0)[h], newest + 1 + k)
                out.append(look(q, keys, [heads(vector, 2)[h] for _, vector in seen]))
            y = x[k] + own.to_out.weight @ torch.cat(out)
            q_text = (cross.to_q.weight @ norm(y, cross.norm.gamma)).view(cfg.heads, size)
            kv = (memory.hidden[0] @ cross.to_kv.weight.T).view(-1, 2, cfg.heads, size)
            out = []
            for h in range(cfg.heads):
                keys = [cross.null_kv[0, h, 0], *kv[:, 0, h]]
                out.append(look(q_text[h], keys, [cross.null_kv[1, h, 0], *kv[:, 1, h]]))
            y = y + cross.to_out.weight @ torch.cat(out)
            value, gate = (ff.up.weight @ norm(y, ff.norm.gamma) + ff.up.bias).chunk(2)
            after.append(y + ff.down.weight @ (value * torch.nn.functional.gelu(gate)) + ff.down.bias)
        x = after
    normed = [norm(h, draft.norm.gamma) for h in x]
    sure = torch.stack([torch.sigmoid(draft.sure.weight[0] @ h + draft.sure.bias[0]) for h in normed])
    return normed, sure, [model.head @ h for h in normed]


def law_after(draft: BlockDecoder, normed: Tensor, logits: Tensor, before: int) -> Tensor:
    gate = 2 * torch.sigmoid(draft.gate.weight @ normed + draft.gate.bias)
    return logits + (draft.before[before] * gate) @ draft.after


class Watched(BlockDrafter):
    """Compares each proposal with the formula."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.worst, self.compared, self.lengths = 0.0, 0, set[int]()

    def propose(self, session: Session, state: BlockState, limits: list[int]) -> Any:
        proposal = super().propose(session, state, limits)
        model: Any = session.model
        for place, row in enumerate(session.rows):
            limit = min(limits[place], self.draft.cfg.block)
            if not limit:
                continue
            tokens = [model.start_id, *session.tokens[row]]
            normed, sure, logits = formula(self.draft, model, TEXTS[row], tokens, limit)
            drawn = proposal.tokens[place]
            most = limit if self.cost is None else best_length(sure.tolist(), self.cost)
            assert len(drawn) == most or drawn[-1] == model.eos_id
            self.lengths.add(most)
            for k, before in enumerate([tokens[-1], *drawn[:-1]]):
                expected = probabilities(law_after(self.draft, normed[k], logits[k], before), session.samplings[place])
                self.worst = max(self.worst, float((proposal.probs[place, k] - expected).abs().max()))
                self.compared += 1
        return proposal


def watched(fault: Any = None, **options: Any) -> Watched:
    model = tiny_model(semantic=7, seed=2)
    drafter = Watched(tiny_block(model), **options)
    drafter.cost = 0.3 if drafter.cost is not None else None
    sampling = SamplingConfig(temperature=0.9, top_p=0.9)
    session = Session(
        model, model.encode(texts(3)), sampling, generator=torch.Generator().manual_seed(0), max_tokens=[9, 4, 12]
    )
    for _ in speculate(session, drafter, make_verifier("block"), 4):
        pass
    return drafter


@torch.no_grad()
@pytest.mark.parametrize("stop", [None, "survival"])
def test_a_draft_has_the_laws_of_the_formula(stop: str | None) -> None:
    """Rows of different lengths, and a window shorter than they are."""
    found = watched(stop=stop)
    assert found.worst < 1e-10 and found.compared > 20
    assert len(found.lengths) > 1


def without_the_token_before(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(BlockRunner, "follow", lambda self, said, position, before: said.logits[:, position])


def without_a_window(patch: pytest.MonkeyPatch) -> None:
    real = BlockRunner.ahead

    def ahead(self: BlockRunner, *args: Any) -> Any:
        self.window = 1000
        return real(self, *args)

    patch.setattr(BlockRunner, "ahead", ahead)


def always_the_whole_block(patch: pytest.MonkeyPatch) -> None:
    """Positions that a row may not draft are seen all the same."""
    real = BlockRunner.ahead
    patch.setattr(BlockRunner, "ahead", lambda self, x, counts, state: real(self, x, [self.block] * len(counts), state))


@torch.no_grad()
@pytest.mark.parametrize("fault", [without_the_token_before, without_a_window, always_the_whole_block])
def test_a_seeded_fault_is_seen(fault: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    fault(monkeypatch)
    assert watched().worst > 1e-6


def test_a_law_that_was_not_drawn_from_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The proposal says the laws before the token before was known."""
    real = BlockDrafter.propose

    def propose(self: BlockDrafter, session: Session, state: Any, limits: list[int]) -> Any:
        proposal = real(self, session, state, limits)
        if proposal.probs is not None and state.said is not None:
            plain = session.laws_of(state.said.logits)[:, : proposal.probs.shape[1]]
            proposal.probs = 0.9 * plain + 0.1 * proposal.probs
        return proposal

    monkeypatch.setattr(BlockDrafter, "propose", propose)
    assert error("block", "plain") > 1e-4


def test_a_length_that_tells_of_its_tokens_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """A draft that drops its last token where that was unlikely."""
    real = BlockDrafter.propose

    def propose(self: BlockDrafter, session: Session, state: Any, limits: list[int]) -> Any:
        proposal = real(self, session, state, limits)
        for place, row in enumerate(proposal.tokens):
            if row and float(proposal.probs[place, len(row) - 1, row[-1]]) < 0.3:
                row.pop()
        return proposal

    monkeypatch.setattr(BlockDrafter, "propose", propose)
    assert error("block", "plain") > 1e-4


def test_settings_that_cannot_be() -> None:
    model = tiny_model()
    draft = tiny_block(model)
    with pytest.raises(ConfigError, match="no stopping rule"):
        BlockDrafter(draft, stop="never")
    with pytest.raises(ConfigError, match="guided"):
        BlockDrafter(draft, guided=1)  # type: ignore[arg-type]
    shape = draft.cfg.to_dict()
    for name, value, message in (
        ("ids", model.vocab_size + 1, "has .* tokens"),
        ("dim", model.dim * 2, "dim must be"),
        ("target_layers", [1, 9], "target_layers"),
        ("target_layers", [], "target_layers"),
        ("block", 0, "block"),
        ("block", 10**9, "block"),
        ("rank", "8", "rank"),
        ("dim_head", 7, "even"),
        ("window", -1, "window"),
        ("more", 1, "more"),
    ):
        with pytest.raises(ConfigError, match=message):
            BlockDecoder(BlockConfig.from_dict({**shape, name: value}), model)


def test_the_length_that_promises_most() -> None:
    assert best_length([], COST) == 0
    assert best_length([0.9] * 10, 0.0) == 10
    for chances in ([0.9, 0.8, 0.1, 0.9], [0.2, 0.9], [0.99] * 6):
        for cost in (0.01, 0.1, 0.5):
            values = []
            for k in range(1, len(chances) + 1):
                reach = torch.tensor(chances[:k]).double().cumprod(0).sum().item()
                values.append((1 + reach) / (1 + cost * k))
            assert best_length(chances, cost) == values.index(max(values)) + 1
