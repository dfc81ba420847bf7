"""PDF: pages to lines of text with their size and place. Owns pypdfium2.

Knows letters and coordinates; what they mean together (paragraphs, headings, tables) is for `ingest.layout`. Nothing is
rendered and no script is run. PDFium is not safe for threads, and is entered by one at a time.
"""

from __future__ import annotations

import ctypes
import math
import re
import threading
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pypdfium2
import pypdfium2.raw as pdfium

from ingest.draft import Draft, meaningful_title
from ingest.layout import HYPHEN, Bookmarks, Line, compose, squeezed
from rag.errors import DamagedDocument, EmptyDocument, EncryptedDocument, UnsupportedDocument

_ONE_AT_A_TIME = threading.Lock()
# "medi" is the bold of Nimbus, "bx" that of TeX.
_BOLD = re.compile(r"bold|black|heavy|semib|demi|medi\b|cmbx|sfbx|-b$", re.IGNORECASE)
_LETTER = re.compile(r"[^\W\d_]")
_SIGN_IN_WORD = re.compile(r"[^\W\d_][«»*^©®¥£§<>|~\\{}=;•■]+[^\W\d_]|[«»^©®¥£§|~\\■]+[^\W\d_]")
_DATE = re.compile(r"D:(\d{4})(\d\d)?(\d\d)?(\d\d)?(\d\d)?(\d\d)?(?:(Z)|([+-])(\d\d)'?(\d\d)?)?")
_WIDE_GAP = 1.5  # in font sizes: wider than any space of justified text


def read_pdf(path: Path, draft: Draft) -> None:
    """Add the text of a PDF to ``draft``.

    Raises `EncryptedDocument`, `DamagedDocument`, `DocumentTooLarge`, and `EmptyDocument` if no page has any text.
    ``metadata["pages_without_text"]`` counts the pages that are pictures only, if some are;
    ``metadata["text_quality"]`` is "poor" where the text is what bad OCR left in a scan.
    """
    with _ONE_AT_A_TIME:
        document = _open(path)
        try:
            draft.pages = len(document)
            _note_properties(document, draft)
            pages = [_lines(document, index) for index in range(len(document))]
            bookmarks = _bookmarks(document)
        finally:
            document.close()
    silent = sum(1 for lines in pages if not lines)
    if silent == len(pages):
        count = "1 page" if silent == 1 else f"{silent} pages"
        raise EmptyDocument(
            f"The PDF has {count} but no text: it is a scan and needs OCR, which comes later: "
            "run OCR on it (for instance with ocrmypdf) and ingest the result.",
            pages=len(pages),
        )
    draft.note(pages_without_text=silent or None, text_quality="poor" if _garbled(pages) else None)
    compose(pages, bookmarks, draft)


def _garbled(pages: list[list[Line]]) -> bool:
    """Tell a text layer that bad OCR wrote: signs stand inside its words (0 to 0.2 % elsewhere, 5 % where seen)."""
    words = [word for lines in pages for line in lines for word in line.text.split() if _LETTER.search(word)]
    return len(words) >= 50 and sum(bool(_SIGN_IN_WORD.search(word)) for word in words) > 0.02 * len(words)


def _open(path: Path) -> pypdfium2.PdfDocument:
    try:
        return pypdfium2.PdfDocument(path)
    except pypdfium2.PdfiumError as error:
        match error.err_code:
            case pdfium.FPDF_ERR_PASSWORD:
                raise EncryptedDocument(
                    "The PDF is protected by a password: remove the password and ingest it again."
                ) from error
            case pdfium.FPDF_ERR_SECURITY:
                raise UnsupportedDocument(
                    "The PDF is protected in a way that is not read: save it without protection and ingest it again."
                ) from error
            case _:
                raise DamagedDocument(
                    "The PDF is damaged or cut off: open it in a PDF program and save it anew."
                ) from error


def _note_properties(document: pypdfium2.PdfDocument, draft: Draft) -> None:
    properties = document.get_metadata_dict()
    draft.title = meaningful_title(properties.get("Title"))
    draft.note(
        author=properties.get("Author"),
        created=_date(properties.get("CreationDate", "")),
        modified=_date(properties.get("ModDate", "")),
        subject=properties.get("Subject"),
    )


def _date(value: str) -> datetime | None:
    """Return the date of ``D:YYYYMMDDHHmmSS+HH'mm'``, of which everything after the year may be missing."""
    match = _DATE.match(value)
    if match is None:
        return None
    year, month, day, hour, minute, second = (int(part) if part else None for part in match.groups()[:6])
    zulu, sign, hours, minutes = match.groups()[6:]
    away = timedelta(hours=int(hours or 0), minutes=int(minutes or 0)) * (-1 if sign == "-" else 1)
    try:
        zone = timezone(away) if zulu or sign else None
        return datetime(year or 1, month or 1, day or 1, hour or 0, minute or 0, second or 0, tzinfo=zone)
    except ValueError:  # the 31st of February and its like
        return None


def _bookmarks(document: pypdfium2.PdfDocument) -> Bookmarks:
    """Return the document's outline as levels by page and title; a damaged outline is none."""
    found: Bookmarks = {}
    try:
        for bookmark in document.get_toc(max_depth=6):
            target = bookmark.get_dest()
            page = target.get_index() if target is not None else None
            if page is not None and (title := squeezed(bookmark.get_title())):
                found.setdefault((page + 1, title), bookmark.level + 1)
    except (pypdfium2.PdfiumError, UnicodeDecodeError):
        return {}
    return found


def _lines(document: pypdfium2.PdfDocument, index: int) -> list[Line]:
    """Return the lines of a page in the order of PDFium; of a page that can not be loaded, none."""
    try:
        page = document[index]
        text = page.get_textpage()
    except pypdfium2.PdfiumError:
        return []
    lines: list[Line] = []
    for start, end in _line_spans(text):
        line = _measured(text.raw, start, end)
        if line is not None:
            if lines and (joined := _same_line(lines[-1], line)):
                lines[-1] = joined
            else:
                lines.append(line)
    text.close()
    page.close()
    return lines


def _line_spans(text: Any) -> Iterator[tuple[int, int]]:
    """Yield start and end of each line in PDFium's characters; a hyphen at the line's end belongs to it."""
    start, count = 0, text.count_chars()
    for position in range(count):
        code = pdfium.FPDFText_GetUnicode(text.raw, position)
        if code in {0x0A, 0x0D, 0x02, 0xFFFE}:
            end = position + 1 if code in {0x02, 0xFFFE} else position
            if end > start:
                yield start, end
            start = position + 1
    if count > start:
        yield start, count


def _measured(raw: Any, start: int, end: int) -> Line | None:
    visible = [i for i in range(start, end) if not chr(_code(raw, i)).isspace()]
    letters = [i for i in visible if _code(raw, i) not in {0, 0x02}]
    if not letters:
        return None
    first, last = letters[0], letters[-1]
    angle = pdfium.FPDFText_GetCharAngle(raw, first)
    left, baseline = _turned(_origin(raw, first), angle)
    right, _ = _turned(_origin(raw, last), angle)
    size = _size(raw, first if len(letters) < 3 else letters[len(letters) // 2])
    wide = _WIDE_GAP * size if abs(math.sin(angle)) < 0.01 else math.inf  # boxes of turned letters tell no gaps
    cells = list(_cells(raw, visible[0], visible[-1] + 1, wide))
    return Line(
        cells=tuple(_text(raw, *cell) for cell in cells),
        starts=tuple(_turned(_origin(raw, begin), angle)[0] for begin, _ in cells),
        size=size,
        bold=all(_is_bold(raw, sample) for sample in {first, letters[len(letters) // 2], last}),
        left=left,
        right=max(left, right) + 0.5 * size,
        baseline=baseline,
    )


def _cells(raw: Any, start: int, end: int, wide: float) -> Iterator[tuple[int, int]]:
    """Yield start and end of the parts of a line between gaps that are ``wide``."""
    before = None  # the last letter, if spaces follow it
    for position in range(start, end):
        if chr(_code(raw, position)).isspace():
            before = position - 1 if before is None else before
        elif before is not None:
            if _box(raw, position)[0] - _box(raw, before)[1] > wide:
                yield start, before + 1
                start = position
            before = None
    yield start, end


def _text(raw: Any, start: int, end: int) -> str:
    chars = (_code(raw, position) for position in range(start, end))
    return "".join(HYPHEN if char in {0x02, 0xFFFE} else chr(char) for char in chars if char)


def _same_line(before: Line, after: Line) -> Line | None:
    """Return two pieces of one printed line as one: PDFium breaks it at raised signs and between cells."""
    gap = after.left - before.right
    if before.cells[-1].endswith(HYPHEN) or abs(before.baseline - after.baseline) > 0.45 * max(before.size, after.size):
        return None
    if gap < -1.2 * max(before.size, after.size):
        return None
    main = before if len(before.text) >= len(after.text) else after
    if gap > _WIDE_GAP * max(before.size, after.size):
        cells, starts = before.cells + after.cells, before.starts + after.starts
    else:
        space = " " if gap > -0.2 * after.size else ""
        cells = (*before.cells[:-1], before.cells[-1] + space + after.cells[0], *after.cells[1:])
        starts = before.starts + after.starts[1:]
    bold = before.bold and after.bold
    return Line(cells, starts, main.size, bold, before.left, after.right, main.baseline)


def _code(raw: Any, position: int) -> int:
    code = int(pdfium.FPDFText_GetUnicode(raw, position))
    return code if code < 0x110000 else 0


def _box(raw: Any, position: int) -> tuple[float, float]:
    left, right, bottom, top = (ctypes.c_double() for _ in range(4))
    pdfium.FPDFText_GetCharBox(raw, position, left, right, bottom, top)
    return left.value, right.value


def _origin(raw: Any, position: int) -> tuple[float, float]:
    x, y = ctypes.c_double(), ctypes.c_double()
    pdfium.FPDFText_GetCharOrigin(raw, position, x, y)
    return x.value, y.value


def _turned(point: tuple[float, float], angle: float) -> tuple[float, float]:
    """Return ``point`` in the coordinates of a line that runs at ``angle``."""
    x, y = point
    cos, sin = math.cos(angle), math.sin(angle)
    return x * cos + y * sin, y * cos - x * sin


def _size(raw: Any, position: int) -> float:
    """Return the printed size of a character: the font's size times the scale of the text's matrix."""
    matrix = pdfium.FS_MATRIX()
    scale = 1.0
    if pdfium.FPDFText_GetMatrix(raw, position, matrix):
        scale = math.hypot(matrix.c, matrix.d) or 1.0
    return abs(float(pdfium.FPDFText_GetFontSize(raw, position))) * scale or 1.0


def _is_bold(raw: Any, position: int) -> bool:
    name = ctypes.create_string_buffer(128)
    flags = ctypes.c_int()
    pdfium.FPDFText_GetFontInfo(raw, position, name, len(name), flags)
    return (
        bool(_BOLD.search(name.value.decode("utf-8", "replace")))
        or int(pdfium.FPDFText_GetFontWeight(raw, position)) >= 600
    )
