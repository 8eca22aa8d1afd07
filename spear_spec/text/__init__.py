"""Text to text tokens: normalisation, sentences, phonemes. Light to import: the lexicons load with the first text."""

from spear_spec.text.front_end import MOST_PHONEMES, FrontEnd, PhonemeFrontEnd, Reader, Segment, check_reads, read
from spear_spec.text.lexicon import Lexicon
from spear_spec.text.normalize import normalize
from spear_spec.text.pauses import Pauses
from spear_spec.text.reading import Reading
from spear_spec.text.sentences import split_sentences
from spear_spec.text.symbols import PAD_ID, SYMBOLS
from spear_spec.text.tokenizer import PhonemeTokenizer, TextTokens, Tokenizer

__all__ = [
    "MOST_PHONEMES",
    "PAD_ID",
    "SYMBOLS",
    "FrontEnd",
    "Lexicon",
    "Pauses",
    "PhonemeFrontEnd",
    "PhonemeTokenizer",
    "Reader",
    "Reading",
    "Segment",
    "TextTokens",
    "Tokenizer",
    "check_reads",
    "normalize",
    "read",
    "split_sentences",
]
