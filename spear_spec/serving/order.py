"""Who is next: in the front end, in the batch, with the sound. Functions of the listeners and the clock alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from spear_spec.serving.limits import Limits
from spear_spec.serving.listener import Listener, Sentence

NEAR_S = 4.0  # a sentence that is needed this soon joins while there are rows
DANGER_S = 1.0  # and one that is needed this soon joins in any case
CALM_S = 1.5  # while somebody has less than this to hear, nobody's later sentences join
HURRY_S = 0.3  # who has less to hear gets what there is
AHEAD = 2  # sentences that are ready before they are asked for


def next_text(listeners: Iterable[Listener], now: float) -> Listener | None:
    """Whose next sentence is worked out: first sentences first, then who runs dry first."""
    there = [
        one
        for one in listeners
        if not (one.over or one.preparing or one.written)
        and len(one.ready) < AHEAD
        and (one.segments is not None or one.parts or one.cutter is None)
    ]
    if not there:
        return None
    return min(there, key=lambda one: (one.count > 0, one.number if not one.count else one.need(now), one.number))


def next_sound(listeners: Iterable[Listener], now: float) -> Listener | None:
    """Whose next piece is made: who has heard nothing first, then who runs dry first."""
    best: Listener | None = None
    for one in listeners:
        if one.over or one.sounding or not one.under_way:
            continue
        voiced = one.under_way[0].voiced
        hurry = bool(one.handed_s) and one.left(now) < HURRY_S
        if voiced is None or not voiced.due(one.heard is not None, hurry):
            continue
        if best is None or (one.dry, one.number) < (best.dry, best.number):
            best = one
    return best


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
        full = rows + sum(one.takes for one, _ in out) >= limits.rows
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
