"""OpenDocument text and spreadsheets (ODT, ODS): a zip of XML that says headings, lists and tables by name.

Text is translated to HTML, tag by tag, and goes the way of HTML; a spreadsheet is a grid like any other. Knows no
layout: frames, drawings and styles are passed over.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

from ingest.draft import Draft, meaningful_title
from ingest.partition import read_html
from ingest.sheets import add_grid
from ingest.text import parse_xml
from rag.errors import EncryptedDocument

_TEXT = "{urn:oasis:names:tc:opendocument:xmlns:text:1.0}"
_TABLE = "{urn:oasis:names:tc:opendocument:xmlns:table:1.0}"
_OFFICE = "{urn:oasis:names:tc:opendocument:xmlns:office:1.0}"
_META = "{urn:oasis:names:tc:opendocument:xmlns:meta:1.0}"
_DC = "{http://purl.org/dc/elements/1.1/}"
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
    read_html(f"<body>{''.join(_html(body))}</body>", draft)


def read_ods(path: Path, draft: Draft) -> None:
    """Add every sheet to ``draft``: its name is the section, its number the page. Raises `EncryptedDocument`."""
    sheets = _open(path, draft).findall(f".//{_TABLE}table")
    draft.pages = len(sheets)
    for number, sheet in enumerate(sheets, start=1):
        draft.start_section(sheet.get(f"{_TABLE}name") or "")
        add_grid(map(_cells, sheet.iter(f"{_TABLE}table-row")), draft, number)


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
    )


def _html(node: Any) -> Iterator[str]:
    if not isinstance(node.tag, str) or node.tag in _SKIPPED:
        return
    if node.tag == f"{_TEXT}h":
        level = node.get(f"{_TEXT}outline-level") or "1"
        tag = f"h{level}" if level in set("123456") else "h6"
    else:
        tag = _TAGS.get(node.tag, "")
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


def _cells(row: Any) -> list[str]:
    cells: list[str] = []
    for cell in row:
        if cell.tag not in {f"{_TABLE}table-cell", f"{_TABLE}covered-table-cell"}:
            continue
        repeated = cell.get(f"{_TABLE}number-columns-repeated") or "1"
        text = " ".join(" ".join("".join(p.itertext()) for p in cell.findall(f"{_TEXT}p")).split())
        cells.extend([text] * min(int(repeated) if repeated.isdigit() else 1, _MOST_REPEATED))
    return cells
