"""Seeded faults in each exact verifier: each must make the check of the law fail."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from spear_spec.decoding.proposal import Branches, Proposal, Verdict
from spear_spec.decoding.verifiers import (
    VERIFIERS,
    block,
    kseq,
    make_verifier,
    matching,
    points,
    recursive,
    recursive_wor,
    rejection,
    walk,
)
from spear_spec.decoding.verifiers.gather import ratio
from spear_spec.exactness.oracles import SAMPLINGS
from spear_spec.exactness.rules import SharedUniform, tree_error

Patch = pytest.MonkeyPatch
Accept = Callable[[float], bool]

LAWFUL = [
    ("rejection", "chain"),
    ("rejection", "point_chain"),
    ("block", "chain"),
    ("block", "point_chain"),
    ("kseq", "iid"),
    ("recursive", "iid"),
    ("recursive", "points"),
    ("recursive_wor", "wor"),
    ("coupled", "chain"),
    ("coupled", "point_chain"),
    ("matching", "iid"),
    ("matching", "points"),
]


def lawful(name: str, form: str) -> bool:
    """The check of `test_verifiers_law`, on a few drafts."""
    drafts: Sequence[Sequence[int]] = (
        [(-1, 0, 1)] if form in ("chain", "point_chain") else [(-1, -1, -1), (-1, -1, 0, 1)]
    )
    return all(
        tree_error(make_verifier(name), SAMPLINGS[s], "random", form, shape, seed=seed) < 1e-9
        for s in ("plain", "all")
        for shape in drafts
        for seed in (0, 1)
    )


# --- any rule -------------------------------------------------------------------------------------------------------


def one_uniform_for_all(name: str) -> Callable[[Patch], None]:
    """u is shared between positions, or between siblings."""

    def fault(patch: Patch) -> None:
        right = VERIFIERS[name].rule.verify
        patch.setattr(
            VERIFIERS[name].rule,
            "verify",
            lambda self, proposal, p, chance, rows: right(self, proposal, p, SharedUniform(chance), rows),
        )

    fault.__name__ = f"one_uniform_for_all_{name}"
    return fault


def prune_after_looking(name: str) -> Callable[[Patch], None]:
    """Of siblings that were drawn, only those that the target likes best are offered."""

    def fault(patch: Patch) -> None:
        right = VERIFIERS[name].rule.verify

        def verify(self: Any, proposal: Proposal, p: Tensor, chance: Any, rows: Sequence[int]) -> Verdict:
            assert proposal.parents is not None and proposal.probs is not None
            tokens, parents = proposal.tokens[0], proposal.parents[0]
            best = {
                parent: max(
                    (n for n, other in enumerate(parents) if other == parent),
                    key=lambda n: float(p[0, parents[n] + 1, tokens[n]]),
                )
                for parent in set(parents)
            }
            keep: list[int] = []
            for node, parent in enumerate(parents):
                if best[parent] == node and (parent == -1 or parent in keep):
                    keep.append(node)
            index = {-1: -1, **{node: at for at, node in enumerate(keep)}}
            small = Proposal(
                [[tokens[n] for n in keep]],
                proposal.probs[:, keep],
                [[index[parents[n]] for n in keep]],
            )
            verdict = right(self, small, p[:, [0, *[n + 1 for n in keep]]], chance, rows)
            verdict.num_drafted = [len(tokens)]
            verdict.paths = [[keep[n] for n in verdict.paths[0]]]
            return verdict

        patch.setattr(VERIFIERS[name].rule, "verify", verify)

    fault.__name__ = f"prune_after_looking_{name}"
    return fault


def drop_equal_siblings(patch: Patch) -> None:
    """A set of tokens instead of draws."""
    right = Branches.after

    def after(self: Branches, place: Sequence[int]) -> list[int]:
        nodes = right(self, place)
        return [node for at, node in enumerate(nodes) if self.tokens[node] not in [self.tokens[n] for n in nodes[:at]]]

    patch.setattr(Branches, "after", after)


def law_of_another_place(patch: Patch) -> None:
    """The target's law before the accepted token instead of the one after it."""

    class Late:
        def __init__(self, laws: Tensor) -> None:
            self.laws = laws

        def __getitem__(self, at: Any) -> Tensor:
            place, node = at
            return self.laws[place, max(node - 1, 0)]

    original = matching.MatchingVerifier.verify
    patch.setattr(
        matching.MatchingVerifier,
        "verify",
        lambda self, proposal, p, chance, rows: original(self, proposal, Late(p), chance, rows),
    )


# --- rejection and block --------------------------------------------------------------------------------------------


def rejection_residual_is_p(patch: Patch) -> None:
    patch.setattr(rejection, "residual", lambda p, q, token: p)


def rejection_of_a_token_alone(patch: Patch) -> None:
    """The residual takes out the rejected token only, as for a point mass."""
    right = rejection.residual
    patch.setattr(rejection, "residual", lambda p, q, token: right(p, None, token))


def rejection_laws_one_late(patch: Patch) -> None:
    """Acceptance reads the law after the token."""
    right = rejection._ratios
    patch.setattr(rejection, "_ratios", lambda proposal, p: right(proposal, torch.cat([p[:, 1:], p[:, -1:]], 1)))


def block_residual_without_r(patch: Patch) -> None:
    right = block.residual
    patch.setattr(block, "residual", lambda law, q, token: right(law / law.sum(), q, token))


def block_trial_is_r(patch: Patch) -> None:
    """h_i = r_i for all i, not only for the last."""
    patch.setattr(block, "_success", lambda excess, r, i: r[i])


def block_ratios_not_cut_at_one(patch: Patch) -> None:
    def joint(p: list[float], q: list[float], length: int) -> list[float]:
        r = [1.0]
        for at in range(length):
            r.append(r[-1] * p[at] / q[at])
        return r

    patch.setattr(block, "_joint_ratios", joint)


def block_excess_without_r(patch: Patch) -> None:
    """S_i with p in place of r_i p."""
    right = block._excess
    patch.setattr(
        block, "_excess", lambda proposal, p, joint, p_at: right(proposal, p, [[1.0] * len(r) for r in joint], p_at)
    )


def block_excess_one_late(patch: Patch) -> None:
    """S_i of the next position."""
    right = block._excess
    patch.setattr(
        block,
        "_excess",
        lambda proposal, p, joint, p_at: [[*line[1:], *line[-1:]] for line in right(proposal, p, joint, p_at)],
    )


# --- kseq -----------------------------------------------------------------------------------------------------------


def kseq_residual_not_divided_by_beta(patch: Patch) -> None:
    right = kseq._residual
    patch.setattr(
        kseq,
        "_residual",
        lambda p, q, k, gamma, beta: (
            (p - torch.minimum(q, p / gamma) * kseq.acceptance(beta, k)).clamp_(min=0.0)
            if beta
            else right(p, q, k, gamma, beta)
        ),
    )


def kseq_residual_of_one_draft(patch: Patch) -> None:
    patch.setattr(kseq, "_residual", lambda p, q, k, gamma, beta: rejection.residual(p, q, 0))


def kseq_accepts_without_gamma(patch: Patch) -> None:
    patch.setattr(kseq, "ratio", lambda p, q: ratio(p, q / 1.3))


def kseq_gamma_of_more_paths(patch: Patch) -> None:
    """k of the residual is that of the start, not the paths that survived."""
    right = kseq._residual
    patch.setattr(kseq, "_residual", lambda p, q, k, gamma, beta: right(p, q, k + 1, gamma, beta))


def kseq_lower_end_of_a_coarse_bracket(patch: Patch) -> None:
    """A threshold below gamma*: the residual needs negative weights."""
    right = kseq.threshold

    def low(p: Tensor, q: Tensor, k: int) -> tuple[float, float]:
        gamma = 1.0 + (right(p, q, k)[0] - 1.0) * 0.8
        return gamma, torch.minimum(q, p / gamma).sum().item()

    patch.setattr(kseq, "threshold", low)


# --- recursive ------------------------------------------------------------------------------------------------------


def recursive_rule(normalise: bool = True, behind: bool = False, last: bool = True) -> Callable[[Patch], None]:
    """The rule again, with: the residual not renormalised; or always p in the acceptance; or the last update left
    out."""

    def choose(offer: walk.Siblings, accept: Accept) -> int | Tensor:
        r = offer.p
        for nth, (token, q_x) in enumerate(zip(offer.tokens, offer.q_at)):
            if accept(ratio(float((offer.p if behind else r)[token]), q_x)):
                return token
            if nth == len(offer.tokens) - 1 and not last:
                break
            r = (r - offer.q).clamp_(min=0.0)
            if normalise and float(r.sum()) > 0:
                r = r / r.sum()
        return r if float(r.sum()) > 0 else offer.p

    def fault(patch: Patch) -> None:
        patch.setattr(recursive, "_choose", choose)

    fault.__name__ = f"recursive_rule_{normalise}_{behind}_{last}"
    return fault


def points_keep_their_mass(patch: Patch) -> None:
    """The rejected token's mass stays in the denominator: renormalisation left out."""

    def choose(offer: walk.Siblings, accept: Accept) -> int | Tensor:
        for token, p_x in zip(offer.tokens, offer.p_at):
            if accept(p_x):
                return token
        rest = offer.p.clone()
        rest[offer.tokens] = 0.0
        return rest if float(rest.sum()) > 0 else offer.p

    patch.setattr(recursive, "choose_point", choose)


def points_last_one_stays(patch: Patch) -> None:
    """The last rejected token can still be recovered."""
    right = points.choose_point

    def choose(offer: walk.Siblings, accept: Accept) -> int | Tensor:
        outcome = right(offer, accept)
        if isinstance(outcome, Tensor):
            outcome = outcome.clone()
            outcome[offer.tokens[-1]] = offer.p_at[-1]
        return outcome

    patch.setattr(recursive, "choose_point", choose)


# --- recursive_wor --------------------------------------------------------------------------------------------------


def wor_rule(take_out: bool = True, normalise: bool = True, early: bool = False) -> Callable[[Patch], None]:
    """The rule again, with: siblings left in q; or q not renormalised; or the next sibling's law in the residual."""

    def choose(offer: walk.Siblings, accept: Accept) -> int | Tensor:
        r, q = offer.p, offer.q
        assert q is not None
        for token in offer.tokens:
            if accept(ratio(float(r[token]), float(q[token]))):
                return token
            following = q.clone()
            if take_out:
                following[token] = 0.0
            if normalise and float(following.sum()) > 0:
                following = following / following.sum()
            r = (r - (following if early else q)).clamp_(min=0.0)
            if float(r.sum()) <= 0:
                return offer.p
            r, q = r / r.sum(), following
        return r

    def fault(patch: Patch) -> None:
        patch.setattr(recursive_wor, "_choose", choose)

    fault.__name__ = f"wor_rule_{take_out}_{normalise}_{early}"
    return fault


# --- matching -------------------------------------------------------------------------------------------------------


def matching_redraws(patch: Patch) -> None:
    """Where no child matches, another token is drawn in place of the one that was."""
    original = matching.MatchingVerifier.verify

    def verify(self: Any, proposal: Proposal, p: Tensor, chance: Any, rows: Sequence[int]) -> Verdict:
        verdict = original(self, proposal, p, chance, rows)
        nodes = [path[-1] if path else -1 for path in verdict.paths or []]
        fresh = chance.categorical(torch.stack([p[place, node + 1] for place, node in enumerate(nodes)]), rows)
        offered = [
            [t for t, parent in zip(proposal.tokens[place], proposal.parents[place]) if parent == node]
            for place, node in enumerate(nodes)
        ]
        verdict.tokens = [
            [*line[:-1], token if children else line[-1]]
            for line, token, children in zip(verdict.tokens, fresh, offered)
        ]
        return verdict

    patch.setattr(matching.MatchingVerifier, "verify", verify)


def matching_prefers_children(patch: Patch) -> None:
    """y is drawn with the children's weights doubled."""
    original = matching.MatchingVerifier.verify

    def verify(self: Any, proposal: Proposal, p: Tensor, chance: Any, rows: Sequence[int]) -> Verdict:
        bent = p.clone()
        for node, parent in zip(proposal.tokens[0], proposal.parents[0]):
            bent[0, parent + 1, node] *= 2
        return original(self, proposal, bent, chance, rows)

    patch.setattr(matching.MatchingVerifier, "verify", verify)


FAULTS: list[tuple[Callable[[Patch], None], str, str]] = [
    (rejection_residual_is_p, "rejection", "chain"),
    (rejection_residual_is_p, "rejection", "point_chain"),
    (rejection_of_a_token_alone, "rejection", "chain"),
    (rejection_laws_one_late, "rejection", "chain"),
    (one_uniform_for_all("rejection"), "rejection", "chain"),
    (block_residual_without_r, "block", "chain"),
    (block_trial_is_r, "block", "chain"),
    (block_trial_is_r, "block", "point_chain"),
    (block_ratios_not_cut_at_one, "block", "chain"),
    (block_excess_without_r, "block", "chain"),
    (block_excess_one_late, "block", "chain"),
    (one_uniform_for_all("block"), "block", "chain"),
    (kseq_residual_not_divided_by_beta, "kseq", "iid"),
    (kseq_residual_of_one_draft, "kseq", "iid"),
    (kseq_accepts_without_gamma, "kseq", "iid"),
    (kseq_gamma_of_more_paths, "kseq", "iid"),
    (kseq_lower_end_of_a_coarse_bracket, "kseq", "iid"),
    (drop_equal_siblings, "kseq", "iid"),
    (prune_after_looking("kseq"), "kseq", "iid"),
    (one_uniform_for_all("kseq"), "kseq", "iid"),
    (recursive_rule(normalise=False), "recursive", "iid"),
    (recursive_rule(behind=True), "recursive", "iid"),
    (recursive_rule(last=False), "recursive", "iid"),
    (drop_equal_siblings, "recursive", "iid"),
    (prune_after_looking("recursive"), "recursive", "iid"),
    (one_uniform_for_all("recursive"), "recursive", "iid"),
    (points_keep_their_mass, "recursive", "points"),
    (points_last_one_stays, "recursive", "points"),
    (one_uniform_for_all("recursive"), "recursive", "points"),
    (wor_rule(take_out=False), "recursive_wor", "wor"),
    (wor_rule(normalise=False), "recursive_wor", "wor"),
    (wor_rule(early=True), "recursive_wor", "wor"),
    (prune_after_looking("recursive_wor"), "recursive_wor", "wor"),
    (one_uniform_for_all("recursive_wor"), "recursive_wor", "wor"),
    (matching_redraws, "matching", "iid"),
    (matching_redraws, "matching", "points"),
    (matching_prefers_children, "matching", "iid"),
    (law_of_another_place, "matching", "points"),
]


@pytest.mark.parametrize(("fault", "name", "form"), FAULTS, ids=lambda f: getattr(f, "__name__", f))
def test_a_seeded_fault_is_caught(fault: Callable[[Patch], None], name: str, form: str, monkeypatch: Patch) -> None:
    fault(monkeypatch)
    assert not lawful(name, form), f"{fault.__name__} went unnoticed"


@pytest.mark.parametrize(("name", "form"), LAWFUL)
def test_the_same_checks_pass_without_a_fault(name: str, form: str) -> None:
    assert lawful(name, form)


@pytest.mark.parametrize("name", ["recursive", "recursive_wor"])
def test_the_rules_written_again_are_lawful(name: str, monkeypatch: Patch) -> None:
    """The second writing, which the faults above break in one place each, is itself right."""
    (recursive_rule() if name == "recursive" else wor_rule())(monkeypatch)
    assert lawful(name, "iid" if name == "recursive" else "wor")
