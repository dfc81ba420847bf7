"""Grids of cells: CSV, TSV, XLSX and XLS. Owns openpyxl and xlrd.

Values are kept as they are shown: no column is guessed to hold numbers, so that 007 stays 007 and 2019 does not become
2019.0, which is what reading through a data frame makes of them and what a citation may not do.
"""

from __future__ import annotations

import csv
import io
import re
import warnings
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from datetime import date, datetime, time
from itertools import islice
from pathlib import Path
from typing import Any

from ingest.draft import Draft, table_text
from ingest.hidden_sheets import Inks, hidden_parts, seen_rows
from ingest.properties import note_properties
from ingest.text import read_text
from rag.errors import EncryptedDocument
from rag.records import Kind

Row = Sequence[str]
_PERCENT = re.compile(r"0(?:\.(0+))?%")
_MERGE = re.compile(rb"""<(?:\w+:)?mergeCell\s[^>]{0,50}?ref=["']([A-Z]{1,3})(\d{1,7}):[A-Z]{1,3}(\d{1,7})["']""")
_LONGEST_MERGE = 200
_FIELD_LIMIT = 10_000_000
_LONGEST_TABLE = 2000
_HIDDEN_ROWS = 200


def read_csv(text: str, draft: Draft, *, delimiter: str | None = None) -> None:
    """Add separated values to ``draft`` as tables; text in which no delimiter can be found is read as text."""
    delimiter = delimiter or _delimiter(text)
    if delimiter is None:
        read_text(text, draft)
        return
    csv.field_size_limit(_FIELD_LIMIT)
    rows = csv.reader(io.StringIO(text.replace("\0", ""), newline=""), delimiter=delimiter)
    add_grid((row for row in rows if row), draft, side_by_side=False)


def read_tsv(text: str, draft: Draft) -> None:
    """Add tab separated values to ``draft``, as `read_csv` does."""
    read_csv(text, draft, delimiter="\t")


def _delimiter(text: str) -> str | None:
    """Return the delimiter that gives the most lines of the beginning the same number of fields, at least two."""
    lines = [line for line in text[:65536].splitlines()[:200] if line.strip()]
    best: tuple[float, int, str] | None = None
    for delimiter in ",;\t|":
        counts = [len(row) for row in csv.reader(lines, delimiter=delimiter) if row]
        common = max(set(counts), key=lambda n: (counts.count(n), n), default=1)
        if common > 1 and (best is None or (counts.count(common) / len(counts), common) > best[:2]):
            best = (counts.count(common) / len(counts), common, delimiter)
    return best[2] if best and best[0] >= 0.5 else None


def add_grid(rows: Iterable[Row], draft: Draft, page: int | None = None, *, side_by_side: bool = True) -> None:
    """Add the tables of a sheet to ``draft``: they end at an empty row and, ``side_by_side``, at an empty column.

    Rows with one filled cell around a table are its caption and notes, and become text of their own. A long table is
    cut, and its first row repeated, so that memory stays bounded and each piece has a header.
    """
    band: list[Row] = []
    for row in rows:
        if any(cell.strip() for cell in row):
            band.append(row)
            if len(band) > _LONGEST_TABLE:
                _add_band(band, draft, page, side_by_side)
                band = [next((above for above in band if not _single(above)), band[0])]
        else:
            _add_band(band, draft, page, side_by_side)
            band = []
    _add_band(band, draft, page, side_by_side)


def _add_band(band: list[Row], draft: Draft, page: int | None, side_by_side: bool) -> None:
    for table in _side_by_side(band) if side_by_side else [band]:
        first, last = 0, len(table)
        while first < last and _single(table[first]):
            draft.add(Kind.TEXT, _only(table[first]), page)
            first += 1
        while last > first and _single(table[last - 1]):
            last -= 1
        draft.add(Kind.TABLE, table_text(table[first:last]), page)
        for row in table[last:]:
            draft.add(Kind.TEXT, _only(row), page)


def _side_by_side(band: list[Row]) -> Iterator[list[Row]]:
    """Yield the parts of ``band`` between columns that are empty in every row."""
    width = max(map(len, band), default=0)
    used = [False] * width
    for row in band:
        for index, cell in enumerate(row):
            used[index] = used[index] or bool(cell.strip())
    start = 0
    while start < width:
        end = start
        while end < width and used[end]:
            end += 1
        if end > start:
            yield [row[start:end] for row in band if any(cell.strip() for cell in row[start:end])]
        start = end + 1


def _single(row: Row) -> bool:
    return sum(1 for cell in row if cell.strip()) == 1


def _only(row: Row) -> str:
    return next(cell for cell in row if cell.strip())


def read_xlsx(path: Path, draft: Draft) -> None:
    """Add every sheet of a workbook to ``draft``: the sheet's name is the section, its number the page.

    What is not shown of a sheet follows it, marked as hidden; a hidden sheet is all hidden.
    """
    import openpyxl

    note_properties(path, draft)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about extensions and styles that openpyxl does not know: not about values
        with path.open("rb") as file:  # the stored file has no extension, without which openpyxl takes no path
            book = openpyxl.load_workbook(file, read_only=True, data_only=True, keep_links=False)
            draft.pages = len(book.worksheets)
            inks = Inks()
            for number, sheet in enumerate(book.worksheets, start=1):
                draft.start_section(sheet.title)
                sheet.reset_dimensions()  # the stored size is often wrong, and cuts cells off
                part, hidden = sheet._worksheet_path, list[str]()  # noqa: SLF001
                rows = _filled_down(_shown_rows(sheet, inks, hidden), _merged(path, part))
                if sheet.sheet_state == "visible":
                    add_grid(seen_rows(rows, hidden_parts(path, part), hidden), draft, number)
                    _hide(hidden, draft, number)
                else:
                    _hide((" | ".join(filter(None, row)) for row in rows), draft, number)
            book.close()


def _shown_rows(sheet: Any, inks: Inks, hidden: list[str]) -> Iterator[list[str]]:
    """Yield the rows of a sheet; what cells say in letters that nobody can see goes to ``hidden``."""
    for row in sheet.iter_rows():
        texts = [_shown(cell) for cell in row]
        for place, cell in enumerate(row):
            if texts[place] and inks.is_hidden(cell):
                hidden.append(texts[place])
                texts[place] = ""
        yield texts


def _hide(rows: Iterable[str], draft: Draft, page: int) -> None:
    """Add hidden rows to ``draft``, so many in a piece that memory stays bounded."""
    lines = filter(None, rows)
    while some := list(islice(lines, _HIDDEN_ROWS)):
        draft.hide("\n".join(some), page)


_Merged = dict[int, list[tuple[int, int]]]  # first row -> last row and column, all from 0


def _merged(path: Path, part: str) -> _Merged:
    """Return the cells of a sheet that span rows, which openpyxl does not tell when it reads row by row."""
    merged: _Merged = {}
    with zipfile.ZipFile(path) as archive, archive.open(part) as file:
        kept = b""
        while block := file.read(1 << 20):
            for column, first, last in _MERGE.findall(kept + block):
                if int(last) > int(first):
                    merged.setdefault(int(first) - 1, []).append((int(last) - 1, _column(column)))
            kept = (kept + block)[-_LONGEST_MERGE:].rpartition(b">")[2]
    return merged


def _column(letters: bytes) -> int:
    number = 0
    for letter in letters:
        number = number * 26 + letter - ord("A") + 1
    return number - 1


def _filled_down(rows: Iterable[list[str]], merged: _Merged) -> Iterator[Row]:
    """Yield ``rows`` with the text of a cell that spans rows in each of them that says anything else."""
    down: dict[int, tuple[int, str]] = {}  # column -> last row, text
    for number, row in enumerate(rows):
        if any(row):
            for column, (_, text) in down.items():
                row.extend([""] * (column + 1 - len(row)))
                row[column] = row[column] or text
        down = {column: (last, text) for column, (last, text) in down.items() if last > number}
        down |= {column: (last, row[column]) for last, column in merged.get(number, ()) if column < len(row)}
        yield row


def _shown(cell: Any) -> str:
    """Return the value of a cell about as the program shows it: percentages, whole numbers and dates as such."""
    value = cell.value
    if isinstance(value, float) and (percent := _PERCENT.search(getattr(cell, "number_format", "") or "")):
        return f"{value:.{len(percent.group(1) or '')}%}"
    return _value(value)


def _value(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(round(value, 12))
    if isinstance(value, datetime):
        return value.date().isoformat() if value.time() == time.min else value.isoformat(" ", "minutes")
    if isinstance(value, date):
        return value.isoformat()
    return str(value)


def read_xls(path: Path, draft: Draft) -> None:
    """Add every sheet of an Excel 97 workbook to ``draft``. Raises `EncryptedDocument` for one with a password."""
    import xlrd  # type: ignore[import-untyped]

    try:
        book = xlrd.open_workbook(file_contents=path.read_bytes(), logfile=_Nowhere(), on_demand=True)
    except xlrd.XLRDError as error:
        if "encrypted" in str(error).lower():
            raise EncryptedDocument(
                "The workbook is protected by a password: remove the password and ingest it again."
            ) from error
        raise
    draft.pages = book.nsheets
    draft.note(author=book.user_name)
    for number, sheet in enumerate(book.sheets(), start=1):
        draft.start_section(sheet.name)
        rows = ([_old_value(cell, book) for cell in sheet.row(index)] for index in range(sheet.nrows))
        if sheet.visibility:
            _hide((" | ".join(filter(None, row)) for row in rows), draft, number)
        else:
            add_grid(rows, draft, number)


class _Nowhere:
    """Takes what xlrd prints about odd files, which would end up on the standard output."""

    def write(self, text: str) -> None:
        """Forget ``text``."""

    def flush(self) -> None:
        """Do nothing."""


def _old_value(cell: Any, book: Any) -> str:
    import xlrd

    if cell.ctype == xlrd.XL_CELL_ERROR:
        return str(xlrd.error_text_from_code.get(cell.value, ""))
    if cell.ctype == xlrd.XL_CELL_BOOLEAN:
        return _value(bool(cell.value))
    if cell.ctype == xlrd.XL_CELL_DATE:
        try:
            return _value(xlrd.xldate_as_datetime(cell.value, book.datemode))
        except (ValueError, OverflowError):  # a number in a date's clothes
            return _value(cell.value)
    return _value(cell.value)
