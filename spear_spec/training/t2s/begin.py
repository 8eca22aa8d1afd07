"""A transformer that begins as another voice's: the same phonemes, other speakers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from spear_spec.config import T2SConfig
from spear_spec.errors import ConfigError
from spear_spec.models.spear_tts import TextToSemantic
from spear_spec.text import PhonemeTokenizer
from spear_spec.text.symbols import speaker_symbol
from spear_spec.training.speakers import rows_for
from spear_spec.voice.bundle import Bundle

TABLE = "text_emb.weight"


def alphabet(symbols: Sequence[str], speakers: Sequence[str]) -> list[str]:
    """The symbols that are no speaker."""
    tokens = set(map(speaker_symbol, speakers))
    return [symbol for symbol in symbols if symbol not in tokens]


def same_alphabet(bundle: Bundle, front: PhonemeTokenizer, voice: str) -> None:
    """Raises ConfigError unless the voice writes its phonemes as this front end does; speakers may differ."""
    text = bundle.config.text
    if text.get("kind") != front.KIND or alphabet(text["symbols"], text["speakers"]) != alphabet(
        front.vocab, front.speakers
    ):
        raise ConfigError(
            f"voice {voice!r} has another alphabet of phonemes than this recipe: it cannot be gone on from "
            "(leave `start` out to begin anew)"
        )


def text_rows(table: Tensor, bundle: Bundle, front: PhonemeTokenizer) -> Tensor:
    """The voice's text embedding [N, D], the end of the text last, for the speakers of `front` (see `rows_for`)."""
    place = {symbol: i for i, symbol in enumerate(bundle.config.text["symbols"])}
    theirs = list(map(speaker_symbol, bundle.config.text["speakers"]))
    speakers = set(map(speaker_symbol, front.speakers))
    ours = [symbol for symbol in front.vocab if symbol in speakers]
    begun = dict(zip(ours, rows_for(table[[place[name] for name in theirs]], theirs, ours)))
    rows = [begun[symbol] if symbol in begun else table[place[symbol]] for symbol in front.vocab]
    return torch.stack([*rows, table[len(place)]])


def begin_with(model: TextToSemantic, bundle: Bundle, front: PhonemeTokenizer | None = None) -> None:
    """Copy a voice's transformer into the model, to train it further; front: of the model's text, whose speakers may be
    others than the voice's (None: they are the same).

    Raises:
        BundleError: it has another shape, or is damaged. ConfigError: see `same_alphabet`.
    """
    if front is None or list(front.vocab) == list(bundle.config.text.get("symbols", ())):
        bundle.load_into(model, "t2s").train().requires_grad_(True)
        return
    same_alphabet(bundle, front, bundle.config.name)
    cfg = T2SConfig.from_dict({**model.cfg.to_dict(), "num_text_token_ids": bundle.config.t2s["num_text_token_ids"]})
    with torch.random.fork_rng(devices=[]):  # what the caller draws later does not depend on it
        theirs = TextToSemantic(cfg)
    bundle.load_into(theirs, "t2s")
    weights = theirs.state_dict()
    weights[TABLE] = text_rows(weights[TABLE], bundle, front)
    model.load_state_dict(weights)
