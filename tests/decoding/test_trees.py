"""Trees in the real loop: what drafters say of their nodes, what the target says after them, and the law of whole
utterances.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch

from spear_spec.config import SamplingConfig, SpecConfig
from spear_spec.decoding import make, make_verifier
from spear_spec.decoding.drafters.growth import Growth
from spear_spec.decoding.loop import speculate
from spear_spec.decoding.proposal import Proposal
from spear_spec.decoding.sampling import probabilities
from spear_spec.decoding.session import Session
from spear_spec.exactness.oracles import (
    SAMPLINGS,
    TEXTS,
    UncachedTarget,
    distance,
    draft_laws,
    greedy_flips,
    texts,
    tiny_draft,
    tiny_model,
    walk,
)
from spear_spec.models.drafts import runner as draft_runner
from spear_spec.runtime.lanes import guide

SPECS = {
    "kpath": SpecConfig(drafter="kpath", verifier="kseq", num_drafts=3, gamma=2),
    "iid": SpecConfig(verifier="recursive", tree="2-2", gamma=2),
    "wor": SpecConfig(verifier="recursive_wor", tree="2-2", gamma=2),
    "wor, all tokens": SpecConfig(verifier="recursive_wor", tree="4-1", gamma=2),
    "top": SpecConfig(verifier="recursive", tree="2-1", gamma=2, options={"siblings": "top"}),
    "dynamic": SpecConfig(verifier="recursive", tree="dynamic", gamma=3, options={"nodes": 5, "width": 2}),
    "matching": SpecConfig(verifier="matching", tree="dynamic", gamma=3, options={"nodes": 5, "width": 2}),
    "matching, wor": SpecConfig(verifier="matching", tree="2-2", gamma=2, options={"siblings": "wor"}),
    "block": SpecConfig(verifier="block", gamma=3),
}


@pytest.fixture(autouse=True)
def _exact_draft(monkeypatch: pytest.MonkeyPatch) -> None:
    """The draft's runner without 8-bit weights, so that an oracle in float64 can follow it (float64 keeps them
    anyway).
    """
    monkeypatch.setattr(draft_runner, "_RUNNERS", type(draft_runner._RUNNERS)())


class TableTreeDrafter:
    """Random trees, each row its own, from laws given by a function of (row, tokens so far); shapes follow from what
    is drawn.
    """

    name = "table"

    def __init__(self, law: Callable[[int, tuple[int, ...]], list[float]], form: str) -> None:
        self.law, self.form = law, form

    def start(self, session: Session) -> None:
        return None

    def propose(self, session: Session, state: None, limits: list[int]) -> Proposal:
        tokens: list[list[int]] = [[] for _ in limits]
        parents: list[list[int]] = [[] for _ in limits]
        laws: list[list[list[float]]] = [[] for _ in limits]
        for place, limit in enumerate(limits):
            row = session.rows[place]
            kept = tuple(session.tokens[row])
            level = [(-1, kept)]
            for depth in range(limit):
                below = []
                for parent, prefix in level:
                    q = self.law(row, prefix)
                    children = 1 + (row + depth + len(prefix)) % 2 if depth == 0 else 1
                    weights = list(q)
                    for _ in range(children):
                        if not any(weights):
                            break
                        token = (
                            max(range(len(q)), key=lambda i: weights[i])
                            if self.form == "points"
                            else (session.chance.categorical(torch.tensor([weights], dtype=torch.float64), [row])[0])
                        )
                        if self.form != "iid":
                            weights[token] = 0.0
                        tokens[place].append(token)
                        parents[place].append(parent)
                        laws[place].append(q)
                        if token != session.model.eos_id:
                            below.append((len(tokens[place]) - 1, (*prefix, token)))
                level = below
        if self.form == "points":
            return Proposal(tokens, None, parents)
        width = max(len(row) for row in tokens)
        probs = torch.zeros(len(limits), max(width, 1), session.model.vocab_size, dtype=torch.float64)
        for place, line in enumerate(laws):
            if line:
                probs[place, : len(line)] = torch.tensor(line, dtype=torch.float64)
        return Proposal(tokens, probs[:, :width], parents)

    def commit(self, session: Session, state: None, verdict: object) -> None:
        return None


def tree_loop_error(
    name: str,
    form: str,
    kind: str,
    sampling: SamplingConfig,
    *,
    batch: int = 1,
    watch: int = 0,
    caps: Sequence[int] = (3,),
    seed: int = 3,
) -> float:
    """Largest error of the law of row `watch`'s whole utterances, by enumeration in float64."""
    model = tiny_model(semantic=2, seed=seed)
    targets = [UncachedTarget(model, text, sampling) for text in TEXTS[:batch]]
    drafter = TableTreeDrafter(draft_laws(kind, targets), form)
    with torch.inference_mode():
        memory = model.encode(texts(batch))

    def run(chance) -> tuple[int, ...]:
        session = Session(model, memory, sampling, chance=chance, max_tokens=list(caps))
        for _ in speculate(session, drafter, make_verifier(name), 2):
            pass
        return tuple(session.tokens[watch])

    return distance(walk(run, watch, seed), targets[watch].sequences(caps[watch]))


PAIRS = [
    ("kseq", "iid"),
    ("recursive", "iid"),
    ("recursive", "points"),
    ("recursive_wor", "wor"),
    ("matching", "iid"),
    ("matching", "wor"),
    ("matching", "points"),
]


@pytest.mark.parametrize("kind", ["random", "zeros", "disjoint"])
@pytest.mark.parametrize("name, form", PAIRS)
def test_loop_law_is_the_targets(name: str, form: str, kind: str) -> None:
    for sampling in ("plain", "all"):
        assert tree_loop_error(name, form, kind, SAMPLINGS[sampling]) < 1e-9


@pytest.mark.parametrize("watch", [0, 2])
@pytest.mark.parametrize("name, form", PAIRS)
def test_loop_law_in_a_ragged_batch(name: str, form: str, watch: int) -> None:
    """Rows of different texts, trees and caps: the law of each is its own."""
    assert tree_loop_error(name, form, "random", SAMPLINGS["guidance"], batch=4, watch=watch, caps=[3, 1, 3, 2]) < 1e-9


# independent siblings at both depths at once have ten times as many branches; those of "wor" are at both
ENUMERATED = {name: spec for name, spec in SPECS.items() if name != "iid"} | {
    f"iid, {tree}": replace(SPECS["iid"], tree=tree) for tree in ("2-1", "1-2")
}

BROAD = {"kpath", "wor, all tokens", "matching, wor"}  # of so many branches that two tokens are enough


@pytest.mark.parametrize("spec", ENUMERATED)
def test_real_drafts_law_by_enumeration(spec: str) -> None:
    """The shipped kinds of draft with a real (tiny) draft decoder, whole utterances of two or three tokens."""
    model = tiny_model(semantic=2)
    sampling = SamplingConfig(temperature=0.9, top_p=0.95)
    target = UncachedTarget(model, TEXTS[0], sampling)
    drafter, verifier = make(ENUMERATED[spec], tiny_draft(model))
    cap = 2 if spec in BROAD else 3
    with torch.inference_mode():
        memory = model.encode(texts(1))

    def run(chance) -> tuple[int, ...]:
        session = Session(model, memory, sampling, chance=chance, max_tokens=cap)
        for _ in speculate(session, drafter, verifier, ENUMERATED[spec].gamma):
            pass
        return tuple(session.tokens[0])

    assert distance(walk(run), target.sequences(cap)) < 1e-9


def draft_law_by_chain(
    model, draft, text: list[int], kept: list[int], path: list[int], sampling: SamplingConfig, guided: bool
) -> torch.Tensor:
    """The draft's law after the kept tokens and a path of its own, one token at a time through the plain module."""
    arms = []
    memory = model.encode(torch.tensor([text]))
    for arm in [memory, memory.unconditional()] if guided else [memory]:
        ids = torch.tensor([[model.start_id, *kept]])
        features = draft.fuse_target(model(ids, arm, features=draft.cfg.target_layers).features)
        features = torch.cat((torch.zeros_like(features[:, :1]), features[:, :-1]), 1)
        state = draft.start(arm)
        hidden = draft.step(model, ids, features, state)[:, -1:]
        for token in path:
            hidden = draft.step(model, torch.tensor([[token]]), hidden, state)
        arms.append(draft.logits(model, hidden)[0, -1])
    return probabilities(guide(*arms, sampling.guidance) if guided else arms[0], sampling)


@pytest.mark.parametrize("guided", [False, True])
@pytest.mark.parametrize("spec", ["kpath", "iid", "wor"])
def test_nodes_carry_the_law_they_were_drawn_from(spec: str, guided: bool) -> None:
    """Ragged batch, several calls: every node's law is what a plain chain of steps gives, and the tokens lie in it."""
    model = tiny_model(semantic=6, seed=5)
    draft = tiny_draft(model)
    sampling = SamplingConfig(temperature=0.8, top_p=0.97, guidance=2.0)
    settings = SPECS[spec]
    drafter, verifier = make(
        SpecConfig(
            drafter=settings.drafter,
            verifier=settings.verifier,
            tree="3-2-1" if settings.tree else None,
            gamma=3,
            num_drafts=settings.num_drafts,
            options={"guided": guided},
        ),
        draft,
    )
    with torch.inference_mode():
        session = Session(
            model, model.encode(texts(3)), sampling, generator=torch.Generator().manual_seed(1), max_tokens=[9, 4, 12]
        )
    seen = 0
    propose = drafter.propose

    def checked(session: Session, state: object, limits: list[int]) -> Proposal:
        nonlocal seen
        proposal = propose(session, state, limits)
        for place, tokens in enumerate(proposal.tokens):
            parents = proposal.parents[place] if proposal.parents else []
            assert all(parent < node for node, parent in enumerate(parents))
            for node in range(len(tokens)):
                path, at = [], parents[node]
                while at >= 0:
                    path.insert(0, tokens[at])
                    at = parents[at]
                assert len(path) < limits[place]
                assert model.eos_id not in path
                row = session.rows[place]
                law = draft_law_by_chain(model, draft, TEXTS[row], session.tokens[row], path, sampling, guided)
                assert float((proposal.probs[place, node] - law).abs().max()) < 1e-9
                assert law[tokens[node]] > 0
                seen += 1
        return proposal

    drafter.propose = checked
    for _ in speculate(session, drafter, verifier, 3):
        pass
    assert seen > 40


def test_without_replacement_siblings_differ_and_run_out() -> None:
    model = tiny_model(semantic=2)
    drafter, verifier = make(SPECS["wor, all tokens"], tiny_draft(model))
    with torch.inference_mode():
        session = Session(
            model,
            model.encode(texts(2)),
            SamplingConfig(temperature=1.0, top_k=2, top_p=1.0),
            generator=torch.Generator().manual_seed(1),
            max_tokens=6,
        )
        state = drafter.start(session)
        proposal = drafter.propose(session, state, [2, 2])
    for tokens, parents in zip(proposal.tokens, proposal.parents):
        roots = [token for token, parent in zip(tokens, parents) if parent < 0]
        assert len(roots) == len(set(roots)) == 2  # four were asked for, two have any probability


def test_dynamic_tree_holds_the_best_nodes() -> None:
    """Against all paths of that depth scored one by one: with room for all, the kept ones are the most probable."""
    model = tiny_model(semantic=3, seed=2)
    draft = tiny_draft(model)
    sampling = SamplingConfig(temperature=1.0, top_p=1.0)
    drafter, _ = make(
        SpecConfig(verifier="recursive", tree="dynamic", gamma=3, options={"nodes": 7, "width": 4}), draft
    )
    with torch.inference_mode():
        session = Session(
            model, model.encode(texts(1)), sampling, generator=torch.Generator().manual_seed(1), max_tokens=9
        )
        proposal = drafter.propose(session, drafter.start(session), [3])
        scored = {}

        def score(path: tuple[int, ...], p: float) -> None:
            law = draft_law_by_chain(model, draft, TEXTS[0], [], list(path), sampling, False).tolist()
            for token, q in enumerate(law):
                scored[(*path, token)] = p * q
                if token != model.eos_id and len(path) < 2:
                    score((*path, token), p * q)

        score((), 1.0)
    best = sorted(scored, key=lambda path: -scored[path])[:7]
    said = set()
    for node in range(len(proposal.tokens[0])):
        path, at = [], node
        while at >= 0:
            path.insert(0, proposal.tokens[0][at])
            at = proposal.parents[0][at]
        said.add(tuple(path))
    assert said == set(best)


@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_target_laws_after_every_node(guidance: float) -> None:
    """Random ragged trees with duplicate siblings through several calls, against full forwards of the path alone."""
    rng = random.Random(4)
    model = tiny_model(semantic=4, seed=1)
    sampling = SamplingConfig(temperature=0.7, top_p=0.9, guidance=guidance)
    targets = [UncachedTarget(model, text, sampling) for text in TEXTS[:3]]
    worst, forms = 0.0, 0
    with torch.inference_mode():
        session = Session(
            model, model.encode(texts(3)), sampling, generator=torch.Generator().manual_seed(1), max_tokens=[25, 12, 30]
        )
        while session.running:
            trees = []
            for _ in session.rows:
                count = rng.randint(0, 7)
                trees.append(
                    ([rng.randrange(3) for _ in range(count)], [rng.randint(-1, node - 1) for node in range(count)])
                )
            proposal = Proposal([tokens for tokens, _ in trees], None, [parents for _, parents in trees])
            laws = session.laws(proposal)
            for place, (tokens, parents) in enumerate(trees):
                row = session.rows[place]
                for node in range(-1, len(tokens)):
                    path, at = [], node
                    while at >= 0:
                        path.insert(0, tokens[at])
                        at = parents[at]
                    expected = torch.tensor(targets[row]((*session.tokens[row], *path)), dtype=torch.float64)
                    worst = max(worst, float((laws[place, node + 1] - expected).abs().max()))
                    forms += 1
            session.commit(make_verifier("matching").verify(proposal, laws, session.chance, session.rows))
    assert forms > 60
    assert worst < 1e-9


def test_equal_prefixes_are_scored_once() -> None:
    model = tiny_model(semantic=4)
    widths = []
    with torch.inference_mode():
        session = Session(
            model, model.encode(texts(1)), SamplingConfig(), generator=torch.Generator().manual_seed(0), max_tokens=9
        )
        run = session.runtime.run
        session.runtime.run = lambda rows, tree, below: widths.append(len(rows[0])) or run(rows, tree, below)
        laws = session.laws(Proposal([[1, 1, 2, 3, 3]], None, [[-1, -1, 0, 1, 0]]))
    assert widths == [4]  # newest token, 1, 2 and 3 behind it
    assert torch.equal(laws[0, 1], laws[0, 2])
    assert torch.equal(laws[0, 4], laws[0, 5])


@pytest.mark.parametrize("guidance", [1.0, 2.0])
@pytest.mark.parametrize("spec", SPECS)
def test_greedy_is_the_plain_loops(spec: str, guidance: float) -> None:
    def run(session: Session):
        drafter, verifier = make(SPECS[spec], tiny_draft(session.model))
        return speculate(session, drafter, verifier, 4)

    assert greedy_flips(run, batch=4, guidance=guidance) == 0


def test_growth_runs_once_for_equal_paths() -> None:
    model = tiny_model(semantic=4)
    drafter, _ = make(SPECS["kpath"], tiny_draft(model))
    with torch.inference_mode():
        session = Session(
            model, model.encode(texts(1)), SamplingConfig(), generator=torch.Generator().manual_seed(0), max_tokens=9
        )
        state = drafter.start(session)
        growth = Growth(session, state, drafter.catch_up(session, state))
        nodes = [growth.add(0, token, -1) for token in (1, 2, 1)]
        growth.expand([nodes])
    assert growth.laws.shape[1] == 3
    assert growth.law_at[0] == [1, 2, 1]
