"""The stages of a voice recipe, from corpora to a bundle that others can fetch, in their order."""

from __future__ import annotations

from spear_spec.training.recipe.stage import Stage
from spear_spec.training.recipe.stages import (
    align,
    benchmark,
    draft,
    drafters,
    evaluate,
    pack,
    prepare,
    push,
    sampling,
    t2s,
    tokenize,
    vocoder,
)

TABLE: tuple[Stage, ...] = tuple(
    module.STAGE
    for module in (
        prepare, tokenize, align, t2s, vocoder, sampling, draft, drafters, pack, evaluate, benchmark, push
    )
)  # fmt: skip
