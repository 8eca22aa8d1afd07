"""Objects that are not ours, held to the protocols in every step: a slip becomes one clear line.

That a law is the one a token was drawn from is not checked here (see `verify`), only that what is handed over can be
read as the protocols say: it costs one pass over the laws.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from torch import Tensor

from spear_spec.decoding.drafters.base import Drafter
from spear_spec.decoding.proposal import Proposal, Verdict, is_token
from spear_spec.decoding.verifiers.base import Verifier
from spear_spec.errors import ContractError

FORMS = ("chain", "iid", "wor", "points")
_ROUNDING = 1e-2  # of a law's sum; half precision needs it


def checked_drafter(drafter: object) -> Drafter:
    """The drafter, if it is one.

    Raises:
        ContractError: it lacks a part of the protocol `Drafter`.
    """
    _require(drafter, "drafter", ("name", "form"), ("start", "propose", "commit"))
    known = cast(Drafter, drafter)
    if known.form not in FORMS:
        raise ContractError(f"drafter {known.name}: form must be one of {', '.join(FORMS)}, not {known.form!r}")
    return known


def checked_verifier(verifier: object) -> Verifier:
    """The verifier, if it is one.

    Raises:
        ContractError: it lacks a part of the protocol `Verifier`.
    """
    _require(verifier, "verifier", ("name", "lossless", "forms"), ("verify",))
    return cast(Verifier, verifier)


def _require(thing: object, what: str, values: tuple[str, ...], methods: tuple[str, ...]) -> None:
    if isinstance(thing, type):
        raise ContractError(f"{what} {thing.__name__} is a class; give an object: {thing.__name__}(...)")
    missing = [name for name in values if not hasattr(thing, name)]
    missing += [f"{name}()" for name in methods if not callable(getattr(thing, name, None))]
    if missing:
        raise ContractError(
            f"{what} {str(thing)[:80]} lacks {', '.join(missing)} "
            f"(see the protocol {what.capitalize()} in spear_spec.decoding)"
        )


def proposal_problem(
    proposal: Any, form: str, limits: Sequence[int], vocabulary: int, rows: Sequence[int] | None = None
) -> str | None:
    """What is wrong with a proposal, None where it can be read; rows: the session's numbers, for the message."""
    if not isinstance(proposal, Proposal):
        return f"propose must return a Proposal, not {type(proposal).__name__}"
    if not isinstance(proposal.tokens, list):
        return f"tokens must be a list of lists, one for each row, not {type(proposal.tokens).__name__}"
    if len(proposal.tokens) != len(limits):
        return f"proposed for {len(proposal.tokens)} rows, but {len(limits)} are running"
    names = list(range(len(limits))) if rows is None else rows
    for name, row in zip(names, proposal.tokens):
        if not isinstance(row, list):
            return f"row {name}: its tokens must be a list, not {type(row).__name__}"
        for at, token in enumerate(row):
            if not is_token(token, vocabulary):
                return f"row {name}, position {at}: {str(token)[:40]} is no token from 0 to {vocabulary - 1}"
    if proposal.parents is not None and (problem := _tree_problem(proposal)):
        return problem
    if form == "chain" and proposal.parents is not None:
        return 'its form is "chain", but it proposed a tree (parents)'
    if form == "points" and proposal.probs is not None:
        return 'its form is "points" (tokens chosen without chance), but its proposal has probs'
    if form in ("iid", "wor") and proposal.probs is None and proposal.longest:
        return f"its form is {form!r}, which needs the law of each token (probs)"
    for place, limit in enumerate(limits):
        if (depth := _depth(proposal, place)) > limit:
            return f"row {names[place]}: proposed a draft {depth} deep where at most {limit} were asked for"
    return _laws_problem(proposal, vocabulary, names)


def _tree_problem(proposal: Proposal) -> str | None:
    parents = proposal.parents
    if not isinstance(parents, list) or not all(isinstance(row, list) for row in parents):
        return "parents must be a list of lists"
    if not all(isinstance(node, int) for row in parents for node in row):
        return "parents must hold whole numbers"
    assert proposal.parents is not None
    if [len(row) for row in proposal.parents] != [len(row) for row in proposal.tokens]:
        return "parents must name one parent for each token"
    if any(not -1 <= parent < node for row in proposal.parents for node, parent in enumerate(row)):
        return "parents must stand before their children (-1: the kept prefix)"
    return None


def _depth(proposal: Proposal, place: int) -> int:
    if proposal.parents is None:
        return len(proposal.tokens[place])
    depths: list[int] = []
    for parent in proposal.parents[place]:
        depths.append(1 if parent < 0 else depths[parent] + 1)
    return max(depths, default=0)


def _laws_problem(proposal: Proposal, vocabulary: int, names: Sequence[int]) -> str | None:
    probs = proposal.probs
    if probs is None or not proposal.longest:
        return None
    if not isinstance(probs, Tensor) or probs.dim() != 3 or not probs.is_floating_point():
        return "probs must be a tensor of numbers [B, N, V]"
    if len(probs) != len(proposal.tokens) or probs.shape[1] < proposal.longest or probs.shape[2] != vocabulary:
        return f"probs must be [{len(proposal.tokens)}, {proposal.longest}, {vocabulary}], not {list(probs.shape)}"
    for place, row in enumerate(proposal.tokens):
        laws = probs[place, : len(row)]
        good = ((laws.sum(-1) - 1).abs() < _ROUNDING) & (laws >= 0).all(-1)  # NaN is neither
        for at, (token, fine) in enumerate(zip(row, good.tolist())):
            where = f"row {names[place]}, position {at}"
            if not fine:
                return f"{where}: probs must hold a law, nothing negative and summing to 1"
            if float(laws[at, token]) == 0 and proposal.parents is None:
                return f"{where}: it drew token {token}, to which the law in probs gives no chance"
    return None


def verdict_problem(verdict: Any, proposal: Proposal, rows: Sequence[int], vocabulary: int) -> str | None:
    """What is wrong with a verdict, None where it can be read."""
    if not isinstance(verdict, Verdict):
        return f"verify must return a Verdict, not {type(verdict).__name__}"
    if list(verdict.rows) != list(rows) or not len(verdict.tokens) == len(verdict.num_accepted) == len(
        verdict.num_drafted
    ) == len(rows):
        return f"its verdict must be on the rows {list(rows)}, in this order"
    if proposal.parents is not None and (verdict.paths is None or len(verdict.paths) != len(rows)):
        return "its verdict on a tree must say which nodes it accepted (paths)"
    for place, tokens in enumerate(verdict.tokens):
        if not isinstance(tokens, list):
            return f"its tokens must be lists, not {type(tokens).__name__}"
        wrong = next((token for token in tokens if not is_token(token, vocabulary)), None)
        if wrong is not None:
            return f"kept {str(wrong)[:40]}, which is no token from 0 to {vocabulary - 1}"
        accepted = verdict.num_accepted[place]
        if len(tokens) != accepted + 1:
            return f"kept {len(tokens)} tokens with {accepted} accepted: it must be the accepted ones and one more"
        path = list(range(accepted)) if verdict.paths is None or proposal.parents is None else verdict.paths[place]
        draft = proposal.tokens[place]
        if any(not 0 <= node < len(draft) for node in path) or [draft[node] for node in path] != tokens[:-1]:
            return "the tokens that it calls accepted are not the draft's"
        if proposal.parents is not None and [-1, *path[:-1]] != [proposal.parents[place][node] for node in path]:
            return "the nodes that it accepted are no path from the root"
    return None
