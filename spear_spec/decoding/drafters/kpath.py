"""k independent paths from a draft decoder (SpecTr, arXiv 2310.15141)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spear_spec.decoding.drafters.decoder import DecoderDrafter, DecoderState
from spear_spec.decoding.drafters.growth import Growth
from spear_spec.decoding.kinds import DrafterKind
from spear_spec.decoding.proposal import Proposal
from spear_spec.decoding.session import Session
from spear_spec.errors import ConfigError

if TYPE_CHECKING:
    from spear_spec.models.drafts.decoder import DraftDecoder


class KPathDrafter(DecoderDrafter):
    """Draws k chains of up to gamma tokens; paths that say the same are kept, since the rule counts them."""

    name, needs = "kpath", "small"
    form = "iid"

    def __init__(self, draft: DraftDecoder, *, num_drafts: int = 4, guided: bool = False, of: str = "small") -> None:
        """of: whose paths, by the name of a drafter that grows."""
        from spear_spec.decoding.drafters import growing  # which collects this one too

        if of not in growing():
            raise ConfigError(f"of must be {', '.join(growing())}, not {of!r}")
        super().__init__(draft, guided=guided)
        self.num_drafts = num_drafts

    def propose(self, session: Session, state: DecoderState, limits: list[int]) -> Proposal:
        if max(limits) == 0:
            return self.rest(session, state)
        growth = Growth(session, state, self.catch_up(session, state))
        eos = session.model.eos_id
        # (row, node at its end) of every path that goes on; paths start at the prefix
        ends = [(place, -1) for place, limit in enumerate(limits) if limit > 0 for _ in range(self.num_drafts)]
        for depth in range(1, max(limits) + 1):
            places = [place for place, _ in ends]
            weights = growth.laws[places, [growth.law_index(place, node) for place, node in ends]]
            drawn = session.chance.categorical(weights, [session.rows[place] for place in places])
            ends = [(place, growth.add(place, token, node)) for (place, node), token in zip(ends, drawn)]
            ends = [
                (place, node) for place, node in ends if growth.tokens[place][node] != eos and depth < limits[place]
            ]
            if not ends:
                break
            growth.expand([[node for row, node in ends if row == place] for place in range(len(limits))])
        return growth.proposal()


KIND = DrafterKind(
    KPathDrafter,
    "k paths of a draft decoder (option of)",
    usual={"gamma": 4, "num_drafts": 4},
    rule="kseq",
    needs_by="of",
    paths=True,
    raced=tuple(
        {"verifier": "kseq", "num_drafts": k, "gamma": 4, "options": {"of": of}}
        for of in ("small", "eagle")
        for k in (2, 4)
    ),
)
