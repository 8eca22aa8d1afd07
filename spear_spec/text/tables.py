"""What the rules know by heart: abbreviations, streets, states, currencies, units, names. Lists, no code."""

from __future__ import annotations


def words(text: str) -> frozenset[str]:
    """The words of a list written as one string."""
    return frozenset(text.split())


# fmt: off
# ---- abbreviations that end in a point, case as written
WORDS = {
    "Prof": "Professor", "Profs": "Professors", "Gen": "General", "Col": "Colonel", "Maj": "Major", "Lt": "Lieutenant",
    "Sgt": "Sergeant", "Capt": "Captain", "Cpl": "Corporal", "Pvt": "Private", "Cmdr": "Commander", "Adm": "Admiral",
    "Rev": "Reverend", "Fr": "Father", "Hon": "Honorable", "Sen": "Senator", "Rep": "Representative", "Gov": "Governor",
    "Pres": "President", "Supt": "Superintendent", "Det": "Detective", "Insp": "Inspector", "Jr": "Junior",
    "Sr": "Senior",
    "Drs": "Doctors", "Messrs": "Messieurs", "Mt": "Mount", "Mts": "Mountains", "Ft": "Fort", "Esq": "Esquire",
    "Inc": "Incorporated", "Ltd": "Limited", "Corp": "Corporation", "Bros": "Brothers", "Co": "Company",
    "Dept": "Department", "dept": "department", "Univ": "University", "Assn": "Association", "Assoc": "Association",
    "Asst": "Assistant", "asst": "assistant", "Mfg": "Manufacturing", "Intl": "International", "Natl": "National",
    "Gov't": "Government", "govt": "government", "Govt": "Government", "mgr": "manager", "Mgr": "Manager",
    "etc": "et cetera", "approx": "approximately", "Approx": "Approximately", "est": "established",
    "Est": "Established",
    "esp": "especially", "incl": "including", "excl": "excluding", "vs": "versus", "cf": "compare", "ca": "circa",
    "viz": "namely", "Attn": "Attention", "attn": "attention", "Acct": "Account", "acct": "account", "Qty": "Quantity",
    "qty": "quantity", "Atty": "Attorney", "Dist": "District",
    "Sgts": "Sergeants", "Amb": "Ambassador", "Treas": "Treasurer", "Sec'y": "Secretary", "Ret": "Retired",
    "Capts": "Captains", "Pkg": "Package", "pkg": "package", "Cf": "Compare", "Sts": "Saints", "Ss": "Saints",
    "Sec": "Secretary", "hwy": "highway", "wk": "week", "wks": "weeks",
    "Hosp": "Hospital", "Pk": "Park", "Pt": "Point", "qtr": "quarter", "qtrs": "quarters",
    "misc": "miscellaneous", "avg": "average", "Avg": "Average",
    "ed": "edition", "eds": "editors", "repr": "reprinted", "transl": "translated", "resp": "respectively",
    "temp": "temperature", "tel": "telephone", "Tel": "Telephone", "et al": "and others",
    "Mme": "Madame", "Mlle": "Mademoiselle", "Sra": "Señora", "Msgr": "Monsignor", "Ste": "Sainte",
}
# only in front of a number
BEFORE_NUMBER = {
    "No": "number", "no": "number", "Nos": "numbers", "nos": "numbers", "Nr": "number", "nr": "number", "Num": "number",
    "Max": "maximum", "max": "maximum", "Min": "minimum",
    "Vol": "volume", "vol": "volume", "Vols": "volumes", "vols": "volumes", "Fig": "figure", "fig": "figure",
    "Figs": "figures", "figs": "figures", "Ch": "chapter", "ch": "chapter", "Chap": "chapter", "chap": "chapter",
    "Sec": "section", "sec": "section", "Sect": "section", "Secs": "sections", "Eq": "equation", "eq": "equation",
    "Eqs": "equations", "p": "page", "P": "page", "pp": "pages", "Pp": "pages", "pg": "page", "Pg": "page",
    "pgs": "pages",
    "Art": "article", "art": "article", "Arts": "articles", "arts": "articles", "Ex": "exhibit", "ex": "example",
    "par": "paragraph", "para": "paragraph", "Para": "paragraph", "Tab": "table", "Apt": "apartment",
    "apt": "apartment",
    "Rm": "room", "rm": "room", "ext": "extension", "Ext": "extension", "Pt": "part", "pt": "part", "Ste": "suite",
    "Bldg": "building", "Fl": "floor", "Hwy": "highway", "Rte": "route", "Rt": "route", "Op": "opus", "op": "opus",
    "l": "line", "ll": "lines", "v": "verse", "vv": "verses", "col": "column", "App": "appendix", "Lot": "lot",
    "Ep": "episode",
    "S": "season", "Par": "paragraph", "Cl": "clause", "cl": "clause", "Ser": "series", "Ref": "reference",
    "ref": "reference",
    "Flt": "flight", "Dep": "departure", "dep": "departure", "Arr": "arrival", "arr": "arrival",
    "Ver": "version", "ver": "version", "Def": "definition", "Thm": "theorem", "Prop": "proposition", "n": "note",
    "fn": "footnote",
}
# of these: initials of a name too, so that only a digit will do; and words too, that may end a sentence
NEEDS_A_DIGIT = frozenset({"l", "ll", "v", "vv", "n", "S", "P", "p"})
ALSO_WORDS = frozenset({"no", "No", "art", "Art", "arts", "Arts", "ex", "Ex", "par", "Par", "Tab", "Lot", "op",
    "Ref", "ref", "App", "col", "Max", "max", "Min"})
BEFORE_YEAR = {"c": "circa", "b": "born", "d": "died", "fl": "flourished", "r": "reigned"}
LATIN = {
    "e.g.": "for example", "i.e.": "that is", "N.B.": "note well", "q.v.": "which see", "eg.": "for example",
    "ie.": "that is",
}
SHORT_FORMS = {
    "w/o": "without", "w/": "with", "c/o": "care of", "n/a": "not applicable", "a/c": "A C", "and/or": "and or",
    "b/c": "because",
    "s/he": "she or he", "he/she": "he or she", "vs": "versus", "attn": "attention", "acct": "account", "thx": "thanks",
    "pls": "please", "plz": "please", "aka": "also known as",
    "y/o": "years old", "w/in": "within",
    "his/her": "his or her", "her/his": "her or his", "him/her": "him or her", "y/y": "year over year",
    "q/q": "quarter over quarter", "m/m": "month over month", "w/v": "weight by volume", "w/w": "weight by weight",
    "v/v": "volume by volume", "mmhg": "millimeters of mercury",
    "wwi": "World War one", "wwii": "World War two", "ww1": "World War one", "ww2": "World War two",
}
# what is typed in a chat: in small letters, or as the first word of a sentence
CHAT = {
    "btw": "by the way", "idk": "I don't know", "tbh": "to be honest", "omg": "O M G", "brb": "be right back",
    "ttyl": "talk to you later", "imo": "in my opinion", "imho": "in my humble opinion", "ur": "your",
    "msg": "message", "msgs": "messages", "mtg": "meeting", "mtgs": "meetings", "ppl": "people", "nvm": "never mind",
    "gr8": "great", "l8r": "later", "l8": "late", "w8": "wait", "2nite": "tonight", "2day": "today",
    "2moro": "tomorrow", "tmrw": "tomorrow", "tysm": "thank you so much", "ily": "I love you", "bday": "birthday",
    "afaik": "as far as I know", "iirc": "if I recall correctly", "fwiw": "for what it's worth",
    "irl": "in real life", "lmk": "let me know", "ngl": "not gonna lie", "smh": "shaking my head",
    "tl;dr": "T L D R",
}
SUBJECTS = {"Re": "Regarding", "RE": "Regarding", "Fwd": "Forwarded", "FWD": "Forwarded", "Fw": "Forwarded"}
# how often a medicine is taken
DOSES = {
    "b.i.d.": "twice a day", "t.i.d.": "three times a day", "q.i.d.": "four times a day", "q.d.": "once a day",
    "p.r.n.": "as needed", "p.o.": "by mouth",
}
# behind a number, in front of what is counted: 3 lg. eggs
SIZES = {"lg": "large", "sm": "small", "med": "medium"}
# `min. wage`: the least, not minutes
LIMITED = words(
    "wage wages speed temp temperature height width depth length weight age order number amount price pay load "
    "capacity rate score size value distance pressure power voltage of")
# known to misaki's lexicon as they are
KEPT = frozenset({"Mr", "Mrs", "Ms", "Mx", "Dr", "St", "Messrs", "al", "e.g", "i.e", "a.k.a", "N.B", "eg", "ie",
    "et al"})
# words that often end a sentence although they are abbreviations
MAY_END = frozenset({
    "etc", "Inc", "Ltd", "Corp", "Co", "Jr", "Sr", "Esq", "Bros", "est", "al", "et al", "temp", "ed", "resp", "tel",
})
# words that begin a sentence more often than they begin a name
STARTERS = words(
    "The He She It They We You I This That These Those But And In On At A An My His Her Our Their Its There Then When "
    "If Is Was Are "
    "Were Did Do Does What Who Why How Where Now So Not No Yes One It's He's She's I'm I've I'll We're They're You're "
    "That's After "
    "Before Some Many All Each Every For From With As To Both Most Such Only Here Once Since While Although Because "
    "However Later "
    "Today Please Let Can Could Would Will Should Have Has Had Nobody Everyone Someone Nothing Everything "
    "Another")
# said before the word "no", so that a number behind it begins something new
SAYING = words(
    "say says said saying answer answers answered reply replies replied told tell whispered shouted cried oh means "
    "meant "
    "is was be votes voted vote just simply firm of with")
SAYING_WITH_NO = SAYING - {"is", "was", "be", "of", "with", "just", "simply"}
COUNTED = words(
    "seconds? minutes? hours? days? weeks? months? years? decades? people men women children students soldiers "
    "others "
    "percent more miles dollars cents euros pounds"
)

# words that are counted in pieces, behind which a number is a count and not the number of one: `Modern art. 5 pieces`
THINGS = frozenset({"art", "arts"})
NOT_COUNTED = words("is was has applies says lists states shows gives deals its this as does")

# ---- streets: abbreviation to word, with or without a point; those below also mean something else
STREETS = {
    "St": "Street", "Ave": "Avenue", "Av": "Avenue", "Blvd": "Boulevard", "Rd": "Road", "Dr": "Drive", "Ln": "Lane",
    "Ct": "Court", "Pl": "Place", "Sq": "Square", "Pkwy": "Parkway", "Hwy": "Highway", "Ter": "Terrace",
    "Terr": "Terrace",
    "Cir": "Circle", "Expy": "Expressway", "Fwy": "Freeway", "Tpke": "Turnpike", "Trl": "Trail", "Plz": "Plaza",
    "Cres": "Crescent",
    "Hts": "Heights", "Bldg": "Building", "Brg": "Bridge", "Xing": "Crossing", "Aly": "Alley",
}
STREETS_AFTER_A_NAME = frozenset({"St", "Dr", "Ct", "Pl", "Sq", "Ln", "Ter", "Cir", "Av", "Xing", "Cres", "Aly",
    "Brg", "Hts", "Plz"})
NO_STREET_NAME = words(
    "Visit See Thanks Thank Hello Hi Dear Mr Mrs Ms Old Poor Dr Saint Near Of By Mount Port Fort East West North "
    "South Lake Cape New "
    "Upper Lower Good Great Or Via Until Between Outside Inside Around Behind Beyond Over Under Through Like Call Ask "
    "Meet Tell")
SAINTS = words(
    "Louis Paul John Peter Petersburg Thomas Francis Patrick Mary Joseph James Andrew Andrews George Helena Helens "
    "Helen Lucia Lawrence "
    "Kitts Vincent Moritz Tropez Augustine Anthony Michael Nicholas Luke Mark Matthew Stephen Bernard Ann Anne Anna "
    "Catherine Catharines "
    "Cloud Croix Barts Pancras Albans Ives Bartholomew Christopher Valentine Elizabeth Clair Charles Martin Maarten "
    "Pierre Jude Bonaventure "
    "Clare Denis Gallen Gall Kilda Leger Laurent Jean Germain Johns Giles Jerome Benedict Brigid Cecilia David "
    "Dominic Edmund Gabriel "
    "Hilda Ignatius Joan Julian Lucy Margaret Monica Philip Raphael Sebastian Simon Teresa Therese Ursula Veronica "
    "Basil Agnes Rose")
DIRECTIONS = {"N": "North", "S": "South", "E": "East", "W": "West", "NE": "Northeast", "NW": "Northwest",
    "SE": "Southeast",
              "SW": "Southwest"}
STATES = {
    "AL": "Alabama", "AK": "Alaska", "AZ": "Arizona", "AR": "Arkansas", "CA": "California", "CO": "Colorado",
    "CT": "Connecticut",
    "DE": "Delaware", "FL": "Florida", "GA": "Georgia", "HI": "Hawaii", "ID": "Idaho", "IL": "Illinois",
    "IN": "Indiana",
    "IA": "Iowa", "KS": "Kansas", "KY": "Kentucky", "LA": "Louisiana", "ME": "Maine", "MD": "Maryland",
    "MA": "Massachusetts",
    "MI": "Michigan", "MN": "Minnesota", "MS": "Mississippi", "MO": "Missouri", "MT": "Montana", "NE": "Nebraska",
    "NV": "Nevada",
    "NH": "New Hampshire", "NJ": "New Jersey", "NM": "New Mexico", "NY": "New York", "NC": "North Carolina",
    "ND": "North Dakota",
    "OH": "Ohio", "OK": "Oklahoma", "OR": "Oregon", "PA": "Pennsylvania", "RI": "Rhode Island", "SC": "South Carolina",
    "SD": "South Dakota", "TN": "Tennessee", "TX": "Texas", "UT": "Utah", "VT": "Vermont", "VA": "Virginia",
    "WA": "Washington",
    "WV": "West Virginia", "WI": "Wisconsin", "WY": "Wyoming", "DC": "D C",
}
STATE_POINTS = {  # behind a comma
    "Ala": "Alabama", "Ariz": "Arizona", "Ark": "Arkansas", "Calif": "California", "Colo": "Colorado",
    "Conn": "Connecticut",
    "Del": "Delaware", "Fla": "Florida", "Ill": "Illinois", "Ind": "Indiana", "Kan": "Kansas", "Ky": "Kentucky",
    "Mass": "Massachusetts",
    "Md": "Maryland", "Mich": "Michigan", "Minn": "Minnesota", "Miss": "Mississippi", "Mo": "Missouri",
    "Mont": "Montana",
    "Neb": "Nebraska", "Nev": "Nevada", "Okla": "Oklahoma", "Ore": "Oregon", "Pa": "Pennsylvania",
    "Tenn": "Tennessee", "Tex": "Texas",
    "Va": "Virginia", "Vt": "Vermont", "Wash": "Washington", "Wis": "Wisconsin", "Wyo": "Wyoming",
}

# ---- money: symbol or code to (one, many, small one, small many)
_CENTS = ("cent", "cents")
CURRENCIES = {
    "$": ("dollar", "dollars", *_CENTS), "US$": ("U.S. dollar", "U.S. dollars", *_CENTS),
    "A$": ("Australian dollar", "Australian dollars", *_CENTS), "C$": ("Canadian dollar", "Canadian dollars", *_CENTS),
    "NZ$": ("New Zealand dollar", "New Zealand dollars", *_CENTS), "HK$": ("Hong Kong dollar", "Hong Kong dollars",
    *_CENTS),
    "S$": ("Singapore dollar", "Singapore dollars", *_CENTS), "NT$": ("Taiwan dollar", "Taiwan dollars", *_CENTS),
    "R$": ("Brazilian real", "Brazilian reais", "centavo", "centavos"), "MX$": ("Mexican peso", "Mexican pesos",
    "centavo", "centavos"),
    "£": ("pound", "pounds", "penny", "pence"), "€": ("euro", "euros", *_CENTS), "¥": ("yen", "yen", "sen", "sen"),
    "₹": ("rupee", "rupees", "paisa", "paise"), "₽": ("ruble", "rubles", "kopeck", "kopecks"), "₩": ("won", "won",
    "jeon", "jeon"),
    "₪": ("shekel", "shekels", "agora", "agorot"), "₺": ("lira", "lira", "kurush", "kurush"), "₫": ("dong", "dong",
    "hao", "hao"),
    "₴": ("hryvnia", "hryvnias", "kopiyka", "kopiyky"), "₦": ("naira", "naira", "kobo", "kobo"), "₱": ("peso",
    "pesos", "centavo", "centavos"),
    "฿": ("baht", "baht", "satang", "satang"), "₿": ("bitcoin", "bitcoins", "satoshi", "satoshis"),
    "CHF": ("Swiss franc", "Swiss francs", "centime", "centimes"), "CNY": ("Chinese yuan", "Chinese yuan", "fen",
    "fen"),
    "SEK": ("Swedish krona", "Swedish kronor", "öre", "öre"), "NOK": ("Norwegian krone", "Norwegian kroner", "öre",
    "öre"),
    "DKK": ("Danish krone", "Danish kroner", "öre", "öre"), "PLN": ("Polish zloty", "Polish zlotys", "grosz", "groszy"),
    "ZAR": ("South African rand", "South African rand", *_CENTS),
}
# other ways to write one of the above
CURRENCY_ALIASES = {
    "USD": "$", "GBP": "£", "EUR": "€", "JPY": "¥", "INR": "₹", "KRW": "₩", "RUB": "₽", "AUD": "A$", "CAD": "C$",
    "NZD": "NZ$",
    "HKD": "HK$", "SGD": "S$", "BRL": "R$", "MXN": "MX$", "RMB": "CNY", "AU$": "A$", "CA$": "C$", "CAD$": "C$",
    "AUD$": "A$",
    "US $": "US$", "Rs.": "₹", "Rs": "₹", "ILS": "₪", "PHP": "₱", "THB": "฿", "BTC": "₿", "TWD": "NT$",
}
SCALES = {"k": "thousand", "K": "thousand", "m": "million", "M": "million", "mn": "million", "mln": "million",
    "mil": "million",
          "bn": "billion", "Bn": "billion", "b": "billion", "B": "billion", "tn": "trillion", "tr": "trillion",
          "T": "trillion"}
SCALE_WORDS = ("hundred", "thousand", "million", "billion", "trillion")
# after an amount that follows "a": no noun comes, so the amount is not its attribute
DETERMINERS = words("a an the this that another his her my your our their every A An The This That Another His Her "
    "My Your Our "
    "Their Every")
NOT_A_NOUN = words(
    "he she it we they you i his her its our their your my away apart off up down more less too so then now later "
    "ago back out there here again between when while who where how because not can could may might will would "
    "should must do does did were had has have been be got went came fell rose made means always across towards "
    "besides perhaps goes comes makes costs "
    "for per in and or to of from with on at by is was are were a an the each as than more less than that which when "
    "if but plus every")

# ---- units: symbol to (one, many); it stands behind a number
UNITS = {
    "mi": ("mile", "miles"), "ft": ("foot", "feet"), "in": ("inch", "inches"), "yd": ("yard", "yards"),
    "yds": ("yard", "yards"),
    "lb": ("pound", "pounds"), "lbs": ("pound", "pounds"), "oz": ("ounce", "ounces"),
    "fl oz": ("fluid ounce", "fluid ounces"), "gal": ("gallon", "gallons"), "qt": ("quart", "quarts"), "pt": ("pint",
    "pints"),
    "tbsp": ("tablespoon", "tablespoons"), "Tbsp": ("tablespoon", "tablespoons"), "tbsps": ("tablespoon",
    "tablespoons"),
    "tbs": ("tablespoon", "tablespoons"), "Tbs": ("tablespoon", "tablespoons"), "kts": ("knot", "knots"),
    "tsp": ("teaspoon", "teaspoons"), "tsps": ("teaspoon", "teaspoons"),
    "pkg": ("package", "packages"), "doz": ("dozen", "dozen"), "kg": ("kilogram", "kilograms"), "kgs": ("kilogram",
    "kilograms"),
    "sec": ("second", "seconds"), "secs": ("second", "seconds"), "min": ("minute", "minutes"), "mins": ("minute",
    "minutes"),
    "h": ("hour", "hours"), "hr": ("hour", "hours"), "hrs": ("hour", "hours"), "wk": ("week", "weeks"),
    "wks": ("week", "weeks"),
    "mo": ("month", "months"), "mos": ("month", "months"), "yr": ("year", "years"), "yrs": ("year", "years"),
    "mph": ("mile per hour", "miles per hour"), "kph": ("kilometer per hour", "kilometers per hour"),
    "kmh": ("kilometer per hour", "kilometers per hour"), "fps": ("frame per second", "frames per second"),
    "mpg": ("mile per gallon", "miles per gallon"), "rpm": ("revolution per minute", "revolutions per minute"),
    "bpm": ("beat per minute", "beats per minute"), "wpm": ("word per minute", "words per minute"),
    "psi": ("pound per square inch", "pounds per square inch"), "ppm": ("part per million", "parts per million"),
    "N·m": ("newton meter", "newton meters"), "Nm": ("newton meter", "newton meters"),
    "ft-lb": ("foot-pound", "foot-pounds"), "ft-lbs": ("foot-pound", "foot-pounds"),
    "ft·lb": ("foot-pound", "foot-pounds"), "lb-ft": ("pound-foot", "pound-feet"),
    "mmHg": ("millimeter of mercury", "millimeters of mercury"), "pts": ("point", "points"),
    "reb": ("rebound", "rebounds"), "ast": ("assist", "assists"),
    "ppb": ("part per billion", "parts per billion"), "dB": ("decibel", "decibels"), "hp": ("horsepower", "horsepower"),
    "kcal": ("kilocalorie", "kilocalories"), "cal": ("calorie", "calories"), "kt": ("knot", "knots"), "kn": ("knot",
    "knots"),
    "ha": ("hectare", "hectares"), "atm": ("atmosphere", "atmospheres"), "AU": ("astronomical unit",
    "astronomical units"),
    "KB": ("kilobyte", "kilobytes"), "KiB": ("kibibyte", "kibibytes"), "MiB": ("mebibyte", "mebibytes"),
    "GiB": ("gibibyte", "gibibytes"),
    "°C": ("degree Celsius", "degrees Celsius"), "°F": ("degree Fahrenheit", "degrees Fahrenheit"), "°": ("degree",
    "degrees"),
    "° C": ("degree Celsius", "degrees Celsius"), "° F": ("degree Fahrenheit", "degrees Fahrenheit"),
    "℃": ("degree Celsius", "degrees Celsius"), "℉": ("degree Fahrenheit", "degrees Fahrenheit"),
    "%": ("percent", "percent"), "‰": ("per mille", "per mille"), "¢": ("cent", "cents"), "pct": ("percent", "percent"),
    "px": ("pixel", "pixels"), "MP": ("megapixel", "megapixels"), "mAh": ("milliamp hour", "milliamp hours"),
    "bbl": ("barrel", "barrels"),
}
# symbol: (name, the prefixes it takes); "" is the unit itself
METRIC = {
    "m": ("meter", ("", "n", "μ", "m", "c", "d", "k")), "g": ("gram", ("", "n", "μ", "m", "k")), "s": ("second", ("",
    "n", "μ", "m")),
    "l": ("liter", ("", "μ", "m", "c", "d")), "L": ("liter", ("", "μ", "m", "c", "d")), "Hz": ("hertz", ("", "k",
    "M", "G", "T")),
    "W": ("watt", ("", "μ", "m", "k", "M", "G", "T")), "Wh": ("watt hour", ("", "k", "M", "G", "T")), "V": ("volt",
    ("", "μ", "m", "k")),
    "A": ("amp", ("μ", "m", "k")), "B": ("byte", ("k", "M", "G", "T", "P")), "bps": ("bit per second", ("",
    "k", "K", "M", "G")),
    "bit": ("bit", ("k", "M", "G")), "b": ("bit", ("k", "M", "G")), "Pa": ("pascal", ("", "h", "k", "M", "G")),
    "J": ("joule", ("m", "k", "M")),
    "N": ("newton", ("m", "k", "M")), "Ω": ("ohm", ("", "m", "k", "M")), "F": ("farad", ("p", "n", "μ")),
    "mol": ("mole", ("", "n", "μ", "m")),
    "M": ("molar", ("n", "μ", "m")), "eV": ("electron volt", ("", "m", "k", "M", "G", "T")), "T": ("tesla", ("", "m",
    "μ")),
    "lm": ("lumen", ("",)), "lx": ("lux", ("",)), "Bq": ("becquerel", ("", "k", "M", "G")), "Sv": ("sievert", ("",
    "μ", "m")), "t": ("ton", ("k", "M")),
    "cd": ("candela", ("",)), "IU": ("international unit", ("",)), "bar": ("bar", ("", "m")), "rad": ("radian",
    ("",)),
}
PREFIXES = {"": "", "p": "pico", "n": "nano", "μ": "micro", "m": "milli", "c": "centi", "d": "deci", "h": "hecto",
    "k": "kilo", "K": "kilo",
            "M": "mega", "G": "giga", "T": "tera", "P": "peta"}
UNCHANGED_PLURALS = frozenset({"hertz", "lux", "molar"})
# what a measure that is written in one with its number describes: the 100m final, a 500mg tablet
MEASURED = words(
    "relay race dash sprint freestyle hurdles final backstroke butterfly tablet capsule pill dose bottle bag box can "
    "jar pack package camera lens engine battery drive disk monitor screen "
    "sheet envelope photo print poster")
# what is said of ovens, so that a bare F or C behind a number is a degree
HEATED = words("bake bakes baked baking oven preheat preheated heat heated cook cooked roast roasted temperature temp")
# around basis points: the Fed raised rates by 25 bps
POINTS_OF_RATES = words(
    "rate rates yield yields spread spreads fed ecb interest basis mortgage hike hikes margin margins coupon bond "
    "bonds treasury treasuries")
# these only where they run into the number, else they are something else: `5 in the`, `10 A day`
TIGHT_UNITS = frozenset({"in", "Pa", "rad", "AU", "mo", "MP"})
LENGTHS = frozenset({"m", "cm", "mm", "km", "ft", "in", "mi", "yd"})  # with ², ³ or sq, cu
PER = {"h": "hour", "hr": "hour", "d": "day", "s": "second", "sec": "second", "min": "minute", "wk": "week",
    "mo": "month", "yr": "year",
       "y": "year", "a": "year", "pp": "person", "ea": "each"}
PER_WORDS = words(
    "day night hour minute second week month year person head serving dose piece item unit liter gallon mile pound "
    "acre share barrel ton "
    "user student family household game set lesson visit session page word line frame pixel inch foot yard mole kilo "
    "kilogram ounce box bottle"
)

# ---- numbers that follow a name
VERSIONED = words(
    "Python Version version Release release iOS iPadOS macOS Android Windows Linux Ubuntu Debian Fedora Java Node PHP "
    "Ruby Rust Go Perl Kernel kernel "
    "Chrome Firefox Safari Django PyTorch TensorFlow CUDA Figure Fig Section Chapter Table Appendix Equation "
    "Paragraph Clause Article Exercise Theorem "
    "Lemma Example Definition Part Rule Step Item Problem Question section chapter figure table paragraph clause "
    "article exercise step item rule")
SPELLED_AFTER = words(
    "pin PIN code Code codes password passcode account Account id ID order Order ticket Ticket serial Serial "
    "extension Extension badge case Case "
    "license license plate tracking reference number-plate routing Routing")
PHONE_WORDS = words(
    "call dial phone telephone tel text fax ring mobile cell hotline at number contact reach whatsapp sms helpline"
)
# codes that are read sign by sign, whatever their groups look like
SPELLED_CODES = words("ISSN ISBN IBAN EAN UPC GTIN VIN SSN BIC")
# what has a time signature: the 6/8 groove
METERS = words("time meter rhythm beat groove waltz signature")
# what is numbered in pairs: Room 101 is one oh one, Flight 1549 fifteen forty-nine
CALLED = words(
    "Flight flight Room room Suite suite Route route Highway highway Interstate Apartment apartment Bus bus Apt Boeing "
    "Box Channel channel Studio studio Error error HTTP Status status Exit exit Porsche Peugeot Fahrenheit Freeway "
    "Locker locker Bay bay Hall hall Ferrari RFC"
)
EMERGENCY = ("911", "999", "112", "111", "000", "411", "311", "211", "511", "711", "811", "988", "101")
NUMBERS_BY_NAME = {"802.11": "eight oh two point eleven", "24/7": "twenty-four seven", "9/11": "nine eleven",
    "7/11": "seven eleven", "20/20": "twenty twenty"}
OUT_OF = words("people men women children students adults doctors dentists users voters customers patients Americans "
    "parents workers teachers drivers families cats dogs")
RATED = ("rate", "rated", "rating", "score", "scored", "scores", "gave", "give", "gives", "got", "get", "gets",
    "grade", "graded", "review",
         "out", "solid", "perfect", "marks")
DRAWN = ("ended", "tied", "tie", "draw", "drew", "score", "scores", "game", "match", "finished", "final", "won",
    "win", "lost", "lead", "leads", "led", "beat")
BOOKS = words(
    "Genesis Exodus Leviticus Numbers Deuteronomy Joshua Judges Ruth Samuel Kings Chronicles Ezra Nehemiah Esther Job "
    "Psalm Psalms Proverbs "
    "Ecclesiastes Isaiah Jeremiah Ezekiel Daniel Hosea Joel Amos Obadiah Jonah Micah Matthew Mark Luke John Acts "
    "Romans Corinthians Galatians "
    "Ephesians Philippians Colossians Thessalonians Timothy Titus Hebrews James Peter Jude Revelation"
)

# these only in front of a chapter and a verse: `Gen. 1:1`
BOOKS_BEFORE_A_VERSE = {
    "Gen": "Genesis", "Col": "Colossians", "Rev": "Revelation", "Num": "Numbers", "Sam": "Samuel", "Pet": "Peter",
    "Jn": "John", "Mk": "Mark", "Lk": "Luke", "Mt": "Matthew", "Neh": "Nehemiah", "Chr": "Chronicles",
}
BOOK_NAMES = {
    "Ps": "Psalm", "Pss": "Psalms", "Cor": "Corinthians", "Exod": "Exodus", "Lev": "Leviticus", "Deut": "Deuteronomy",
    "Prov": "Proverbs", "Eccl": "Ecclesiastes", "Isa": "Isaiah", "Jer": "Jeremiah", "Ezek": "Ezekiel",
    "Matt": "Matthew",
    "Rom": "Romans", "Gal": "Galatians", "Eph": "Ephesians", "Phil": "Philippians", "Thess": "Thessalonians",
    "Tim": "Timothy", "Heb": "Hebrews",
}
KEYS = {"Ctrl": "Control", "Cmd": "Command"}

# ---- Roman numerals
RULERS = words(
    "Henry Louis George Edward Charles James William Richard Elizabeth John Paul Pius Leo Gregory Benedict Philip "
    "Frederick Peter Catherine "
    "Napoleon Nicholas Alexander Ferdinand Ivan Robert Mary Anne Margaret Victoria Stephen David Malcolm Kenneth "
    "Duncan Donald Otto Conrad Rudolf "
    "Rudolph Sigismund Maximilian Leopold Joseph Franz Francis Wilhelm Friedrich Ludwig Albert Alfonso Alphonso "
    "Felipe Juan Carlos Pedro Manuel "
    "Afonso Sancho Umberto Emmanuel Amadeus Christian Gustav Gustavus Carl Karl Haakon Harald Olav Oscar Magnus Eric "
    "Valdemar Canute Sigmund Casimir "
    "Stanislaus Wladyslaw Bela Andrew Bogdan Basil Constantine Theodosius Justinian Justin Leon Michael Manuel "
    "Alexios Mehmed Selim Murad Bayezid "
    "Suleiman Ahmed Mustafa Osman Abdulhamid Mahmud Ramses Ramesses Thutmose Amenhotep Seti Ptolemy Cleopatra Xerxes "
    "Darius Cyrus Artaxerxes Philip "
    "Antiochus Seleucus Mithridates Tiglath Sargon Nebuchadnezzar Ashurbanipal Innocent Urban Clement Sixtus Boniface "
    "Adrian Hadrian Julius Calixtus "
    "Callixtus Celestine Honorius Eugene Martin Sylvester Nicholas Alexander Gelasius Paschal Lucius Anastasius "
    "Marcellus Hugh Lothair Baldwin Godfrey "
    "Raymond Fulk Amalric Bohemond Tancred Roger Thomas Walter Matthias Isabella Isabel Joanna Maria Juliana Beatrix "
    "Wilhelmina Margrethe Christina "
    "Farouk Hassan Hussein Abdullah Mohammed Muhammad Rama Norodom Kamehameha Menelik Haile Pomare Tupou Moctezuma "
    "Montezuma Idris Faisal Ghazi Reza")
NUMBERED = words(  # words behind which a Roman numeral is a plain number
    "Chapter Part Book Volume Vol Act Scene Section Article Appendix Phase Stage Type Class War Title Level Figure "
    "Table Mark Schedule Canto Psalm "
    "Amendment Bowl Episode Season Series Apollo Saturn Gemini Rocky Rambo Fantasy Auto Mission Division Corps Group "
    "Grade Factor Tier Unit Lesson Step "
    "Version OS iPhone Round Game Album Symphony Sonata Movement Region District Zone Area Annex Protocol Category "
    "Category Vatican Star Quest Cat Civilization "
    "chapter part book volume act scene section article appendix phase stage type class figure table level page pages "
    "factor category grade tier")
ORDINAL_BEFORE = (
    "century|centuries|dynasty|Dynasty|Olympiad|Olympic|Olympics|Congress|Legion|Corps|congress|legion|Army|"
    "Amendment|edition|Edition"
)
# valid numerals that are also words or initials, and are read as those
NOT_ROMAN = words("CD DC MD MC CC CV MI DI LI XL CI CL MM XXX LL MIX DIM DID MILD CIVIC VIC VI XI DV LCD ID IM "
    "ILL MMC CIV MV CM LC DL DM ML IC")
# behind these a single X is ten, behind others (Group, Type, Plan) a letter
TENTH = words("fantasy iphone os chapter act book volume vol part article title psalm canto scene amendment section")
TITLES = words("King Queen Pope Emperor Empress Tsar Czar Kaiser Prince Princess Sultan Shah Pharaoh Duke")
NOT_OF_A_RULER = words("think know am have had saw read like love hope guess see want said can could would will do")
# headings in front of which a single I, V or X is a number
SECTIONS = words(
    "Introduction Background Overview Preface Foreword Summary Definitions Purpose Scope Abstract Prologue Methods "
    "Results Discussion Conclusion Conclusions References Appendix History Analysis Objectives General Motivation")
AFTER_THE_FIRST = (
    "wrote|founded|built|signed|fought|won|lost|led|began|ordered|sent|left|lived|followed|would|did|also|then|"
    "was|were|is|of|had|has|died|reigned|ruled|became|came|did|made|took|and|who|in|succeeded|married|abdicated|"
    "granted|issued|gave|said"
)

# ---- letters and signs
GREEK = {"lamda": "lambda", "final sigma": "sigma"}
ELEMENTS = words(
    "H He Li Be B C N O F Ne Na Mg Al Si P S Cl Ar K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As Se Br Kr Rb Sr Y Zr Nb "
    "Mo Tc Ru Rh Pd Ag Cd In Sn Sb Te I Xe Cs "
    "Ba La Ce Nd Sm Eu Gd Tb Dy Ho Er Tm Yb Lu Hf Ta W Re Os Ir Pt Au Hg Tl Pb Bi Po At Rn Fr Ra Ac Th Pa U Np "
    "Pu")
# salts and acids without a digit, which would be words else
FORMULAS = words("NaCl KCl HCl HBr NaOH KOH MgO CaO ZnO CuO NaF HCN AgCl LiCl NaBr KBr SiC GaAs HF")
VULGAR = {"½": "1/2", "⅓": "1/3", "⅔": "2/3", "¼": "1/4", "¾": "3/4", "⅕": "1/5", "⅖": "2/5", "⅗": "3/5", "⅘": "4/5",
    "⅙": "1/6", "⅚": "5/6",
          "⅐": "1/7", "⅛": "1/8", "⅜": "3/8", "⅝": "5/8", "⅞": "7/8", "⅑": "1/9", "⅒": "1/10"}
SUPERSCRIPTS = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ", "0123456789+-n"))
SUBSCRIPTS = dict(zip("₀₁₂₃₄₅₆₇₈₉₊₋", "0123456789+-"))
# endings of file names, as they are said
FILES = {
    **{name: " ".join(name.upper()) for name in (
        "pdf", "txt", "py", "js", "ts", "csv", "tsv", "html", "css", "php", "xml", "svg", "md", "cpp", "rs", "sh",
        "sql", "xls", "xlsx", "docx", "ppt", "pptx", "rtf", "rb", "tgz", "gz", "exe", "dll", "ini", "cfg", "yml",
        "pkl", "ipynb", "wav", "mov", "avi", "mkv", "flac", "psd", "otf", "ttf", "iso", "dmg", "apk", "bmp", "tsx",
        "jsx")},
    "json": "jason", "jsonl": "jason L", "jpg": "J peg", "jpeg": "J peg", "png": "P N G", "gif": "gif",
    "mp3": "M P three",
    "mp4": "M P four", "doc": "doc", "docm": "doc M", "zip": "zip", "bin": "bin", "log": "log", "bat": "bat",
    "yaml": "yamel",
    "toml": "tommel", "epub": "E pub", "tar": "tar", "webp": "web P", "webm": "web M", "java": "java", "lock": "lock",
    "env": "env", "conf": "conf", "tif": "tif", "tiff": "tif", "ogg": "og",
}
# names of files, and ends of addresses, that begin with a point
DOT_NAMES = words(
    "com org net edu gov io env bashrc zshrc profile vimrc gitignore gitattributes npmrc dockerignore ssh config cache "
    "git htaccess editorconfig") | frozenset(FILES) - {"bat", "bin", "log", "lock", "doc", "zip", "tar"}
# faces made of marks: nobody says them
FACES = (":)", ":-)", ":(", ":-(", ";)", ";-)", ":D", ":-D", ":P", ":-P", ":p", ":-p", ":'(", ":')", ":/", ":-/", ":|",
    ":-|", ":O", ":-O", ":o", ":*", ":-*", "=)", "=(", "=D", "xD", "XD", "^_^", "^^", "-_-", "T_T", ">_<", "o_O", "O_o",
    ":]", ":[", ":3", ":))", ":)))", ":((", "¯\\_(ツ)_/¯")
# words that an accent alone tells from others; how they sound stands in `heteronyms`
ACCENTED = {"résumé": "resumay", "résumés": "resumays", "exposé": "exposay", "exposés": "exposays", "rosé": "rosay",
    "pâté": "patay", "lamé": "lamay", "maté": "matay", "saké": "sakay", "piqué": "piquay"}
# calls that are drawn out in many ways: how they are written, and the one word that is said
DRAWN_OUT = {
    "h+m+": "hmm", "s+h+": "shh", "a+h+": "ah", "o+h+": "oh", "u+g+h+": "ugh", "a+w+": "aw", "m{2,}": "mm",
    "g+r{2,}": "grr", "b+r{2,}": "brr",
    "z{3,}": "zzz", "e+w+": "ew", "n+o+": "no", "s+o+": "so", "y+e+s+": "yes", "y+a+y+": "yay", "w+o+w+": "wow",
    "y+e+a+h+": "yeah", "a+r+g+h+": "argh",
    "b+o{2,}": "boo", "o{2,}": "ooh", "a{2,}": "ah", "w+h+e+": "whee", "w+e{2,}": "wee", "p+s+t+": "psst",
    "p+f+t+": "pfft", "e{2,}": "ee", "u+h+": "uh",
    "u+m+": "um", "m+e+": "me", "y+o+u+": "you", "h+e+y+": "hey", "h+i+": "hi", "b+y+e+": "bye", "w+h+y+": "why",
    "n+a+h+": "nah",
}
# ---- LaTeX commands that stand for words; Greek letters are their own names
LATEX = {
    "times": "times", "cdot": "times", "div": "divided by", "pm": "plus or minus", "mp": "minus or plus",
    "leq": "is at most", "le": "is at most",
    "geq": "is at least", "ge": "is at least", "neq": "is not equal to", "ne": "is not equal to",
    "approx": "is about", "equiv": "is equivalent to",
    "to": "to", "rightarrow": "to", "Rightarrow": "implies", "implies": "implies", "infty": "infinity",
    "sum": "the sum of", "prod": "the product of",
    "int": "the integral of", "partial": "partial", "nabla": "nabla", "in": "in", "forall": "for all",
    "exists": "there is", "cup": "union",
    "cap": "intersection", "subset": "subset of", "sin": "sine", "cos": "cosine", "tan": "tangent", "log": "log",
    "ln": "natural log", "exp": "exp",
    "lim": "the limit of", "ldots": ", and so on,", "cdots": ", and so on,", "dots": ", and so on,",
    "circ": "degrees", "percent": "percent",
    "lt": "less than", "gt": "greater than", "sim": "is about", "propto": "is proportional to",
    "varepsilon": "epsilon", "vartheta": "theta", "varphi": "phi",
}
TWO_LETTERS = words("is in of to or if at by as an be no so we on it do up")
LATEX_GREEK = words(
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi omicron pi rho sigma tau upsilon phi "
    "chi psi omega")
# fmt: on
