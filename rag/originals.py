"""The originals: uploaded files kept by content, beside the catalog.

A file is written to a temporary name, flushed to disk and renamed to its SHA-256, so that a name that exists is whole.
Knows nothing of documents: who still needs a file is the catalog's to say.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from rag.errors import DocumentTooLarge, NotFound

BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class Original:
    """A stored file: lower-case hexadecimal SHA-256 and size in bytes."""

    sha256: str
    size: int


def blocks_of(stream: BinaryIO) -> Iterator[bytes]:
    """Yield ``stream`` in blocks, so that memory does not grow with its size."""
    while block := stream.read(BLOCK):
        yield block


class Originals:
    """Files in ``folder``, each at ``ab/abcdef...`` by its digest."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def path(self, sha256: str) -> Path:
        """Return where the file with this digest lies; raises `NotFound` if it does not."""
        path = self.folder / sha256[:2] / sha256
        if not path.is_file():
            raise NotFound(
                f"The original with digest {sha256[:12]}... is missing from the data folder; upload it again."
            )
        return path

    def store(self, blocks: Iterable[bytes], max_bytes: int) -> Original:
        """Write ``blocks`` durably and return the file's digest and size. Storing the same bytes twice keeps one file.

        Raises `DocumentTooLarge` as soon as more than ``max_bytes`` have come; nothing is left behind then.
        """
        hasher = hashlib.sha256()
        size = 0
        handle, name = tempfile.mkstemp(prefix="incoming-", dir=self.folder)
        temporary = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                for block in blocks:
                    size += len(block)
                    if size > max_bytes:
                        raise DocumentTooLarge(
                            f"The file is larger than the limit of {max_bytes:,} bytes (ingest.max_file_bytes); "
                            "split it or raise the limit."
                        )
                    hasher.update(block)
                    file.write(block)
                file.flush()
                os.fsync(file.fileno())
            target = self.folder / hasher.hexdigest()[:2] / hasher.hexdigest()
            target.parent.mkdir(exist_ok=True)
            temporary.replace(target)
            sync_folder(target.parent)
            sync_folder(self.folder)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        return Original(hasher.hexdigest(), size)

    def remove(self, sha256: str) -> None:
        """Remove the file with this digest, if it is there."""
        (self.folder / sha256[:2] / sha256).unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Flush a folder's own entries to disk, so that a rename in it survives a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
