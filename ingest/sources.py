"""What files an ``ingest PATH...`` means: each with the name that it will have in the collection.

Looks at folders and kinds of files only: it opens no file and knows no format.
"""

from __future__ import annotations

import os
import stat
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class SourceFile:
    """A file to ingest, and the name of the document that it becomes."""

    path: Path
    name: str


@dataclass(frozen=True)
class SourceProblem:
    """A path that can not be ingested, and why, in one sentence."""

    path: Path
    reason: str


_Found = SourceFile | SourceProblem


def find_files(paths: Sequence[Path]) -> tuple[list[SourceFile], list[SourceProblem]]:
    """Return the files that ``paths`` mean, and what of them can not be ingested, see `each_file`."""
    files: list[SourceFile] = []
    problems: list[SourceProblem] = []
    for found in each_file(paths):
        if isinstance(found, SourceFile):
            files.append(found)
        else:
            problems.append(found)
    return files, problems


def each_file(paths: Sequence[Path]) -> Iterator[SourceFile | SourceProblem]:
    """Yield the files that ``paths`` mean, and what of them can not be ingested, as they are found.

    A file is named by its file name; the files of a folder, in sorted order and recursively, by their path in it.
    Hidden files and folders in a folder are left out, links in it are not followed but reported. Of two files with one
    name the second is a problem. Raises nothing: what can not be read is a problem too.
    """
    seen: dict[str, str] = {}  # paths as strings: there may be very many, and a string is small
    for path in paths:
        for found in _found(path):
            if isinstance(found, SourceProblem):
                yield found
            elif first := seen.get(found.name):
                yield _same_name(SourceFile(Path(first), found.name), found)
            else:
                seen[found.name] = str(found.path)
                yield found


def _same_name(first: SourceFile, second: SourceFile) -> SourceProblem:
    if first.path == second.path:
        return SourceProblem(second.path, f"{_visible(second.path)} was named twice: it is ingested once.")
    return SourceProblem(
        second.path,
        f"{_visible(second.path)} and {_visible(first.path)} would both be named {first.name!r}: "
        "ingest the folder above them, or rename one.",
    )


def _found(path: Path) -> Iterator[_Found]:
    try:
        mode = path.stat().st_mode  # a link that the user names is followed: it was meant
        if stat.S_ISDIR(mode):
            yield from _walk(path, path)
        else:
            yield _file(path, mode, document_name(path.name or path.resolve().name))
    except FileNotFoundError:
        yield SourceProblem(path, f"{_visible(path)} does not exist.")
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        yield _unreadable(path, error)


def _walk(folder: Path, root: Path) -> Iterator[_Found]:
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        yield _unreadable(folder, error)
        return
    for entry in entries:
        if not entry.name.startswith("."):
            yield from _entry(entry, root)


def _entry(entry: os.DirEntry[str], root: Path) -> Iterator[_Found]:
    path = Path(entry.path)
    try:
        if entry.is_symlink():
            yield SourceProblem(
                path, f"{_visible(path)} is a link, which is not followed inside a folder: name its target itself."
            )
        elif entry.is_dir(follow_symlinks=False):
            yield from _walk(path, root)
        else:
            mode = entry.stat(follow_symlinks=False).st_mode
            yield _file(path, mode, document_name(path.relative_to(root).as_posix()))
    except OSError as error:
        yield _unreadable(path, error)


def _file(path: Path, mode: int, name: str) -> _Found:
    if not stat.S_ISREG(mode):
        return SourceProblem(path, f"{_visible(path)} is not a regular file but {_what(mode)}: it is not opened.")
    if not os.access(path, os.R_OK):
        return SourceProblem(path, f"{_visible(path)} may not be read by this user: change its permissions.")
    return SourceFile(path, name)


def _what(mode: int) -> str:
    if stat.S_ISFIFO(mode):
        return "a pipe"
    if stat.S_ISSOCK(mode):
        return "a socket"
    return "a device"


def _unreadable(path: Path, error: OSError | ValueError) -> SourceProblem:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return SourceProblem(path, f"{_visible(path)} can not be read: {reason}.")


def document_name(name: str) -> str:
    """Return a file name as text that can be shown and stored: NFC, and what is no text in it made visible."""
    decoded = os.fsencode(name).decode("utf-8", "backslashreplace")
    shown = "".join(char if _is_shown(char) else char.encode("unicode_escape").decode() for char in decoded)
    return unicodedata.normalize("NFC", shown) or "unnamed"


def _is_shown(char: str) -> bool:
    return char.isprintable() or unicodedata.category(char) == "Zs"  # no-break spaces and their like


def _visible(path: Path) -> str:
    return document_name(str(path))
