"""A page of a PDF as pixels, with the words of a quote marked where PDFium says that they stand.

Words are compared by their letters and digits alone: spaces, line breaks, hyphens at the ends of lines and the signs
between the cells of a table differ between a page and the text that was read of it. Runs in the drawing process alone
(`ingest.sandbox`). Owns pypdfium2 together with `ingest.pdf`; knows no picture format.
"""

from __future__ import annotations

import ctypes
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pypdfium2
import pypdfium2.raw as pdfium

from ingest.drawing import MOST_MARKS, Drawn, Mark, View
from ingest.pdf import ONE_AT_A_TIME, open_pdf
from rag.errors import DamagedDocument
from rag.settings import IngestSettings

#: Dots per inch where the limit of pixels allows it: sharp on a dense screen.
DPI = 150
#: What a mark leaves of the red, green and blue of the paper, as a highlighter does: black stays black.
TINT = (255, 226, 122)
#: Letters: a part of a quote that has fewer is found anywhere, and says nothing.
_LEAST, _LEAST_END = 4, 16
_CONTEXT = (80, 40, 20, 0)
_LONGEST = 12_000
_PARTS = re.compile(r"[\n|]+")


def draw_page(path: Path, view: View, limits: IngestSettings) -> Drawn:
    """Return a page with ``view.quote`` marked; at most ``limits.max_pixels``, fewer where `DPI` needs fewer.

    Raises `EncryptedDocument`, `UnsupportedDocument` and `DamagedDocument`, the last also where there is no such page.
    """
    with ONE_AT_A_TIME:
        document = open_pdf(path)
        try:
            if not 1 <= view.page <= len(document):
                raise DamagedDocument(f"The PDF has no page {view.page}; its last one is {len(document)}.")
            page = document[view.page - 1]
            pixels = _pixels(page, limits)
            marks = _marks(page, view, pixels.shape[1], pixels.shape[0])
            page.close()
        except pypdfium2.PdfiumError as error:
            raise DamagedDocument(
                "This page is damaged: open the document in a PDF program and save it anew."
            ) from error
        finally:
            document.close()
    for mark in marks:
        _tint(pixels, mark)
    return Drawn(pixels.shape[1], pixels.shape[0], pixels.tobytes(), marks)


def _pixels(page: Any, limits: IngestSettings) -> np.ndarray[Any, np.dtype[np.uint8]]:
    width, height = (max(side, 1.0) for side in page.get_size())
    # Sides are rounded up to whole pixels.
    fits = ((limits.max_pixels / (width * height)) ** 0.5, _LONGEST / max(width, height), DPI / 72)
    scale = min(fits)
    while -(-width * scale // 1) * -(-height * scale // 1) > limits.max_pixels:
        scale *= 0.99
    bitmap = page.render(scale=scale, rev_byteorder=True)
    seen = bitmap.to_numpy()
    colours = np.repeat(seen.reshape(*seen.shape[:2], 1), 3, axis=2) if seen.ndim == 2 else seen[:, :, :3]
    pixels = np.array(colours)
    bitmap.close()
    return pixels


def _tint(pixels: np.ndarray[Any, np.dtype[np.uint8]], mark: Mark) -> None:
    height, width = pixels.shape[:2]
    left, top, right, bottom = mark
    part = pixels[int(top * height) : round(bottom * height), int(left * width) : round(right * width)]
    part[:] = (part.astype(np.uint16) * np.array(TINT, dtype=np.uint16) // 255).astype(np.uint8)


def _marks(page: Any, view: View, width: int, height: int) -> tuple[Mark, ...]:
    text = page.get_textpage()
    try:
        spans = quoted_spans(_characters(text), view.quote, view.before)
        boxes = [box for start, end in spans for box in _boxes(page, text, start, end, width, height)]
    finally:
        text.close()
    return tuple(boxes[:MOST_MARKS])


def _characters(text: Any) -> list[str]:
    codes = (int(pdfium.FPDFText_GetUnicode(text.raw, at)) for at in range(text.count_chars()))
    return [chr(code) if 0 < code < 0x110000 else "\0" for code in codes]


def _boxes(page: Any, text: Any, start: int, end: int, width: int, height: int) -> Iterator[Mark]:
    """Yield the places of a span of characters, one for each line that it stands on."""
    for index in range(min(pdfium.FPDFText_CountRects(text.raw, start, end - start), MOST_MARKS)):
        left, top, right, bottom = (ctypes.c_double() for _ in range(4))
        pdfium.FPDFText_GetRect(text.raw, index, left, top, right, bottom)
        corners = [_on_picture(page, x, y, width, height) for x, y in ((left, top), (right, bottom))]
        (x0, x1), (y0, y1) = (sorted(corner[side] for corner in corners) for side in (0, 1))
        air = 0.12 * min(x1 - x0, y1 - y0)
        mark = _share(x0 - air, width), _share(y0 - air, height), _share(x1 + air, width), _share(y1 + air, height)
        if mark[0] < mark[2] and mark[1] < mark[3]:
            yield mark


def _on_picture(page: Any, x: ctypes.c_double, y: ctypes.c_double, width: int, height: int) -> tuple[int, int]:
    """Return a place of the page in pixels of its picture, however the page is turned or cut."""
    across, down = ctypes.c_int(), ctypes.c_int()
    pdfium.FPDF_PageToDevice(page.raw, 0, 0, width, height, 0, x.value, y.value, across, down)
    return across.value, down.value


def _share(pixels: float, side: int) -> float:
    return min(1.0, max(0.0, pixels / side))


# -- where a quote stands among the characters of a page -------------------------------------------------------------


def quoted_spans(characters: Sequence[str], quote: str, before: str = "") -> list[tuple[int, int]]:
    """Return where ``quote`` stands in the characters of a page, as half-open spans in their order.

    One span where all of it does, chosen by the words ``before`` it if it stands there several times; else one for each
    of its lines and cells that are found one after the other; else one for its beginning or its end, whichever of them
    is on this page; none if nothing is.
    """
    letters, places = _lettered(characters)
    wanted, _ = _lettered(quote)
    if not wanted:
        return []
    context, _ = _lettered(before)
    for size in _CONTEXT:
        head = context[-size:] if size else ""
        at = letters.find(head + wanted)
        if at >= 0:
            return [_span(places, at + len(head), at + len(head) + len(wanted))]
    return _in_parts(letters, places, quote) or _cut_off(letters, places, wanted)


def _lettered(text: Sequence[str]) -> tuple[str, list[int]]:
    """Return the letters and digits of a text in small, and for each the place of the character that it is of."""
    letters: list[str] = []
    places: list[int] = []
    for place, character in enumerate(text):
        for letter in unicodedata.normalize("NFKC", character).casefold():
            if letter.isalnum():
                letters.append(letter)
                places.append(place)
    return "".join(letters), places


def _span(places: Sequence[int], start: int, end: int) -> tuple[int, int]:
    return places[start], places[end - 1] + 1


def _in_parts(letters: str, places: Sequence[int], quote: str) -> list[tuple[int, int]]:
    """Return where the lines and cells of a quote stand, if all that say something do, each behind the one before."""
    parts = [part for part in (_lettered(piece)[0] for piece in _PARTS.split(quote)) if part]
    spans: list[tuple[int, int]] = []
    behind = 0
    for part in parts if len(parts) > 1 else ():
        at = letters.find(part, behind)
        if at < 0:
            return []
        if len(part) >= _LEAST or spans:
            spans.append(_span(places, at, at + len(part)))
        behind = at + len(part)
    return spans


def _cut_off(letters: str, places: Sequence[int], wanted: str) -> list[tuple[int, int]]:
    """Return where the longest beginning of a quote stands, or the longest end: it goes on on another page."""
    head = _most(len(wanted), lambda size: wanted[:size] in letters)
    tail = _most(len(wanted), lambda size: wanted[-size:] in letters)
    size, part = max((head, wanted[:head]), (tail, wanted[len(wanted) - tail :]))
    if size < _LEAST_END:
        return []
    at = letters.find(part)
    return [_span(places, at, at + size)]


def _most(size: int, fits: Callable[[int], bool]) -> int:
    """Return the greatest number up to ``size`` that fits, where each below one that fits does too."""
    least = 0
    while least < size:
        middle = (least + size + 1) // 2
        least, size = (middle, size) if fits(middle) else (least, middle - 1)
    return least
