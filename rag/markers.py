"""Markers in a generator's text: which brackets name passages, whatever pieces they come in.

A marker is a number in square brackets, or several, or a range: ``[1]``, ``[1, 2]``, ``[1-3]``, ``【1】``, ``[^1]``,
``[Source 2]``, in the digits of any script. Inside code, a block between fences or words between backticks, brackets
are text of the code. Round brackets are always text, since documents number things with them. Knows neither sentences
nor passages, and never raises.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

#: Longer brackets are no markers, and longer words between backticks no code: so much text is held back at most.
LONGEST_MARKER, LONGEST_CODE = 64, 200

_NAMES = ("passage", "passages", "source", "sources", "document", "documents", "doc", "docs", "ref", "reference")
_DASHES = "\u2010\u2011\u2012\u2013\u2014~\uff5e-"  # the last one would make a range of characters elsewhere
_NUMBERS = rf"\d{{1,3}}(?:\s*[,;，、；&{_DASHES}]\s*\d{{1,3}})*"
#: What some models write behind the number, as in 【1†source】.
_DAGGER = r"(?:\s*†[^\]】］〕\n]*)?"
_OPEN, _CLOSE = r"[\[【［〔]", r"[\]】］〕]"
MARKER = re.compile(rf"{_OPEN}\s*(?:\^|(?:{'|'.join(_NAMES)})\s*)?({_NUMBERS}){_DAGGER}\s*{_CLOSE}", re.IGNORECASE)
_BEGUN_NAMES = "|".join(sorted({name[:size] for name in _NAMES for size in range(1, len(name) + 1)}, reverse=True))
#: The beginning of what may become a marker when more text comes.
_BEGUN = re.compile(
    rf"{_OPEN}\s*(?:\^|(?:{_BEGUN_NAMES}))?[\d\s,;，、；&{_DASHES}]*(?:†[^\]】］〕\n]*)?", re.IGNORECASE
)
_POINT = re.compile(r"[\[【［〔`]")
_RANGE = re.compile(rf"(\d{{1,3}})\s*[{_DASHES}]\s*(\d{{1,3}})")
_INDENT = re.compile(r" {0,3}")


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of text: plain, a marker with the ``numbers`` it names, or part of a block of ``code``."""

    text: str
    numbers: tuple[int, ...] = ()
    code: bool = False


@dataclass(slots=True)
class MarkerScanner:
    """Takes text as it comes and gives it out in pieces; what may yet become something else is held back.

    However the text is cut, the pieces say the same. A range beginning at 0 is text, as in ``[0-9]``; of a range at
    most the numbers up to ``most`` are named.
    """

    most: int
    _held: str = ""
    _line: str = ""
    _fence: int = 0

    def feed(self, text: str) -> list[Piece]:
        """Take the next text and return the pieces that are certain."""
        self._held += text
        return self._scanned(final=False)

    def finish(self) -> list[Piece]:
        """Return what was held back."""
        return self._scanned(final=True)

    def _scanned(self, *, final: bool) -> list[Piece]:
        pieces = []
        while self._held:
            piece = self._in_fence(final=final) if self._fence else self._next(final=final)
            if piece is None:
                break
            self._held = self._held[len(piece.text) :]
            self._line = (self._line + piece.text).rpartition("\n")[2][-LONGEST_MARKER:]
            pieces.append(piece)
        return pieces

    def _next(self, *, final: bool) -> Piece | None:
        """Return the next piece outside of code blocks; None where more text decides."""
        point = _POINT.search(self._held)
        if point is None:
            return Piece(self._held)
        if point.start():
            return Piece(self._held[: point.start()])
        return self._ticks(final=final) if point.group() == "`" else self._bracket(final=final)

    def _bracket(self, *, final: bool) -> Piece | None:
        match = MARKER.match(self._held)
        if match and match.end() <= LONGEST_MARKER:
            numbers = self._numbers(match.group(1))
            return Piece(match.group(), numbers) if numbers is not None else Piece(self._held[0])
        if not final and len(self._held) < LONGEST_MARKER and _BEGUN.fullmatch(self._held):
            return None
        return Piece(self._held[0])

    def _numbers(self, inside: str) -> tuple[int, ...] | None:
        """Return the numbers that a marker names, each once; None if it is no marker after all."""
        named: dict[int, None] = {}
        for part in re.split(r"[,;，、；&]", inside):
            bounds = _RANGE.search(part)
            if bounds is None:
                named.update(dict.fromkeys(map(int, re.findall(r"\d+", part))))
                continue
            low, high = sorted(map(int, bounds.groups()))
            if low == 0:
                return None
            named.update(dict.fromkeys(range(low, min(high, self.most) + 1)))
        return tuple(named) or (0,)

    def _ticks(self, *, final: bool) -> Piece | None:
        """Return a run of backticks with the code that it opens, or alone."""
        run = len(self._held) - len(self._held.lstrip("`"))
        if run == len(self._held) and not final:
            return None
        end = run + LONGEST_CODE
        line = self._held.find("\n", run, end)
        whole = final or line >= 0 or len(self._held) > end
        stop = min(line if line >= 0 else end, len(self._held))
        if run >= 3 and _INDENT.fullmatch(self._line) and "`" not in self._held[run:stop]:
            if not whole:
                return None
            self._fence = run
            return Piece(self._held[:run], code=True)
        closing = re.compile(rf"(?<!`)`{{{run}}}(?!`)").search(self._held, run, stop)
        if closing and (whole or closing.end() < stop):
            return Piece(self._held[: closing.end()])
        return Piece(self._held[:run]) if whole else None

    def _in_fence(self, *, final: bool) -> Piece | None:
        """Return the next line, or part of a line, of a code block, up to the line that closes it."""
        line, broken, _ = self._held.partition("\n")
        begins = not self._line
        if begins and not broken and not final and re.fullmatch(r" {0,3}`*[ \t]*", line):
            return None
        if begins and (broken or final) and re.fullmatch(rf" {{0,3}}`{{{self._fence},}}[ \t]*", line):
            self._fence = 0
            return Piece(line, code=True)
        return Piece(line + broken, code=True)
