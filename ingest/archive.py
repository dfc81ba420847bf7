"""ZIP, TAR and compressed files: each file inside becomes a document of its own.

Takes files out as streams, and counts every byte that really comes out: what an archive says of its own sizes is not
believed. Knows no format of the files inside and writes none of them anywhere itself. What is left out, and what is
taken under which name:

- Folders, hidden files and what operating systems drop (``__MACOSX``, ``Thumbs.db``) are left out, as in a folder.
- Names become relative paths with ``/`` between parts: a leading ``/`` or drive letter is dropped, as unzip and tar
  do; a file whose name leads out of the archive (``..``) is refused.
- Links, devices, encrypted files and unknown compressions are refused, one by one. Of two files with one name the
  second is refused, as in `ingest.sources`.
"""

from __future__ import annotations

import gzip
import io
import lzma
import re
import stat
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import IO, Self, cast

from ingest.detect import COMPRESSIONS, SMALL_ARCHIVE, decode
from ingest.draft import Draft
from rag.errors import DamagedDocument, DocumentTooLarge, EmptyDocument, EncryptedDocument

_BLOCK = 1 << 16
#: Folders and hidden files for each file that the settings allow: they are not taken, but they take time.
_ENTRIES_PER_MEMBER = 10
_LONGEST_PART = 200
_LONGEST_NAME = 800
_DROPPINGS = frozenset({"__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin"})
_DRIVES = re.compile(r"(?:[A-Za-z]:)+")
_ZIP_ENCRYPTED = 0x1
_ZIP_UTF8 = 0x800
_PROTECTED = "It is protected by a password: pack it without one."
#: Records of a TAR that only describe the next file; one is read into memory as a whole.
_TAR_DESCRIPTIONS = frozenset(
    {tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK}
)
_LONGEST_DESCRIPTION = 1 << 20

_DAMAGED = (
    zipfile.BadZipFile,
    tarfile.TarError,
    gzip.BadGzipFile,
    lzma.LZMAError,
    zlib.error,
    EOFError,
    OSError,
    ValueError,
)


def read_zip(path: Path, draft: Draft) -> None:
    """Take the files out of a ZIP archive.

    Raises `DocumentTooLarge` beyond a limit, `DamagedDocument` if any of it can not be unpacked, and `EmptyDocument`
    if no file is in it.
    """
    _check_depth(draft)
    taking = _Taking(path, draft)
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            _check_overlaps(entries)
            for entry in entries:
                _take_zip_entry(archive, entry, taking)
    except _DAMAGED as error:
        raise _damaged(error) from error
    _check_found(draft)


def read_tar(path: Path, draft: Draft) -> None:
    """Take the files out of a TAR archive, compressed or not. Raises what `read_zip` raises."""
    _check_depth(draft)
    taking = _Taking(path, draft)
    try:
        with (
            _unpacked(path) as file,
            tarfile.open(
                fileobj=cast(IO[bytes], _Metered(file, taking)), mode="r|", tarinfo=_TarEntry, encoding="utf-8"
            ) as archive,
        ):
            for entry in archive:
                _take_tar_entry(archive, entry, taking)
    except _DAMAGED as error:
        raise _damaged(error) from error
    _check_found(draft)


def read_compressed(path: Path, draft: Draft) -> None:
    """Take the one file out of a compressed file, under the name that `ingest.detect` found for it.

    Raises what `read_zip` raises.
    """
    _check_depth(draft)
    taking = _Taking(path, draft)
    try:
        with _unpacked(path) as file:
            taking.take(draft.metadata.get("holds") or "content", taking.counted(file))
    except _DAMAGED as error:
        raise _damaged(error) from error
    _check_found(draft)


class _Taking:
    """The files taken so far out of one archive, and what they may still unpack to."""

    def __init__(self, path: Path, draft: Draft) -> None:
        self._draft = draft
        self._entries = 0
        self._names: set[str] = set()
        self._ratio = draft.limits.archive_ratio
        self._left = min(max(SMALL_ARCHIVE, self._ratio * path.stat().st_size), draft.limits.archive_bytes)

    def take(self, name: str, blocks: Iterable[bytes]) -> None:
        name, problem = clean_name(name)
        if problem is None and name in self._names:
            problem = "Another file of the archive has the same name: rename one."
        if problem is not None:
            self.refuse(name, problem)
            return
        self._names.add(name)
        self._draft.member(name, blocks)

    def refuse(self, name: str, reason: str) -> None:
        name, _ = clean_name(name)
        unused = next(f"{name}{end}" for end in _endings() if f"{name}{end}" not in self._names)
        self._names.add(unused)
        self._draft.refuse_member(unused, reason)

    def is_wanted(self, name: str) -> bool:
        """Tell whether an entry is a file for readers, and count it."""
        self._entries += 1
        most = self._draft.limits.archive_members * _ENTRIES_PER_MEMBER
        if self._entries > most:
            raise DocumentTooLarge(
                f"The archive has more than {most:,} entries, folders and hidden files included, which is more than "
                "its limit of files can need: split it, or raise ingest.archive_members."
            )
        return not _is_hidden(name)

    def count(self, size: int) -> None:
        self._left -= size
        if self._left < 0:
            raise DocumentTooLarge(
                f"The archive unpacks to more than {self._ratio:,} times its size or to more than "
                f"{self._draft.limits.archive_bytes:,} bytes: split it, or raise ingest.archive_ratio or "
                "ingest.archive_bytes."
            )

    def counted(self, file: IO[bytes]) -> Iterator[bytes]:
        """Yield the bytes of ``file`` in blocks, and count them."""
        for block in _blocks(file):
            self.count(len(block))
            yield block


def _endings() -> Iterator[str]:
    yield ""
    number = 2
    while True:
        yield f" ({number})"
        number += 1


def _blocks(file: IO[bytes]) -> Iterator[bytes]:
    while block := file.read(_BLOCK):
        yield block


def clean_name(name: str) -> tuple[str, str | None]:
    """Return ``name`` as a relative path that can be shown and stored, and why its file is not taken, if it is not.

    The path has ``/`` between its parts and no ``..``, drive letter, backslash or invisible character, in either case.
    """
    shown = "".join(char if _is_shown(char) else "_" for char in unicodedata.normalize("NFC", name))
    parts = _parts(shown)
    reason = None
    if ".." in parts:
        reason = "The name leads out of the archive (..): pack the file anew with a name inside of it."
        parts = ["__" if part == ".." else part for part in parts]
    elif not parts:
        reason = "The file has no name: pack it anew with one."
        parts = ["unnamed"]
    elif len("/".join(parts)) > _LONGEST_NAME or any(len(part) > _LONGEST_PART for part in parts):
        reason = f"The name is too long ({len(shown):,} characters): pack the file anew with a shorter one."
        parts = [part[:_LONGEST_PART] for part in parts[-2:]]
    return "/".join(parts), reason


def _parts(name: str) -> list[str]:
    parts = [part for piece in name.replace("\\", "/").split("/") if (part := piece.strip()) not in {"", "."}]
    while parts and (drives := _DRIVES.match(parts[0])):
        first = parts.pop(0)[drives.end() :].strip()
        parts = parts if first in {"", "."} else [first, *parts]
    return parts


def _is_shown(char: str) -> bool:
    return char.isprintable() or (unicodedata.category(char) == "Zs")


def _is_hidden(name: str) -> bool:
    parts = [part for part in name.replace("\\", "/").split("/") if part not in {"", ".", ".."}]
    return any(part.startswith((".", "~$")) or part.lower() in _DROPPINGS for part in parts)


def _check_depth(draft: Draft) -> None:
    if draft.depth >= draft.limits.archive_depth:
        raise DocumentTooLarge(
            f"The archive is inside {draft.depth} other documents, and no more than {draft.limits.archive_depth} are "
            "opened one in the other: unpack it and ingest its files, or raise ingest.archive_depth."
        )


def _check_found(draft: Draft) -> None:
    if draft.members and all(member.error == _PROTECTED for member in draft.members):
        raise EncryptedDocument(
            "The archive is protected by a password: pack its files without one and ingest it again."
        )
    if not draft.members:
        raise EmptyDocument("The archive holds no files (hidden ones are left out): there is nothing to index.")


def _damaged(error: Exception) -> DamagedDocument:
    return DamagedDocument(
        "The archive can not be unpacked, it is probably damaged: pack it anew, or unpack it and ingest its files.",
        cause=f"{type(error).__name__}: {error}"[:500],
    )


# -- ZIP -------------------------------------------------------------------------------------------------------------


def _check_overlaps(entries: list[zipfile.ZipInfo]) -> None:
    """Refuse an archive whose entries share their bytes, with which a small one unpacks to any size."""
    places = sorted((entry.header_offset, entry.compress_size) for entry in entries)
    if any(start + size > following for (start, size), (following, _) in pairwise(places)):
        raise DamagedDocument("The files of the archive overlap, as no program writes them: pack it anew.")


def _take_zip_entry(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, taking: _Taking) -> None:
    name = _zip_name(entry)
    if not taking.is_wanted(name) or name.endswith(("/", "\\")):
        return
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind == stat.S_IFDIR:
        return
    if kind not in {0, stat.S_IFREG}:
        taking.refuse(name, f"It is {_what(kind)}, which is not followed: pack the file itself.")
    elif entry.flag_bits & _ZIP_ENCRYPTED:
        taking.refuse(name, _PROTECTED)
    else:
        try:
            file = archive.open(entry)
        except NotImplementedError:
            taking.refuse(name, "It is compressed in a way that is not read: pack it as an ordinary ZIP.")
            return
        with file:
            taking.take(name, taking.counted(file))


def _what(kind: int) -> str:
    return "a link" if kind == stat.S_IFLNK else "a device or pipe"


def _zip_name(entry: zipfile.ZipInfo) -> str:
    """Return the name as it was meant: many programs write UTF-8 without saying so, else it is that of old DOS."""
    name = entry.orig_filename
    if entry.flag_bits & _ZIP_UTF8:
        return name
    try:
        return name.encode("cp437").decode("utf-8")
    except UnicodeError:
        return name


# -- TAR -------------------------------------------------------------------------------------------------------------


class _TarEntry(tarfile.TarInfo):
    """A header that is refused if it announces a description too long to be one."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        entry = super().frombuf(buf, encoding, errors)
        if entry.type in _TAR_DESCRIPTIONS and entry.size > _LONGEST_DESCRIPTION:
            raise DamagedDocument("A file in the archive has a name of more than a million bytes: pack it anew.")
        return entry


class _Metered(io.RawIOBase):
    """A file that counts what is read of it, so that files which are passed over count too."""

    def __init__(self, file: IO[bytes], taking: _Taking) -> None:
        super().__init__()
        self._file = file
        self._taking = taking

    def read(self, size: int = -1) -> bytes:
        block = self._file.read(size)
        self._taking.count(len(block))
        return block


def _take_tar_entry(archive: tarfile.TarFile, entry: tarfile.TarInfo, taking: _Taking) -> None:
    name = decode(entry.name.encode("utf-8", "surrogateescape"))
    if not taking.is_wanted(name) or entry.isdir():
        return
    if entry.issym() or entry.islnk():
        taking.refuse(name, "It is a link, which is not followed: pack the file itself.")
    elif not entry.isreg():
        taking.refuse(name, "It is a device or pipe, which is not opened: pack the file itself.")
    elif entry.issparse():
        taking.refuse(name, "It is stored with holes (a sparse file): pack it as an ordinary file.")
    elif file := archive.extractfile(entry):
        taking.take(name, _whole(file, entry.size))


def _whole(file: IO[bytes], size: int) -> Iterator[bytes]:
    """Yield the bytes of a file of an archive, and raise `EOFError` if they end early, which tarfile does not say."""
    for block in _blocks(file):
        size -= len(block)
        yield block
    if size:
        raise EOFError("a file in the archive is cut off")


# -- compression -----------------------------------------------------------------------------------------------------


def _unpacked(path: Path) -> IO[bytes]:
    """Open a file so that it reads as what it was before it was compressed, if it was."""
    with path.open("rb") as file:
        head = file.read(6)
    opener: Callable[..., IO[bytes]] = next((open_ for magic, open_, _ in COMPRESSIONS if head.startswith(magic)), open)
    return opener(path, "rb")
