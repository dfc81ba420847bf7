"""The lines of a paged document to paragraphs, headings, lists, tables and running heads. Pure: knows no PDF library.

Conservative on purpose: a heading that is missed costs a section name, a sentence taken for a heading costs a citation.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import median

from ingest.draft import Draft, table_text
from rag.records import Kind

_BULLET = re.compile(r"(?:[•‣◦▪●■□○·∙➢➤✓✔\uf0b7\uf0a7]|[-–—*]|\(?\d{1,2}[.)]|\(?[a-zA-Z][.)]|\(?[ivx]{1,4}\))\s+\S")
_PAGE_NUMBER = re.compile(
    r"\W*(?:page|seite|p\.)?\s*(?:\d{1,4}|[ivxlc]{1,6})\s*(?:(?:of|von|/)\s*\d{1,4})?\W*", re.IGNORECASE
)
_LEADERS = re.compile(r"(?:\.\s?){4,}|…")
_NUMBER = re.compile(r"[-–—+(]?[$€£¥]?\s?[-+]?[\d.,]*\d[\d.,]*\s?[%)]*|[-–—]")
_SENTENCE_END = re.compile(r"[.!?:;。！？][\"'”’)\]]*$")
_WORD = re.compile(r"[^\W\d_]+(?:-[^\W\d_]+)?")
_BROKEN_WORD = re.compile(r"([^\W\d_]+)\x02([^\W\d_]+)")
_NUMBERING = re.compile(r"^(?:(?:chapter|section|appendix|part)\s+)?(?:\d+(?:\.\d+)*|[A-Z])[.:)]?\s+", re.IGNORECASE)
_LABEL = 40  # characters of a name in the first of two columns; columns of prose are wider
_ALIGNED = 3.0  # points between the left edges of the lines of one column
HYPHEN = "\x02"  # a hyphen that ends a line
WIDE_GAP = 1.5  # in font sizes: wider than any space of justified text
_COLUMN_GAP = 1.0  # in font sizes: the least space between columns of prose
_PROSE = 20  # characters of a typical line of a narrow column of prose; cells of tables are shorter
_CUT_WORD = re.compile(r"(?<=[^\W\d_])[-\u2010\u00ad]$")
_ALIKE = 0.2  # sizes that differ by less are one size that was measured twice
_RIGHT_TO_LEFT = {"R", "AL"}


@dataclass(frozen=True, slots=True)
class Line:
    """One printed line: its cells (more than one where wide gaps are), their left edges, its place and size.

    ``baseline`` grows upwards, ``left`` and ``right`` along the line, all in points; ``bold`` if all of it is.
    """

    cells: tuple[str, ...]
    starts: tuple[float, ...]
    size: float
    bold: bool
    left: float
    right: float
    baseline: float

    @property
    def text(self) -> str:
        return " ".join(self.cells)


@dataclass(frozen=True, slots=True)
class Piece:
    """Text without wide gaps that was seen in a picture, measured as a `Line` is."""

    text: str
    left: float
    right: float
    baseline: float
    size: float

    @property
    def top(self) -> float:
        return self.baseline + 0.75 * self.size

    @property
    def bottom(self) -> float:
        return self.baseline - 0.25 * self.size


@dataclass(slots=True)
class _Style:
    """What is usual in this document, and therefore what stands out."""

    body: float
    bold_stands_out: bool
    sizes: list[float]
    running: set[str]
    words: Counter[str] = field(default_factory=Counter)


Bookmarks = dict[tuple[int, str], int]


def compose(
    pages: Sequence[Sequence[Line]],
    bookmarks: Bookmarks,
    draft: Draft,
    forms: Mapping[int, Sequence[str]] | None = None,
) -> None:
    """Add the blocks of ``pages`` to ``draft``.

    ``bookmarks`` maps (page, `squeezed` title) to the level of a heading (from 1); where there are some, only bold and
    large lines that have one become headings. ``forms`` are the filled fields of the forms on a page, which follow its
    text.
    """
    style = _measure(pages)
    bookmarks = _reliable(bookmarks, pages, style)
    for number, lines in enumerate(pages, start=1):
        edges = _at_edges(lines)
        kinds = [_running(line, edges, style) for line in lines]
        for line, kind in zip(lines, kinds, strict=True):
            if kind is Kind.HEADER:
                draft.add(kind, line.text, number)
        body = [line for line, kind in zip(lines, kinds, strict=True) if kind is None]
        _compose_page(body, number, style, bookmarks, draft)
        draft.add(Kind.TEXT, "\n".join((forms or {}).get(number, ())), number)
        for line, kind in zip(lines, kinds, strict=True):
            if kind is Kind.FOOTER:
                draft.add(kind, line.text, number)


def arranged(pieces: Sequence[Piece]) -> list[Line]:
    """Return the lines that ``pieces`` of a page make, in reading order: columns of prose one after the other.

    Pieces side by side are cells of one line where they are no columns, such as those of a table.
    """
    bands = _bands(_of_like_sizes(pieces))
    lines: list[Line] = []
    start = 0
    while start < len(bands):
        end, gutter = _columns_end(bands, start)
        block = [piece for band in bands[start:end] for piece in band]
        if gutter is None:
            lines += _rows(block)
        else:
            sides = [p for p in block if p.left < gutter], [p for p in block if p.left >= gutter]
            for side in reversed(sides) if _runs_leftwards(block) else sides:
                lines += arranged(side)
        start = end
    return lines


def _of_like_sizes(pieces: Sequence[Piece]) -> list[Piece]:
    """Return ``pieces`` with sizes that differ by no more than errors of measurement made the same, the commonest."""
    counts: Counter[float] = Counter()
    for piece in pieces:
        counts[_round(piece.size)] += len(piece.text)
    commonest = [size for size, _ in counts.most_common()]
    true = {size: next(known for known in commonest if abs(size - known) <= _ALIKE * known) for size in commonest}
    return [replace(piece, size=true[_round(piece.size)]) for piece in pieces]


def _bands(pieces: Sequence[Piece]) -> list[list[Piece]]:
    """Return the pieces from the top down, those together that no blank band across the page keeps apart."""
    bands: list[list[Piece]] = []
    floor = -math.inf
    for piece in sorted(pieces, key=lambda piece: -piece.top):
        if not bands or piece.top <= floor:
            bands.append([])
            floor = piece.bottom
        bands[-1].append(piece)
        floor = min(floor, piece.bottom)
    return bands


def _columns_end(bands: Sequence[list[Piece]], start: int) -> tuple[int, float | None]:
    """Return the end of the bands from ``start`` that columns of prose share, and where the second column begins.

    One band and no place if there are no columns.
    """
    spans: list[tuple[float, float]] = []
    end = start
    while end < len(bands) and (len(wider := _covered(spans, bands[end])) > 1 or end == start):
        spans, end = wider, end + 1
    while end > start + 1 and not _is_beside(bands[end - 1], bands[end - 2]):
        end -= 1
    block = [piece for band in bands[start:end] for piece in band]
    gutters = [left for left, _ in _covered([], block)[1:]]
    return next(((end, gutter) for gutter in gutters if _are_columns(block, gutter)), (start + 1, None))


def _covered(spans: Sequence[tuple[float, float]], pieces: Sequence[Piece]) -> list[tuple[float, float]]:
    """Return the parts of the page's width that ``spans`` and ``pieces`` cover, where no column's edge is between."""
    least = _COLUMN_GAP * median(piece.size for piece in pieces)
    covered: list[tuple[float, float]] = []
    for left, right in sorted([*spans, *((piece.left, piece.right) for piece in pieces)]):
        if covered and left - covered[-1][1] < least:
            covered[-1] = covered[-1][0], max(covered[-1][1], right)
        else:
            covered.append((left, right))
    return covered


def _are_columns(pieces: Sequence[Piece], gutter: float) -> bool:
    """Tell columns of prose from columns of a table: each side has several lines, and most of them are long."""
    for side in ([p for p in pieces if p.left < gutter], [p for p in pieces if p.left >= gutter]):
        if len(side) < 3 or median(len(piece.text) for piece in side) < _PROSE:
            return False
    return True


def _is_beside(band: Sequence[Piece], above: Sequence[Piece]) -> bool:
    """Tell whether a last band still belongs to columns: what comes after a wide blank does not."""
    size = max(piece.size for piece in above)
    return min(piece.bottom for piece in above) - max(piece.top for piece in band) < 2 * size


def _rows(pieces: Sequence[Piece]) -> list[Line]:
    rows: list[list[Piece]] = []
    for piece in sorted(pieces, key=lambda piece: -piece.baseline):
        if rows and rows[-1][0].baseline - piece.baseline < 0.45 * max(rows[-1][0].size, piece.size):
            rows[-1].append(piece)
        else:
            rows.append([piece])
    return [_row(row) for row in rows]


def _row(pieces: Sequence[Piece]) -> Line:
    """Return pieces that stand side by side as one line."""
    leftwards = _runs_leftwards(pieces)
    first, *others = sorted(pieces, key=lambda piece: -piece.right if leftwards else piece.left)
    cells, starts, before = [first.text], [first.left], first
    for piece in others:
        gap = before.left - piece.right if leftwards else piece.left - before.right
        if gap > WIDE_GAP * max(before.size, piece.size):
            cells.append(piece.text)
            starts.append(piece.left)
        else:
            cells[-1] += f" {piece.text}"
        before = piece
    main = max(pieces, key=lambda piece: len(piece.text))
    return Line(
        cells=(_CUT_WORD.sub(HYPHEN, cells[0]),) if len(cells) == 1 else tuple(cells),
        starts=tuple(starts),
        size=main.size,
        bold=False,  # not to be told from a picture
        left=min(piece.left for piece in pieces),
        right=max(piece.right for piece in pieces),
        baseline=main.baseline,
    )


def _runs_leftwards(pieces: Sequence[Piece]) -> bool:
    letters = [char for piece in pieces for char in piece.text if char.isalpha()]
    return 2 * sum(unicodedata.bidirectional(char) in _RIGHT_TO_LEFT for char in letters) > len(letters)


def squeezed(text: str) -> str:
    """Return the letters and digits of ``text`` in lower case: what a bookmark and its heading have in common."""
    return "".join(char for char in text.lower() if char.isalnum())


def _reliable(bookmarks: Bookmarks, pages: Sequence[Sequence[Line]], style: _Style) -> Bookmarks:
    """Return ``bookmarks`` if most are lines that stand out on their page: some outlines are stubs, or point astray."""
    found = set()
    for number, lines in enumerate(pages, start=1):
        for first, *more in (lines[index : index + 3] for index in range(len(lines))):
            if first.bold or first.size >= 1.1 * style.body:
                texts = [" ".join(line.text for line in (first, *more[:count])) for count in range(3)]
                found |= {(number, title) for text in texts for title in _titles(text)}
    return bookmarks if len(bookmarks) >= 3 and len(found & bookmarks.keys()) * 2 > len(bookmarks) else {}


def _titles(text: str) -> tuple[str, str]:
    """Return what a bookmark of this heading may say: bookmarks often leave the number out."""
    return squeezed(text), squeezed(_NUMBERING.sub("", text))


def _measure(pages: Sequence[Sequence[Line]]) -> _Style:
    sizes: Counter[float] = Counter()
    bold = total = 0
    words: Counter[str] = Counter()
    repeated: Counter[str] = Counter()
    for lines in pages:
        for line in lines:
            length = len(line.text)
            sizes[_round(line.size)] += length
            total += length
            bold += length * line.bold
            words.update(word.lower() for word in _WORD.findall(line.text))
        repeated.update({_pattern(line) for line in _at_edges(lines)})
    body = sizes.most_common(1)[0][0] if sizes else 10.0
    often = max(3, len(pages) * 0.3)
    return _Style(
        body=body,
        bold_stands_out=bold < 0.3 * total,
        sizes=sorted((size for size in sizes if size >= 1.15 * body and sizes[size] < 0.2 * total), reverse=True),
        running={pattern for pattern, count in repeated.items() if count >= often and pattern},
        words=words,
    )


def _round(size: float) -> float:
    return round(size * 2) / 2


def _pattern(line: Line) -> str:
    return re.sub(r"\d+", "#", " ".join(line.text.split()))


def _running(line: Line, edges: Sequence[Line], style: _Style) -> Kind | None:
    """Return HEADER or FOOTER for a line that is repeated at the edge of many pages, or is a page number there."""
    if line not in edges:
        return None
    if _pattern(line) in style.running or _PAGE_NUMBER.fullmatch(line.text):
        return Kind.HEADER if line.baseline > (edges[0].baseline + edges[-1].baseline) / 2 else Kind.FOOTER
    return None


def _at_edges(lines: Sequence[Line]) -> list[Line]:
    """Return the two highest and the two lowest lines of a page, of a short one the highest and the lowest."""
    if len(lines) < 3:
        return []
    by_height = sorted(lines, key=lambda line: line.baseline)
    count = 2 if len(lines) >= 8 else 1
    return by_height[:count] + by_height[-count:]


def _compose_page(lines: list[Line], page: int, style: _Style, bookmarks: Bookmarks, draft: Draft) -> None:
    index = 0
    right = _right_margin(lines)
    while index < len(lines):
        end, rows = _table(lines, index)
        if rows:
            draft.add(Kind.TABLE, table_text(rows), page)
            index = end
            continue
        end, level = _heading_end(lines, index, page, style, bookmarks)
        if level:
            draft.heading(level, _join(lines[index:end], style), page)
        else:
            end = _paragraph_end(lines, index, right, page, style, bookmarks)
            text = _join(lines[index:end], style)
            draft.add(Kind.LIST_ITEM if _BULLET.match(text) else Kind.TEXT, text, page)
        index = end


def _table(lines: list[Line], start: int) -> tuple[int, list[list[str]]]:
    """Return the end of the table that begins at ``start`` and its rows; no rows if these lines are none."""
    rows: list[dict[float, str]] = []
    last, end = lines[start], start
    while end < len(lines):
        line = lines[end]
        if len(line.cells) > 1:
            rows.append(dict(zip(line.starts, line.cells, strict=True)))
            last = line
        elif not rows or (column := _wrapped(line, last, rows)) is None:
            break
        else:
            rows[-1][column] = f"{rows[-1].get(column, '')} {line.text}".strip()
        end += 1
    cells = [[row[column] for column in sorted(row)] for row in rows]
    return (end, cells) if _is_table(cells) else (start, [])


def _wrapped(line: Line, last: Line, rows: list[dict[float, str]]) -> float | None:
    """Return the column of the last row that a line of one cell goes on with, or None if it is no part of the row."""
    if not -0.5 * line.size <= last.baseline - line.baseline <= 3.5 * line.size:
        return None
    known = [column for row in reversed(rows) for column in sorted(row)[1:]]
    return next((column for column in known if abs(column - line.left) <= _ALIGNED), None)


def _is_table(rows: list[list[str]]) -> bool:
    if len(rows) < 2:
        return False
    many = sum(len(row) > 2 for row in rows)
    short = sum(len(row[0]) <= _LABEL for row in rows)
    numeric = sum(bool(_NUMBER.fullmatch(row[-1][:40].strip())) for row in rows)
    return many * 2 >= len(rows) or (len(rows) > 2 and (numeric * 5 >= len(rows) * 3 or short * 5 >= len(rows) * 4))


def _heading_end(lines: list[Line], start: int, page: int, style: _Style, bookmarks: Bookmarks) -> tuple[int, int]:
    """Return the end of the heading that begins at ``start`` and its level; the level is 0 if none does."""
    first = lines[start]
    end = start + 1
    while end < len(lines) and end - start < 3 and _same_heading(lines[end - 1], lines[end], style.body):
        end += 1
    for stop in range(end, start, -1):
        text = " ".join(line.text for line in lines[start:stop])
        for title in _titles(text) if bookmarks else ():
            if level := bookmarks.get((page, title)):
                return stop, level
    if bookmarks or not _could_be_heading(lines[start:end]):
        return end, 0
    size, below = _round(first.size), _depth(first.text)
    if size in style.sizes:
        return end, min(style.sizes.index(size) + 1, 4) + below
    stands_apart = start == 0 or lines[start - 1].baseline - first.baseline > 1.3 * first.size
    bold = first.bold and style.bold_stands_out and size >= 0.95 * style.body
    follows = end < len(lines) and not lines[end].bold
    if bold and follows and stands_apart and not _SENTENCE_END.search(lines[end - 1].text):
        return end, min(len(style.sizes), 4) + 1 + below
    return end, 0


def _depth(text: str) -> int:
    """Return how far below the first a numbered heading is: 1 for "3.2 Method", 0 for "3 Methods" and "Methods"."""
    number = re.match(r"\d+(?:\.\d+)*", text)
    return number.group().count(".") if number else 0


def _same_heading(above: Line, below: Line, body: float) -> bool:
    gap = above.baseline - below.baseline
    alike = abs(above.size - below.size) < 0.3 and (above.bold == below.bold or above.size >= 1.15 * body)
    return (
        alike and len(below.cells) == 1 and 0 < gap < 1.6 * above.size and not re.match(r"\d+(\.\d+)*\.?\s", below.text)
    )


def _could_be_heading(lines: list[Line]) -> bool:
    text = " ".join(line.text for line in lines)
    letters = sum(char.isalpha() for char in text)
    return (
        letters >= 3
        and letters * 2 >= len(text.replace(" ", ""))
        and len(text) <= 150
        and len(text.split()) <= 16
        and not text[0].islower()
        and not _LEADERS.search(text)
        and not text.endswith((",", ";", HYPHEN))
        and not _BULLET.match(text[:1] + " x")
    )


def _right_margin(lines: list[Line]) -> float:
    """Return where full lines end: the widest but for the odd ones out."""
    ends = sorted(line.right - line.left for line in lines)
    return ends[int(len(ends) * 0.9)] if ends else 0.0


def _paragraph_end(lines: list[Line], start: int, width: float, page: int, style: _Style, bookmarks: Bookmarks) -> int:
    end = start + 1
    while end < len(lines) and _continues(lines[end - 1], lines[end], width):
        if _table(lines, end)[1] or _heading_end(lines, end, page, style, bookmarks)[1]:
            break
        end += 1
    return end


def _continues(above: Line, below: Line, width: float) -> bool:
    """Tell whether ``below`` goes on with the paragraph of ``above``."""
    if above.text.endswith(HYPHEN):
        return True
    if _BULLET.match(below.text) or abs(above.size - below.size) > 0.15 * above.size or above.bold != below.bold:
        return False
    ended = bool(_SENTENCE_END.search(above.text))
    gap = above.baseline - below.baseline
    if not 0 < gap < 1.75 * max(above.size, below.size):  # another column, or space between
        return not ended and gap < 0 and below.text[:1].islower()
    short = above.right - above.left < 0.75 * width
    indented = below.left - above.left > 0.8 * below.size
    return not (ended and (short or indented))


def _join(lines: Sequence[Line], style: _Style) -> str:
    """Return the lines as running text; a word cut by a hyphen at a line's end is made whole where that is safe."""
    text = "".join(_pieces(lines))
    return _BROKEN_WORD.sub(lambda match: _mend(match.group(1), match.group(2), style.words), text).replace(HYPHEN, "-")


def _pieces(lines: Sequence[Line]) -> Iterator[str]:
    for index, line in enumerate(lines):
        yield line.text
        if index + 1 < len(lines) and not line.text.endswith(HYPHEN):
            yield " "


def _mend(left: str, right: str, words: Counter[str]) -> str:
    """Join two halves: with the hyphen if this document writes the word so, or if both halves are words of it."""
    whole, compound = (left + right).lower(), f"{left}-{right}".lower()
    if words[whole] >= words[compound] and words[whole]:
        return left + right
    if words[compound] or not right[0].islower() or (words[left.lower()] > 1 and words[right.lower()] > 1):
        return f"{left}-{right}"
    return left + right
