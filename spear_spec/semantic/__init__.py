"""Speech to semantic tokens: the hidden states of a speech encoder, averaged to 25 Hz and quantised by k-means."""

from spear_spec.semantic.encoder import SpeechEncoder
from spear_spec.semantic.kmeans import fit_kmeans, nearest
from spear_spec.semantic.supervised import SupervisedConfig, SupervisedEncoder, SupervisedTokenizer
from spear_spec.semantic.tokenizer import SemanticTokenizer, agreement

__all__ = [
    "SemanticTokenizer",
    "SpeechEncoder",
    "SupervisedConfig",
    "SupervisedEncoder",
    "SupervisedTokenizer",
    "agreement",
    "fit_kmeans",
    "nearest",
]
