"""What decoded tokens are held against: the bare target without a cache, and what the draft would have said."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from spear_spec.config import SamplingConfig
from spear_spec.decoding import Drafter, Request, Session, Verdict, probabilities
from spear_spec.decoding.request import encode
from spear_spec.decoding.session import exact_math
from spear_spec.engine import Decoder
from spear_spec.runtime.lanes import guide

Utterance = tuple[list[int], list[int]]  # text token ids, generated tokens


class Reference:
    """The bare target on one text: full forwards without a cache, and the voice's draft beside it."""

    def __init__(self, decoder: Decoder, ids: list[int], law: SamplingConfig) -> None:
        self.model, self.sampling = decoder.target, law
        # an own drafter need not use the voice's draft decoder; what it says is found out by `Replay`
        self.draft = decoder.parts.decoder
        self.guided = law.guidance != 1 and bool(decoder.parts.spec.options.get("guided"))
        self.memory = encode(self.model, [ids])

    @torch.inference_mode()
    def logits(self, tokens: list[int]) -> tuple[Tensor, Tensor | None]:
        """Guided logits [T, V] of each of T tokens given those before it, and the draft's law [T, V]."""
        model, scale = self.model, self.sampling.guidance
        features = () if self.draft is None else self.draft.cfg.target_layers
        ids = torch.tensor([[model.start_id, *tokens[:-1]]], dtype=torch.int64, device=model.device)
        lanes = [self.memory] if scale == 1 else [self.memory, self.memory.unconditional()]
        outputs = [model(ids, memory, features=features) for memory in lanes]
        logits = [out.logits[0] for out in outputs]
        q = None
        if self.draft is not None:
            drafts = []
            for memory, out in list(zip(lanes, outputs))[: 2 if self.guided else 1]:
                # position i reads the features of the position that predicted its token, as at run time
                fed = None
                if features:
                    fed = self.draft.fuse_target(out.features)
                    fed = torch.cat((torch.zeros_like(fed[:, :1]), fed[:, :-1]), dim=1)
                drafts.append(self.draft.logits(model, self.draft.step(model, ids, fed, self.draft.start(memory)))[0])
            q = probabilities(_mix(drafts, scale), self.sampling)
        return _mix(logits, scale), q


def _mix(lanes: list[Tensor], scale: float) -> Tensor:
    return lanes[0] if len(lanes) == 1 else guide(lanes[0], lanes[1], scale)


def drafts_of(decoder: Decoder, law: SamplingConfig, seed: int) -> Replay | None:
    """For an own drafter: a copy that has seen nothing yet.

    None for the voice's drafts, and where no copy can be made.
    """
    own, target = decoder.parts.own_drafter, decoder.target
    if own is None:
        return None
    try:
        drafter = copy.deepcopy(own, {id(target): target})
    except Exception:  # whatever a user's object raises: then there is one order less
        return None
    return Replay(decoder, drafter, law, seed + 2)


@dataclass
class Replay:
    """What a user's drafter says before each token, given the true past: its first law, or its first tokens.

    It runs beside the real tokens, one at a time, with chance of its own and without having seen what comes, so that
    what it says depends on the past alone.
    """

    decoder: Decoder
    drafter: Drafter
    sampling: SamplingConfig
    seed: int

    def laws(self, group: Sequence[Utterance]) -> list[Tensor]:
        """Each utterance's q [T, V]: only a key to sort by, so it need not sum to 1."""
        truth = [tokens for _, tokens in group]
        session = Session(self.decoder.target)
        session.admit([Request(ids, seed=self.seed, sampling=self.sampling, cap=len(tokens)) for ids, tokens in group])
        self.seed += 1
        found: list[list[Tensor]] = [[] for _ in group]
        with exact_math(session.model):
            state = self.drafter.start(session)
            while session.running:
                rows = list(session.rows)
                proposal = self.drafter.propose(session, state, [1] * len(rows))
                session.laws()
                for place, row in enumerate(rows):
                    found[row].append(_first_law(proposal, place, session.model.vocab_size))
                kept = [[truth[row][len(session.tokens[row])]] for row in rows]
                verdict = session.commit(Verdict(rows, kept, [0] * len(rows), [0] * len(rows)))
                self.drafter.commit(session, state, verdict)
        return [torch.stack(rows) for rows in found]


def _first_law(proposal: Any, place: int, vocabulary: int) -> Tensor:
    """The law [V] of the first draft token of a row; of point masses, one for each of them; zero without a draft."""
    law = torch.zeros(vocabulary, dtype=torch.float64)
    tokens = proposal.tokens[place]
    first = [
        node
        for node in range(len(tokens))
        if (node == 0 if proposal.parents is None else proposal.parents[place][node] < 0)
    ]
    if first and proposal.probs is not None:
        return proposal.probs[place, first[0]].double().cpu()
    for node in first:
        law[tokens[node]] = 1.0
    return law
