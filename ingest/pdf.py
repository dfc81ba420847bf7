"""PDF: pages to lines of text with their size and place. Owns pypdfium2.

Knows letters and coordinates; what they mean together (paragraphs, headings, tables) is for `ingest.layout`. Only pages
without text are made pictures, for `ingest.ocr`, and no script is run. PDFium is not safe for threads, and is entered
by one at a time.
"""

from __future__ import annotations

import ctypes
import math
import re
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from enum import Enum, auto
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import numpy as np
import pypdfium2
import pypdfium2.raw as pdfium

from ingest import ocr
from ingest.draft import Draft, meaningful_title, one_line
from ingest.hidden import LEAST_SIZE
from ingest.hidden_pdf import hidden_letters, is_beside
from ingest.layout import HYPHEN, WIDE_GAP, Bookmarks, Line, compose, squeezed
from rag.errors import DamagedDocument, EmptyDocument, EncryptedDocument, UnsupportedDocument
from rag.settings import IngestSettings

#: Held by who uses PDFium.
ONE_AT_A_TIME = threading.Lock()
# "medi" is the bold of Nimbus, "bx" that of TeX.
_BOLD = re.compile(r"bold|black|heavy|semib|demi|medi\b|cmbx|sfbx|-b$", re.IGNORECASE)
_LETTER = re.compile(r"[^\W\d_]")
_SIGN_IN_WORD = re.compile(r"[^\W\d_][«»*^©®¥£§<>|~\\{}=;•■]+[^\W\d_]|[«»^©®¥£§|~\\■]+[^\W\d_]")
_STAMP = 25  # letters and digits: fewer beside a picture of the whole page are a stamp on a scan
_MOST_IMAGES, _MOST_FIELDS = 1_000, 5_000  # looked at on one page
_LONGEST = 30_000  # pixels of the longer side of a page that is made a picture
_TELL = 50  # pages between two words about how far we are
_SAMPLE = 200  # letters that tell how a page is turned
_LAM, _ALEFS = 0x0644, "\u0622\u0623\u0625\u0627"
_TOUCHING = re.compile(r"(?<=[A-Za-z])(?=[\u0621-\u064a])")  # no word changes so; the space is at its other end
_STRAY_MARK = re.compile(r" ([\u064b-\u0652]+)([\u0621-\u064a])")  # a vowel sign that PDFium puts before its letter
_DATE = re.compile(r"D:(\d{4})(\d\d)?(\d\d)?(\d\d)?(\d\d)?(\d\d)?(?:(Z)|([+-])(\d\d)'?(\d\d)?)?")


def read_pdf(path: Path, draft: Draft) -> None:
    """Add the text of a PDF to ``draft``: what stands on its pages, and the values in the fields of its forms.

    Raises `EncryptedDocument`, `DamagedDocument`, `DocumentTooLarge`, `EmptyDocument` if no page has any text, and what
    `ingest.ocr.read_picture` raises. ``metadata["ocr_pages"]`` counts the pages that were read by OCR,
    ``metadata["pages_without_text"]`` those that show something but gave no text, if some did;
    ``metadata["text_quality"]`` is "poor" where the text is what bad OCR left in a scan.
    """
    with ONE_AT_A_TIME:
        document = open_pdf(path)
        try:
            draft.pages = len(document)
            _note_properties(document, draft)
            pages = _pages(document, draft)
            _read_pictures(document, pages, draft)
            bookmarks = _bookmarks(document)
        finally:
            document.close()
    if not any(page.state in {_State.TEXT, _State.READ} or page.fields or page.hidden for page in pages):
        raise _nothing_in(pages, draft.limits)
    silent = sum(page.state in {_State.BLANK, _State.PICTURE} and not page.fields for page in pages)
    draft.note(
        pages_without_text=silent or None,
        ocr_pages=sum(page.state is _State.READ for page in pages) or None,
        text_quality="poor" if _garbled([page.lines for page in pages if page.state is _State.TEXT]) else None,
    )
    forms = {number: page.fields for number, page in enumerate(pages, start=1)}
    compose([page.lines for page in pages], bookmarks, draft, forms)
    for number, page in enumerate(pages, start=1):
        draft.hide("\n".join(page.hidden), number)


class _State(Enum):
    """What there is on a page: text, nothing, a picture without (or with next to no) text, or one that OCR has read."""

    TEXT = auto()
    BLANK = auto()
    PICTURE = auto()
    READ = auto()


@dataclass(slots=True)
class _Page:
    lines: list[Line]
    fields: list[str]
    state: _State
    hidden: list[str] = field(default_factory=list)


def _nothing_in(pages: list[_Page], limits: IngestSettings) -> EmptyDocument:
    count = "1 page" if len(pages) == 1 else f"{len(pages)} pages"
    if all(page.state is _State.BLANK for page in pages):
        why = "nothing is printed there, and there is nothing to index."
    elif ocr.engine(limits) is None:
        why = f"it is a scan and needs OCR, but {ocr.cure(limits)}"
    else:
        why = "it shows pictures in which OCR finds nothing to read."
    return EmptyDocument(f"The PDF has {count} but no text: {why}", pages=len(pages))


def _pages(document: pypdfium2.PdfDocument, draft: Draft) -> list[_Page]:
    """Return the pages as their letters tell them."""
    pages: list[_Page] = []
    done = 0
    for index in range(len(document)):
        pages.append(_page(document, index))
        done += pages[-1].state is not _State.PICTURE
        if index % _TELL == _TELL - 1:
            draft.tell(done / len(document))
    return pages


def _page(document: pypdfium2.PdfDocument, index: int) -> _Page:
    """Return the text and the filled fields of a page; one that can not be loaded is blank."""
    try:
        page = document[index]
        lines, hidden = _lines(page)
        found = _Page(lines, _fields(document, page), _state(page, lines), hidden)
        page.close()
    except pypdfium2.PdfiumError:
        return _Page([], [], _State.BLANK)
    return found


def _state(page: Any, lines: list[Line]) -> _State:
    """Tell whether a page is to be read by OCR: it has no letters, or a few (a stamp) beside pictures on most of it."""
    letters = sum(char.isalnum() for line in lines for char in line.text)
    if letters >= _STAMP:
        return _State.TEXT
    if not letters:
        return _State.PICTURE if pdfium.FPDFPage_CountObjects(page.raw) > 0 else _State.BLANK
    width, height = page.get_size()
    images = islice(page.get_objects([pdfium.FPDF_PAGEOBJ_IMAGE]), _MOST_IMAGES)
    boxes = [image.get_bounds() for image in images]
    covered = sum((right - left) * (top - bottom) for left, bottom, right, top in boxes)
    return _State.PICTURE if covered > width * height / 2 else _State.TEXT


def _read_pictures(document: pypdfium2.PdfDocument, pages: list[_Page], draft: Draft) -> None:
    """Read by OCR the pages that are pictures, where there is something that can."""
    pictures = [number for number, page in enumerate(pages) if page.state is _State.PICTURE]
    if not pictures or ocr.engine(draft.limits) is None:
        return
    draft.take_time()
    for count, index in enumerate(pictures, start=1):
        lines = ocr.read_picture(*_picture(document, index, draft.limits), draft.limits)
        if lines:
            pages[index].lines, pages[index].state = lines, _State.READ
        elif pages[index].lines:
            pages[index].state = _State.TEXT
        draft.tell((len(pages) - len(pictures) + count) / len(pages))


def _picture(document: pypdfium2.PdfDocument, index: int, limits: IngestSettings) -> tuple[ocr.Grey, float]:
    """Return a page as grey values, and their dots per inch: fewer than usual for a page of many square feet."""
    page = document[index]
    width, height = (max(side, 1.0) for side in page.get_size())
    scale = min(limits.ocr_dpi / 72, (limits.max_pixels / (width * height)) ** 0.5, _LONGEST / max(width, height))
    bitmap = page.render(scale=scale, grayscale=True)
    grey = np.array(bitmap.to_numpy()).reshape(bitmap.height, bitmap.width)
    bitmap.close()
    page.close()
    return grey, 72 * scale


def _garbled(pages: list[list[Line]]) -> bool:
    """Tell a text layer that bad OCR wrote: signs stand inside its words (0 to 0.2 % elsewhere, 5 % where seen)."""
    words = [word for lines in pages for line in lines for word in line.text.split() if _LETTER.search(word)]
    return len(words) >= 50 and sum(bool(_SIGN_IN_WORD.search(word)) for word in words) > 0.02 * len(words)


def open_pdf(path: Path) -> pypdfium2.PdfDocument:
    """Open a PDF with the fields of its forms, under `ONE_AT_A_TIME`; the caller closes it.

    Raises `EncryptedDocument`, `UnsupportedDocument` and `DamagedDocument`.
    """
    try:
        document = pypdfium2.PdfDocument(path)
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
    with suppress(pypdfium2.PdfiumError):  # a form that is damaged: what is printed on its pages is read
        document.init_forms()
    return document


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


def _fields(document: pypdfium2.PdfDocument, page: Any) -> list[str]:
    """Return "name: value" of each filled field of a form on the page, from the top down; boxes say yes or no."""
    if document.formenv is None:
        return []
    form, found = document.formenv.raw, []
    for index in range(min(pdfium.FPDFPage_GetAnnotCount(page.raw), _MOST_FIELDS)):
        field = pdfium.FPDFPage_GetAnnot(page.raw, index)
        if field and pdfium.FPDFAnnot_GetSubtype(field) == pdfium.FPDF_ANNOT_WIDGET:
            name = _told(pdfium.FPDFAnnot_GetFormFieldAlternateName, form, field)  # what the reader of the form is told
            name = name or _told(pdfium.FPDFAnnot_GetFormFieldName, form, field)
            if value := _value(form, field):
                place = pdfium.FS_RECTF()
                pdfium.FPDFAnnot_GetRect(field, place)
                found.append((-round(place.top), place.left, f"{one_line(name)}: {one_line(value)}"))
        pdfium.FPDFPage_CloseAnnot(field)
    return list(dict.fromkeys(text for _, _, text in sorted(found)))


def _value(form: Any, field: Any) -> str:
    """Return what is filled in, as text; nothing for buttons, signatures, passwords and what is left empty."""
    match pdfium.FPDFAnnot_GetFormFieldType(form, field):
        case pdfium.FPDF_FORMFIELD_CHECKBOX:
            return "yes" if pdfium.FPDFAnnot_IsChecked(form, field) else "no"
        case pdfium.FPDF_FORMFIELD_RADIOBUTTON:
            chosen = pdfium.FPDFAnnot_IsChecked(form, field)
            return _told(pdfium.FPDFAnnot_GetFormFieldExportValue, form, field) if chosen else ""
        case pdfium.FPDF_FORMFIELD_COMBOBOX | pdfium.FPDF_FORMFIELD_LISTBOX:
            return _chosen(form, field) or _told(pdfium.FPDFAnnot_GetFormFieldValue, form, field)
        case pdfium.FPDF_FORMFIELD_TEXTFIELD:
            secret = pdfium.FPDFAnnot_GetFormFieldFlags(form, field) & pdfium.FPDF_FORMFLAG_TEXT_PASSWORD
            return "" if secret else _told(pdfium.FPDFAnnot_GetFormFieldValue, form, field)
        case _:
            return ""


def _chosen(form: Any, field: Any) -> str:
    """Return the labels of the options that are chosen, which read better than the values behind them."""
    count = min(pdfium.FPDFAnnot_GetOptionCount(form, field), _MOST_FIELDS)
    chosen = (index for index in range(count) if pdfium.FPDFAnnot_IsOptionSelected(form, field, index))
    return ", ".join(_told(pdfium.FPDFAnnot_GetOptionLabel, form, field, index) for index in chosen)


def _told(ask: Any, *about: Any) -> str:
    """Return the text that a function of PDFium gives in UTF-16, of which it first tells the size."""
    size = ask(*about, None, 0)
    if size <= 2:
        return ""
    buffer = (ctypes.c_ushort * ((size + 1) // 2))()
    ask(*about, buffer, size)
    return bytes(buffer)[:size].decode("utf-16-le", "replace").rstrip("\0")


def _lines(page: Any) -> tuple[list[Line], list[str]]:
    """Return the lines of a page in the order of PDFium, which is right where the letters stand upright.

    What a reader of the page does not see comes as text of its own.
    """
    text = page.get_textpage()
    rotation, upright = page.get_rotation(), _upright(text)
    if rotation != upright:
        text.close()
        page.set_rotation(upright)
        text = page.get_textpage()
    lines: list[Line] = []
    hidden: list[str] = []
    letters = hidden_letters(page, text)
    for start, end, is_hidden in _seen_apart(text, letters):
        line = _measured(text.raw, start, end)
        if line is not None:
            if is_hidden or line.size < LEAST_SIZE or is_beside(page, _ends(text.raw, start, end)):
                hidden.append(line.text)
            elif lines and (joined := _same_line(lines[-1], line)):
                lines[-1] = joined
            else:
                lines.append(line)
    text.close()
    page.set_rotation(rotation)
    return lines, hidden


def _seen_apart(text: Any, hidden: frozenset[int]) -> Iterator[tuple[int, int, bool]]:
    """Yield start and end of each line, in parts where some of its letters are hidden; True for those."""
    for start, end in _line_spans(text):
        if hidden.isdisjoint(range(start, end)):
            yield start, end, False
            continue
        states = [position in hidden for position in range(start, end)]
        for position in range(start + 1, end):  # a space is of the part before it
            if chr(_code(text.raw, position)).isspace():
                states[position - start] = states[position - start - 1]
        for is_hidden, part in groupby(range(start, end), key=lambda position: states[position - start]):
            positions = list(part)
            yield positions[0], positions[-1] + 1, is_hidden


def _ends(raw: Any, start: int, end: int) -> list[tuple[float, float]]:
    return [_origin(raw, position) for position in (start, (start + end) // 2, end - 1)]


def _upright(text: Any) -> int:
    """Return the rotation of the page, in degrees, in which most of its letters stand upright."""
    count = text.count_chars()
    sample = range(0, count, max(1, count // _SAMPLE))
    turns = Counter(round(pdfium.FPDFText_GetCharAngle(text.raw, index) / (math.pi / 2)) % 4 for index in sample)
    return 90 * turns.most_common(1)[0][0] if turns else 0


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
    wide = WIDE_GAP * size if abs(math.sin(angle)) < 0.01 else math.inf  # boxes of turned letters tell no gaps
    cells = list(_cells(raw, visible[0], visible[-1] + 1, wide))
    return Line(
        cells=tuple(_text(raw, *cell) for cell in cells),
        starts=tuple(_turned(_origin(raw, begin), angle)[0] for begin, _ in cells),
        size=size,
        bold=all(_is_bold(raw, sample) for sample in {first, letters[len(letters) // 2], last}),
        left=min(left, right),  # the first letter of Arabic is the rightmost
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
    chars: list[str] = []
    for position in range(start, end):
        char = _code(raw, position)
        if char == _LAM and chars and chars[-1] in _ALEFS and _origin(raw, position) == _origin(raw, position - 1):
            chars.insert(-1, chr(char))  # one sign for two letters, which PDFium turns round with the line
        elif char:
            chars.append(HYPHEN if char in {0x02, 0xFFFE} else chr(char))
    return _TOUCHING.sub(" ", _STRAY_MARK.sub(r"\2\1", "".join(chars)))


def _same_line(before: Line, after: Line) -> Line | None:
    """Return two pieces of one printed line as one: PDFium breaks it at raised signs and between cells."""
    gap = after.left - before.right
    if before.cells[-1].endswith(HYPHEN) or abs(before.baseline - after.baseline) > 0.45 * max(before.size, after.size):
        return None
    if gap < -1.2 * max(before.size, after.size):
        return None
    main = before if len(before.text) >= len(after.text) else after
    if gap > WIDE_GAP * max(before.size, after.size):
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
