"""OpenDocument text, spreadsheets and presentations (ODT, ODS, ODP): a zip of XML that says what is what by name.

Text is translated to HTML, tag by tag, and goes the way of HTML; a spreadsheet is a grid like any other; of a slide the
frames are read in their order. Knows no layout: drawings and styles are passed over.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

from lxml import etree  # type: ignore[import-untyped]

from ingest.draft import Draft, meaningful_title, table_text
from ingest.hidden import LEAST_SIZE, WHITE, hexadecimal
from ingest.partition import read_html
from ingest.sheets import add_grid
from ingest.text import parse_xml
from rag.errors import EmptyDocument, EncryptedDocument
from rag.records import Kind

_TEXT = "{urn:oasis:names:tc:opendocument:xmlns:text:1.0}"
_TABLE = "{urn:oasis:names:tc:opendocument:xmlns:table:1.0}"
_OFFICE = "{urn:oasis:names:tc:opendocument:xmlns:office:1.0}"
_META = "{urn:oasis:names:tc:opendocument:xmlns:meta:1.0}"
_DRAW = "{urn:oasis:names:tc:opendocument:xmlns:drawing:1.0}"
_PRESENTATION = "{urn:oasis:names:tc:opendocument:xmlns:presentation:1.0}"
_DC = "{http://purl.org/dc/elements/1.1/}"
_STYLE = "{urn:oasis:names:tc:opendocument:xmlns:style:1.0}"
_FO = "{urn:oasis:names:tc:opendocument:xmlns:xsl-fo-compatible:1.0}"
_TAGS = {
    f"{_TEXT}p": "p",
    f"{_TEXT}list": "ul",
    f"{_TEXT}list-item": "li",
    f"{_TABLE}table": "table",
    f"{_TABLE}table-row": "tr",
    f"{_TABLE}table-cell": "td",
}
_SKIPPED = {f"{_TEXT}tracked-changes", f"{_OFFICE}annotation", f"{_TEXT}note-citation", f"{_TABLE}covered-table-cell"}
_SPACES = {f"{_TEXT}s": " ", f"{_TEXT}tab": " ", f"{_TEXT}line-break": "<br/>"}
_MOST_REPEATED = 1000


def read_odt(path: Path, draft: Draft) -> None:
    """Add an OpenDocument text to ``draft``. Raises `EncryptedDocument`."""
    body = _open(path, draft)
    unseen = _unseen_styles(body)
    for node in body.iter(etree.Element):
        if node.get(f"{_TEXT}style-name") in unseen:
            node.set("hidden", "hidden")
    read_html(f"<body>{''.join(_html(body))}</body>", draft)


def _unseen_styles(body: Any) -> set[str]:
    """Return the names of the document's own styles whose letters are not seen, or, of sheets, that are not shown.

    White letters count where the style does not colour what is behind them.
    """
    return {
        style.get(f"{_STYLE}name") or "" for style in body.getroottree().iter(f"{_STYLE}style") if _is_unseen(style)
    }


def _is_unseen(style: Any) -> bool:
    if any(sheet.get(f"{_TABLE}display") == "false" for sheet in style.iter(f"{_STYLE}table-properties")):
        return True
    colour, size = "", ""
    for letters in style.iter(f"{_STYLE}text-properties"):
        if letters.get(f"{_TEXT}display") == "none":
            return True
        colour, size = letters.get(f"{_FO}color") or "", letters.get(f"{_FO}font-size") or ""
    shown = hexadecimal(colour.removeprefix("#"))
    filled = any(part.get(f"{_FO}background-color") not in {None, "transparent", "#ffffff"} for part in style.iter())
    is_white = shown is not None and shown.looks_like(WHITE) and not filled
    number = size.removesuffix("pt")
    return is_white or (size.endswith("pt") and number.replace(".", "", 1).isdigit() and float(number) < LEAST_SIZE)


def read_ods(path: Path, draft: Draft) -> None:
    """Add every sheet to ``draft``: its name is the section, its number the page. Raises `EncryptedDocument`."""
    body = _open(path, draft)
    unseen, sheets = _unseen_styles(body), body.findall(f".//{_TABLE}table")
    draft.pages = len(sheets)
    for number, sheet in enumerate(sheets, start=1):
        draft.start_section(sheet.get(f"{_TABLE}name") or "")
        if sheet.get(f"{_TABLE}style-name") in unseen:
            draft.hide("\n".join(" | ".join(filter(None, row)) for row in _rows(sheet)), number)
            continue
        hidden = [row for row in sheet.iter(f"{_TABLE}table-row") if row.get(f"{_TABLE}visibility") == "collapse"]
        words = [" ".join(" ".join(row.itertext()).split()) for row in hidden]
        for row in hidden:
            row.getparent().remove(row)
        add_grid(_rows(sheet), draft, number)
        draft.hide("\n".join(words), number)


def read_odp(path: Path, draft: Draft) -> None:
    """Add every slide to ``draft``: its title is the section, its number the page, its notes are kept.

    Raises `EncryptedDocument`, and `EmptyDocument` for a presentation without any text.
    """
    slides = _open(path, draft).findall(f".//{_DRAW}page")
    draft.pages = len(slides)
    for number, slide in enumerate(slides, start=1):
        _add_slide(slide, number, draft)
    if slides and not draft.blocks:
        raise EmptyDocument(
            f"The presentation has {len(slides)} slides but no text: its slides are pictures. "
            "Save it as PDF and ingest that, so that OCR can read them."
        )


def _add_slide(slide: Any, number: int, draft: Draft) -> None:
    draft.start_section()
    titles = [frame for frame in slide.iter(f"{_DRAW}frame") if frame.get(f"{_PRESENTATION}class") == "title"][:1]
    for title in titles:
        draft.heading(1, _words(title), number)
    notes = slide.find(f"{_PRESENTATION}notes")
    for part in slide:
        if part not in titles and part is not notes:
            _add_shape(part, number, draft)
    for frame in notes if notes is not None else ():
        if frame.get(f"{_PRESENTATION}class") in {None, "notes"}:
            _add_shape(frame, number, draft)


def _add_shape(node: Any, page: int, draft: Draft) -> None:
    """Add the paragraphs, list items and tables of a shape, however deep they are."""
    if node.tag == f"{_TABLE}table":
        draft.add(Kind.TABLE, table_text(_rows(node)), page)
    elif node.tag in {f"{_TEXT}p", f"{_TEXT}h"}:
        in_list = any(above.tag == f"{_TEXT}list-item" for above in node.iterancestors())
        draft.add(Kind.LIST_ITEM if in_list else Kind.TEXT, _words(node), page)
    elif isinstance(node.tag, str) and node.tag not in _SKIPPED:
        for child in node:
            _add_shape(child, page, draft)


def _words(node: Any) -> str:
    """Return the text of a node: spaces, tabs and line ends are elements in it, and paragraphs end lines."""
    if not isinstance(node.tag, str) or node.tag in _SKIPPED:
        return ""
    text = {"s": " ", "tab": " ", "line-break": "\n"}.get(node.tag.removeprefix(_TEXT), node.text or "")
    text += "".join(_words(child) + (child.tail or "") for child in node)
    return f"{text}\n" if node.tag in {f"{_TEXT}p", f"{_TEXT}h"} else text


def _open(path: Path, draft: Draft) -> Any:
    with zipfile.ZipFile(path) as archive:
        if b"encryption-data" in archive.read("META-INF/manifest.xml"):
            raise EncryptedDocument("The document is protected by a password: remove the password and ingest it again.")
        content = parse_xml(archive.read("content.xml"))
        if "meta.xml" in archive.namelist():
            _note_meta(parse_xml(archive.read("meta.xml")), draft)
    return content.find(f"{_OFFICE}body")


def _note_meta(meta: Any, draft: Draft) -> None:
    draft.title = meaningful_title(meta.findtext(f".//{_DC}title"))
    draft.note(
        author=meta.findtext(f".//{_META}initial-creator") or meta.findtext(f".//{_DC}creator"),
        created=meta.findtext(f".//{_META}creation-date"),
        modified=meta.findtext(f".//{_DC}date"),
        subject=meta.findtext(f".//{_DC}subject"),
        keywords=[keyword.text for keyword in meta.iterfind(f".//{_META}keyword")],
    )


def _html(node: Any) -> Iterator[str]:
    if not isinstance(node.tag, str) or node.tag in _SKIPPED:
        return
    if node.tag == f"{_TEXT}h":
        level = node.get(f"{_TEXT}outline-level") or "1"
        tag = f"h{level}" if level in set("123456") else "h6"
    else:
        tag = _TAGS.get(node.tag, "")
    if node.get("hidden"):
        yield f"<span hidden>{escape(_words(node))}</span>"
        return
    yield f"<{tag}{_spans(node)}>" if tag else _SPACES.get(node.tag, "")
    yield escape(node.text or "")
    for child in node:
        yield from _html(child)
        yield escape(child.tail or "")
    if tag:
        yield f"</{tag}>"


def _spans(node: Any) -> str:
    across, down = node.get(f"{_TABLE}number-columns-spanned"), node.get(f"{_TABLE}number-rows-spanned")
    return f' colspan="{escape(across or "1")}" rowspan="{escape(down or "1")}"' if across or down else ""


def _rows(table: Any) -> Iterator[list[str]]:
    """Yield the rows of a table; a cell that spans rows is repeated in each, and a repeated row is there so often."""
    down: dict[int, tuple[int, str]] = {}  # column -> rows still to come, text
    for row in table.iter(f"{_TABLE}table-row"):
        cells = _cells(row, down)
        for _ in range(_repeated(row, "rows") if any(cells) else 1):
            yield cells


def _cells(row: Any, down: dict[int, tuple[int, str]]) -> list[str]:
    cells: list[str] = []
    for cell in row:
        if cell.tag == f"{_TABLE}covered-table-cell":
            cells.extend(_from_above(len(cells) + place, down) for place in range(_repeated(cell, "columns")))
        elif cell.tag == f"{_TABLE}table-cell":
            text = " ".join(" ".join(_words(part) for part in cell if str(part.tag).startswith(_TEXT)).split())
            if (more := _number(cell.get(f"{_TABLE}number-rows-spanned")) - 1) > 0:
                down[len(cells)] = (more, text)
            cells.extend([text] * _repeated(cell, "columns"))
    return cells


def _from_above(column: int, down: dict[int, tuple[int, str]]) -> str:
    more, text = down.pop(column, (0, ""))
    if more > 1:
        down[column] = (more - 1, text)
    return text


def _repeated(node: Any, what: str) -> int:
    return _number(node.get(f"{_TABLE}number-{what}-repeated"))


def _number(value: str | None) -> int:
    is_number = value is not None and value.isascii() and value.isdigit() and len(value) < 9
    return min(int(value), _MOST_REPEATED) if is_number and value else 1
