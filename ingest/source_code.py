"""Source code and notebooks: each definition or cell is an element of its own, so that none is cut where it need not.

Python is taken apart by its own parser. Of other languages only the layout is known: a piece begins at a line that is
not indented and follows a blank one. Runs nothing, and knows no types and no calls.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from typing import Any

from ingest.draft import Draft
from ingest.partition import read_markdown
from ingest.text import read_text
from rag.records import Kind

#: A class with more lines is taken apart into its methods, and pieces without a name are joined up to so many.
_LONG = 60
_LONGEST_PARSED = 2_000_000
_LONGEST_OUTPUT = 2000
_CLOSING = re.compile(r"\s|[)}\]]|end\b|else\b|elif\b|fi\b|done\b|esac\b|#(?:endif|else)\b", re.IGNORECASE)
_COMMENT = re.compile(r"\s*(?:#|//|/\*|\*|--|;|%|<!--|@)")
_NAMED = re.compile(
    r"\b(?:class|struct|interface|enum|trait|impl|module|namespace|record|object|type|protocol|message|service"
    r"|def|defp|func|fun|fn|function|sub|procedure|proc|macro|resource|(?:create|alter)\s+(?:or\s+replace\s+)?"
    r"(?:table|view|function|procedure|index|trigger))\s+(?:if\s+not\s+exists\s+)?[\"'`\[]?([\w.$:-]+)",
    re.IGNORECASE,
)
_C_FUNCTION = re.compile(r"^[\w*&<>:,\[\]\s~]+?[\s*&]([\w:~]+)\s*\([^;]*$")
_ASSIGNED = re.compile(r"^(?:export\s+)?(?:const|let|var)\s+([\w$]+)\s*=\s*(?:async\s*)?(?:function|\()")


def read_code(text: str, draft: Draft) -> None:
    """Add source code to ``draft``: the names of the class and function around it are its section.

    The language is that which ``draft.metadata`` names as ``code_language``.
    """
    lines = text.splitlines()
    pieces = _python_pieces(text) if draft.metadata.get("code_language") == "python" else None
    for first, last, names in pieces or list(_joined(_blocks(lines))):
        draft.start_section(*names)
        draft.add(Kind.CODE, "\n".join(lines[first:last]))


_Piece = tuple[int, int, tuple[str, ...]]  # first line, line after the last, names around it


def _python_pieces(text: str) -> list[_Piece] | None:
    """Return the pieces of a Python module without a gap between them, or None if it can not be parsed."""
    if len(text) > _LONGEST_PARSED:
        return None
    try:
        # Lines are counted as in `read_code`, where more signs end a line than for the parser.
        body = ast.parse("\n".join(text.splitlines())).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # MemoryError: what the parser says of deep nesting
        return None
    return list(_spans(body, 0, len(text.splitlines()), ()))


def _spans(body: list[ast.stmt], start: int, end: int, names: tuple[str, ...]) -> Iterator[_Piece]:
    """Yield the statements from line ``start`` to ``end``: definitions alone, what is between them together."""
    cursor = start
    for number, node in enumerate(body):
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            continue
        before = body[number - 1].end_lineno or cursor if number else cursor  # comments above it belong to it
        first = max(before, cursor)
        if first > cursor:
            yield cursor, first, names
        last = node.end_lineno or first
        inner = (*names, node.name)
        if isinstance(node, ast.ClassDef) and last - first > _LONG:
            yield from _spans(node.body, first, last, inner)
        else:
            yield first, last, inner
        cursor = last
    if cursor < end:
        yield cursor, end, names


def _blocks(lines: list[str]) -> Iterator[_Piece]:
    start = 0
    for number in range(1, len(lines)):
        line = lines[number]
        if line and not lines[number - 1].strip() and not _CLOSING.match(line):
            yield start, number, _names(lines[start:number])
            start = number
    if lines:
        yield start, len(lines), _names(lines[start:])


def _names(lines: list[str]) -> tuple[str, ...]:
    """Return the name of what is defined in a block, which its first line that is no comment says."""
    first = next((line for line in lines if line.strip() and not _COMMENT.match(line)), "")[:500]
    found = _NAMED.search(first) or _ASSIGNED.match(first) or _C_FUNCTION.match(first)
    return (found.group(1),) if found else ()


def _joined(pieces: Iterator[_Piece]) -> Iterator[_Piece]:
    """Join neighbours without a name, which are single lines more often than not."""
    pending: _Piece | None = None
    for piece in pieces:
        if pending and not pending[2] and not piece[2] and piece[1] - pending[0] <= _LONG:
            pending = (pending[0], piece[1], ())
            continue
        if pending:
            yield pending
        pending = piece
    if pending:
        yield pending


def read_notebook(text: str, draft: Draft) -> None:
    """Add a Jupyter notebook to ``draft``: words as Markdown, code, and the beginning of what it printed."""
    try:
        cells = json.loads(text)["cells"]
    except (ValueError, KeyError, TypeError, RecursionError):  # it is called one, but is none
        read_text(text, draft)
        return
    for cell in cells:
        if not isinstance(cell, dict):
            continue
        source = _lines(cell.get("source"))
        if cell.get("cell_type") == "markdown":
            read_markdown(source, draft)
        else:
            draft.add(Kind.CODE, source)
        for output in cell.get("outputs") or ():
            printed = output.get("text") or (output.get("data") or {}).get("text/plain")
            draft.add(Kind.CODE, _lines(printed)[:_LONGEST_OUTPUT])


def _lines(source: Any) -> str:
    return "".join(source) if isinstance(source, list) else source or ""
