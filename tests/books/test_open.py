"""Text, Markdown and EPUB to chapters; what is damaged, protected or made to do harm is refused with one line."""

from __future__ import annotations

import io
import random
import zipfile
from pathlib import Path

import pytest

from spear_spec.books import Book, Chapter, open_book
from spear_spec.books.archive import resolve
from spear_spec.books.html import joined, paragraphs
from spear_spec.errors import TextError
from tests.books.epubs import CONTAINER, HTML, OPF, members, pack, write

FIRST = "The First\n\nIt begins here, on two lines.\n\nA word & more.\nA verse."
SECOND = "Second\n\nTwo a.\n\n- milk\n- eggs"
THIRD = "Third\n\nTwo b."


@pytest.mark.parametrize("contents", ["nav", "ncx"])
def test_an_epub(contents: str, tmp_path: Path) -> None:
    book = open_book(write(tmp_path / "b.epub", members(contents)))
    assert (book.title, book.author, book.language) == ("A Small Book", "Ann One, Bob Two", "en")
    assert book.chapters == (
        Chapter("I. The First", FIRST), Chapter("II. Second", SECOND), Chapter("III. Third", THIRD),
    )  # fmt: skip
    assert book.cover is not None and book.cover.data.startswith(b"\x89PNG")


def test_an_epub_without_contents(tmp_path: Path) -> None:
    book = open_book(write(tmp_path / "b.epub", members("none")))
    assert book.chapters == (Chapter("The First", FIRST), Chapter("Second", f"{SECOND}\n\n{THIRD}"))


def test_a_page_that_the_contents_do_not_name_goes_on_with_the_chapter(tmp_path: Path) -> None:
    files = members("ncx")
    files["OEBPS/toc.ncx"] = str(files["OEBPS/toc.ncx"]).replace("text/two.xhtml", "text/gone.xhtml")
    book = open_book(write(tmp_path / "b.epub", files))
    assert [chapter.title for chapter in book.chapters] == ["I. The First"]
    assert book.chapters[0].text == f"{FIRST}\n\n{SECOND}\n\n{THIRD}"


@pytest.mark.parametrize(
    ("text", "titles"),
    [
        ("Title page\n\nChapter 1\n\nOne.\n\nCHAPTER II. The Whale\n\nTwo.",
         ["b", "Chapter 1", "CHAPTER II. The Whale"]),
        ("Prologue\n\nSo.\n\nPart One\n\nx.\n\nChapter Twenty-One: It Ends\n\ny.\n\nEpilogue\n\nz.",
         ["Prologue", "Part One", "Chapter Twenty-One: It Ends", "Epilogue"]),
        ("Chapter 1\nChapter 2\nChapter 3\n\nNo contents are chapters.", ["b"]),
        ("We read chapter 3 today.\n\nChapter 3 was long and it did not end before the night came.\n\nx", ["b"]),
        ("\ufeffChapter 1\r\n\r\nOne.\r\n\r\nChapter 2\r\n\r\nTwo.", ["Chapter 1", "Chapter 2"]),
        ("No chapter at all.", ["b"]),
    ],
)  # fmt: skip
def test_plain_text(text: str, titles: list[str], tmp_path: Path) -> None:
    path = tmp_path / "b.txt"
    path.write_text(text, encoding="utf-8", newline="")
    book = open_book(path)
    assert [chapter.title for chapter in book.chapters] == titles
    plain = text.replace("\r\n", "\n").strip("\ufeff")
    assert "\n\n".join(chapter.text for chapter in book.chapters) == plain


def test_project_gutenberg_s_frame_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "b.txt"
    path.write_text(
        "Legal.\n\nTitle: Moby\nAuthor: Herman\n\n*** START OF THE PROJECT GUTENBERG EBOOK MOBY ***\n\nChapter 1\n\n"
        "Ishmael.\n\n*** END OF THE PROJECT GUTENBERG EBOOK MOBY ***\n\nLegal."
    )
    assert open_book(path) == Book("Moby", "Herman", (Chapter("Chapter 1", "Chapter 1\n\nIshmael."),))


def test_markdown(tmp_path: Path) -> None:
    path = tmp_path / "b.md"
    path.write_text(
        "---\nauthor: 'Ann One'\nx: y\n---\n# The *Book*\n\nBy way of words.\n\n## One\n\nIt **is**\nso, [here](x.y).\n"
        "\n### Deeper\n\n```\nno\n```\n\n1. a\n2. b\n\n## Two\n\n| a | b |\n|---|---|\n| c | d |\n\n"
        "> Quoted & <b>bold</b>.\n"
    )
    assert open_book(path) == Book("The Book", "Ann One", (
        Chapter("The Book", "The Book\n\nBy way of words."),
        Chapter("One", "One\n\nIt is so, here.\n\nDeeper\n\n- a\n- b"),
        Chapter("Two", "Two\n\na, b\n\nc, d\n\nQuoted & bold."),
    ))  # fmt: skip
    path.write_text("# A\n\nx\n\n# B\n\ny")
    assert [c.title for c in open_book(path).chapters] == ["A", "B"]
    path.write_text("nothing but *text*")
    assert open_book(path).chapters == (Chapter("b", "nothing but text"),)


def test_blocks_hold_all_of_the_text_in_whole_paragraphs() -> None:
    chance = random.Random(1)
    words = [f"word{i}" for i in range(3000)]
    text = ""
    for word in words:
        text += word + chance.choice([" ", ", ", ". Then ", ".\n\n", "\n"])
    text += "\n\n***\n\n" + "A sentence that is one of many. " * 300
    blocks = list(Chapter("x", text).blocks())
    assert all(len(block) <= 2500 for block in blocks) and len(blocks) > 10
    assert " ".join(" ".join(blocks).replace("***", "").split()) == " ".join(text.replace("***", "").split())
    assert list(Chapter("x", "***\n\n* * *\n\n---").blocks()) == []


# ---- refused

PACKAGE = "OEBPS/book.opf"
INNER, OUTER = '<!DOCTYPE a [<!ENTITY b "cc">]>', '<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]>'
HOSTILE: dict[str, tuple[dict[str, str | bytes | None], str]] = {
    "no container": ({"META-INF/container.xml": None}, "no EPUB"),
    "no package": ({"OEBPS/book.opf": None}, "lacks 'OEBPS/book.opf'"),
    "no page": ({"OEBPS/text/one.xhtml": None}, "lacks 'OEBPS/text/one.xhtml'"),
    "drm": ({"META-INF/encryption.xml": '<encryption><EncryptedData><EncryptionMethod Algorithm="http://www.w3.org/2001/04/'
             'xmlenc#aes128-cbc"/></EncryptedData></encryption>'}, "DRM"),
    "rights": ({"META-INF/rights.xml": "<rights/>"}, "DRM"),
    "bomb": ({"OEBPS/text/one.xhtml": HTML % ("<p>" + "a" * 60_000_000)}, "unpacks to more"),
    "entities": ({"OEBPS/book.opf": INNER + (OPF % ("", "", ""))[21:].replace("A Small", "&b;")}, "cannot be read"),
    "external entity": ({"META-INF/container.xml": OUTER + CONTAINER[21:]}, "cannot be read"),
    "package outside": ({"META-INF/container.xml": CONTAINER.replace(PACKAGE, "../../etc/passwd")}, "out of it"),
    "page outside": ({"OEBPS/book.opf": OPF % ("", '<item id="x" href="../../x" media-type="text/html"/>', "")},
                     "out of it"),
    "absolute": ({"META-INF/container.xml": CONTAINER.replace(PACKAGE, "/etc/passwd")}, "out of it"),
    "spine": ({"OEBPS/book.opf": OPF % ("", "", '<itemref idref="nobody"/>')}, "'nobody'"),
    "not xml": ({"OEBPS/book.opf": "<package"}, "cannot be read"),
    "no text": ({"OEBPS/text/one.xhtml": "", "OEBPS/text/two.xhtml": "<p> </p>"}, "no text"),
    "deep xml": ({"OEBPS/book.opf": "<a>" * 200_000}, "cannot be read"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_refused(name: str, tmp_path: Path) -> None:
    changes, message = HOSTILE[name]
    files: dict[str, str | bytes] = {k: v for k, v in {**members(), **changes}.items() if v is not None}
    with pytest.raises(TextError, match=message) as caught:
        open_book(write(tmp_path / "b.epub", files))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500
    assert [path.name for path in tmp_path.iterdir()] == ["b.epub"]  # nothing is unpacked


def test_obfuscated_fonts_are_no_protection(tmp_path: Path) -> None:
    fonts = '<encryption><EncryptionMethod Algorithm="http://www.idpf.org/2008/embedding"/></encryption>'
    assert open_book(write(tmp_path / "b.epub", {**members(), "META-INF/encryption.xml": fonts})).chapters


def test_other_files_are_refused(tmp_path: Path) -> None:
    for name, data, message in [
        ("b.epub", b"no zip", "no EPUB"), ("b.pdf", b"%PDF", "must be one of"), ("b.txt", b"\xff\xfe", "UTF-8"),
        ("b.txt", b" \n", "no text"), ("b.md", b"```\nx\n```", "no text"), ("c.txt", None, "cannot read"),
        ("c.epub", None, "cannot read"),
    ]:  # fmt: skip
        if data is not None:
            (tmp_path / name).write_bytes(data)
        with pytest.raises(TextError, match=message):
            open_book(tmp_path / name)
    encrypted = bytearray(pack(members()))
    for at in range(len(encrypted)):
        if encrypted[at : at + 4] == b"PK\1\2":
            encrypted[at + 8] |= 1
    (tmp_path / "e.epub").write_bytes(encrypted)
    with pytest.raises(TextError, match="encrypted"):
        open_book(tmp_path / "e.epub")


def test_many_members_are_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for number in range(20_001):
            file.writestr(str(number), "")
    (tmp_path / "b.epub").write_bytes(buffer.getvalue())
    with pytest.raises(TextError, match="20001 members"):
        open_book(tmp_path / "b.epub")


def test_damaged_files_are_read_or_refused(tmp_path: Path) -> None:
    """A few bytes of a sound book changed, cut off or doubled: a book, or a TextError."""
    sound, chance, path = pack(members()), random.Random(0), tmp_path / "b.epub"
    refused = 0
    for _ in range(150):
        data = bytearray(sound)
        for _ in range(chance.randrange(1, 6)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        path.write_bytes(data[: chance.randrange(len(data))] if chance.random() < 0.2 else data)
        try:
            open_book(path)
        except TextError:
            refused += 1
    assert 20 < refused < 150


def test_damaged_pages_are_read(tmp_path: Path) -> None:
    """Any soup of tags is some text; none of the hidden is in it."""
    chance = random.Random(0)
    parts = ["<p>", "</p>", "<br>", "<div", ">", "</h1>", "<h1>", "text ", "&amp;", "&nbsp", "<!--", "-->", "<li>",
             "<![CDATA[", "<script>no</script>", "</script>", "<td>", "<aside hidden>", "</aside>", "\n",
             "<a id='x'/>", "<ul/>"]  # fmt: skip
    for _ in range(300):
        page = "".join(chance.choice(parts) for _ in range(40))
        assert all(p.text.strip() for p in paragraphs(page))
    assert joined(paragraphs("<div>" * 100_000 + "deep")) == "deep"


def test_references() -> None:
    assert resolve("a/b.opf", "c%20d.xhtml#e%20f", "x") == ("a/c d.xhtml", "e f")
    assert resolve("a/b/c.ncx", "../d.xhtml", "x") == ("a/d.xhtml", "")
    assert resolve("a/b.xhtml", "#e", "x") == ("a/b.xhtml", "e")
    for wrong in ("../../c", "/c", "%2e%2e/%2e%2e/c", "http://x/y", "//x/y", "c\\..\\d"):
        with pytest.raises(TextError):
            resolve("a/b.opf", wrong, "x")
