"""k independent paths from the small draft decoder (SpecTr, arXiv 2310.15141)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spear_spec.decoding.drafters.growth import Growth
from spear_spec.decoding.drafters.small import SmallDrafter, SmallState
from spear_spec.decoding.proposal import Proposal
from spear_spec.decoding.session import Session

if TYPE_CHECKING:
    from spear_spec.models.draft import DraftDecoder


class KPathDrafter(SmallDrafter):
    """Draws k chains of up to gamma tokens; paths that say the same are kept, since the rule counts them."""

    name = "kpath"
    form = "iid"

    def __init__(self, draft: DraftDecoder, *, num_drafts: int = 4, guided: bool = False) -> None:
        super().__init__(draft, guided=guided)
        self.num_drafts = num_drafts

    def propose(self, session: Session, state: SmallState, limits: list[int]) -> Proposal:
        if max(limits) == 0:
            return Proposal([[] for _ in limits])
        growth = Growth(session, state, self.catch_up(session, state))
        eos = session.model.eos_id
        # (row, node at its end) of every path that goes on; paths start at the prefix
        ends = [(place, -1) for place, limit in enumerate(limits) if limit > 0 for _ in range(self.num_drafts)]
        for depth in range(1, max(limits) + 1):
            places = [place for place, _ in ends]
            weights = growth.laws[places, [growth.law_index(place, node) for place, node in ends]]
            drawn = session.chance.categorical(weights, [session.rows[place] for place in places])
            ends = [(place, growth.add(place, token, node)) for (place, node), token in zip(ends, drawn)]
            ends = [(place, node) for place, node in ends if growth.tokens[place][node] != eos and depth < limits[place]]
            if not ends:
                break
            growth.expand([[node for row, node in ends if row == place] for place in range(len(limits))])
        return growth.proposal()
