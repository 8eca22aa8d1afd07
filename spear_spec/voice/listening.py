"""The tokenizer of a voice: what its semantic tokens are, made from sound."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from spear_spec.errors import BundleError, ConfigError
from spear_spec.voice.bundle import Bundle

if TYPE_CHECKING:
    import numpy.typing as npt
    from torch import Tensor

ENCODER_VARIABLE = "SPEAR_SPEC_ENCODER"
Tokenizer = Callable[["npt.ArrayLike", int], "Tensor"]  # mono samples and their rate to tokens int64 [T]


def open_tokenizer(bundle: Bundle, encoder: str | None = None) -> Tokenizer:
    """The tokenizer that a voice's semantic tokens were made with; the speech encoder is `transformers`'.

    Args:
        encoder: folder or hub name of the speech encoder; else $SPEAR_SPEC_ENCODER, else what the voice names.

    Raises:
        BundleError: the voice does not say what its tokens are, has no centroids, or the encoder cannot be loaded.
        MissingExtraError: `transformers` is not installed.
    """
    from spear_spec.semantic.supervised import SupervisedEncoder, SupervisedTokenizer
    from spear_spec.semantic.tokenizer import SemanticTokenizer

    said, where = bundle.config.semantic, f"voice {bundle.config.name!r}"
    layers = said.get("layers", [said.get("layer")])
    named = encoder or os.environ.get(ENCODER_VARIABLE) or said.get("encoder")
    known = isinstance(layers, list) and all(type(layer) is int for layer in layers)
    if not isinstance(named, str) or not known or not bundle.has("centroids"):
        raise BundleError(f"{where} does not say how its semantic tokens are made, so no sound can be heard with it")
    centroids = bundle.centroids()
    try:
        if bundle.has("supervised"):
            small = SupervisedEncoder.from_tensors(bundle.tensors("supervised"), where)
            return SupervisedTokenizer(named, small, centroids, layers=layers).encode
        return SemanticTokenizer(named, layers[0], centroids).encode
    except ConfigError as error:
        raise BundleError(f"{where}: {error}") from None


class Listening:
    """The tokenizer of a voice, opened when it is first called; see `open_tokenizer`."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        self._open: Tokenizer | None = None

    def __call__(self, samples: npt.ArrayLike, sample_rate: int) -> Tensor:
        """Semantic tokens int64 [T] of a mono clip.

        Raises:
            See `open_tokenizer`, and AudioError: a clip that cannot be heard.
        """
        self._open = self._open or open_tokenizer(self.bundle)
        return self._open(samples, sample_rate)


def tokens_digest(bundle: Bundle) -> str | None:
    """What tells the semantic tokens of a voice from others: SHA-256 of its centroids in half precision, as they are
    stored; None where it has none.

    Raises:
        BundleError: they are damaged.
    """
    if not bundle.has("centroids"):
        return None
    import torch

    return hashlib.sha256(bundle.centroids().to(torch.float16).numpy().tobytes()).hexdigest()
