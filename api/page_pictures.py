"""Pages of PDFs as pictures for who reads a citation: drawn in a process of their own, the last ones kept in memory.

Drawing is bounded by pixels, seconds and memory, since documents are hostile. Knows no route and no catalog.
"""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from ingest.drawing import Mark, View, as_png
from ingest.sandbox import Sandbox
from rag.errors import DamagedDocument, DocumentRejected, DocumentTooSlow
from rag.settings import Settings

#: Bytes of the pictures that are kept, and of the address space that drawing may use.
KEPT_BYTES, MEMORY_BYTES = 64 << 20, 1 << 30


@dataclass(frozen=True, slots=True)
class Picture:
    """A page as a PNG file, and where the quote stands on it."""

    png: bytes
    marks: tuple[Mark, ...]


class PagePictures:
    """Draws one page at a time; others wait, and hold up no thread that somebody else needs."""

    def __init__(self, settings: Settings) -> None:
        limits = settings.ingest.model_copy(
            update={
                "parse_seconds": settings.server.page_seconds,
                "parse_memory_bytes": min(settings.ingest.parse_memory_bytes, MEMORY_BYTES),
                "max_pixels": settings.server.page_pixels,
            }
        )
        self._seconds = settings.server.page_seconds
        self._sandbox = Sandbox(limits, drawing=True)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="pages")
        self._kept: OrderedDict[str, Picture] = OrderedDict()
        self._lock = threading.Lock()

    def close(self) -> None:
        """End the process that draws, in the middle of a page if need be, and forget the pictures."""
        self._thread.shutdown(wait=False, cancel_futures=True)
        self._sandbox.abort()
        self._sandbox.close()
        with self._lock:
            self._kept.clear()

    async def draw(self, original: Path, key: str, view: View) -> Picture:
        """Return a page of the PDF at ``original``; ``key`` names the picture, see `key_of`.

        Raises `DocumentTooSlow` or `DamagedDocument` for one that can not be drawn, and `Unavailable`.
        """
        if (kept := self._recalled(key)) is not None:
            return kept
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._draw, original, key, view)

    def _recalled(self, key: str) -> Picture | None:
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def _draw(self, original: Path, key: str, view: View) -> Picture:
        if (kept := self._recalled(key)) is not None:  # somebody else has asked for it meanwhile
            return kept
        try:
            drawn = self._sandbox.draw(original, view)
        except DocumentTooSlow as error:
            raise DocumentTooSlow(
                f"Drawing page {view.page} took longer than {self._seconds:g} seconds (server.page_seconds); fetch the "
                "original instead."
            ) from error
        except DocumentRejected as error:
            raise DamagedDocument(
                f"Page {view.page} of this document can not be drawn; fetch the original instead.", cause=error.message
            ) from error
        picture = Picture(as_png(drawn), drawn.marks)
        with self._lock:
            self._kept[key] = picture
            while len(self._kept) > 1 and sum(len(kept.png) for kept in self._kept.values()) > KEPT_BYTES:
                self._kept.popitem(last=False)
        return picture


def key_of(sha256: str, view: View) -> str:
    """Return what tells the picture of a page from all others: the digest of the original and of what is marked."""
    told = "\0".join((sha256, str(view.page), view.quote, view.before))
    return hashlib.sha256(told.encode("utf-8", "surrogatepass")).hexdigest()[:32]
