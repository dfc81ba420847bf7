"""EPUB books: a zip of web pages, and a list that says in which order they are read.

The pages go the way of HTML. Knows no page numbers, because a book of this kind has none.
"""

from __future__ import annotations

import posixpath
import zipfile
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from ingest.detect import decode
from ingest.draft import Draft, meaningful_title
from ingest.partition import read_html
from ingest.text import parse_xml
from rag.errors import DamagedDocument, EncryptedDocument

_CONTAINER = "META-INF/container.xml"
_DC = "{http://purl.org/dc/elements/1.1/}"
_RIGHTS = "META-INF/rights.xml"
_PAGES = {"application/xhtml+xml", "text/html"}


def read_epub(path: Path, draft: Draft) -> None:
    """Add the chapters of a book to ``draft`` in reading order.

    Raises `EncryptedDocument` for a book with rights management and `DamagedDocument` for one without its list.
    """
    with zipfile.ZipFile(path) as archive:
        names = set(archive.namelist())
        if _RIGHTS in names:
            raise EncryptedDocument("The book is protected by rights management: ingest a copy without it.")
        if _CONTAINER not in names:
            raise DamagedDocument("The book does not say where its contents are: convert it to HTML or PDF.")
        root = parse_xml(archive.read(_CONTAINER)).find(".//{*}rootfile")
        package = "" if root is None else root.get("full-path") or ""
        if package not in names:
            raise DamagedDocument("The book's list of contents is missing: convert it to HTML or PDF.")
        contents = parse_xml(archive.read(package))
        _note_package(contents, draft)
        for name in _reading_order(contents, posixpath.dirname(package)):
            if name in names:
                read_html(decode(archive.read(name)), draft)


def _note_package(contents: Any, draft: Draft) -> None:
    draft.title = meaningful_title(contents.findtext(f".//{_DC}title"))
    subjects = [subject.text for subject in contents.iterfind(f".//{_DC}subject")]
    draft.note(
        author=", ".join(filter(None, (creator.text for creator in contents.iterfind(f".//{_DC}creator")))),
        created=contents.findtext(f".//{_DC}date"),
        modified=contents.findtext(".//{*}meta[@property='dcterms:modified']"),
        subject=contents.findtext(f".//{_DC}description") or (subjects[0] if subjects else None),
        keywords=subjects,
    )


def _reading_order(contents: Any, folder: str) -> list[str]:
    items = {
        item.get("id"): posixpath.normpath(posixpath.join(folder, unquote(item.get("href") or "")))
        for item in contents.iterfind(".//{*}manifest/{*}item")
        if item.get("media-type") in _PAGES
    }
    return [items[ref.get("idref")] for ref in contents.iterfind(".//{*}spine/{*}itemref") if ref.get("idref") in items]
