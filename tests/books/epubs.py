"""EPUB files made by hand, sound ones and others."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from pathlib import Path

CONTAINER = """<?xml version="1.0"?><container version="1.0" xmlns="urn:oasis:names:tc:opendocument:xmlns:container">
<rootfiles><rootfile full-path="OEBPS/book.opf" media-type="application/oebps-package+xml"/></rootfiles></container>"""
HTML = """<?xml version="1.0" encoding="utf-8"?>
<!DOCTYPE html PUBLIC "-//W3C//DTD XHTML 1.1//EN" "http://www.w3.org/TR/xhtml11/DTD/xhtml11.dtd">
<html xmlns="http://www.w3.org/1999/xhtml" xmlns:epub="http://www.idpf.org/2007/ops"><head><title>no</title>
<style>no {}</style></head><body>%s</body></html>"""
ONE = """<section epub:type="chapter" id="c1"><h1>The First</h1><p>It  begins&nbsp;here,
on two lines<a epub:type="noteref" href="#n1">1</a>.</p><script>no()</script><p hidden="hidden">no</p>
<aside epub:type="footnote" id="n1"><p>no</p></aside><p>A <ruby>word<rt>no</rt></ruby>
&amp; more.<br/>A verse.</p></section>"""
TWO = """<h2 id="a">Second</h2><p>Two a.</p><ul><li>milk</li><li><p>eggs</p></li></ul>
<div><h2 id="b">Third</h2><p>Two b.</p></div>"""
NAV = """<nav epub:type="toc"><ol><li><a href="text/one.xhtml">I. The First</a></li><li><a href="text/two.xhtml#a">II.
Second</a></li><li><a href="text/two.xhtml#b">III. Third</a></li></ol></nav>"""
NCX = """<?xml version="1.0"?><!DOCTYPE ncx PUBLIC "-//NISO//DTD ncx 2005-1//EN" "http://www.daisy.org/z3986/2005/ncx.dtd">
<ncx xmlns="http://www.daisy.org/z3986/2005/ncx/"><navMap>
<navPoint><navLabel><text>I. The First</text></navLabel><content src="text/one.xhtml"/></navPoint>
<navPoint><navLabel><text>II. Second</text></navLabel><content src="text/two.xhtml#a"/></navPoint>
<navPoint><navLabel><text>III. Third</text></navLabel><content src="text/two.xhtml#b"/></navPoint></navMap></ncx>"""
OPF = """<?xml version="1.0"?><package xmlns="http://www.idpf.org/2007/opf" version="3.0">
<metadata xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:title>A Small Book</dc:title><dc:creator>Ann One</dc:creator>
<dc:creator>Bob Two</dc:creator><dc:language>en</dc:language>%s</metadata><manifest>
<item id="c" href="cover.xhtml" media-type="application/xhtml+xml"/>
<item id="one" href="text/one.xhtml" media-type="application/xhtml+xml"/>
<item id="two" href="text/two%%2Exhtml" media-type="application/xhtml+xml"/>
<item id="pic" href="img/cover.png" media-type="image/png" properties="cover-image"/>%s</manifest>
<spine toc="ncx"><itemref idref="c"/><itemref idref="one"/><itemref idref="two"/>%s</spine></package>"""


def picture() -> bytes:
    """A PNG of one pixel."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 2, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress((b"\0" + b"\x40" * 6) * 2)) + chunk(b"IEND", b"")


def members(contents: str = "nav") -> dict[str, str | bytes]:
    """Of a sound book of three chapters; contents: nav, ncx or none."""
    item = {
        "nav": '<item id="nav" href="nav.xhtml" media-type="application/xhtml+xml" properties="nav"/>',
        "ncx": '<item id="ncx" href="toc.ncx" media-type="application/x-dtbncx+xml"/>',
        "none": "",
    }[contents]
    out: dict[str, str | bytes] = {
        "mimetype": "application/epub+zip",
        "META-INF/container.xml": CONTAINER,
        "OEBPS/book.opf": OPF % ("", item, '<itemref idref="nav"/>' if contents == "nav" else ""),
        "OEBPS/cover.xhtml": HTML % '<svg><text>no</text></svg><img src="img/cover.png" alt="no"/>',
        "OEBPS/text/one.xhtml": HTML % ONE,
        "OEBPS/text/two.xhtml": HTML % TWO,
        "OEBPS/img/cover.png": picture(),
    }
    if contents == "nav":
        out["OEBPS/nav.xhtml"] = (HTML % NAV).replace("&nbsp;", " ")
    if contents == "ncx":
        out["OEBPS/toc.ncx"] = NCX
    return out


def pack(files: dict[str, str | bytes]) -> bytes:
    """The zip file's bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in files.items():
            file.writestr(name, data)
    return buffer.getvalue()


def write(path: Path, files: dict[str, str | bytes] | None = None) -> Path:
    path.write_bytes(pack(files if files is not None else members()))
    return path
