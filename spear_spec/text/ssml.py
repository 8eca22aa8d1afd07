"""A small part of SSML 1.1: a document to passages that the front end reads one by one.

What changes the words becomes a stand-in and leaves the sentence whole; a pause or a change of rate ends a passage.
docs/reading.md lists the elements.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass

from spear_spec.errors import TextError
from spear_spec.text.ipa import ALPHABETS
from spear_spec.text.lexicon import Lexicon
from spear_spec.text.normalize import is_speakable
from spear_spec.text.pauses import LONGEST_S
from spear_spec.text.say_as import KINDS, say_as, spelled
from spear_spec.text.sentences import Break
from spear_spec.text.stand_ins import MOST_LETTERS, Spoken, StandIns, beside
from spear_spec.text.xml import Bounded, parse

log = logging.getLogger("spear_spec")

SPELLING = ("characters", "spell-out", "verbatim")
STRENGTHS = {"none": 0.0, "x-weak": 0.1, "weak": 0.2, "medium": 0.4, "strong": 0.8, "x-strong": 1.2}
RATES = {"x-slow": 0.5, "slow": 0.75, "medium": 1.0, "default": 1.0, "fast": 1.25, "x-fast": 1.5}
SLOWEST, FASTEST = 0.5, 2.0
READ_THROUGH = ("emphasis", "lang", "voice", "w", "token", "mark", "audio")  # with one warning each
SKIPPED = ("metadata", "meta", "desc", "title")  # they are not spoken
_SHORT = 60  # letters of a substitute that is one word in the sentence; a longer one is read as text
_NEEDED = {"phoneme": "ph", "say-as": "interpret-as", "sub": "alias"}
_BLOCKS = {"p": Break.PARAGRAPH, "s": Break.SENTENCE}
_RANKS = (Break.CUT, Break.SENTENCE, Break.LINE, Break.PARAGRAPH)
_NUMBER = re.compile(r"\d+(?:\.\d*)?|\.\d+")
_ENDED = re.compile(r"[.!?…。！？][\"'”’)\]»]*\s*$")
_TIME = re.compile(r"\+?(\d+(?:\.\d*)?|\.\d+)(ms|s)")
_PERCENT = re.compile(r"([+-]?)(\d+(?:\.\d*)?|\.\d+)%")


@dataclass(frozen=True)
class Passage:
    """Text without markup that is spoken at one rate, without a pause of the document's in it.

    pause_s: silence before it that the document asks for, None where it does not; before: what stands there otherwise.
    """

    text: str
    before: Break
    pause_s: float | None = None
    rate: float = 1.0


class _Document(Bounded):
    def __init__(self, text: str, lexicon: Lexicon | None, marks: bool) -> None:
        super().__init__(lambda message: TextError(f"SSML, {message}"))
        self.stand_ins = StandIns(text)
        self.passages: list[Passage] = []
        self._lexicon, self._marks = lexicon, marks
        self._run: list[str] = []  # text since the last tag
        self._text = ""  # of the passage
        self._apart = False  # whether it ends with a stand-in
        self._before, self._asked = Break.PARAGRAPH, None  # what stands before the passage
        self._rates = [1.0]
        self._inside: tuple[str, dict[str, str]] | None = None  # an element that holds text alone
        self._skipped = 0
        self._warned: set[str] = set()

    _asked: float | None

    # ---- tags

    def start(self, name: str, attributes: dict[str, str], qualified: str) -> None:
        if self._skipped or name in SKIPPED:
            self._skipped += 1
            return
        if self._depth == 1 and name != "speak":
            raise self.wrong(f"a document begins with <speak>, not <{name:.40}>")
        if self._inside is not None:
            raise self.wrong(f"<{self._inside[0]}> holds text alone, not <{name:.40}>")
        self._flush()
        if name in _NEEDED:
            self._inside = name, attributes
            if _NEEDED[name] not in attributes:
                raise self.wrong(f'<{name}> needs {_NEEDED[name]}="..."')
            if name == "phoneme" and attributes.get("alphabet", "ipa") not in ALPHABETS:
                raise self.wrong(f"the alphabet {attributes['alphabet']:.40} is not known: {', '.join(ALPHABETS)}")
            if name == "say-as" and attributes["interpret-as"] not in KINDS:
                raise self.wrong(f"interpret-as {attributes['interpret-as']!r:.40} is not known: {', '.join(KINDS)}")
        elif name == "break":
            self._cut(Break.CUT)
            self._asked = min((self._asked or 0.0) + self._seconds(attributes), LONGEST_S)
        elif name == "prosody":
            self._turn()
            self._rates.append(self._rate(attributes))
        elif name in _BLOCKS:
            self._cut(_BLOCKS[name])
        elif name == "speak":
            if self._depth > 1:
                raise self.wrong("<speak> stands within <speak>")
        elif name in READ_THROUGH or ":" in qualified:
            if not (self._marks and name == "mark"):
                self._warn(f"<{qualified:.40}> is not supported: what it holds is read as it is")
        elif name in ("lexicon", "lookup"):
            raise self.wrong(f"<{name}> is not supported: give a lexicon with --lexicon or lexicon=")
        else:
            raise self.wrong(f"<{name:.40}> is not an element of SSML that is supported")

    def characters(self, content: str) -> None:
        if not self._skipped:
            self._run.append(content)

    def end(self, name: str) -> None:
        if self._skipped:
            self._skipped -= 1
            return
        if self._inside is not None:
            (_, attributes), self._inside = self._inside, None
            written = " ".join("".join(self._run).split())
            self._run = []
            try:
                self._substitute(name, attributes, written)
            except TextError as error:
                raise self.wrong(str(error)) from None
            return
        self._flush()
        if name == "prosody":
            self._turn()
            self._rates.pop()
        elif name in _BLOCKS or name == "speak":
            self._cut(_BLOCKS.get(name, Break.PARAGRAPH))

    # ---- text

    def _flush(self) -> None:
        """What was read since the last tag is text of the passage."""
        text = re.sub(r"\s+", " ", "".join(self._run))
        self._run = []
        self._add(self._lexicon.apply(text, self.stand_ins) if self._lexicon is not None else text)

    def _add(self, text: str) -> None:
        if text:
            # a stand-in is a word of its own
            self._text += " " + text if self._apart and not beside(text[0]) else text
            self._apart = False

    def _put(self, spoken: Spoken) -> None:
        self._add(self.stand_ins.put(self._text[-1:], spoken, ""))
        self._apart = True

    def _substitute(self, name: str, attributes: dict[str, str], written: str) -> None:
        if name == "phoneme":
            letters = ALPHABETS[attributes.get("alphabet", "ipa")](attributes["ph"])
            self._put(Spoken(written or letters, written, letters))
        elif name == "sub":
            self._say(written, attributes["alias"])
        elif attributes["interpret-as"] in SPELLING:
            self._spell(written)
        else:
            self._say(written, say_as(attributes["interpret-as"], written, attributes.get("format", "")))

    def _say(self, written: str, words: str) -> None:
        words = " ".join(words.split())
        if any(c.isalnum() for c in words) and len(words) <= _SHORT:
            self._put(Spoken(written or words, words))
        elif words:
            self._add(words if not self._text or beside(self._text[-1]) else " " + words)
            self._apart = True

    def _spell(self, written: str) -> None:
        from spear_spec.text.g2p import shared_g2p

        shown = letters = ""
        for c, words, phonemes in spelled(written):
            said = phonemes or shared_g2p()(words)[0]
            if letters and len(letters) + len(said) >= MOST_LETTERS:
                self._put(Spoken(shown, "", letters))
                shown = letters = ""
            shown, letters = shown + c, f"{letters} {said}".strip()
        if letters:
            self._put(Spoken(shown, "", letters))

    # ---- passages

    def _cut(self, kind: Break) -> None:
        """The passage ends. Before the next one stands the strongest of the breaks that meet there."""
        text, self._text, self._apart = self._text.strip(), "", False
        if text and is_speakable(text):
            pause_s = 0.0 if self._asked is None and self._before is Break.CUT else self._asked
            self.passages.append(Passage(text, self._before, pause_s, self._rates[-1]))
            self._before, self._asked = kind, None
        elif _RANKS.index(kind) > _RANKS.index(self._before):
            self._before = kind

    def _turn(self) -> None:
        """The rate may change here; in the middle of a sentence no pause comes of it."""
        self._cut(Break.SENTENCE if _ENDED.search(self._text[-20:]) else Break.CUT)

    def _seconds(self, attributes: dict[str, str]) -> float:
        if "time" not in attributes:
            strength = attributes.get("strength", "medium").strip()
            if strength not in STRENGTHS:
                raise self.wrong(f"the strength of a break is one of {', '.join(STRENGTHS)}; not {strength[:40]!r}")
            return STRENGTHS[strength]
        match = _TIME.fullmatch(attributes["time"].strip())
        seconds = float(match[1]) / (1000 if match[2] == "ms" else 1) if match else -1.0
        if not 0 <= seconds <= LONGEST_S:
            raise self.wrong(
                f"the time of a break is such as 500ms or 1.5s, at most {LONGEST_S:g}s; not {attributes['time'][:40]!r}"
            )
        return seconds

    def _rate(self, attributes: dict[str, str]) -> float:
        others = sorted(set(attributes) - {"rate"} - {name for name in attributes if name.startswith("xml")})
        if others:
            self._warn(f"<prosody {others[0]:.40}> is not supported: only rate is")
        given = attributes.get("rate", "default").strip()
        value, match = RATES.get(given), _PERCENT.fullmatch(given)
        if match is not None:
            share = float(match[2]) / 100
            value = 1 + share if match[1] == "+" else 1 - share if match[1] == "-" else share
        elif value is None and _NUMBER.fullmatch(given):
            value = float(given)
        if value is None:
            raise self.wrong(f"a rate is one of {', '.join(RATES)}, or such as 80% or +10%; not {given[:40]!r}")
        rate = self._rates[-1] * value
        if not SLOWEST <= rate <= FASTEST:
            raise self.wrong(f"a rate of {100 * rate:.0f}%: it must come to {SLOWEST:.0%} to {FASTEST:.0%}")
        return rate

    def _warn(self, message: str) -> None:
        if message not in self._warned:
            self._warned.add(message)
            log.warning("SSML: %s", message)


def read_ssml(text: str, lexicon: Lexicon | None = None, *, marks: bool = False) -> tuple[list[Passage], StandIns]:
    """The passages of a document, and what stands behind the stand-ins in them.

    Args:
        lexicon: for the words outside `phoneme`, `sub` and `say-as`. marks: <mark> is made use of elsewhere.

    Raises:
        TextError: no SSML, or an element or a value that cannot be used, with line and column.
    """
    document = _Document(text, lexicon, marks)
    parse(text, document)
    return document.passages, document.stand_ins
