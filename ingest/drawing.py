"""A page of a document as a picture, with the words marked that somebody quotes: what is asked for and what comes back.

The pixels come from a process that a hostile document may have taken over; the file that a browser gets is written
here, so that whatever the pixels show, it is a plain picture. Knows no PDF and no process.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

#: Bytes of one pixel: red, green, blue.
DEPTH = 3
#: Most marks on one page, and most characters of the words to mark.
MOST_MARKS, MOST_QUOTED = 200, 20_000
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_UP = 2  # each byte as the difference to the one above it: what is white, or like the line above, packs well

#: Left, top, right and bottom as shares of the page's width and height, from its top left corner.
Mark = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class View:
    """A page, from 1, and the words to mark on it; ``before`` are some that stand before them, to tell copies apart."""

    page: int
    quote: str = ""
    before: str = ""


@dataclass(frozen=True, slots=True)
class Drawn:
    """A page as rows of pixels, and where the quote stands on it: no mark where it was not found."""

    width: int
    height: int
    pixels: bytes
    marks: tuple[Mark, ...]


def drawn_from(answer: Mapping[str, Any], pixels: bytes, most: int) -> Drawn:
    """Make a `Drawn` of what the drawing process says.

    Raises `ValueError`, `TypeError` or `KeyError` for what our own code does not say: other sizes than the pixels have,
    more than ``most`` of them, marks beside the page.
    """
    width, height = answer["width"], answer["height"]
    if not (isinstance(width, int) and isinstance(height, int) and width > 0 and height > 0):
        raise ValueError("no size")
    if width * height > most or len(pixels) != width * height * DEPTH:
        raise ValueError("another size than that of the pixels")
    if len(answer["marks"]) > MOST_MARKS:
        raise ValueError("more marks than there may be")
    return Drawn(width, height, pixels, tuple(_mark(*mark) for mark in answer["marks"]))


def as_png(drawn: Drawn) -> bytes:
    """Return the picture as a PNG file [1].

    [1] W3C, Portable Network Graphics (PNG) Specification (Third Edition), sections 5 (chunks), 9 (filters).
    """
    rows = np.frombuffer(drawn.pixels, dtype=np.uint8).reshape(drawn.height, drawn.width * DEPTH)
    filtered = np.empty((drawn.height, 1 + rows.shape[1]), dtype=np.uint8)
    filtered[:, 0] = _UP
    filtered[0, 1:] = rows[0]
    np.subtract(rows[1:], rows[:-1], out=filtered[1:, 1:])
    header = struct.pack(">IIBBBBB", drawn.width, drawn.height, 8, 2, 0, 0, 0)
    data = zlib.compress(filtered.tobytes(), 5)
    return _SIGNATURE + _chunk(b"IHDR", header) + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


def _mark(left: float, top: float, right: float, bottom: float) -> Mark:
    if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
        raise ValueError("a mark beside the page")
    return float(left), float(top), float(right), float(bottom)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
