"""Objects of a user's own, held to the protocols while they decode: a slip becomes one clear line.

Law and chance are not checked here (see `verify`), only that what is handed over can be read as the protocols say.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from spear_spec.decoding import Chance, Drafter, Proposal, Session, Verdict, Verifier
from spear_spec.errors import ConfigError

FORMS = ("chain", "iid", "wor", "points")
_ROUNDING = 1e-2  # of a law's sum; half precision needs it


def checked_drafter(drafter: object) -> Drafter:
    """The drafter, its proposals checked.

    Raises:
        ConfigError: it lacks a part of the protocol `Drafter`.
    """
    _require(drafter, "drafter", ("name", "form"), ("start", "propose", "commit"))
    known = cast(Drafter, drafter)
    if known.form not in FORMS:
        raise ConfigError(f"drafter {known.name}: form must be one of {', '.join(FORMS)}, not {known.form!r}")
    return _Drafter(known)


def checked_verifier(verifier: object) -> Verifier:
    """The verifier, its verdicts checked.

    Raises:
        ConfigError: it lacks a part of the protocol `Verifier`.
    """
    _require(verifier, "verifier", ("name", "lossless", "forms"), ("verify",))
    return _Verifier(cast(Verifier, verifier))


def _require(thing: object, what: str, values: tuple[str, ...], methods: tuple[str, ...]) -> None:
    if isinstance(thing, type):
        raise ConfigError(f"{what} {thing.__name__} is a class; give an object: {thing.__name__}(...)")
    missing = [name for name in values if not hasattr(thing, name)]
    missing += [f"{name}()" for name in methods if not callable(getattr(thing, name, None))]
    if missing:
        raise ConfigError(
            f"{what} {thing!r} lacks {', '.join(missing)} (see the protocol {what.capitalize()} in spear_spec.decoding)"
        )


class _Drafter:
    """A drafter whose proposals are looked at before they go on."""

    def __init__(self, inner: Drafter) -> None:
        self.inner, self.name, self.form = inner, inner.name, inner.form

    def start(self, session: Session) -> Any:
        return self.inner.start(session)

    def propose(self, session: Session, state: Any, limits: list[int]) -> Proposal:
        proposal = self.inner.propose(session, state, limits)
        if problem := _proposal_problem(proposal, self.form, limits, session.model.vocab_size):
            raise ConfigError(f"drafter {self.name}: {problem}")
        return proposal

    def commit(self, session: Session, state: Any, verdict: Verdict) -> None:
        self.inner.commit(session, state, verdict)


class _Verifier:
    """A verifier whose verdicts are looked at before they go on."""

    def __init__(self, inner: Verifier) -> None:
        self.inner, self.name, self.lossless, self.forms = (
            inner,
            inner.name,
            bool(inner.lossless),
            frozenset(inner.forms),
        )

    def verify(self, proposal: Proposal, target_probs: Tensor, chance: Chance, rows: Any) -> Verdict:
        verdict = self.inner.verify(proposal, target_probs, chance, rows)
        if problem := _verdict_problem(verdict, proposal, list(rows), target_probs.shape[-1]):
            raise ConfigError(f"verifier {self.name}: {problem}")
        return verdict


def _proposal_problem(proposal: Any, form: str, limits: list[int], vocabulary: int) -> str | None:
    if not isinstance(proposal, Proposal):
        return f"propose must return a Proposal, not {type(proposal).__name__}"
    if len(proposal.tokens) != len(limits):
        return f"proposed for {len(proposal.tokens)} rows, but {len(limits)} are running"
    wrong = next((token for row in proposal.tokens for token in row if not _is_id(token, vocabulary)), None)
    if wrong is not None:
        return f"proposed {wrong!r}, which is no token from 0 to {vocabulary - 1}"
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
            return f"proposed a draft {depth} deep where at most {limit} were asked for"
    return _laws_problem(proposal, vocabulary)


def _tree_problem(proposal: Proposal) -> str | None:
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


def _laws_problem(proposal: Proposal, vocabulary: int) -> str | None:
    probs = proposal.probs
    if probs is None or not proposal.longest:
        return None
    if not isinstance(probs, Tensor) or probs.dim() != 3:
        return "probs must be a tensor [B, N, V]"
    if len(probs) != len(proposal.tokens) or probs.shape[1] < proposal.longest or probs.shape[2] != vocabulary:
        return f"probs must be [{len(proposal.tokens)}, {proposal.longest}, {vocabulary}], not {list(probs.shape)}"
    for place, row in enumerate(proposal.tokens):
        laws = probs[place, : len(row)]
        if len(row) and not bool(((laws.sum(-1) - 1).abs() < _ROUNDING).all() and (laws >= 0).all()):
            return "probs must hold laws: nothing negative, each summing to 1"
    return None


def _verdict_problem(verdict: Any, proposal: Proposal, rows: list[int], vocabulary: int) -> str | None:
    if not isinstance(verdict, Verdict):
        return f"verify must return a Verdict, not {type(verdict).__name__}"
    if list(verdict.rows) != rows or not len(verdict.tokens) == len(verdict.num_accepted) == len(
        verdict.num_drafted
    ) == len(rows):
        return f"its verdict must be on the rows {rows}, in this order"
    if proposal.parents is not None and (verdict.paths is None or len(verdict.paths) != len(rows)):
        return "its verdict on a tree must say which nodes it accepted (paths)"
    for place, tokens in enumerate(verdict.tokens):
        wrong = next((token for token in tokens if not _is_id(token, vocabulary)), None)
        if wrong is not None:
            return f"kept {wrong!r}, which is no token from 0 to {vocabulary - 1}"
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


def _is_id(token: Any, vocabulary: int) -> bool:
    return isinstance(token, int) and not isinstance(token, (bool, torch.Tensor)) and 0 <= token < vocabulary
