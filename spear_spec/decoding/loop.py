"""The two loops. Plain: one token a target call, the baseline that everything is measured against and the oracle of its
law. Speculative: a drafter runs ahead, the target scores the draft in one call, a rule settles it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from spear_spec.decoding.contract import proposal_problem, verdict_problem
from spear_spec.decoding.drafters.base import Drafter
from spear_spec.decoding.one_call import OneCall
from spear_spec.decoding.proposal import Proposal, Verdict
from spear_spec.decoding.request import Request
from spear_spec.decoding.session import Session, exact_math
from spear_spec.decoding.verifiers.base import Verifier
from spear_spec.decoding.verifiers.tensors import uniforms_for
from spear_spec.errors import ContractError

Gamma = int | Callable[[int], int]


class Plain:
    """The autoregressive loop on a session."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self._one_call = OneCall(session)

    def admit(self, requests: Sequence[Request]) -> list[int]:
        """See `Session.admit`."""
        return self.session.admit(requests)

    def release(self, rows: Sequence[int]) -> None:
        """See `Session.release`."""
        self.session.release(rows)

    def step(self) -> Verdict:
        """One target call, one token a row."""
        session = self.session
        # modes are set for the step, not for the iteration: they must not leak out through a yield
        with session.step(), exact_math(session.model):
            if self._one_call.possible and (verdict := self._one_call.step()) is not None:
                return session.commit(verdict)
            law = session.laws()
            drawn = session.chance.categorical(law[:, 0], session.rows)
            count = len(drawn)
            return session.commit(Verdict(session.rows, [[token] for token in drawn], [0] * count, [0] * count))


class Speculative:
    """The speculative loop on a session (arXiv 2211.17192): rows advance at their own rate.

    A row drafts at most gamma tokens (a number, or what follows from the number of rows), fewer where its cap is near.
    """

    def __init__(self, session: Session, drafter: Drafter, verifier: Verifier, gamma: Gamma) -> None:
        self.session, self.drafter, self.verifier, self.gamma = session, drafter, verifier, gamma
        self._shares = bool(getattr(verifier, "shares", False))
        # objects that are not ours are looked at in every step
        self._check_draft, self._check_rule = (not _ours(thing) for thing in (drafter, verifier))
        self._one_call = OneCall(session, drafter, verifier)
        with session.step(), exact_math(session.model):
            self.state = drafter.start(session)

    def admit(self, requests: Sequence[Request]) -> list[int]:
        """Rows join, in the session and in the drafter's state.

        Raises:
            ContractError: the drafter keeps a state and cannot take them. The rest as `Session.admit`.
        """
        rows = self.session.admit(requests)
        if rows:
            self._tell("admit", len(rows))
        return rows

    def release(self, rows: Sequence[int]) -> None:
        """Rows leave before they have ended."""
        if gone := set(rows) & set(self.session.rows):
            self._tell("release", self.session.release(sorted(gone)))

    def _tell(self, what: str, argument: Any) -> None:
        """The drafter's part of rows that come and go; one without state needs none."""
        method = getattr(self.drafter, what, None)
        if method is not None:
            with self.session.step(), exact_math(self.session.model):
                method(self.session, self.state, argument)
        elif self.state is not None:
            raise ContractError(f"drafter {self.drafter.name} keeps a state and has no method {what}()")

    def step(self) -> Verdict:
        """One target call.

        Raises:
            NumericsError: the model produced NaN or infinity. ContractError: the drafter or the rule broke its
            contract.
        """
        session, drafter = self.session, self.drafter
        with session.step(), exact_math(session.model):
            # the call itself adds one token, so a draft that reaches the cap would be thrown away
            gamma = self.gamma if isinstance(self.gamma, int) else self.gamma(len(session.rows))
            limits = [min(gamma, left - 1) for left in session.remaining]
            if self._one_call.possible and (verdict := self._one_call.step(self.state, limits)) is not None:
                verdict = session.commit(verdict)
                drafter.commit(session, self.state, verdict)
                return verdict
            with session.drafting(self._shares):
                proposal = drafter.propose(session, self.state, limits)
            if self._check_draft and (
                problem := proposal_problem(proposal, drafter.form, limits, session.model.vocab_size, session.rows)
            ):
                raise ContractError(f"drafter {drafter.name}: {problem}")
            laws = session.laws(proposal)
            verdict = settled(session, self.verifier, proposal, laws)
            if self._check_rule and (problem := verdict_problem(verdict, proposal, session.rows, laws.shape[-1])):
                raise ContractError(f"verifier {self.verifier.name}: {problem}")
            verdict = session.commit(verdict)
            drafter.commit(session, self.state, verdict)
            return verdict


def settled(session: Session, rule: Verifier, proposal: Proposal, laws: Tensor) -> Verdict:
    """The rule's verdict: on tensors alone where the runtime wants that, the rule has that form, the draft is a chain
    and chance is made of uniforms; the host then reads one tensor. Else through lists: the same verdict.
    """
    settle, rows = getattr(rule, "settle", None), session.rows
    if settle is None or proposal.parents is not None or not session.runtime.on_tensors:
        return rule.verify(proposal, laws, session.chance, rows)
    count = uniforms_for(proposal.longest)
    ahead = [session.chance.ahead(row, count) for row in rows]
    if any(line is None for line in ahead):
        return rule.verify(proposal, laws, session.chance, rows)
    device, longest = laws.device, proposal.longest
    counts = [len(row) for row in proposal.tokens]
    padded = [[*row, *[0] * (longest - len(row))] for row in proposal.tokens]
    found = settle(
        torch.tensor(padded, dtype=torch.int64, device=device).view(len(rows), longest),
        torch.tensor(counts, dtype=torch.int64, device=device),
        proposal.probs,
        laws,
        torch.tensor(ahead, dtype=torch.float64, device=device),
    )
    told = torch.cat((found.accepted[:, None], found.used[:, None], found.tokens), 1).tolist()
    for row, line in zip(rows, told):
        session.chance.passed(row, line[1])
    accepted = [line[0] for line in told]
    return Verdict(list(rows), [line[2 : 3 + line[0]] for line in told], accepted, counts)


def generate(session: Session) -> Iterator[Verdict]:
    """Decode until every row has ended; one Verdict of one token a running row for each target call.

    Raises:
        NumericsError: the model produced NaN or infinity.
    """
    loop = Plain(session)
    while session.running:
        yield loop.step()


def speculate(session: Session, drafter: Drafter, verifier: Verifier, gamma: Gamma = 5) -> Iterator[Verdict]:
    """Decode until every row has ended; one Verdict for each target call.

    Raises:
        NumericsError: the model produced NaN or infinity. ContractError: the drafter or the rule broke its contract.
    """
    if not session.running:
        return
    loop = Speculative(session, drafter, verifier, gamma)
    while session.running:
        yield loop.step()


def _ours(thing: object) -> bool:
    return type(thing).__module__.startswith("spear_spec.")
