"""Plain text and its plain relatives: paragraphs, lists and underlined headings; JSON; XML.

Knows no encoding (it gets text) and no unstructured: nothing of these formats needs a classifier.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from ingest.draft import Draft, table_text
from rag.errors import DamagedDocument
from rag.records import Kind

_PARAGRAPH = re.compile(r"\n[ \t]*(?:\n[ \t]*)+")
_ITEM = re.compile(r"[ \t]*(?:[-*+•‣◦▪●·–—]|\(?\d{1,3}[.)]|\(?[a-zA-Z][.)])[ \t]+\S")
_RULES = set("=-~^\"'#*+")
_XML_DECLARATION = re.compile(r"^\s*<\?xml[^>]*\?>")  # it names the encoding that the bytes were in
_LONG_PARAGRAPH = 2000
_LONG_LINE = 120


def read_text(text: str, draft: Draft) -> None:
    """Add the paragraphs, list items and underlined headings of plain text to ``draft``, its words untouched."""
    rules: list[str] = []
    for paragraph in _PARAGRAPH.split(text.replace("\r\n", "\n").replace("\r", "\n")):
        rest = paragraph.strip("\n")
        if rule := _underline(rest):
            if rule not in rules:  # as in reStructuredText, the order of first use is the order of rank
                rules.append(rule)
            heading, _, rest = (*rest.split("\n", 2), "")[:3]
            draft.heading(rules.index(rule) + 1, heading)
        _add_paragraph(rest, draft)


def _underline(paragraph: str) -> str:
    """Return the sign with which the first line is underlined, or nothing if it is no heading."""
    title, _, rest = paragraph.partition("\n")
    rule = rest.partition("\n")[0].rstrip()
    long_enough = len(rule) >= 3 and len(rule) + 2 >= len(title.strip())
    return rule[0] if long_enough and set(rule) <= {rule[0]} & _RULES and any(map(str.isalnum, title)) else ""


def _add_paragraph(paragraph: str, draft: Draft) -> None:
    lines = paragraph.split("\n")
    if any(_ITEM.match(line) for line in lines[1:]) or _ITEM.match(lines[0]):
        for piece in _items(lines):
            draft.add(Kind.LIST_ITEM if _ITEM.match(piece) else Kind.TEXT, piece)
    elif len(paragraph) > _LONG_PARAGRAPH and len(paragraph) > _LONG_LINE * len(lines):
        for line in lines:  # a file with one paragraph a line and no blank lines
            draft.add(Kind.TEXT, line)
    else:
        draft.add(Kind.TEXT, paragraph)


def _items(lines: list[str]) -> Iterator[str]:
    """Yield list items with the lines that continue them, and what stands before the first."""
    piece: list[str] = []
    for line in lines:
        if piece and _ITEM.match(line):
            yield "\n".join(piece)
            piece = []
        piece.append(line)
    yield "\n".join(piece)


def read_json(text: str, draft: Draft) -> None:
    """Add JSON to ``draft``: a list of flat objects as a table, anything else indented as code."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):  # JSON lines, JSON with comments: text is what they are
        read_text(text, draft)
        return
    if rows := _flat_rows(value):
        draft.add(Kind.TABLE, table_text(rows))
        return
    for piece in value if isinstance(value, list) else [value]:
        draft.add(Kind.CODE, json.dumps(piece, indent=1, ensure_ascii=False))


def _flat_rows(value: Any) -> list[list[str]]:
    if not isinstance(value, list) or not value or not all(isinstance(row, dict) and row for row in value):
        return []
    columns = list(dict.fromkeys(key for row in value for key in row))
    if len(columns) > 50 or any(isinstance(cell, (dict, list)) for row in value for cell in row.values()):
        return []
    return [columns, *([_scalar(row.get(column)) for column in columns] for row in value)]


def _scalar(value: object) -> str:
    return value if isinstance(value, str) else "" if value is None else json.dumps(value)


def read_xml(text: str, draft: Draft) -> None:
    """Add the text of any XML to ``draft``: each innermost record as lines of ``name: value``, mixed text as it is.

    Raises `DamagedDocument` as `parse_xml` does.
    """
    _add_records(parse_xml(_XML_DECLARATION.sub("", text).encode()), draft)


def parse_xml(data: bytes) -> Any:
    """Return the root of an XML document as an lxml element.

    Nothing outside of ``data`` is read, and no entity is expanded that the document declares itself: one that does,
    or that is not well formed, raises `DamagedDocument`.
    """
    from lxml import etree  # type: ignore[import-untyped]

    if b"<!ENTITY" in data:
        raise _declares_entities()
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, remove_comments=True)
    try:
        root = etree.fromstring(data, parser)
    except etree.XMLSyntaxError as error:
        raise DamagedDocument(f"The XML is not well formed ({error.msg}): correct it and ingest it again.") from error
    dtd = root.getroottree().docinfo.internalDTD
    if dtd is not None and any(True for _ in dtd.iterentities()):
        raise _declares_entities()
    return root


def _declares_entities() -> DamagedDocument:
    return DamagedDocument(
        "The XML declares entities, which are not expanded because they can hide other files or grow without "
        "bound: save it with its entities resolved and ingest it again."
    )


def _add_records(root: Any, draft: Draft) -> None:
    pending = [root]
    while pending:
        node = pending.pop()
        children = [child for child in node if isinstance(child.tag, str)]
        mixed = bool((node.text or "").strip()) or any((child.tail or "").strip() for child in children)
        if mixed or not children:
            draft.add(Kind.TEXT, _field(node) if not mixed or not children else "".join(node.itertext()))
            continue
        leaves = [child for child in children if len(child) == 0]
        draft.add(Kind.TEXT, "\n".join(filter(None, map(_field, leaves))))
        pending.extend(reversed([child for child in children if len(child)]))


def _field(leaf: Any) -> str:
    name = leaf.tag.rsplit("}", 1)[-1]
    attributes = ", ".join(f"{key.rsplit('}', 1)[-1]} {value}" for key, value in leaf.attrib.items())
    text = " ".join("".join(leaf.itertext()).split())
    if not text and not attributes:
        return ""
    return f"{name} ({attributes}): {text}" if attributes else f"{name}: {text}"
