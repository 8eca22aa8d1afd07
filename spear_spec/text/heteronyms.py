"""Words that are written alike and spoken differently: by part of speech and by their neighbours.

Also the letter A, which the tagger takes for the article, and calls that no lexicon holds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from spear_spec.text.tables import words

# fmt: off
_HABIT = words("every each usually often always sometimes rarely generally normally daily weekly nightly regularly "
    "typically seldom mostly nowadays "
                   "today now still occasionally frequently constantly")
_PAST = words("yesterday ago last previously earlier was were had did once then before after when until already "
    "finally later")
_THIRD = words("he she it")
_PRESENT_BEFORE = words("to will would can could may might must shall should do does did don't doesn't didn't can't "
    "cannot won't wouldn't please let let's "
                            "not n't 'll 'd i'll we'll you'll they'll")
_PAST_BEFORE = words("have has had having 've 's i've we've you've they've was were been be being is are get got gets "
    "well widely")
_BETWEEN = words("i you he she it we they anyone everyone everybody anybody all not n't never ever just already yet "
    "even "
    "only both also still")
_PERSONS = words("man men woman women people parents father mother couple gentleman lady scholar scholars professor "
    "judge society "
    "soul mary virgin day sacrament saint monk")
_SOME = words("some many most few others several")
_DAYS = words("sundays mondays weekends saturdays fridays")
_OPENERS = words("if when whenever as while before after once unless though where")
_METAL_NEXT = words(
    "pipe pipes paint paints poisoning pellet pellets bullet bullets shot acid crystal weight weights glass batteries "
    "battery ore mine mines mining mines sheet "
    "sheets roof solder level levels exposure content contamination oxide acetate foil plumbing service shielding "
    "apron atoms atom ions isotope alloy "
    "free based lined coffin balls ball dust type smelter sulfide nitrate carbonate sinker sinkers salts compounds "
    "water white ")
_METAL_NEAR = words(
    "metal metals toxic poison poisoned poisonous zinc copper mercury tin iron silver gold arsenic cadmium nickel "
    "steel brass pewter molten melted melt melts "
    "soft dense heavy heavier alloy plumber plumbers gasoline petrol pencil pencils graphite pipes paint chemical "
    "element ore pb radiation shielding "
    "contaminated contamination blood soil density atomic cast coated")
_METAL_BEFORE = words("of contain contains contained containing with pencil molten melted white red tetraethyl pure "
    "solid like into and from in as")
_SHOWN = words("music show shows concert concerts audience band stream streams streaming performance performances "
    "event events "
    "coverage wire wires ammunition album broadcast broadcasts tv chat bait recording demo updates feed births "
    "session sessions")
_ON_AIR = words("stage tv air television youtube radio camera concert studio front twitch person")
_WATCHED = words("watch watched watching saw see seen heard hear broadcast streamed aired performed perform played "
    "play recorded "
    "record sang sing shown show")
_GOES = words("go goes went going gone")
_MUSIC = words("guitar guitars player players drum drums clef line lines singer voice voices note notes amp amplifier "
    "solo solos section string strings sax "
                   "clarinet band music song songs sing sings sang piano jazz instrument orchestra choir tenor "
                   "baritone boost treble sound speaker speakers loud "
                   "heavy play plays played playing double electric upright slap deep acoustic part riff riffs viol "
                   "drop subwoofer recorder profundo")
_FISH = words("fish fishing fisherman fishermen sea striped largemouth smallmouth caught catch catches catching lake "
    "river pond fillet fillets grilled fried "
                  "cooked eat ate eats hook boat water trout salmon perch cod carp walleye tournament angler anglers "
                  "bait net sea-bass stream spawn pounds "
                  "chilean baked market swam swim swims rod reel black white rock")
_BEND_BEFORE = words("take takes took taken taking make makes made making final deep low slight polite curtain "
    "courteous graceful a-little gave give gives stiff "
                         "formal sweeping respectful gracious")
_BEND_NOUN = words("ship ships boat boats vessel stern port starboard deck wave waves hull anchor sail sailed sailor "
    "sailors prow yacht canoe captain shot")
_RIBBON = words("arrow arrows tie ties string violin cello ribbon hair archer archery quiver red pink blue fiddle "
    "legged bow-tie gift silk satin")
_RIP_BEFORE = words("wear rotator meniscus ligament acl muscle cartilage")
_RIP_NEAR = words("fabric jacket shirt jeans dress sleeve pants trousers coat paper page cloth ligament muscle "
    "meniscus sail sails curtain sheet screen tire bag "
                      "seam canvas skirt glove net wallpaper couch upholstery leather stocking tendon cuff hole wear "
                      "knee lining hem pocket tent")
_NOT_A_NOUN_NEXT = words("is was and or in on at of to for from with minus plus times equals over squared cubed has "
    "had will would can does did means stands "
                             "comes as but than by are were which that grade grades student students")
_A_CUES = words("vitamin hepatitis plan grade grades section option type group point exhibit class team letter part "
    "side level column row choice block schedule "
                    "appendix figure table size bomb influenza list minus plus times equals over door gate zone an "
                    "straight the straight-a level chapter unit building room "
                    "case answer question example player person string note key flat sharp capital lower-case series "
                    "division league paper terminal")
_A_AFTER = words("and or but")
# fmt: on
_CALLS = {
    "miz": "mˈɪz",
    "shh": "ʃ",
    "grr": "ɡɹ",
    "brr": "bɹ",
    "zzz": "z",
    "mm": "m",
    "ew": "ˈiu",
    "argh": "ˈɑɹɡ",
    "psst": "pst",
    "pfft": "pft",
    "resumay": "ɹˈɛzəmˌA",
    "resumays": "ɹˈɛzəmˌAz",
    "exposay": "ˌɛkspOzˈA",
    "exposays": "ˌɛkspOzˈAz",
    "rosay": "ɹOzˈA",
    "patay": "pɑtˈA",
    "lamay": "lɑmˈA",
    "matay": "mˈɑtˌA",
    "sakay": "sˈɑki",
    "piquay": "pikˈA",
}

_THESE = frozenset({"the", "these", "those", "his", "her", "my", "our", "their", "your", "its", "two", "three", "both"})

Token = tuple[str, str]  # text, part of speech (Penn tag)


class Context:
    """A word and what stands around it."""

    def __init__(self, tokens: Sequence[Token], at: int) -> None:
        self.tokens, self.at = tokens, at
        self.text, self.tag = tokens[at]

    def word(self, offset: int) -> str:
        """The word so many places away, in small letters; empty outside the sentence."""
        i = self.at + offset
        return self.tokens[i][0].lower() if 0 <= i < len(self.tokens) else ""

    def near(self, words: frozenset[str], reach: int = 8) -> bool:
        """Whether one of the words stands within reach."""
        around = self.tokens[max(0, self.at - reach) : self.at] + self.tokens[self.at + 1 : self.at + 1 + reach]  # type: ignore[operator]
        return any(text.lower() in words for text, _ in around)

    def before(self) -> list[str]:
        """The words in front, nearest first."""
        return [text.lower() for text, _ in reversed(self.tokens[: self.at])]


def _read(c: Context) -> str | None:
    before = c.before()
    if c.word(-1) == "-":
        return "ɹˈɛd" if c.word(-2) in _PAST_BEFORE or c.word(-2).endswith("ly") else None
    closest = next((w for w in before if not w.endswith("ly") and w not in ("not", "n't", "never", "just", "also")), "")
    if closest in _PAST_BEFORE and c.word(1) not in ("-",):
        return "ɹˈɛd"
    asked = next((i for i, w in enumerate(before[:5]) if w in ("have", "has", "had")), None)
    if asked is not None and all(w in _BETWEEN or w.endswith("ly") for w in before[:asked]):
        return "ɹˈɛd"  # have you read
    if any(w in _PRESENT_BEFORE for w in before[:2]):
        return "ɹˈid"
    if c.tag in ("VB", "NN") or not before:
        return "ɹˈid" if c.tag != "VBN" else None
    subject = next((w for w in before[:3] if w not in _HABIT and not w.endswith("ly")), "")
    if subject in _THIRD:
        return "ɹˈɛd" if c.tag in ("VBD", "VBP", "VBN") else None
    around = {text.lower() for text, _ in c.tokens}
    if around & _PAST:
        return None
    if around & _HABIT or {"these", "days"} <= around or ("on" in around and around & _DAYS):
        return "ɹˈid"
    at = c.at - 1
    things = c.at + 1 < len(c.tokens) and c.tokens[c.at + 1][1] == "NNS"  # read comics: as one does
    if c.tag in ("VBP", "VBD") and (subject in _SOME or (things and at >= 0 and c.tokens[at][1] == "NNS")):
        return "ɹˈid"
    if (
        at >= 0
        and (c.tokens[at][1] == "NNS" or c.word(-1) == "people")
        and c.word(-2) not in _THESE
        and c.tag in ("VBP", "VBD")
    ):
        return "ɹˈid"  # children read: of all of them, and so of now
    if subject in ("you", "we", "they", "people", "who", "i") and any(
        w in ("if", "whenever", "unless") for w in before[:4]
    ):
        return "ɹˈid"
    return None


def _live(c: Context) -> str | None:
    if c.word(-1) in ("to", "will", "would", "can", "could", "n't", "not", "they", "we", "i", "you", "who", "people"):
        return None
    on_air = c.word(1) in ("on", "in", "from", "at") and c.word(2) in _ON_AIR and c.near(_WATCHED, 5)
    if c.word(1) in _SHOWN or on_air:
        return "lˈIv"
    return "lˈIv" if c.word(-1) in _GOES or c.word(-2) in _WATCHED or c.word(-1) in _WATCHED else None


def _lead(c: Context) -> str | None:
    if c.tag.startswith("VB") and c.word(-1) not in _METAL_BEFORE:
        return None
    if (
        c.word(-1) in ("the", "a", "take", "takes", "took", "my", "his", "her", "their", "our", "its", "your")
        and c.word(1) not in _METAL_NEXT
    ):
        return None
    following = c.word(2) if c.word(1) == "-" else c.word(1)
    if following in _METAL_NEXT:
        return "lˈɛd"
    if (
        c.near(_METAL_NEAR)
        and c.tag.startswith(("NN", "JJ", "IN"))
        and (
            c.word(-1) in _METAL_BEFORE
            or not c.word(-1)
            or c.word(1) in ("is", "was", "and", ",", ".", "or", "in", "can", "melts", "has")
        )
    ):
        return "lˈɛd"
    return (
        "lˈɛd"
        if c.word(-1) == "of"
        and c.word(-2)
        in (
            "made",
            "full",
            "lump",
            "piece",
            "pieces",
            "bars",
            "bar",
            "sheets",
            "sheet",
            "traces",
            "tons",
            "ton",
            "pounds",
            "amounts",
            "levels",
        )
        else None
    )


def _bass(c: Context) -> str | None:
    if c.word(1) in _MUSIC or c.word(-1) in ("double", "electric", "upright", "slap", "acoustic"):
        return "bˈAs"
    if c.near(_FISH) and not c.near(_MUSIC, 4):
        return "bˈæs"
    return "bˈAs"


def _bow(plural: str) -> Callable[[Context], str | None]:
    def say(c: Context) -> str | None:
        if c.word(1) in ("tie", "ties", "and", "string", "legged") and c.near(_RIBBON, 4):
            return "bˈO" + plural
        if c.tag.startswith("VB") or (
            c.word(-1) in ("to", "will", "must", "would", "should", "n't", "not", "and")
            and c.word(1) in ("down", "to", "before", "out", "his", "her", "their")
        ):
            return "bˈW" + plural
        if c.near(_BEND_BEFORE, 3) and not c.near(_RIBBON, 4) and c.word(1) not in ("out", "of"):
            return "bˈW" + plural
        if c.near(_BEND_NOUN) and not c.near(_RIBBON):
            return "bˈW" + plural
        return "bˈO" + plural

    return say


def _bowed(c: Context) -> str | None:
    return "bˈOd" if c.word(1) in ("legs", "instrument", "instruments", "string", "strings") else "bˈWd"


def _tear(c: Context) -> str | None:
    if c.word(1) in ("gas", "duct", "ducts", "drop", "drops", "stained"):
        return "tˈɪɹ"
    if (
        c.tag.startswith("VB")
        or c.word(-1) in ("to", "n't", "will", "can", "would", "could", "may", "might")
        or c.word(1) in ("up", "apart", "down", "off", "open")
    ):
        return "tˈɛɹ" if not (c.word(1) == "down" and c.word(-1) in ("a", "single", "one")) else "tˈɪɹ"
    if (
        c.word(-1) in _RIP_BEFORE
        or c.word(-2) in _RIP_BEFORE
        or (c.near(_RIP_NEAR) and c.word(1) in ("in", "on", "was", "is", ".", ",", "that", "", "along"))
    ):
        return "tˈɛɹ"
    return "tˈɪɹ"


def _tears(c: Context) -> str | None:
    if c.tag == "VBZ" and c.word(-1) not in ("in", "of", "into", "to", "with", "her", "his", "my", "their", "the"):
        return "tˈɛɹz"
    return (
        "tˈɛɹz"
        if c.word(1) in ("up", "apart", "off", "open") or (c.near(_RIP_NEAR, 4) and c.word(1) in ("in", "and"))
        else "tˈɪɹz"
    )


def _letter_a(c: Context) -> str | None:
    """The letter, not the article: `Vitamin A`, `an A in math`, `A plus B`, `A is for apple`."""
    if c.text != "A" or c.word(-1) == "-" or (c.word(1) == "-" and c.word(2)[:1].isalpha()):
        return None
    following = c.word(1)
    single = len(following) == 1 and following.isalpha()
    first = c.at == 0 or c.word(-1) in ("“", "”", '"', "(", ".", ":", ";", "?", "!", "—", "...")
    if following in ("", ".", ",", ";", ":", "?", "!", ")", "”", '"', "-", "—", "'s", "’s"):
        return "ˈA"
    if c.word(-1) in _A_CUES and not first:
        return "ˈA"
    if following in _NOT_A_NOUN_NEXT:
        return "ˈA"
    if single and following not in "aio":
        return "ˈA"
    return None


def _two_syllables(said: str) -> Callable[[Context], str | None]:
    """`an aged man`, `a learned woman`: of people, said with a syllable more."""
    return lambda c: said if c.word(1) in _PERSONS and c.word(-1) not in ("has", "have", "had") else None


_WORDS: dict[str, Callable[[Context], str | None]] = {
    "read": _read, "lead": _lead, "bass": _bass, "bow": _bow(""), "bows": _bow("z"), "bowed": _bowed, "tear": _tear,
    "live": _live, "aged": _two_syllables("ˈAʤəd"), "learned": _two_syllables("lˈɜɹnəd"),
    "blessed": _two_syllables("blˈɛsəd"),
    "tears": _tears, "a": _letter_a,
}  # fmt: skip


def pronounce(tokens: Sequence[Token], at: int) -> str | None:
    """Phonemes of the word at this place where its neighbours decide over them; None: the lexicon's."""
    word = tokens[at][0].lower()
    if word in _CALLS:
        return _CALLS[word]
    say = _WORDS.get(word)
    return say(Context(tokens, at)) if say else None
