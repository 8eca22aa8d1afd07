"""Medusa: the law of the loop with its chain and with its sparse tree, what the heads say, and the tree that is
found.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch

from spear_spec.decoding import Session, generate, make_drafter, make_verifier, speculate
from spear_spec.decoding.drafters import medusa
from spear_spec.decoding.drafters.medusa import MedusaTreeDrafter
from spear_spec.decoding.proposal import Proposal
from spear_spec.errors import ConfigError
from spear_spec.exactness.oracles import SAMPLINGS, TEXTS, loop_error, texts, tiny_model
from spear_spec.models.drafts.medusa import MedusaConfig, MedusaHeads
from spear_spec.models.spear_tts import TextToSemantic
from spear_spec.training.drafts.medusa_tree import best_tree, rank_paths
from spear_spec.training.drafts.observed import Seen

TREE = ((0,), (1,), (0, 0), (1, 1), (0, 1), (0, 0, 0))


def tiny_heads(model: TextToSemantic, **settings: Any) -> MedusaHeads:
    torch.manual_seed(2)
    heads = MedusaHeads(MedusaConfig(model.cfg.dim, heads=3, inner=8, tree=TREE, **settings))
    torch.nn.init.normal_(heads.down)
    return heads.to(model.dtype).eval()


def error(tree: str | None, rule: str, sampling: str, **options: Any) -> float:
    def drafter(targets: Any) -> Any:
        return make_drafter("medusa", tiny_heads(targets[0].model), tree=tree)

    return loop_error(drafter, make_verifier(rule), SAMPLINGS[sampling], cap=4, gamma=3, **options)


@pytest.mark.parametrize("sampling", ["plain", "top_p", "guidance"])
@pytest.mark.parametrize(
    ("tree", "rule"), [(None, "rejection"), (None, "block"), ("sparse", "recursive"), ("sparse", "matching")]
)
def test_loop_law_is_the_targets(tree: str | None, rule: str, sampling: str) -> None:
    assert error(tree, rule, sampling) < 1e-9


@pytest.mark.parametrize(("tree", "rule"), [(None, "block"), ("sparse", "recursive")])
def test_loop_law_in_a_ragged_batch(tree: str | None, rule: str) -> None:
    assert error(tree, rule, "plain", batch=4, watch=2, caps=[4, 1, 4, 2]) < 1e-9


@pytest.mark.parametrize("sampling", ["plain", "guidance"])
def test_what_is_proposed_is_what_the_heads_say(sampling: str) -> None:
    """Chain laws and tree nodes, against heads on the hidden state of an uncached forward."""
    from spear_spec.decoding.sampling import probabilities
    from spear_spec.runtime.lanes import guide

    model, law = tiny_model(semantic=5), SAMPLINGS[sampling]
    heads, seen = tiny_heads(model), []
    for drafter, rule in (
        (make_drafter("medusa", heads), "rejection"),
        (MedusaTreeDrafter(heads, nodes=4), "recursive"),
    ):
        inner = drafter.propose

        def watched(session: Session, state: Any, limits: list[int], inner: Any = inner) -> Proposal:
            proposal = inner(session, state, limits)
            if proposal.longest:
                for place, row in enumerate(session.rows):
                    seen.append((list(session.tokens[row]), TEXTS[row], proposal, place))
            return proposal

        drafter.propose = watched  # type: ignore[method-assign]
        with torch.inference_mode():
            memory = model.encode(texts(3))
        for seed in range(9):
            session = Session(model, memory, law, generator=torch.Generator().manual_seed(seed), max_tokens=[9, 6, 8])
            for _ in speculate(session, drafter, make_verifier(rule), 3):
                pass
    assert len(seen) > 20
    with torch.inference_mode():
        for kept, text, proposal, place in seen:
            arms = [model.encode(torch.tensor([text]))]
            arms += [arms[0].unconditional()] if law.guidance != 1 else []
            logits = []
            for memory in arms:
                hidden = model(torch.tensor([[model.start_id, *kept[:-1]]]), memory).hidden[
                    0, -1:
                ]  # what predicted the newest token
                logits.append(model.logits(heads(hidden))[:, 0])
            laws = probabilities(logits[0] if len(logits) == 1 else guide(logits[0], logits[1], law.guidance), law)
            tokens = proposal.tokens[place]
            if proposal.parents is None:
                for depth in range(len(tokens)):
                    assert torch.allclose(proposal.probs[place, depth], laws[depth], atol=1e-12)
                continue
            order = laws.argsort(dim=-1, descending=True, stable=True)
            path: dict[int, tuple[int, ...]] = {-1: ()}
            for node, parent in enumerate(proposal.parents[place]):
                path[node] = (*path[parent], tokens[node])
            wanted = {tuple(int(order[depth, rank]) for depth, rank in enumerate(ranks)) for ranks in TREE[:4]}
            assert set(list(path.values())[1:]) <= wanted
            assert len(path) > 1


def test_nodes_behind_an_end_token_or_too_deep_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model(semantic=2)
    session = Session(
        model, model.encode(texts(1)), SAMPLINGS["plain"], generator=torch.Generator().manual_seed(3), max_tokens=9
    )
    next(generate(session))  # the heads sit on what the target has said
    ends_second = torch.tensor([0.5, 0.1, 0.4], dtype=torch.float64).expand(
        1, 3, 3
    )  # the end token is every head's second choice
    monkeypatch.setattr(medusa, "head_laws", lambda heads, session, count: ends_second[:, :count])
    drafter = MedusaTreeDrafter(tiny_heads(model), nodes=6)
    shallow = drafter.propose(session, None, [1])
    assert (shallow.tokens, shallow.parents) == ([[0, 2]], [[-1, -1]])
    deep = drafter.propose(session, None, [3])  # of (0,) (1,) (0, 0) (0, 1) (1, 1) (0, 0, 0) all but (1, 1)
    assert (deep.tokens, deep.parents) == ([[0, 2, 0, 2, 0]], [[-1, -1, 0, 0, 2]])
    ruled_out = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64).expand(1, 3, 3)
    monkeypatch.setattr(medusa, "head_laws", lambda heads, session, count: ruled_out[:, :count])
    assert drafter.propose(session, None, [3]).tokens == [[0, 0, 0]]


def test_the_tree_keeps_the_most_followed_paths() -> None:
    """Counted again in plain Python; any beginning of the list is a tree."""
    model = tiny_model(semantic=5, dtype=torch.float32)
    heads = tiny_heads(model)
    generator = torch.Generator().manual_seed(0)
    data = []
    for length in (9, 2, 14):
        tokens = torch.cat((torch.tensor([model.start_id]), torch.randint(0, 5, (length,), generator=generator)))
        hidden = torch.randn(length + 1, model.cfg.dim, generator=generator)
        data.append(Seen(tokens, hidden[:, :0], hidden, hidden[:0]))
    expected: Counter[tuple[int, ...]] = Counter()
    with torch.no_grad():
        for seen in data:
            for at in range(len(seen.tokens)):
                path: tuple[int, ...] = ()
                for k in range(1, 4):
                    if at + 1 + k >= len(seen.tokens):
                        break
                    scores = model.logits(heads(seen.hidden[at : at + 1]))[k - 1, 0].tolist()
                    token = int(seen.tokens[at + 1 + k])
                    rank = sum(score > scores[token] for score in scores)
                    if rank >= 4:
                        break
                    path = (*path, rank)
                    expected[path] += 1
    found = rank_paths(heads, model, data, ranks=4)
    assert found == expected
    tree = [tuple(path) for path in best_tree(found, 12)]
    assert len(tree) == 12
    assert all(path[:-1] in ((), *tree[:at]) for at, path in enumerate(tree))
    assert min(found[path] for path in tree) >= max(found[path] for path in set(found) - set(tree))


@pytest.mark.parametrize("tree", [[[0, 0]], [[0], [0, 0, 0, 0]], [[-1]]])
def test_a_tree_that_cannot_be(tree: list[list[int]]) -> None:
    with pytest.raises(ConfigError, match="tree"):
        MedusaConfig(8, heads=3, tree=tuple(tuple(path) for path in tree))
