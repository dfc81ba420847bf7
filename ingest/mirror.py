"""What a folder has that a collection has not, and the other way round: the comparison behind `citewell sync`.

A file is known by its *mark*, its place, size and time, which the catalog keeps beside the document: equal mark, equal
file, and it need not be read. Opens no file and changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ingest.sources import SourceFile, SourceProblem, document_name, each_file
from rag.errors import NotFound


@dataclass(slots=True)
class Difference:
    """How a folder differs from a collection. ``marks`` are those of the ``changed`` files by name.

    ``gone`` are documents without a file. A document whose file, or a folder above it, could not be looked at is not
    gone: it is under ``problems``.
    """

    changed: list[SourceFile] = field(default_factory=list)
    marks: dict[str, str] = field(default_factory=dict)
    unchanged: int = 0
    gone: list[str] = field(default_factory=list)
    problems: list[SourceProblem] = field(default_factory=list)

    @property
    def files(self) -> int:
        """How many files the folder has."""
        return len(self.changed) + self.unchanged


def compare(folder: Path, known: Mapping[str, str | None]) -> Difference:
    """Compare a folder with the documents of a collection, ``known`` by name with their marks.

    Raises `NotFound` if the folder is not there or can not be read as a whole.
    """
    if not folder.is_dir():
        raise NotFound(f"There is no folder {document_name(str(folder))}.")
    difference, present = Difference(), set[str]()
    for found in each_file([folder]):
        if isinstance(found, SourceProblem):
            difference.problems.append(found)
            continue
        try:
            mark = mark_of(found.path)
        except OSError as error:
            difference.problems.append(SourceProblem(found.path, f"It can not be looked at: {error.strerror}."))
            continue
        present.add(found.name)
        if known.get(found.name) == mark:
            difference.unchanged += 1
        else:
            difference.changed.append(found)
            difference.marks[found.name] = mark
    unseen = _unseen(folder, difference.problems)
    difference.gone = sorted(name for name in known if name not in present and not _is_below(name, unseen))
    return difference


def mark_of(path: Path) -> str:
    """Return what tells a file from what it was before. Raises `OSError`."""
    found = path.stat(follow_symlinks=False)
    return f"{found.st_size} {found.st_mtime_ns} {document_name(str(path.absolute()))}"


def _unseen(folder: Path, problems: list[SourceProblem]) -> set[str]:
    """Return the names of what could not be looked at. Raises `NotFound` if that is the folder itself."""
    names = set[str]()
    for problem in problems:
        if problem.path == folder:
            raise NotFound(problem.reason)
        names.add(document_name(problem.path.relative_to(folder).as_posix()))
    return names


def _is_below(name: str, unseen: set[str]) -> bool:
    parts = name.split("/")
    return any("/".join(parts[:end]) in unseen for end in range(1, len(parts) + 1))
