"""A piece of writing as a small real file, in each of the formats that are read.

Around the text of DOCX, XLSX and PPTX stands the package that python-docx, openpyxl and python-pptx write, made once; a
PDF is written by hand, with compressed streams and wrapped lines. The same writing gives the same bytes on any day.
Knows no collection and no parser, and invents no text: that is for `eval.corpus`.
"""

from __future__ import annotations

import csv
import io
import json
import re
import textwrap
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from email.message import EmailMessage
from email.utils import format_datetime
from functools import lru_cache
from xml.sax.saxutils import escape

Row = tuple[str, ...]
Parts = dict[str, bytes]

#: Sentences in one paragraph.
PARAGRAPH = 4
LINE = 92
LINES_ON_A_PAGE = 48
HEAD: Row = ("entry", "subject", "remark")
_LONG_AGO = (2001, 1, 1, 0, 0, 0)
_XML = '<?xml version="1.0" encoding="UTF-8"?>\n'


@dataclass(frozen=True, slots=True)
class Section:
    """A heading and the sentences under it."""

    heading: str
    sentences: tuple[str, ...]

    def paragraphs(self) -> list[str]:
        """Return the sentences as paragraphs of at most `PARAGRAPH`."""
        starts = range(0, len(self.sentences), PARAGRAPH)
        return [" ".join(self.sentences[start : start + PARAGRAPH]) for start in starts]


@dataclass(frozen=True, slots=True)
class Writing:
    """What a file says: ``table`` has a header row, or no row at all; ``written`` knows its time zone."""

    title: str
    author: str
    written: datetime
    sections: tuple[Section, ...]
    table: tuple[Row, ...] = ()

    def rows(self) -> list[Row]:
        """Return one row a sentence, as `HEAD` says: its number, its heading, itself."""
        pairs = ((section.heading, sentence) for section in self.sections for sentence in section.sentences)
        return [(str(number), heading, sentence) for number, (heading, sentence) in enumerate(pairs, 1)]


# -- text ------------------------------------------------------------------------------------------------------------


def _txt(writing: Writing) -> bytes:
    parts = [writing.title.upper(), f"{writing.author}, {writing.written:%d %B %Y}"]
    for section in writing.sections:
        parts += [section.heading, *(textwrap.fill(paragraph, LINE) for paragraph in section.paragraphs())]
    return ("\n\n".join(parts) + "\n").encode()


def _markdown(writing: Writing) -> bytes:
    parts = [f"---\ntitle: {writing.title}\nauthor: {writing.author}\n---", f"# {writing.title}"]
    for section in writing.sections:
        parts += [f"## {section.heading}", *section.paragraphs()]
    if writing.table:
        rows = ["| " + " | ".join(row) + " |" for row in writing.table]
        rows.insert(1, "|" + " --- |" * len(writing.table[0]))
        parts += ["## Figures", "\n".join(rows)]
    return ("\n\n".join(parts) + "\n").encode()


def _rst(writing: Writing) -> bytes:
    parts = [f"{writing.title}\n{'=' * len(writing.title)}", f":Author: {writing.author}"]
    for section in writing.sections:
        parts.append(f"{section.heading}\n{'-' * len(section.heading)}")
        parts += [textwrap.fill(paragraph, LINE) for paragraph in section.paragraphs()]
    return ("\n\n".join(parts) + "\n").encode()


def _html(writing: Writing) -> bytes:
    head = f'<meta charset="utf-8"><title>{escape(writing.title)}</title>'
    navigation = '<nav><a href="/">Home</a> <a href="/archive">Archive</a></nav>'
    table = ""
    if writing.table:
        rows = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in writing.table)
        table = f"<h2>Figures</h2><table>{rows}</table>"
    body = f"{navigation}<h1>{escape(writing.title)}</h1>{_tagged(writing)}{table}"
    return f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head>\n<body>{body}</body></html>\n'.encode()


def _eml(writing: Writing) -> bytes:
    mail = EmailMessage()
    mail["From"] = f"{writing.author} <{writing.author.split()[-1].lower()}@example.org>"
    mail["To"] = "Records <records@example.org>"
    mail["Subject"] = writing.title
    mail["Date"] = format_datetime(writing.written)
    mail.set_content(_txt(writing).decode(), cte="quoted-printable")
    return mail.as_bytes()


# -- records ---------------------------------------------------------------------------------------------------------


def _comma_separated(writing: Writing) -> bytes:
    out = io.StringIO()
    csv.writer(out).writerows([HEAD, *writing.rows()])
    return out.getvalue().encode()


def _json_object(writing: Writing) -> bytes:
    found = {"title": writing.title, "author": writing.author, "written": writing.written.date().isoformat()}
    return json.dumps({**found, "entries": _records(writing)}, ensure_ascii=False, indent=1).encode()


def _json_lines(writing: Writing) -> bytes:
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in _records(writing)).encode()


def _xml(writing: Writing) -> bytes:
    entries = "".join(
        f'<entry n="{record["entry"]}"><subject>{escape(record["subject"])}</subject>'
        f"<remark>{escape(record['remark'])}</remark></entry>\n"
        for record in _records(writing)
    )
    head = f"<title>{escape(writing.title)}</title><author>{escape(writing.author)}</author>"
    return f"{_XML}<record>{head}\n{entries}</record>\n".encode()


def _records(writing: Writing) -> list[dict[str, str]]:
    return [dict(zip(HEAD, row, strict=True)) for row in writing.rows()]


# -- office packages -------------------------------------------------------------------------------------------------


def _docx(writing: Writing) -> bytes:
    def paragraph(text: str, style: str = "Normal") -> str:
        run = f'<w:r><w:t xml:space="preserve">{escape(text)}</w:t></w:r>'
        return f'<w:p><w:pPr><w:pStyle w:val="{style}"/></w:pPr>{run}</w:p>'

    body = paragraph(writing.title, "Title")
    for section in writing.sections:
        body += paragraph(section.heading, "Heading1") + "".join(map(paragraph, section.paragraphs()))
    if writing.table:
        rows = ["".join(f"<w:tc>{paragraph(cell)}</w:tc>" for cell in row) for row in writing.table]
        grid = "<w:gridCol/>" * len(writing.table[0])
        body += f"<w:tbl><w:tblPr/><w:tblGrid>{grid}</w:tblGrid>{''.join(f'<w:tr>{row}</w:tr>' for row in rows)}"
        body += f"</w:tbl>{paragraph('')}"
    parts = dict(_docx_package())
    whole = parts["word/document.xml"].replace(b"<w:body>", b"<w:body>" + body.encode(), 1)
    return _packed(parts | {"word/document.xml": whole, "docProps/core.xml": _properties(writing)})


def _xlsx(writing: Writing) -> bytes:
    rows = "".join(
        "<row>" + "".join(f'<c t="inlineStr"><is><t>{escape(cell)}</t></is></c>' for cell in row) + "</row>"
        for row in [HEAD, *writing.rows()]
    )
    parts, sheet = dict(_xlsx_package()), "xl/worksheets/sheet1.xml"
    whole = parts[sheet].replace(b"</sheetData>", rows.encode() + b"</sheetData>")
    return _packed(parts | {sheet: whole, "docProps/core.xml": _properties(writing)})


def _pptx(writing: Writing) -> bytes:
    parts = dict(_pptx_package(len(writing.sections)))
    for number, section in enumerate(writing.sections, 1):
        name = f"ppt/slides/slide{number}.xml"
        bullets = "</a:t></a:r></a:p><a:p><a:r><a:t>".join(map(escape, section.sentences))
        heading = escape(section.heading if number > 1 else writing.title)
        parts[name] = parts[name].replace(b"HEADING", heading.encode()).replace(b"BODY", bullets.encode())
    return _packed(parts | {"docProps/core.xml": _properties(writing)})


@lru_cache(maxsize=1)
def _docx_package() -> Parts:
    from docx import Document

    parts = _unpacked(Document().save)
    del parts["docProps/thumbnail.jpeg"]
    parts["_rels/.rels"] = re.sub(rb"<Relationship [^>]*thumbnail[^>]*/>", b"", parts["_rels/.rels"])
    return parts


@lru_cache(maxsize=1)
def _xlsx_package() -> Parts:
    from openpyxl import Workbook

    book = Workbook()
    book.worksheets[0].title = "Entries"
    return _unpacked(book.save)


@lru_cache(maxsize=100)
def _pptx_package(slides: int) -> Parts:
    from pptx import Presentation

    show = Presentation()
    for _ in range(slides):
        slide = show.slides.add_slide(show.slide_layouts[1])
        slide.shapes[0].text_frame.text, slide.shapes[1].text_frame.text = "HEADING", "BODY"
    return _unpacked(show.save)


def _properties(writing: Writing) -> bytes:
    names = {
        "cp": "http://schemas.openxmlformats.org/package/2006/metadata/core-properties",
        "dc": "http://purl.org/dc/elements/1.1/",
        "dcterms": "http://purl.org/dc/terms/",
        "xsi": "http://www.w3.org/2001/XMLSchema-instance",
    }
    declared = " ".join(f'xmlns:{prefix}="{name}"' for prefix, name in names.items())
    return (
        f"{_XML}<cp:coreProperties {declared}><dc:title>{escape(writing.title)}</dc:title>"
        f"<dc:creator>{escape(writing.author)}</dc:creator>"
        f'<dcterms:created xsi:type="dcterms:W3CDTF">{writing.written:%Y-%m-%dT%H:%M:%SZ}</dcterms:created>'
        "</cp:coreProperties>"
    ).encode()


def _unpacked(save: Callable[[io.BytesIO], object]) -> Parts:
    file = io.BytesIO()
    save(file)
    with zipfile.ZipFile(file) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def _packed(parts: Mapping[str, bytes]) -> bytes:
    """Return a zip of ``parts`` in their order, the first one uncompressed, all from one day long ago."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for number, (name, part) in enumerate(parts.items()):
            kind = zipfile.ZIP_DEFLATED if number else zipfile.ZIP_STORED
            archive.writestr(zipfile.ZipInfo(name, _LONG_AGO), part, kind, compresslevel=1)
    return file.getvalue()


# -- open packages ---------------------------------------------------------------------------------------------------


def _epub(writing: Writing) -> bytes:
    pages = {f"c{number}.xhtml": section for number, section in enumerate(writing.sections, 1)}
    items = "".join(
        f'<item id="i{number}" href="{name}" media-type="application/xhtml+xml"/>' for number, name in enumerate(pages)
    )
    spine = "".join(f'<itemref idref="i{number}"/>' for number in range(len(pages)))
    metadata = f"<dc:title>{escape(writing.title)}</dc:title><dc:creator>{escape(writing.author)}</dc:creator>"
    contents = (
        f'{_XML}<package xmlns="http://www.idpf.org/2007/opf" version="3.0">'
        f'<metadata xmlns:dc="http://purl.org/dc/elements/1.1/">{metadata}</metadata>'
        f"<manifest>{items}</manifest><spine>{spine}</spine></package>"
    )
    container = (
        f'{_XML}<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container" version="1.0"><rootfiles>'
        '<rootfile full-path="book/contents.opf" media-type="application/oebps-package+xml"/></rootfiles></container>'
    )
    parts = {"mimetype": "application/epub+zip", "META-INF/container.xml": container, "book/contents.opf": contents}
    for name, section in pages.items():
        body = f"<h1>{escape(section.heading)}</h1>{_paragraphs(section)}"
        page = f"<head><title>{escape(section.heading)}</title></head><body>{body}</body>"
        parts[f"book/{name}"] = f'{_XML}<html xmlns="http://www.w3.org/1999/xhtml">{page}</html>'
    return _packed({name: part.encode() for name, part in parts.items()})


def _odt(writing: Writing) -> bytes:
    names = {part: f"urn:oasis:names:tc:opendocument:xmlns:{part}:1.0" for part in ("office", "text", "meta")}
    declared = " ".join(f'xmlns:{prefix}="{name}"' for prefix, name in names.items())
    body = f'<text:h text:outline-level="1">{escape(writing.title)}</text:h>'
    for section in writing.sections:
        body += f'<text:h text:outline-level="2">{escape(section.heading)}</text:h>'
        body += "".join(f"<text:p>{escape(paragraph)}</text:p>" for paragraph in section.paragraphs())
    content = f"<office:document-content {declared}><office:body><office:text>{body}</office:text></office:body>"
    meta = (
        f'<office:document-meta {declared} xmlns:dc="http://purl.org/dc/elements/1.1/"><office:meta>'
        f"<dc:title>{escape(writing.title)}</dc:title><dc:creator>{escape(writing.author)}</dc:creator>"
        "</office:meta></office:document-meta>"
    )
    space, kind = "urn:oasis:names:tc:opendocument:xmlns:manifest:1.0", "application/vnd.oasis.opendocument.text"
    entries = {"/": kind, "content.xml": "text/xml", "meta.xml": "text/xml"}
    listed = "".join(
        f'<manifest:file-entry manifest:full-path="{path}" manifest:media-type="{media_type}"/>'
        for path, media_type in entries.items()
    )
    parts = {
        "mimetype": kind,
        "content.xml": f"{_XML}{content}</office:document-content>",
        "meta.xml": _XML + meta,
        "META-INF/manifest.xml": f'{_XML}<manifest:manifest xmlns:manifest="{space}">{listed}</manifest:manifest>',
    }
    return _packed({name: part.encode() for name, part in parts.items()})


def _tagged(writing: Writing) -> str:
    return "\n".join(f"<h2>{escape(section.heading)}</h2>{_paragraphs(section)}" for section in writing.sections)


def _paragraphs(section: Section) -> str:
    return "\n".join(f"<p>{escape(paragraph)}</p>" for paragraph in section.paragraphs())


# -- pdf -------------------------------------------------------------------------------------------------------------


def _pdf(writing: Writing) -> bytes:
    """Write pages of wrapped lines in Helvetica, headings in bold, and the page's number below (ISO 32000-1, 7)."""
    lines = list(_pdf_lines(writing))
    pages = [lines[start : start + LINES_ON_A_PAGE] for start in range(0, len(lines), LINES_ON_A_PAGE)]
    kids = " ".join(f"{6 + 2 * number} 0 R" for number in range(len(pages)))
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        f"<</Type/Pages/Count {len(pages)}/Kids[{kids}]>>".encode(),
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica/Encoding/WinAnsiEncoding>>",
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica-Bold/Encoding/WinAnsiEncoding>>",
        b"<</Title(" + _pdf_text(writing.title) + b")/Author(" + _pdf_text(writing.author) + b")>>",
    ]
    for number, page in enumerate(pages):
        fonts = "/Resources<</Font<</F1 3 0 R/F2 4 0 R>>>>"
        objects.append(
            f"<</Type/Page/Parent 2 0 R/MediaBox[0 0 595 842]{fonts}/Contents {7 + 2 * number} 0 R>>".encode()
        )
        stream = zlib.compress(_pdf_page(page, number + 1))
        head = f"<</Length {len(stream)}/Filter/FlateDecode>>\nstream\n".encode()
        objects.append(head + stream + b"\nendstream")
    return _pdf_file(objects)


def _pdf_lines(writing: Writing) -> Iterator[tuple[str, str]]:
    """Yield lines as font and size, and text; an empty text is a gap."""
    yield "/F2 16", writing.title
    yield "/F1 10", f"{writing.author}, {writing.written:%d %B %Y}"
    for section in writing.sections:
        yield "/F1 10", ""
        yield "/F2 12", section.heading
        for paragraph in section.paragraphs():
            for line in textwrap.wrap(paragraph, LINE, break_long_words=False, break_on_hyphens=False):
                yield "/F1 10", line
            yield "/F1 10", ""


def _pdf_page(lines: Sequence[tuple[str, str]], number: int) -> bytes:
    shown = [(font, 780 - 15 * place, text) for place, (font, text) in enumerate(lines) if text]
    return b"\n".join(
        f"BT {font} Tf 1 0 0 1 60 {height} Tm (".encode() + _pdf_text(text) + b") Tj ET"
        for font, height, text in [*shown, ("/F1 8", 30, f"Page {number}")]
    )


def _pdf_text(text: str) -> bytes:
    for sign in "\\()":
        text = text.replace(sign, f"\\{sign}")
    return text.encode("cp1252", "replace")


def _pdf_file(objects: Sequence[bytes]) -> bytes:
    data, offsets = b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n", []
    for number, body in enumerate(objects, 1):
        offsets.append(len(data))
        data += f"{number} 0 obj\n".encode() + body + b"\nendobj\n"
    table = "".join(f"{offset:010d} 00000 n \n" for offset in offsets)
    size = len(objects) + 1
    return (
        data
        + (
            f"xref\n0 {size}\n0000000000 65535 f \n{table}"
            f"trailer\n<</Size {size}/Root 1 0 R/Info 5 0 R>>\nstartxref\n{len(data)}\n%%EOF\n"
        ).encode()
    )


#: What writes each format, by the ending of its files.
WRITERS: Mapping[str, Callable[[Writing], bytes]] = {
    "txt": _txt,
    "md": _markdown,
    "html": _html,
    "rst": _rst,
    "eml": _eml,
    "csv": _comma_separated,
    "json": _json_object,
    "jsonl": _json_lines,
    "xml": _xml,
    "docx": _docx,
    "xlsx": _xlsx,
    "pptx": _pptx,
    "odt": _odt,
    "epub": _epub,
    "pdf": _pdf,
}
