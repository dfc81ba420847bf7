"""The originals: uploaded files kept by content, beside the catalog.

A file is written to a temporary name, flushed to disk and renamed to its SHA-256, so that a name that exists is whole.
Knows nothing of documents: who still needs a file is the catalog's to say. So that no file is removed between its
arrival and the row that needs it, both happen under one lock: `arriving` is shared, `clearing` is alone.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Self

from rag.errors import DocumentTooLarge, NotFound, Unavailable

BLOCK = 1 << 20
#: Seconds that `clearing` waits for arrivals to end.
PATIENCE = 60.0
_INCOMING = "incoming-"


@dataclass(frozen=True, slots=True)
class Original:
    """A stored file: lower-case hexadecimal SHA-256 and size in bytes."""

    sha256: str
    size: int


def blocks_of(stream: BinaryIO) -> Iterator[bytes]:
    """Yield ``stream`` in blocks, so that memory does not grow with its size."""
    while block := stream.read(BLOCK):
        yield block


class Incoming:
    """A file on its way in; it is removed at the end of its ``with`` block unless `keep` was called.

    Its open file is locked, so that one that a dead process left behind can be told from one that still grows.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder, self._max_bytes = folder, max_bytes
        with _storing():
            self._path, self._file = _locked_file(folder)
        self._hasher, self._size, self._flushed = hashlib.sha256(), 0, False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):  # of what the disk did not take, and nobody wants any more
            self._file.close()
        self._path.unlink(missing_ok=True)

    def write(self, block: bytes) -> None:
        """Add to the file. Raises `DocumentTooLarge` as soon as more than the limit has come, `Unavailable` if the
        disk takes no more; so do `flush` and `keep`.
        """
        self._size += len(block)
        if self._size > self._max_bytes:
            raise DocumentTooLarge(
                f"The file is larger than the limit of {self._max_bytes:,} bytes (ingest.max_file_bytes); "
                "split it or raise the limit."
            )
        self._hasher.update(block)
        self._flushed = False
        with _storing():
            self._file.write(block)

    def flush(self) -> None:
        """Bring all of it to the disk, which takes a while and needs no lock."""
        with _storing():
            self._file.flush()
            os.fsync(self._file.fileno())
        self._flushed = True

    def keep(self) -> Original:
        """Give the file its name for good; it survives a power cut from here on."""
        if not self._flushed:
            self.flush()
        target = self._folder / self._hasher.hexdigest()[:2] / self._hasher.hexdigest()
        with _storing():
            target.parent.mkdir(exist_ok=True)
            self._path.replace(target)
            sync_folder(target.parent)
            sync_folder(self._folder)  # another process may have made the folder, and not have got so far
        return Original(self._hasher.hexdigest(), self._size)


class Originals:
    """Files in ``folder``, each at ``ab/abcdef...`` by its digest. `clearing` waits ``patience`` seconds."""

    def __init__(self, folder: Path, patience: float = PATIENCE) -> None:
        self.folder, self._patience = folder, patience
        folder.mkdir(parents=True, exist_ok=True)

    def path(self, sha256: str) -> Path:
        """Return where the file with this digest lies; raises `NotFound` if it does not."""
        path = self._place(sha256)
        if not path.is_file():
            raise NotFound(
                f"The original with digest {sha256[:12]}... is missing from the data folder; upload it again."
            )
        return path

    def has(self, sha256: str) -> bool:
        """Say whether the file with this digest is there."""
        return self._place(sha256).is_file()

    def incoming(self, max_bytes: int) -> Incoming:
        """Open a file that comes in; its `keep` must be called under `arriving`."""
        return Incoming(self.folder, max_bytes)

    def store(self, blocks: Iterable[bytes], max_bytes: int) -> Original:
        """Write ``blocks`` durably and return the file's digest and size. Storing the same bytes twice keeps one file.

        Raises `DocumentTooLarge` as soon as more than ``max_bytes`` have come; nothing is left behind then.
        """
        with self.incoming(max_bytes) as file:
            for block in blocks:
                file.write(block)
            return file.keep()

    @contextmanager
    def arriving(self) -> Iterator[None]:
        """Keep files from being removed until the row that needs them is committed."""
        with self._locked(fcntl.LOCK_SH):
            yield

    @contextmanager
    def clearing(self) -> Iterator[None]:
        """Keep files from arriving while it is looked up who needs them. Raises `Unavailable` if they never pause."""
        with self._locked(fcntl.LOCK_EX | fcntl.LOCK_NB):
            yield

    @contextmanager
    def _locked(self, how: int) -> Iterator[None]:
        deadline = time.monotonic() + self._patience
        with (self.folder / ".lock").open("w") as stream:
            while True:
                try:
                    fcntl.flock(stream, how)
                    break
                except BlockingIOError as error:
                    if time.monotonic() > deadline:
                        raise Unavailable("Files arrive without a pause; try again later.") from error
                    time.sleep(0.05)
            yield

    def remove(self, sha256: str) -> int:
        """Remove the file with this digest, if it is there, and return how many bytes it had."""
        path = self._place(sha256)
        try:
            size = path.stat().st_size
            path.unlink()
        except FileNotFoundError:
            return 0
        return size

    def list(self) -> list[str]:
        """Return the digests of all files."""
        return [file.name for folder in self.folder.glob("[0-9a-f][0-9a-f]") for file in folder.iterdir()]

    def sweep_incoming(self) -> int:
        """Remove what dead processes left half written; return how many files that were."""
        swept = 0
        for path in self.folder.glob(f"{_INCOMING}*"):
            try:
                with path.open("rb") as stream:
                    fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    path.unlink()
                    swept += 1
            except (BlockingIOError, FileNotFoundError):  # it still grows, or has been kept or removed meanwhile
                continue
        return swept

    def _place(self, sha256: str) -> Path:
        return self.folder / sha256[:2] / sha256


@contextmanager
def _storing() -> Iterator[None]:
    """Say of a disk that is full or broken that it is at fault, and not the file."""
    try:
        yield
    except OSError as error:
        raise Unavailable(f"The data folder takes no more: {error.strerror}.") from error


def _locked_file(folder: Path) -> tuple[Path, BinaryIO]:
    """Make a file and lock it, again if a sweep came between the two and took it for one that nobody writes."""
    while True:
        handle, name = tempfile.mkstemp(prefix=_INCOMING, dir=folder)
        file = os.fdopen(handle, "wb")
        fcntl.flock(file, fcntl.LOCK_EX)
        if os.fstat(handle).st_nlink:
            return Path(name), file
        file.close()


def sync_folder(folder: Path) -> None:
    """Flush a folder's own entries to disk, so that a rename in it survives a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
