"""What a page of a PDF says and its reader does not see: letters that leave no trace on the printed page.

Letters in the colour of paper are printed with and without them, and are seen where that makes a difference. Letters
that are not printed at all are what OCR lays over a scan: they stand for what the picture shows under them, and are
hidden where there is no picture, or nothing on it there. Specks, and what is beside the page, are for `is_beside` and
the reader of the lines. What one thing covers of another (a black bar over text) is not looked for.

Shares pypdfium2 with `ingest.pdf`, which enters it by one at a time. Knows no lines and no text.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pypdfium2.raw as pdfium

from ingest.hidden import SAME_COLOUR

_SCALE = 1.5  # pixels a point
_MOST_PIXELS = 8_000_000
_NOT_PRINTED = {pdfium.FPDF_TEXTRENDERMODE_INVISIBLE, pdfium.FPDF_TEXTRENDERMODE_CLIP}
_PALE, _FAINT = 200, 30  # of 255: as light, or as little opaque, as that may be too little to be seen

Pixels = np.ndarray[Any, np.dtype[np.uint8]]


@dataclass(frozen=True, slots=True)
class _Suspect:
    """A piece of text that may not be seen. ``is_printed``: it is drawn, in whatever colour."""

    handle: Any
    is_printed: bool
    mode: int


def hidden_letters(page: Any, text: Any) -> frozenset[int]:
    """Return the positions of the letters that a reader of ``page`` does not see; ``text`` is its text page.

    Most pages have no letters that are worth a look, and cost next to nothing.
    """
    suspects, has_pictures = _suspects(page)
    if not suspects:
        return frozenset()
    places = _places(text, suspects)
    invisible = [address for address in places if not suspects[address].is_printed]
    printed = [address for address in places if suspects[address].is_printed]
    picture = _Picture(page)
    hidden = set(printed) | set(invisible)
    if printed or has_pictures:
        shown = picture.drawn()
        hidden -= {
            address for address in invisible if has_pictures and _spread(picture.cut(shown, text, places[address]))
        }
        if printed:
            with _unprinted([suspects[address] for address in printed]):
                bare = picture.drawn()
            hidden -= {
                address
                for address in printed
                if _differ(picture.cut(shown, text, places[address]), picture.cut(bare, text, places[address]))
            }
    return frozenset(place for address in hidden for place in places[address])


def is_beside(page: Any, origins: Iterable[tuple[float, float]]) -> bool:
    """Say whether all letters at ``origins`` stand beside the page."""
    left, bottom, right, top = page.get_cropbox()
    return all(not (left <= x <= right and bottom <= y <= top) for x, y in origins)


def _suspects(page: Any) -> tuple[dict[int, _Suspect], bool]:
    """Return the pieces of text that may not be seen, by address, and whether there are pictures."""
    found: dict[int, _Suspect] = {}
    has_pictures = False
    for piece in page.get_objects([pdfium.FPDF_PAGEOBJ_TEXT, pdfium.FPDF_PAGEOBJ_IMAGE, pdfium.FPDF_PAGEOBJ_SHADING]):
        if piece.type != pdfium.FPDF_PAGEOBJ_TEXT:
            has_pictures = True
            continue
        mode = int(pdfium.FPDFTextObj_GetTextRenderMode(piece.raw))
        if mode in _NOT_PRINTED or _is_pale(piece.raw, mode):
            found[_address(piece.raw)] = _Suspect(piece.raw, mode not in _NOT_PRINTED, mode)
    return found, has_pictures


def _is_pale(piece: Any, mode: int) -> bool:
    ask = (
        pdfium.FPDFPageObj_GetStrokeColor
        if mode == pdfium.FPDF_TEXTRENDERMODE_STROKE
        else pdfium.FPDFPageObj_GetFillColor
    )
    parts = [ctypes.c_uint() for _ in range(4)]
    if not ask(piece, *parts):
        return False
    *colour, opaque = (part.value for part in parts)
    return opaque < _FAINT or min(colour) >= _PALE


def _places(text: Any, suspects: Mapping[int, _Suspect]) -> dict[int, list[int]]:
    """Return the positions of the letters of each suspect that has some."""
    places: dict[int, list[int]] = {}
    for position in range(text.count_chars()):
        address = _address(pdfium.FPDFText_GetTextObject(text.raw, position))
        if address in suspects:
            places.setdefault(address, []).append(position)
    return places


def _address(handle: Any) -> int:
    return ctypes.cast(handle, ctypes.c_void_p).value or 0


@contextmanager
def _unprinted(suspects: Sequence[_Suspect]) -> Any:
    """While this lasts, these pieces of text are not printed."""
    for suspect in suspects:
        pdfium.FPDFTextObj_SetTextRenderMode(suspect.handle, pdfium.FPDF_TEXTRENDERMODE_INVISIBLE)
    try:
        yield
    finally:
        for suspect in suspects:
            pdfium.FPDFTextObj_SetTextRenderMode(suspect.handle, suspect.mode)


class _Picture:
    """A page as it is printed, and where letters are on it."""

    def __init__(self, page: Any) -> None:
        self._page = page
        width, height = (max(side, 1.0) for side in page.get_size())
        self._scale = min(_SCALE, (_MOST_PIXELS / (width * height)) ** 0.5)
        self._place: Any = None

    def drawn(self) -> Pixels:
        bitmap = self._page.render(scale=self._scale, may_draw_forms=False)
        self._place = bitmap.get_posconv(self._page)
        pixels = np.array(bitmap.to_numpy())
        bitmap.close()
        return pixels.reshape(*pixels.shape[:2], -1)[:, :, :3]

    def cut(self, pixels: Pixels, text: Any, places: Sequence[int]) -> Pixels:
        """Return the part of a drawn page on which letters stand."""
        corners = [self._place.to_bitmap(x, y) for place in places for x, y in _corners(text.raw, place)]
        (left, right), (top, bottom) = ((min(side), max(side) + 1) for side in zip(*corners, strict=True))
        return pixels[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)]


def _corners(raw: Any, position: int) -> tuple[tuple[float, float], tuple[float, float]]:
    left, right, bottom, top = (ctypes.c_double() for _ in range(4))
    pdfium.FPDFText_GetCharBox(raw, position, left, right, bottom, top)
    return (left.value, bottom.value), (right.value, top.value)


def _spread(pixels: Pixels) -> bool:
    """Say whether there is anything to be seen on a part of a page."""
    if not pixels.size:
        return False
    colours = pixels.reshape(-1, pixels.shape[-1]).astype(np.int16)
    return bool((colours.max(axis=0) - colours.min(axis=0)).max() >= SAME_COLOUR)


def _differ(one: Pixels, other: Pixels) -> bool:
    return bool(one.size) and bool(np.abs(one.astype(np.int16) - other.astype(np.int16)).max() >= SAME_COLOUR)
