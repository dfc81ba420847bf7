"""Plain text and its plain relatives: paragraphs, lists and underlined headings; JSON; XML.

Knows no encoding (it gets text) and no unstructured: nothing of these formats needs a classifier.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import groupby
from typing import Any

from ingest.draft import Draft, meaningful_title, table_text
from rag.errors import DamagedDocument
from rag.records import Kind

_PARAGRAPH = re.compile(r"\n[ \t]*(?:\n[ \t]*)+")
_ITEM = re.compile(r"[ \t]*(?:[-*+•‣◦▪●·–—]|\(?\d{1,3}[.)]|\(?[a-zA-Z][.)])[ \t]+\S")
_RULES = set("=-~^\"'#*+")
_XML_DECLARATION = re.compile(r"^\s*<\?xml[^>]*\?>")  # it names the encoding that the bytes were in
_LONG_VALUE = 200
_LONGEST_LABEL = 100
_LONG_ROW = 600
_MOST_COLUMNS = 50
_LEAST_FILLED = 0.4
_DEEPEST = 20
#: How records call themselves, and elements that are words and no fields.
_LABELS = ("title", "name", "label", "heading", "head", "id")
_PARAGRAPHS = frozenset({"p", "para", "paragraph", "simpara", "text", "line", "l", "note", "td", "li", "item", "tspan"})
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
    """Add JSON to ``draft``: the keys on the way to a value are its section.

    Lists of objects are tables, or one block of ``key: value`` lines an object where that would be unreadable; long
    strings are text of their own.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):  # JSON with comments: text is what it is
        read_text(text, draft)
        return
    _add_value(value, (), draft)


def read_json_lines(text: str, draft: Draft) -> None:
    """Add JSON lines to ``draft``, each of them a record of one list; a line that is no JSON is text."""
    values: list[Any] = []
    for line in filter(str.strip, text.split("\n")):
        try:
            values.append(json.loads(line))
        except (ValueError, RecursionError):
            values.append(line)
    _add_value(values, (), draft)


def _add_value(value: Any, path: tuple[str, ...], draft: Draft, depth: int = 0) -> None:
    draft.start_section(*path)
    if depth > _DEEPEST:
        draft.add(Kind.TEXT, json.dumps(value, ensure_ascii=False))
    elif isinstance(value, dict):
        _add_record(value, path, draft, depth)
    elif rows := _flat_rows(value):
        draft.add(Kind.TABLE, table_text(rows))
    elif not isinstance(value, list) or (_is_plain(value) and len(_in_cell(value)) <= _LONG_VALUE):
        read_text(_in_cell(value), draft)
    elif _holds_numbers(value):
        draft.add(Kind.TEXT, json.dumps(value))
    else:
        for piece in value:
            if _is_plain(piece):
                draft.start_section(*path)
                draft.add(Kind.LIST_ITEM, _in_cell(piece))
            else:
                _add_value(piece, _labelled(path, piece), draft, depth + 1)


def _holds_numbers(value: list[Any]) -> bool:
    """Tell matrices and coordinates, which say nothing line by line."""
    return all(isinstance(n, (int, float)) for piece in value for n in (piece if isinstance(piece, list) else [piece]))


def _add_record(record: dict[str, Any], path: tuple[str, ...], draft: Draft, depth: int) -> None:
    """Add the short values of an object as lines of one block, then the long and the nested ones by themselves."""
    short = {key: _in_cell(value) for key, value in record.items() if _is_plain(value)}
    short = {key: text for key, text in short.items() if len(text) <= _LONG_VALUE and "\n\n" not in text}
    draft.add(Kind.TEXT, "\n".join(f"{key}: {text}" for key, text in short.items() if text))
    for key, value in record.items():
        if key not in short:
            _add_value(value, (*path, key), draft, depth + 1)


def _labelled(path: tuple[str, ...], piece: Any) -> tuple[str, ...]:
    """Return the section of a record in a list: what it calls itself is the last part."""
    if not isinstance(piece, dict):
        return path
    labels = (piece.get(key) for key in _LABELS)
    return (*path, *[label for label in labels if isinstance(label, str) and 0 < len(label) <= _LONGEST_LABEL][:1])


def _is_plain(value: Any) -> bool:
    """Tell what fits one cell: no object, and lists only of what is neither."""
    if isinstance(value, list):
        return not any(isinstance(piece, (dict, list)) for piece in value)
    return not isinstance(value, dict)


def _in_cell(value: Any) -> str:
    return ", ".join(map(_scalar, value)) if isinstance(value, list) else _scalar(value)


def _flat_rows(value: Any) -> list[list[str]]:
    """Return a list of objects as the rows of a table, or nothing if that would hide what belongs together."""
    if not isinstance(value, list) or len(value) < 2 or not all(isinstance(row, dict) and row for row in value):
        return []
    flat = [_flat_record(row) for row in value]
    if None in flat:
        return []
    return as_table([row for row in flat if row is not None])


def _flat_record(record: dict[str, Any]) -> dict[str, str] | None:
    """Return an object with the keys of objects in it joined by dots, or None if it holds lists of objects."""
    flat: dict[str, str] = {}
    for key, value in record.items():
        if _is_plain(value):
            flat[key] = _in_cell(value)
        elif isinstance(value, dict) and all(map(_is_plain, value.values())):
            flat |= {f"{key}.{inner}": _in_cell(cell) for inner, cell in value.items()}
        else:
            return None
    return flat


def as_table(records: list[dict[str, str]]) -> list[list[str]]:
    """Return records as a header row and a row each, or nothing if they have little in common or are long."""
    columns = list(dict.fromkeys(key for record in records for key in record))
    filled = sum(1 for record in records for cell in record.values() if cell)
    length = sum(len(cell) for record in records for cell in record.values())
    if len(columns) > _MOST_COLUMNS or length > _LONG_ROW * len(records):
        return []
    if filled < _LEAST_FILLED * len(columns) * len(records):
        return []
    return [columns, *([record.get(column, "") for column in columns] for record in records)]


def _scalar(value: object) -> str:
    return value if isinstance(value, str) else "" if value is None else json.dumps(value)


def read_xml(text: str, draft: Draft) -> None:
    """Add any XML to ``draft``: elements around others are sections, and what they call themselves with them.

    Records of one kind beside each other are a table, other fields lines of ``name: value``, and mixed text is as it
    is. Raises `DamagedDocument` as `parse_xml` does.
    """
    root = parse_xml(_XML_DECLARATION.sub("", text).encode())
    top = _elements(root) if len(_elements(root)) != 1 else _elements(_elements(root)[0])
    draft.title = meaningful_title(next((leaf.text for leaf in top if _name(leaf).lower() == "title"), None))
    _add_element(root, (), draft)


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


def _add_element(node: Any, path: tuple[str, ...], draft: Draft) -> None:
    """Add what is in ``node`` under ``path``; lxml takes no document that is deep enough to exhaust the stack."""
    draft.start_section(*path)
    children = _elements(node)
    if _is_mixed(node, children) or not children:
        draft.add(Kind.TEXT, "".join(node.itertext()) if children else _field(node))
        return
    fields = [_attributes(node)] if node.getparent() is not None else []
    for name, group in groupby(children, _name):
        alike = list(group)
        records = [_xml_record(child) for child in alike]
        if len(alike) > 1 and None not in records and (rows := as_table([r for r in records if r is not None])):
            _flush(fields, path, draft)
            draft.start_section(*path, *([name] if len(children) > len(alike) else []))
            draft.add(Kind.TABLE, table_text(rows))
            continue
        for child in alike:
            if not _elements(child) and name.lower() not in _PARAGRAPHS:
                fields.append(_field(child))
                continue
            _flush(fields, path, draft)
            own = path if name.lower() in _PARAGRAPHS or _is_mixed(child, _elements(child)) else None
            _add_element(child, (*path, _xml_heading(child)) if own is None else own, draft)
    _flush(fields, path, draft)


def _flush(fields: list[str], path: tuple[str, ...], draft: Draft) -> None:
    """Add the fields found so far as one block."""
    draft.start_section(*path)
    draft.add(Kind.TEXT, "\n".join(filter(None, fields)))
    fields.clear()


def _elements(node: Any) -> list[Any]:
    return [child for child in node if isinstance(child.tag, str)]


def _is_mixed(node: Any, children: list[Any]) -> bool:
    if not children:
        return False
    return bool((node.text or "").strip()) or any((child.tail or "").strip() for child in children)


def _is_label(leaf: Any) -> bool:
    return not len(leaf) and _name(leaf).lower() in _LABELS


def _name(node: Any) -> str:
    return str(node.tag.rpartition("}")[2])


def _xml_heading(node: Any) -> str:
    """Return the name of an element with what it calls itself."""
    label = next((leaf.text for leaf in _elements(node) if _is_label(leaf) and leaf.text), None)
    label = label or next((node.get(name) for name in _LABELS if node.get(name)), "")
    return f"{_name(node)}: {label}" if label and len(label) <= _LONGEST_LABEL else _name(node)


def _xml_record(node: Any) -> dict[str, str] | None:
    """Return the attributes and leaves of an element as a record, or None if there is more to it than those."""
    children = _elements(node)
    if not children or _is_mixed(node, children) or any(len(child) for child in children):
        return None
    record = {key.rpartition("}")[2]: value for key, value in node.attrib.items()}
    for child in children:
        text = " ".join("".join(child.itertext()).split()) or _attributes(child)
        record[_name(child)] = "; ".join(filter(None, (record.get(_name(child)), text)))
    return record


def _attributes(node: Any) -> str:
    return ", ".join(f"{key.rpartition('}')[2]} {value}" for key, value in node.attrib.items())


def _field(leaf: Any) -> str:
    name, attributes = _name(leaf), _attributes(leaf)
    text = " ".join("".join(leaf.itertext()).split())
    if not text and not attributes:
        return ""
    if name.lower() in _PARAGRAPHS and text:
        return text
    return f"{name} ({attributes}): {text}" if attributes else f"{name}: {text}"
