"""What the tests of rounds as graphs share: the round that a session asks for, and what is done in it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from spear_spec.decoding.rounds.loop import RoundSession
from spear_spec.decoding.rounds.round import Round
from spear_spec.exactness.capturable import Capturable, without_values


def round_of(made: RoundSession) -> Round:
    """The only one that it has asked for by now."""
    made._ask()
    (found,) = made.board.made.values()
    return found


def trace(function: Callable[[], None]) -> list[Any]:
    """Of a call that a graph could hold."""
    with Capturable() as seen:
        function()
    return seen.trace


def bare_trace(function: Callable[[], None], *, again: bool = True) -> list[Any]:
    """Of a call without values. again: what is made once is made in a call before."""
    bare = without_values(function)
    if again:
        bare()
    with Capturable("meta") as seen:
        bare()
    return seen.trace


def repeated(function: Callable[[], None]) -> list[Any]:
    """The trace of two calls, which is one and the same."""
    first, second = trace(function), trace(function)
    assert first == second
    return first
