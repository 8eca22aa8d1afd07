"""Oracles: a source of chance that walks every branch, slow exact laws, and the checks that tests and seeded faults
share.

Nothing here uses the library's sampling code: laws are made by plain Python in float64.
"""

from __future__ import annotations

import copy
import math
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import torch
from scipy import stats as scipy_stats

from spear_spec.config import DraftConfig, SamplingConfig, T2SConfig
from spear_spec.decoding.chance import Chance
from spear_spec.decoding.loop import generate, speculate
from spear_spec.decoding.one_call import OneCall
from spear_spec.decoding.proposal import Proposal
from spear_spec.decoding.session import Session
from spear_spec.models.drafts.block import BlockConfig, BlockDecoder
from spear_spec.models.drafts.decoder import DraftDecoder
from spear_spec.models.spear_tts import TextToSemantic
from spear_spec.nn.tree import Tree

SAMPLINGS = {
    "plain": SamplingConfig(temperature=1.0, top_p=1.0),
    "temperature": SamplingConfig(temperature=0.6, top_p=1.0),
    "top_k": SamplingConfig(temperature=1.0, top_k=2, top_p=1.0),
    "top_p": SamplingConfig(temperature=1.3, top_p=0.8),
    "all": SamplingConfig(temperature=0.9, top_k=3, top_p=0.85, guidance=2.0),
    "guidance": SamplingConfig(temperature=1.0, top_p=1.0, guidance=3.0),
}


class Enumerating(Chance):
    """Chance that replays a script of branches and writes down what the other branches would have been.

    Only draws of row `watch` branch (all rows when None); the others follow a seeded random choice, the same in every
    walk: the law of one row must be exact whatever its neighbours do.
    """

    def __init__(self, script: list[int], watch: int | None = None, seed: int = 0) -> None:
        self.script, self.watch, self.used = script, watch, 0
        self.widths: list[int] = []
        self.weight = 1.0
        self.other = random.Random(seed)

    def _branch(self, options: list[tuple[int, float]], row: int) -> int:
        options = [(value, p) for value, p in options if p > 0]
        total = math.fsum(p for _, p in options)
        assert total > 0, "a draw from an empty law"
        if self.watch is not None and row != self.watch:
            return self.other.choices([v for v, _ in options], [p for _, p in options])[0]
        at = self.script[self.used] if self.used < len(self.script) else 0
        if self.used >= len(self.script):
            self.script.append(0)
        self.used += 1
        self.widths.append(len(options))
        value, p = options[at]
        self.weight *= p / total
        return value

    def bernoulli(self, p: float, row: int) -> bool:
        p = min(max(p, 0.0), 1.0)
        return bool(self._branch([(1, p), (0, 1.0 - p)], row))

    def categorical(self, weights: torch.Tensor, rows: Sequence[int]) -> list[int]:
        assert weights.shape[0] == len(rows)
        return [self._branch(list(enumerate(line)), row) for line, row in zip(weights.tolist(), rows)]


def walk(
    run: Callable[[Enumerating], tuple[int, ...]], watch: int | None = None, seed: int = 0
) -> dict[tuple[int, ...], float]:
    """Exact law of what `run` returns: depth-first through every branch of its chance."""
    law: dict[tuple[int, ...], float] = defaultdict(float)
    script: list[int] = []
    while True:
        chance = Enumerating(script, watch, seed)
        law[run(chance)] += chance.weight
        script = script[: chance.used]
        while script and script[-1] + 1 >= chance.widths[len(script) - 1]:
            script.pop()
        if not script:
            return dict(law)
        script[-1] += 1


def distance(one: dict[tuple[int, ...], float], other: dict[tuple[int, ...], float]) -> float:
    """Largest difference of two laws at any outcome."""
    return max(abs(one.get(key, 0.0) - other.get(key, 0.0)) for key in one.keys() | other.keys())


def oracle_law(logits: Sequence[float], sampling: SamplingConfig, null: Sequence[float] | None = None) -> list[float]:
    """Guidance, temperature, top-k, top-p, token by token in Python."""
    if null is not None and sampling.guidance != 1:
        logits = [n + (c - n) * sampling.guidance for c, n in zip(logits, null)]
    if sampling.temperature == 0:
        best = max(range(len(logits)), key=lambda i: logits[i])
        return [float(i == best) for i in range(len(logits))]
    top = max(logits)
    weights = [math.exp((x - top) / sampling.temperature) for x in logits]
    order = sorted(range(len(weights)), key=lambda i: -weights[i])
    if sampling.top_k:
        order = order[: sampling.top_k]
    total = math.fsum(weights[i] for i in order)
    kept, before = [], 0.0
    for i in order:
        if before > sampling.top_p:
            break
        kept.append(i)
        before += weights[i] / total
    total = math.fsum(weights[i] for i in kept)
    return [weights[i] / total if i in kept else 0.0 for i in range(len(weights))]


# --- a tiny target and its exact law -------------------------------------------------------------------------------


def tiny_model(
    semantic: int = 2, dtype: torch.dtype = torch.float64, seed: int = 0, dim: int = 16, depth: int = 2
) -> TextToSemantic:
    """Two decoder layers (or `depth`), random weights, laws neither flat nor one-sided."""
    torch.manual_seed(seed)
    cfg = T2SConfig(
        num_text_token_ids=7,
        num_semantic_token_ids=semantic,
        dim=dim,
        source_depth=1,
        target_depth=depth,
        heads=2,
        dim_head=8,
    )
    model = TextToSemantic(cfg).to(dtype).eval()
    with torch.no_grad():
        # a small tied embedding keeps the law from repeating the last token; larger attention makes history matter
        model.semantic_emb.weight.mul_(0.35)
        model.semantic_emb.weight[-1].mul_(0.3)  # an end token that is neither sure nor rare
        for layer in model.decoder:
            layer.self_attn.to_out.weight.mul_(4.0)
            layer.cross_attn.to_out.weight.mul_(4.0)
    return model


TEXTS = [[3, 1, 4, 7], [2, 7], [5, 5, 6, 2, 1, 7], [6, 7], [1, 2, 3, 7], [4, 4, 7], [2, 6, 1, 5, 7], [3, 7]]


def texts(count: int) -> torch.Tensor:
    """Ragged text ids [count, S], padded with 0."""
    rows = TEXTS[:count]
    width = max(len(row) for row in rows)
    return torch.tensor([row + [0] * (width - len(row)) for row in rows])


class UncachedTarget:
    """The model's laws by full forwards of one text without padding, cache or batch; remembered."""

    def __init__(self, model: TextToSemantic, text: list[int], sampling: SamplingConfig) -> None:
        self.model, self.sampling = model, sampling
        with torch.no_grad():
            self.memory = model.encode(torch.tensor([text]))
            self.null = self.memory.unconditional()
        self.known: dict[tuple[int, ...], list[float]] = {}

    def __call__(self, prefix: tuple[int, ...]) -> list[float]:
        if prefix not in self.known:
            ids = torch.tensor([[self.model.start_id, *prefix]])
            with torch.no_grad():
                logits, null = (
                    self.model(ids, memory).logits[0, -1].double().tolist() for memory in (self.memory, self.null)
                )
            self.known[prefix] = oracle_law(logits, self.sampling, null)
        return self.known[prefix]

    def sequences(self, cap: int) -> dict[tuple[int, ...], float]:
        """Law of whole utterances: until the end token or `cap` tokens."""
        done: dict[tuple[int, ...], float] = {}
        open_: dict[tuple[int, ...], float] = {(): 1.0}
        for _ in range(cap):
            after: dict[tuple[int, ...], float] = {}
            for prefix, weight in open_.items():
                for token, p in enumerate(self(prefix)):
                    if p > 0:
                        (done if token == self.model.eos_id else after)[(*prefix, token)] = weight * p
            open_ = after
        return done | open_


# --- drafts ---------------------------------------------------------------------------------------------------------


class TableDrafter:
    """Drafts from laws given by a function of (row, kept and drafted tokens so far): any draft, however bad."""

    name, form = "table", "chain"

    def __init__(self, law: Callable[[int, tuple[int, ...]], list[float]], dtype: torch.dtype = torch.float64) -> None:
        self.law, self.dtype = law, dtype

    def start(self, session: Session) -> None:
        return None

    def propose(self, session: Session, state: None, limits: list[int]) -> Proposal:
        tokens: list[list[int]] = [[] for _ in limits]
        laws = torch.zeros(len(limits), max(max(limits), 1), session.model.vocab_size, dtype=self.dtype)
        for place, limit in enumerate(limits):
            row = session.rows[place]
            for at in range(limit):
                laws[place, at] = torch.tensor(self.law(row, (*session.tokens[row], *tokens[place])), dtype=self.dtype)
                drawn = session.chance.categorical(laws[place, at][None], [row])[0]
                tokens[place].append(drawn)
                if drawn == session.model.eos_id:
                    break
        return Proposal(tokens, laws[:, : max(len(row) for row in tokens)])

    def commit(self, session: Session, state: None, verdict: object) -> None:
        return None


def draft_laws(
    kind: str, targets: Sequence[Callable[[tuple[int, ...]], list[float]]], seed: int = 0
) -> Callable[[int, tuple[int, ...]], list[float]]:
    """Draft laws against given targets: random ones, and adversarial ones."""

    def law(row: int, prefix: tuple[int, ...]) -> list[float]:
        p = targets[row](prefix)
        rng = random.Random(f"{seed}/{row}/{prefix}")
        weights = [rng.expovariate(1.0) for _ in p]
        if kind == "right":
            return list(p)
        if kind == "never":  # all mass on the least likely token
            worst = min(range(len(p)), key=lambda i: p[i])
            return [float(i == worst) for i in range(len(p))]
        if kind == "disjoint":  # no mass where the target has any, as far as that is possible
            weights = [0.0 if x > 0 else w for x, w in zip(p, weights)]
            if not any(weights):
                return law_never(p)
        if kind == "zeros":  # some tokens that the target wants are never drafted
            weights[rng.randrange(len(p))] = 0.0
        total = sum(weights)
        return [w / total for w in weights]

    def law_never(p: list[float]) -> list[float]:
        worst = min(range(len(p)), key=lambda i: p[i])
        return [float(i == worst) for i in range(len(p))]

    return law


DRAFTS = ("random", "right", "never", "disjoint", "zeros")


# --- checks, shared by tests and by seeded faults -------------------------------------------------------------------


def verifier_error(
    verifier: object, sampling: SamplingConfig, kind: str, *, vocab: int = 4, gamma: int = 2, seed: int = 0
) -> float:
    """Largest error of the law of the next gamma + 1 tokens that one call of the verifier produces.

    Target laws come from random logits (two arms) through the library's sampling; the expected law from `oracle_law`.
    What the call leaves open of the gamma + 1 tokens is continued with the exact law.
    """
    from spear_spec.decoding.sampling import probabilities
    from spear_spec.runtime.lanes import guide

    def logits(prefix: tuple[int, ...], arm: str) -> list[float]:
        rng = random.Random(f"{seed}/{arm}/{prefix}")
        return [rng.gauss(0, 1.5) for _ in range(vocab)]

    def target(prefix: tuple[int, ...]) -> list[float]:
        return oracle_law(logits(prefix, "cond"), sampling, logits(prefix, "null"))

    def library(prefix: tuple[int, ...]) -> torch.Tensor:
        cond, null = (torch.tensor(logits(prefix, arm), dtype=torch.float64) for arm in ("cond", "null"))
        return probabilities(cond if sampling.guidance == 1 else guide(cond, null, sampling.guidance), sampling)

    q = draft_laws(kind, [target], seed)

    def run(chance: Enumerating) -> tuple[int, ...]:
        draft: list[int] = []
        laws = []
        for _ in range(gamma):
            laws.append(torch.tensor(q(0, tuple(draft)), dtype=torch.float64))
            draft += chance.categorical(laws[-1][None], [0])
        p = torch.stack([library(tuple(draft[:i])) for i in range(gamma + 1)])[None]
        verdict = verifier.verify(Proposal([draft], torch.stack(laws)[None]), p, chance, [0])  # type: ignore[attr-defined]
        assert len(verdict.tokens[0]) == verdict.num_accepted[0] + 1
        return tuple(verdict.tokens[0])

    got: dict[tuple[int, ...], float] = defaultdict(float)
    expected: dict[tuple[int, ...], float] = {}

    def extend(store: dict[tuple[int, ...], float], prefix: tuple[int, ...], weight: float) -> None:
        if len(prefix) == gamma + 1:
            store[prefix] = store.get(prefix, 0.0) + weight
            return
        for token, p in enumerate(target(prefix)):
            if p > 0:
                extend(store, (*prefix, token), weight * p)

    for tokens, weight in walk(run).items():
        extend(got, tokens, weight)
    extend(expected, (), 1.0)
    return distance(got, expected)


def loop_error(
    make_drafter: Callable[[Sequence[UncachedTarget]], object],
    verifier: object,
    sampling: SamplingConfig,
    *,
    batch: int = 1,
    watch: int = 0,
    cap: int = 3,
    gamma: int = 2,
    seed: int = 3,
    caps: list[int] | None = None,
    semantic: int = 2,
) -> float:
    """Largest error of the law of row `watch`'s whole utterances in the real loop, by enumeration in float64."""
    model = tiny_model(semantic=semantic, seed=seed)
    targets = [UncachedTarget(model, text, sampling) for text in TEXTS[:batch]]
    drafter = make_drafter(targets)
    caps = caps or [cap] * batch
    with torch.inference_mode():
        memory = model.encode(texts(batch))

    def run(chance: Enumerating) -> tuple[int, ...]:
        session = Session(model, memory, sampling, chance=chance, max_tokens=caps)
        for _ in speculate(session, drafter, verifier, gamma):  # type: ignore[arg-type]
            pass
        return tuple(session.tokens[watch])

    return distance(walk(run, watch, seed), targets[watch].sequences(caps[watch]))


# --- the loop by sampling -------------------------------------------------------------------------------------------


def tiny_draft(model: TextToSemantic, seed: int = 1) -> DraftDecoder:
    """A draft of one layer that sees both layers of the tiny target; random weights."""
    torch.manual_seed(seed)
    draft = DraftDecoder(DraftConfig(dim=model.cfg.dim, heads=2, dim_head=8, target_layers=(1, 2)), model.cfg)
    return draft.to(model.dtype).eval()


def tiny_block(model: TextToSemantic, seed: int = 1) -> BlockDecoder:
    """A block decoder for the tiny target; block and window are shorter than drafts and utterances may be, and the
    token before counts.
    """
    torch.manual_seed(seed)
    cfg = BlockConfig(model.dim, model.vocab_size, (1, 2), heads=2, dim_head=8, block=6, window=5, rank=8)
    draft = BlockDecoder(cfg, model.cfg)
    torch.nn.init.normal_(draft.after, 0, 0.5)
    return draft.to(model.dtype).eval()


def sampled_pvalues(
    decode: Callable[[Session], object],
    sampling: SamplingConfig,
    *,
    batch: int,
    rounds: int,
    cap: int,
    seed: int = 3,
    semantic: int = 3,
    model: TextToSemantic | None = None,
) -> list[float]:
    """Chi-square p-value of each row's sampled utterances against its enumerated law (cells under 5 expected are
    pooled).
    """
    model = model or tiny_model(semantic=semantic, dtype=torch.float32, seed=seed)
    exact = copy.deepcopy(model).double()
    caps = [cap - row % 2 for row in range(batch)]
    counts: list[Counter[tuple[int, ...]]] = [Counter() for _ in range(batch)]
    generator = torch.Generator().manual_seed(seed)
    with torch.inference_mode():
        memory = model.encode(texts(batch))
    for _ in range(rounds):
        session = Session(model, memory, sampling, generator=generator, max_tokens=caps)
        for _ in decode(session):  # type: ignore[attr-defined]
            pass
        for row in range(batch):
            counts[row][tuple(session.tokens[row])] += 1
    values = []
    for row in range(batch):
        law = UncachedTarget(exact, TEXTS[row], sampling).sequences(caps[row])
        values.append(chi_square(counts[row], law, rounds))
    return values


def chi_square(counts: Counter[tuple[int, ...]], law: dict[tuple[int, ...], float], rounds: int) -> float:
    """p-value of counts against a law; an outcome that the law excludes gives 0."""
    if any(key not in law for key in counts):
        return 0.0
    cells: list[list[float]] = []
    pool = [0.0, 0.0]
    for key, p in sorted(law.items(), key=lambda item: item[1]):
        pool[0] += counts.get(key, 0)
        pool[1] += p * rounds
        if pool[1] >= 5:
            cells.append(pool)
            pool = [0.0, 0.0]
    if cells:
        cells[-1][0] += pool[0]
        cells[-1][1] += pool[1]
    if len(cells) < 2:
        return 1.0
    statistic = sum((seen - expected) ** 2 / expected for seen, expected in cells)
    return float(scipy_stats.chi2.sf(statistic, len(cells) - 1))


# --- faults ---------------------------------------------------------------------------------------------------------


def spoil_target_laws(patch: Any, change: Callable[[torch.Tensor, SamplingConfig], torch.Tensor]) -> None:
    """The target's laws, and not the draft's, become what `change` makes of the guided logits."""

    def laws(self: Session, proposal: Proposal | None = None) -> torch.Tensor:
        mixed = self.lanes.mix(self.score(proposal), [sampling.guidance for sampling in self.samplings])
        return change(mixed, self.samplings[0])

    in_parts(patch)
    patch.setattr(Session, "laws", laws)


def in_parts(patch: Any) -> None:
    """Steps are taken in parts, which a fault can be put between, and not as one call into C."""
    patch.setattr(OneCall, "step", lambda *_: None)


# --- caches ---------------------------------------------------------------------------------------------------------


def cache_error(seed: int = 0, *, batch: int = 4, rounds: int = 14, trees: bool = True) -> float:
    """Largest difference of cached from uncached logits in float64 after random appends, crops, tree writes and
    departures.
    """
    rng = random.Random(seed)
    model = tiny_model(semantic=5, seed=seed)
    with torch.no_grad():
        memory = model.encode(texts(batch))
        texts_of = TEXTS[:batch]
        cache = model.new_cache(batch, capacity=2)
        kept: list[list[int]] = [[] for _ in range(batch)]
        worst = 0.0

        def uncached(row: int, tokens: list[int]) -> torch.Tensor:
            return model(torch.tensor([tokens]), model.encode(torch.tensor([texts_of[row]]))).logits[0, -1]

        for turn in range(rounds):
            n = rng.randint(1, 5)
            base = list(cache.lengths)
            new = [[rng.randrange(6) for _ in range(n)] for _ in kept]
            if trees and turn % 3 == 2:
                parents = [[rng.randint(-1, node - 1) for node in range(n)] for _ in kept]
                tree = Tree.from_lists(parents)
                logits = model(torch.tensor(new), memory, cache, tree=tree).logits
                paths = []
                for row, line in enumerate(parents):
                    node = rng.randrange(n)
                    path = [node]
                    while line[path[0]] >= 0:
                        path.insert(0, line[path[0]])
                    for place in range(len(path)):
                        prefix = kept[row] + [new[row][i] for i in path[: place + 1]]
                        worst = max(worst, float((logits[row, path[place]] - uncached(row, prefix)).abs().max()))
                    path = path[: rng.randint(0, len(path))]
                    kept[row] += [new[row][i] for i in path]
                    paths.append(path)
                width = max(1, max(len(path) for path in paths))
                cache.keep(base, torch.tensor([path + [-1] * (width - len(path)) for path in paths]))
            else:
                logits = model(torch.tensor(new), memory, cache).logits
                for row in range(len(kept)):
                    for place in range(n):
                        worst = max(
                            worst,
                            float((logits[row, place] - uncached(row, kept[row] + new[row][: place + 1])).abs().max()),
                        )
                kept = [line + fresh for line, fresh in zip(kept, new)]
                kept = [line[: rng.randint(max(0, len(line) - 4), len(line))] for line in kept]
                cache.crop([len(line) for line in kept])
            if turn == rounds // 2 and batch > 2:
                stay = [row for row in range(len(kept)) if row != 1]
                cache.select(stay)
                memory = memory.select(stay)
                kept, texts_of = [kept[row] for row in stay], [texts_of[row] for row in stay]
    return worst


# --- greedy ---------------------------------------------------------------------------------------------------------


def lively_model(seed: int) -> TextToSemantic:
    """Random weights so large that the greedy output wanders instead of repeating itself; float32."""
    model = tiny_model(semantic=40, dtype=torch.float32, seed=seed, dim=32)
    with torch.no_grad():
        model.semantic_emb.weight.mul_(0.86)
        for layer in model.decoder:
            layer.ff.up.weight.mul_(6.0)
            layer.ff.down.weight.mul_(10.0)
            layer.self_attn.to_out.weight.mul_(7.5)
            layer.cross_attn.to_out.weight.mul_(7.5)
    return model


def greedy_flips(
    decode: Callable[[Session], object], *, batch: int, cap: int = 48, seed: int = 4, guidance: float = 1.0
) -> int:
    """Rows whose greedy float32 output leaves the plain loop's at a place where the two best logits lie more than
    1e-4 apart.
    """
    model = lively_model(seed)
    sampling = SamplingConfig(temperature=0.0, guidance=guidance)
    with torch.inference_mode():
        memory = model.encode(texts(batch))
    outputs = []
    for loop in (generate, decode):
        session = Session(model, memory, sampling, generator=torch.Generator().manual_seed(0), max_tokens=cap)
        for _ in loop(session):  # type: ignore[attr-defined]
            pass
        outputs.append([list(tokens) for tokens in session.tokens])
    assert sum(len(set(plain)) > 2 for plain in outputs[0]) >= batch / 2, (
        "the greedy output is too monotonous to test anything"
    )
    flips = 0
    for row, (plain, other) in enumerate(zip(*outputs)):
        if plain == other:
            continue
        at = next(i for i in range(len(plain)) if i >= len(other) or plain[i] != other[i])
        with torch.inference_mode():
            own = model.encode(torch.tensor([TEXTS[row]]))
            ids = torch.tensor([[model.start_id, *plain[:at]]])
            logits = model(ids, own).logits[0, -1]
            if guidance != 1:
                null = model(ids, own.unconditional()).logits[0, -1]
                logits = null + (logits - null) * guidance
        best = logits.topk(2).values
        flips += bool(best[0] - best[1] > 1e-4)
    return flips
