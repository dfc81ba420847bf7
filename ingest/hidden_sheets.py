"""What a workbook in XLSX says and its reader does not see: hidden rows and columns, and cells without any colour.

Rows that a filter leaves out and rows of a folded group are no hidden text: the sheet shows that there are more, and a
click shows them. Knows the XML of a sheet and the cells of openpyxl, and no tables.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ingest.hidden import LEAST_SIZE, WHITE, hexadecimal

_LINE = re.compile(rb"<(?:\w+:)?(row|col|autoFilter|sheetData)\b([^>]{0,2000})>")
_HIDDEN = re.compile(rb"\bhidden=[\"'](?:1|true)[\"']")
_FOLDED = re.compile(rb"\boutlineLevel=[\"'][1-9]")
_NUMBER = {name: re.compile(rb"\b%s=[\"'](\d{1,7})[\"']" % name) for name in (b"r", b"min", b"max")}
_LONGEST = 2_100
_NO_COLOUR = ";;;"  # a number format that shows nothing
_MOST_COLUMNS = 16_384


@dataclass(slots=True)
class HiddenParts:
    """Rows and columns of a sheet that are not shown, from 0."""

    rows: set[int] = field(default_factory=set)
    columns: set[int] = field(default_factory=set)


def hidden_parts(path: Path, part: str) -> HiddenParts:
    """Return what is hidden of the sheet that is ``part`` of a workbook."""
    found, filtered, row = HiddenParts(), False, -1
    for name, attributes in _lines(path, part):
        if name == b"autoFilter":
            filtered = True
        elif name == b"row":
            row = _number(attributes, b"r", row + 2) - 1
            if _HIDDEN.search(attributes) and not _FOLDED.search(attributes):
                found.rows.add(row)
        elif name == b"col" and _HIDDEN.search(attributes) and not _FOLDED.search(attributes):
            first, last = _number(attributes, b"min", 1), _number(attributes, b"max", 0)
            found.columns.update(range(first - 1, min(last, _MOST_COLUMNS)))
    if filtered:
        found.rows.clear()
    return found


def _lines(path: Path, part: str) -> Iterator[tuple[bytes, bytes]]:
    with zipfile.ZipFile(path) as archive, archive.open(part) as file:
        kept = b""
        while block := file.read(1 << 20):
            data, _, rest = (kept + block).rpartition(b">")
            for match in _LINE.finditer(data + b">"):
                yield match[1], match[2]
            kept = rest[-_LONGEST:]


def _number(attributes: bytes, name: bytes, usual: int) -> int:
    match = _NUMBER[name].search(attributes)
    return int(match[1]) if match else usual


def seen_rows(rows: Iterable[Sequence[str]], parts: HiddenParts, hidden: list[str]) -> Iterator[list[str]]:
    """Yield ``rows`` without what is hidden, which goes to ``hidden``, a row in one piece."""
    for number, row in enumerate(rows):
        if number in parts.rows:
            hidden.append(" | ".join(filter(None, row)))
        elif parts.columns:
            hidden.append(" | ".join(cell for place, cell in enumerate(row) if cell and place in parts.columns))
            yield [cell for place, cell in enumerate(row) if place not in parts.columns]
        else:
            yield list(row)


class Inks:
    """Says of each cell of a workbook whether its letters can be seen; asks once for each style."""

    def __init__(self) -> None:
        self._known: dict[int, bool] = {}

    def is_hidden(self, cell: Any) -> bool:
        """Say whether nobody can see what stands in ``cell``."""
        style = getattr(cell, "_style_id", 0)
        if not style:
            return False
        if style not in self._known:
            self._known[style] = _is_unseen(cell)
        return self._known[style]


def _is_unseen(cell: Any) -> bool:
    font, fill = cell.font, cell.fill
    if cell.number_format == _NO_COLOUR or (font is not None and font.sz is not None and font.sz < LEAST_SIZE):
        return True
    colour = None if font is None else font.color
    if colour is None or (fill is not None and fill.fill_type is not None):
        return False
    if colour.type == "theme":
        return colour.theme == 0 and not colour.tint  # the first colour of a theme is that of its paper
    shown = hexadecimal(str(colour.rgb)[-6:]) if colour.type == "rgb" else None
    return shown is not None and shown.looks_like(WHITE)
