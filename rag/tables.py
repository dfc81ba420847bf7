"""Rows of tables: which lines of a chunk are rows, what stands in their cells, and which header is above each.

A table's text has one row a line and `` | `` between cells, see `rag.records.Element`. Knows no claim and no judge.
"""

from __future__ import annotations

import re

from rag.answers import Cell
from rag.records import CELL, Kind, Passage
from rag.sentences import Span, sentence_spans


def evidence_spans(chunk: Passage) -> list[Span]:
    """Return what can be quoted of a chunk, in order: the rows of a table, else the sentences."""
    if chunk.kind is not Kind.TABLE:
        return sentence_spans(chunk.text)
    lines = (_stripped(line) for line in re.finditer(r"[^\n]+", chunk.text))
    return [(start, end) for start, end in lines if start < end]


def header_of(chunk: Passage) -> str:
    """Return the header row of a table's chunk: that of its context, or else its own first line; empty if none."""
    if chunk.kind is not Kind.TABLE:
        return ""
    above = chunk.context.rpartition("\n")[2]
    own = chunk.text.partition("\n")[0]
    return above if CELL in above else own if CELL in own else ""


def cells_of(chunk: Passage, start: int, end: int) -> tuple[Cell, ...]:
    """Return the cells of the row at [start, end) of a table's chunk; empty ones are left out.

    A cell has its column where the row has as many cells as the header: a part of a row says nothing of columns. Of
    the header itself, and of what is no row, there are none. Offsets are those of the parsed text.
    """
    header, row = header_of(chunk), chunk.text[start:end]
    if not header or CELL not in row or "\n" in row or row.strip() == header.strip():
        return ()
    columns, values = header.split(CELL), row.split(CELL)
    if len(columns) != len(values):
        columns = [""] * len(values)
    cells = []
    place = chunk.start + start
    for column, value in zip(columns, values, strict=True):
        lead = len(value) - len(value.lstrip())
        text = value.strip()
        if text:
            cells.append(Cell(column.strip(), text, place + lead, place + lead + len(text)))
        place += len(value) + len(CELL)
    return tuple(cells)


def _stripped(line: re.Match[str]) -> Span:
    text = line.group()
    return line.start() + len(text) - len(text.lstrip()), line.start() + len(text.rstrip())
