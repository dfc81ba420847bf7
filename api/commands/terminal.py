"""What the commands write: plain lines of text, 80 columns wide, and JSON.

Names and texts of documents come from strangers: whatever could steer a terminal is taken out of them here. Knows no
command and no catalog.
"""

from __future__ import annotations

import json
import shutil
import sys
import textwrap
import unicodedata
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import typer

#: Two characters of no width that scripts such as Persian and Hindi need.
_JOINERS = "\u200c\u200d"
_WIDEST = 100


def clean(text: str) -> str:
    """Return ``text`` as one line that can be shown: white space is single, control characters are gone."""
    return " ".join(_visible(text).split())


def clean_lines(text: str) -> list[str]:
    """Return the lines of ``text`` without control characters, each otherwise as it stands."""
    return [_visible(line).rstrip() for line in text.splitlines()]


def _visible(text: str) -> str:
    return "".join(_shown(character) for character in text)


def _shown(character: str) -> str:
    if character.isprintable() or character in _JOINERS:
        return character
    return " " if character.isspace() or unicodedata.category(character).startswith("Z") else ""


def width() -> int:
    """Return how many columns to fill: the terminal's, but no more than reads well; 80 where there is none."""
    return min(shutil.get_terminal_size().columns, _WIDEST) if sys.stdout.isatty() else 80


def wrapped(text: str, indent: int = 0, hanging: int = 0) -> list[str]:
    """Return the lines of ``text``, broken at the width of the terminal and indented; a long word is left whole.

    What does not fit on a line goes on ``hanging`` columns further to the right.
    """
    first, next_ = " " * indent, " " * (indent + hanging)
    wrapper = textwrap.TextWrapper(
        width(), initial_indent=first, subsequent_indent=next_, break_long_words=False, break_on_hyphens=False
    )
    return [part for line in clean_lines(text) for part in wrapper.wrap(line) or [""]]


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Return aligned lines; numbers stand to the right, and the last column may be of any length."""
    cells = [[clean(str(cell)) for cell in row] for row in rows]
    numeric = [bool(cells) and all(row[i].replace(",", "").isdigit() for row in cells) for i in range(len(header))]
    widths = [max(len(row[i]) for row in [list(header), *cells]) for i in range(len(header))]
    lines = []
    for row in [list(header), *cells]:
        aligned = [c.rjust(w) if n else c.ljust(w) for c, w, n in zip(row, widths, numeric, strict=True)]
        lines.append("  ".join(aligned).rstrip())
    return lines


def place(page: int | None, section: Sequence[str]) -> str:
    """Return where something stands in its document, ``page 2, 3. Accommodation``; empty if nobody knows."""
    parts = [f"page {page}"] if page is not None else []
    if section:
        parts.append(clean(" > ".join(section)))
    return ", ".join(parts)


def counted(number: int, noun: str) -> str:
    """Return ``1 file`` or ``2,000 files``."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def say(lines: str | Iterable[str] = "") -> None:
    """Write lines of the result to standard output."""
    for line in [lines] if isinstance(lines, str) else lines:
        typer.echo(line)


def note(line: str) -> None:
    """Write a line about the work, not of its result, to standard error."""
    typer.echo(line, err=True)


def say_json(value: object) -> None:
    """Write one JSON value to standard output, in ASCII so that every terminal and pipe takes it."""
    typer.echo(json.dumps(value, indent=2, default=_plain))


def say_pieces(pieces: Iterable[str]) -> None:
    """Write to standard output what comes in pieces, so that it need not be held as a whole."""
    for piece in pieces:
        typer.echo(piece, nl=False)


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} has no JSON form")


def confirmed(question: str, *, yes: bool) -> bool:
    """Return whether to go on: asks on a terminal, unless ``yes`` was given; nobody can be asked elsewhere."""
    if yes or not sys.stdin.isatty():
        return True
    typer.echo(f"{question} [y/N] ", nl=False, err=True)
    return sys.stdin.readline().strip().lower() in {"y", "yes"}
