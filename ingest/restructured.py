"""reStructuredText: headings, lists, code, tables and fields. Owns docutils.

Only its parser is used, which resolves no reference and applies no style. Nothing outside the text is read: directives
that include files or raw markup are switched off. What only Sphinx knows (directives, roles) is kept as the text that
it holds.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from typing import Any

from ingest.draft import Draft, meaningful_title, table_text
from ingest.text import read_text
from rag.records import Kind

_ROLE = re.compile(r":[\w:+.-]+:`([^`<]*?)(?:\s*<[^`>]*>)?`|`([^`]*)`:[\w:+.-]+:")
_DIRECTIVE = re.compile(r"\.\.\s+(?:\|[^|]*\|\s+)?([\w:+.-]+)::[ \t]*([^\n]*)\n?(.*)", re.DOTALL)
_OPTIONS = re.compile(r"\A(?:[ \t]*:[\w -]+:[^\n]*(?:\n|\Z))+")
#: Directives whose argument is no text: a file, a format or a language; and those that hold code or nothing to read.
_WITHOUT_ARGUMENT = frozenset(
    {"include", "literalinclude", "csv-table", "image", "figure", "toctree", "role", "default-role"}
)
_CODE = frozenset({"code", "code-block", "sourcecode", "prompt", "ipython", "jupyter-execute", "productionlist"})
_SILENT = frozenset({"raw", "highlight", "index", "tabularcolumns"})
_LONGEST_LINE = 10_000
_DEEPEST = 10
_FACTS = {"author": "author", "authors": "author", "date": "created", "keywords": "keywords", "tags": "keywords"}
_SETTINGS = {
    "file_insertion_enabled": False,
    "raw_enabled": False,
    "report_level": 5,
    "halt_level": 5,
    "warning_stream": False,
    "syntax_highlight": "none",
    "line_length_limit": _LONGEST_LINE,
    "_disable_config": True,
}


def read_rst(text: str, draft: Draft) -> None:
    """Add reStructuredText to ``draft``; text that is nested or long beyond its reason is read as plain text."""
    if max(map(len, text.splitlines()), default=0) > _LONGEST_LINE:
        read_text(text, draft)
        return
    try:
        tree = _parsed(text)
    except RecursionError:
        read_text(text, draft)
        return
    _add_children(tree, draft, 0)


def _parsed(text: str) -> Any:
    from docutils.frontend import get_default_settings
    from docutils.parsers.rst import Parser
    from docutils.utils import new_document

    settings = get_default_settings(Parser)
    for name, value in _SETTINGS.items():
        setattr(settings, name, value)
    document = new_document("document", settings)
    Parser().parse(text, document)
    return document


def _add_children(node: Any, draft: Draft, level: int, depth: int = 0) -> None:
    for child in node.children:
        _add(child, draft, level, depth)


def _add(node: Any, draft: Draft, level: int, depth: int) -> None:
    match node.tagname:
        case "section":
            _add_children(node, draft, level + 1, depth)
        case "title" | "subtitle" if node.parent.tagname == "section":
            draft.heading(level, _words(node))
        case "bullet_list" | "enumerated_list":
            _add_list(node, draft, level, depth)
        case "literal_block" | "doctest_block" | "math_block":
            draft.add(Kind.CODE, node.astext())
        case "table":
            _add_table(node, draft)
        case "field_list":
            _add_fields(node, draft)
        case "definition_list_item" | "option_list_item":
            draft.add(Kind.LIST_ITEM, "\n".join(_words(child) for child in node.children))
        case "system_message":
            _add_unknown_directive(node, draft, level, depth)
        case "image" | "caption":
            draft.add(Kind.CAPTION, node.get("alt") or _words(node))
        case "comment" | "target" | "substitution_definition" | "pending" | "raw" | "label":
            return
        case _ if any(not _is_inline(child) for child in node.children):
            _add_children(node, draft, level, depth)
        case _:
            draft.add(Kind.TEXT, _words(node))


def _is_inline(node: Any) -> bool:
    from docutils import nodes

    return isinstance(node, (nodes.Text, nodes.Inline))


def _words(node: Any) -> str:
    """Return the text of a node, with the text of roles that docutils does not know in place of their markup."""
    return _ROLE.sub(lambda role: role.group(1) or role.group(2) or "", node.astext())


def _add_list(node: Any, draft: Draft, level: int, depth: int) -> None:
    for number, item in enumerate(node.children, start=int(node.get("start", 1))):
        mark = f"{number}." if node.tagname == "enumerated_list" else "-"
        first, *rest = item.children or [None]
        if first is not None:
            if first.tagname == "paragraph":
                draft.add(Kind.LIST_ITEM, f"{mark} {_words(first)}")
            else:
                _add(first, draft, level, depth)
        for child in rest:
            _add(child, draft, level, depth)


def _add_fields(node: Any, draft: Draft) -> None:
    """Add ``:name: value`` fields as lines of text; what stands at the head of the document is metadata too."""
    lines, is_head = [], all(block.kind is Kind.TITLE for block in draft.blocks)
    for field in node.children:
        name, value = field.children[0].astext(), _words(field.children[1])
        lines.append(f"{name}: {value}")
        if is_head and name.lower() in _FACTS:
            fact = _FACTS[name.lower()]
            draft.note(**{fact: re.split(r"\s*[,;]\s*", value) if fact == "keywords" else value})
        if is_head and name.lower() == "title":
            draft.title = meaningful_title(value)
    draft.add(Kind.TEXT, "\n".join(lines))


def _add_table(node: Any, draft: Draft) -> None:
    for child in node.children:
        if child.tagname == "title":
            draft.add(Kind.CAPTION, _words(child))
    draft.add(Kind.TABLE, table_text(_rows(node)))


def _rows(node: Any) -> Iterator[list[str]]:
    """Yield the rows; a cell that spans rows is repeated in each, one that spans columns is followed by empty ones."""
    from docutils import nodes

    down: dict[int, tuple[int, str]] = {}
    for row in node.findall(nodes.row):
        cells: list[str] = []
        for entry in row.children:
            _repeat(cells, down)
            for text in [_words(entry), *[""] * int(entry.get("morecols", 0))]:
                if more := int(entry.get("morerows", 0)):
                    down[len(cells)] = (more, text)
                cells.append(text)
        _repeat(cells, down)
        yield cells


def _repeat(cells: list[str], down: dict[int, tuple[int, str]]) -> None:
    while len(cells) in down:
        more, text = down.pop(len(cells))
        if more > 1:
            down[len(cells)] = (more - 1, text)
        cells.append(text)


def _add_unknown_directive(message: Any, draft: Draft, level: int, depth: int) -> None:
    """Add what stands in a directive that docutils does not know, or could not make sense of, as what it is itself."""
    for block in message.children:
        if block.tagname != "literal_block":
            continue
        found = _DIRECTIVE.fullmatch(block.astext().strip())
        if found is None or depth >= _DEEPEST:
            draft.add(Kind.TEXT, block.astext())
            continue
        name, argument, content = found.groups()
        content = _OPTIONS.sub("", textwrap.dedent(content).lstrip("\n"))
        if name in _CODE:
            draft.add(Kind.CODE, content)
        elif name not in _SILENT:
            draft.add(Kind.TEXT, "" if name in _WITHOUT_ARGUMENT else _ROLE.sub(r"\1", argument))
            _add_children(_parsed(content), draft, level, depth + 1)
