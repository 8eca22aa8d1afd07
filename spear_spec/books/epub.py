"""EPUB 2 and 3, read as what it is: a zip file, `container.xml`, a package, a spine of XHTML, a table of contents."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import ParseError

from spear_spec.books.archive import Archive, open_archive, resolve
from spear_spec.books.book import Book, Chapter, Cover
from spear_spec.books.html import Paragraph, joined, paragraphs
from spear_spec.errors import TextError

_CONTAINER, _ENCRYPTION, _RIGHTS = "META-INF/container.xml", "META-INF/encryption.xml", "META-INF/rights.xml"
_FONTS = ("http://www.idpf.org/2008/embedding", "http://ns.adobe.com/pdf/enc#RC")  # obfuscated fonts: no matter here
_PAGES = ("application/xhtml+xml", "text/html", "application/xml", "text/x-oeb1-document")
_PICTURES = ("image/jpeg", "image/jpg", "image/png")
_MOST_OF_A_PAGE = 8 * 1024 * 1024
_LONGEST_TITLE = 200


@dataclass
class _Package:
    """What the OPF file says. items: id to (member, media type, properties); spine: members in reading order."""

    title: str = ""
    author: str = ""
    language: str = ""
    items: dict[str, tuple[str, str, frozenset[str]]] = field(default_factory=dict)
    spine: list[str] = field(default_factory=list)
    contents: str | None = None  # the member that is the NCX
    cover: str | None = None


def read_epub(path: Path) -> Book:
    """A book from an EPUB file. Chapters are what its table of contents names, else the files of its spine.

    Raises:
        TextError: it is no EPUB, damaged, protected (DRM), or made to do harm.
    """
    with open_archive(path) as archive:
        _refuse_protected(archive)
        package = _package(archive)
        titles = _contents(archive, package)
        chapters = _chapters(archive, package, titles)
        if not chapters:
            raise TextError(f"{path} holds no text")
        cover = _cover(archive, package)
    return Book(package.title or path.stem, package.author, tuple(chapters), cover, package.language)


def _xml(archive: Archive, member: str) -> Any:
    """The root element; names of elements are compared without their namespace."""
    from defusedxml import DefusedXmlException
    from defusedxml.ElementTree import fromstring

    try:
        return fromstring(archive.read(member))
    except (ParseError, DefusedXmlException, RecursionError, ValueError, LookupError) as error:
        reason = error if isinstance(error, ParseError) else "it declares entities, or is not XML"
        raise TextError(f"{archive.name}: {member[:80]!r} cannot be read: {reason}") from None


def _tag(element: Any) -> str:
    return str(element.tag).rpartition("}")[2]


def _all(root: Any, *tags: str) -> list[Any]:
    return [element for element in root.iter() if _tag(element) in tags]


def _text(element: Any) -> str:
    return " ".join("".join(element.itertext()).split())[:_LONGEST_TITLE]


def _refuse_protected(archive: Archive) -> None:
    if _CONTAINER not in archive:
        raise TextError(f"{archive.name} is no EPUB: it has no {_CONTAINER}")
    protected = _RIGHTS in archive
    if _ENCRYPTION in archive:
        methods = [e.get("Algorithm", "") for e in _all(_xml(archive, _ENCRYPTION), "EncryptionMethod")]
        protected = protected or any(method not in _FONTS for method in methods)
    if protected:
        raise TextError(f"{archive.name} is protected (DRM) and cannot be read: only unprotected books can")


def _package(archive: Archive) -> _Package:
    roots = [e for e in _all(_xml(archive, _CONTAINER), "rootfile") if e.get("full-path")]
    if not roots:
        raise TextError(f"{archive.name} is no EPUB: its {_CONTAINER} names no package")
    member, _ = resolve("", roots[0].get("full-path"), archive.name)
    root, package = _xml(archive, member), _Package()
    package.title = next((_text(e) for e in _all(root, "title") if _text(e)), "")
    package.author = ", ".join(dict.fromkeys(filter(None, map(_text, _all(root, "creator")))))[:_LONGEST_TITLE]
    package.language = next((_text(e) for e in _all(root, "language") if _text(e)), "")
    for item in _all(root, "item"):
        if item.get("id") and item.get("href") and "://" not in item.get("href"):
            where, _ = resolve(member, item.get("href"), archive.name)
            properties = frozenset((item.get("properties") or "").split())
            package.items[item.get("id")] = where, item.get("media-type", ""), properties
    for spine in _all(root, "spine"):
        package.contents = package.items.get(spine.get("toc") or "", (None,))[0]
        for reference in _all(spine, "itemref"):
            found = package.items.get(reference.get("idref") or "")
            if found is None:
                raise TextError(f"{archive.name}: its spine names {reference.get('idref')!r:.80}, which it lacks")
            if reference.get("linear") != "no" and found[1] in _PAGES and "nav" not in found[2]:
                package.spine.append(found[0])
    named = next((e.get("content") for e in _all(root, "meta") if e.get("name") == "cover"), None)
    pictures = [where for where, kind, properties in package.items.values() if "cover-image" in properties]
    package.cover = pictures[0] if pictures else package.items.get(named or "", (None,))[0]
    return package


def _contents(archive: Archive, package: _Package) -> dict[str, list[tuple[str, str]]]:
    """Member to (fragment, title) of the uppermost entries that begin in it, in order."""
    navigation = next((where for where, _, properties in package.items.values() if "nav" in properties), None)
    found: list[tuple[str, str, str]] = []  # base, reference, title
    if navigation is not None and navigation in archive:
        found = [(navigation, href, title) for href, title in _of_nav(archive, navigation)]
    if not found and package.contents is not None and package.contents in archive:
        for point in _all(_xml(archive, package.contents), "navPoint"):
            label, content = (next((e for e in point if _tag(e) == tag), None) for tag in ("navLabel", "content"))
            if label is not None and content is not None and content.get("src"):
                found.append((package.contents, content.get("src"), _text(label)))
    titles: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for base, href, title in found:
        member, fragment = resolve(base, href, archive.name)
        if title and fragment not in [known for known, _ in titles[member]]:
            titles[member].append((fragment, title))
    return titles


def _of_nav(archive: Archive, member: str) -> list[tuple[str, str]]:
    root = _xml(archive, member)
    for nav in _all(root, "nav"):
        kinds = [value for key, value in nav.attrib.items() if key.rpartition("}")[2] in ("type", "role")]
        if any(kind in ("toc", "doc-toc") for kind in kinds) or len(_all(root, "nav")) == 1:
            return [(a.get("href"), _text(a)) for a in _all(nav, "a") if a.get("href")]
    return []


def _chapters(archive: Archive, package: _Package, titles: dict[str, list[tuple[str, str]]]) -> list[Chapter]:
    known = any(titles.get(member) for member in package.spine)
    out: list[tuple[str, list[Paragraph]]] = []
    for member in package.spine:
        read = paragraphs(_decoded(archive.read(member, _MOST_OF_A_PAGE)))
        if not read:
            continue
        starts = _starts(read, titles.get(member, []))
        if not starts or starts[0][0] > 0:  # what stands before the first entry
            before = read[: starts[0][0]] if starts else read
            if known and out:
                out[-1][1].extend(before)
            else:
                out.append((_own_title(before) or package.title or f"Part {len(out) + 1}", before))
        for (start, title), end in zip(starts, [at for at, _ in starts[1:]] + [len(read)]):
            out.append((title, read[start:end]))
    return [Chapter(title, joined(read)) for title, read in out]


def _starts(read: list[Paragraph], entries: list[tuple[str, str]]) -> list[tuple[int, str]]:
    """(paragraph, title) where an entry begins, in order; of several at one paragraph the first holds."""
    starts: dict[int, str] = {}
    for fragment, title in entries:
        at = next((i for i, p in enumerate(read) if fragment in p.ids), None) if fragment else 0
        if at is not None:
            starts.setdefault(at, title)
    return sorted(starts.items())


def _own_title(read: list[Paragraph]) -> str:
    return next((" ".join(p.text.split())[:_LONGEST_TITLE] for p in read if p.level), "")


def _decoded(data: bytes) -> str:
    for mark, encoding in ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16")):
        if data.startswith(mark):
            return data.decode(encoding, "replace")
    return data.decode("utf-8", "replace")


def _cover(archive: Archive, package: _Package) -> Cover | None:
    """The picture, if there is one that can be used; a book without is a book."""
    kinds = {where: kind for where, kind, _ in package.items.values()}
    if package.cover is None or kinds.get(package.cover) not in _PICTURES or package.cover not in archive:
        return None
    data = archive.read(package.cover)
    return Cover(data) if data.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")) else None
