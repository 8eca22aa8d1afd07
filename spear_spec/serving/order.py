"""Who joins the batch. Functions of the listeners and the clock alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from spear_spec.serving.limits import Limits
from spear_spec.serving.listener import Listener, Sentence

NEAR_S = 4.0  # a sentence that is needed this soon joins while there are rows
DANGER_S = 1.0  # and one that is needed this soon joins in any case
CALM_S = 1.5  # while somebody has less than this to hear, nobody's later sentences join


def joining(listeners: Iterable[Listener], rows: int, now: float, limits: Limits) -> list[tuple[Listener, Sentence]]:
    """The sentences that join the batch now, `rows` of which are taken; they are moved to `under_way`.

    Who is needed first joins first, while there are rows. Beyond them join those whose listener has heard nothing or is
    about to run dry, and has nothing under way: they wait for nobody. A sentence that is not needed soon waits until
    nobody else is pressed, and never joins while its listener does not fetch what is there.
    """
    there = [listener for listener in listeners if not listener.over]
    out: list[tuple[Listener, Sentence]] = []

    def join(listener: Listener) -> None:
        sentence = listener.ready.popleft()
        listener.under_way.append(sentence)
        out.append((listener, sentence))

    pressed = _pressed(there, now)
    while True:
        full = rows + len(out) >= limits.rows
        waiting = [
            one for one in there if one.ready and one.ahead_s() < limits.buffer_s and not (full and one.under_way)
        ]
        if not waiting:
            return out
        needs = {one.number: one.need(now) for one in waiting}
        first = min(waiting, key=lambda one: (needs[one.number], one.number))
        soon = needs[first.number] - now
        if full and soon > DANGER_S:
            return out
        if soon > NEAR_S and any(one is not first for one in pressed):
            return out
        join(first)


def _pressed(listeners: Sequence[Listener], now: float) -> list[Listener]:
    """Those who will soon have nothing to hear, and for whom there is something to do."""
    return [one for one in listeners if (one.ready or one.under_way or one.preparing) and one.left(now) < CALM_S]
