"""Texts of the kinds that a voice loses words in, to be spoken by a teacher: lists, digits in groups, repeated words,
long sentences without punctuation, very short ones.

    python recipes/default_voice/hard_texts.py SENTENCES OUT [--seed 5] [--leave-out FILE ...]

SENTENCES: a file of sentences to join into long ones (text/train.txt). Lines of the files to leave out (those that
judge: benchmark/texts/hard.txt, text/dev.txt) are not written.
"""

from __future__ import annotations

import argparse
import random
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

TABLES: dict[str, Any] = tomllib.loads(Path(__file__).with_name("hard_words.toml").read_text(encoding="utf-8"))
LISTS: dict[str, list[str]] = TABLES["lists"]
IN_ORDER = ("month", "day", "number", "ordinal", "planet", "season")
ALONE = ("month", "day", "colour", "number", "place", "season", "quality", "verb", "name", "city", "ordinal", "food")
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
GROUPS = ((3, 4), (3, 3, 4), (2, 2, 2), (4, 4), (1, 3, 3, 4), (5,))


def capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def lists(draw: random.Random) -> str:
    """With commas, bare or in a sentence, some in their own order; one in four without commas."""
    kind = draw.choice(list(LISTS))
    words, count = LISTS[kind], min(len(LISTS[kind]), draw.randint(3, 12))
    first = draw.randrange(len(words) - count + 1)
    in_order = kind in IN_ORDER and draw.random() < 0.7
    items = words[first : first + count] if in_order else draw.sample(words, count)
    if draw.random() < 0.25:
        return capital(" ".join(items[:9]) + ".")
    last = draw.choice([", and ", " and ", ", "])
    lead = draw.choice(TABLES["leads"]) + " " if draw.random() < 0.4 else ""
    return capital(lead + ", ".join(items[:-1]) + last + items[-1] + ".")


def numbers(draw: random.Random) -> str:
    """Digits in groups, many of them doubled."""

    def group(count: int) -> str:
        digits = [draw.randrange(10)]
        while len(digits) < count:
            digits.append(digits[-1] if draw.random() < 0.38 else draw.randrange(10))
        return " ".join(DIGITS[digit] for digit in digits)

    text = ", ".join(map(group, draw.choice(GROUPS) if draw.random() < 0.45 else [draw.randint(3, 10)]))
    return capital((draw.choice(TABLES["calls"]) if draw.random() < 0.8 else "") + text + ".")


def repeats(draw: random.Random) -> str:
    """Words that are said again on purpose."""
    word, count = draw.choice(TABLES["again"]), draw.randint(2, 5)
    forms = (
        ", ".join([word] * count) + draw.choice([".", ", I said.", ", she cried.", ", he went."]),
        "They went " + " and ".join([draw.choice(["on", "round", "up", "over", "down"])] * count) + ".",
        f"It was a {', '.join(['very'] * count)} {draw.choice(LISTS['quality'])} day.",
        draw.choice(TABLES["doubled"]),
        f"{word}, {word}. " + draw.choice(["Who is it?", "Come in.", "See you soon.", "That is all."]),
    )
    return capital(draw.choice(forms))


def unbroken(draw: random.Random, sentences: list[str]) -> str:
    """Two or three sentences joined, without a comma or a stop."""
    parts = [sentences.pop().rstrip(".") for _ in range(draw.choice([2, 2, 3, 3]))]
    text = parts[0]
    for part in parts[1:]:
        text += draw.choice(TABLES["joints"]) + part
    return text if len(text) <= 230 else text[:230].rsplit(" ", 1)[0]


def texts(seed: int, sentences: list[str]) -> Iterator[str]:
    """All of them, kind by kind."""
    draw = random.Random(seed)
    plain = [line for line in sentences if 30 < len(line) < 75 and re.fullmatch(r"[a-zA-Z' ]+[.]?", line)]
    draw.shuffle(plain)
    yield from (lists(draw) for _ in range(500))
    yield from (numbers(draw) for _ in range(230))
    yield from (repeats(draw) for _ in range(150))
    yield from (unbroken(draw, plain) for _ in range(min(170, len(plain) // 3)))
    yield from (
        capital(word) + draw.choice(".....!?") for kind in ALONE for word in LISTS[kind] if draw.random() < 0.75
    )
    yield from (words + stop for words in TABLES["short"] for stop in ".!")


def main() -> None:
    """Command line."""
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("sentences", type=Path)
    ap.add_argument("out", type=Path)
    ap.add_argument("--seed", type=int, default=5)
    ap.add_argument("--leave-out", type=Path, action="append", default=[], metavar="FILE")
    args = ap.parse_args()
    judged = {line for file in args.leave_out for line in file.read_text(encoding="utf-8").splitlines()}
    kept = [
        t for t in dict.fromkeys(texts(args.seed, args.sentences.read_text("utf-8").splitlines())) if t not in judged
    ]
    random.Random(args.seed).shuffle(kept)
    args.out.write_text("\n".join(kept) + "\n", encoding="utf-8")
    print(f"{args.out}: {len(kept)} texts, {sum(map(len, kept))} letters")


if __name__ == "__main__":
    main()
