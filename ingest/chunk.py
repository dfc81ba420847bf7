"""Elements to chunks: owns the llama-index node parsers.

A chunk is a span of the parsed text within one section, that fits the embedder's window together with its context
(title, headings, a table's header row), measured in the embedder's own tokens. Tables are split between rows, lists
between items, prose between paragraphs, then sentences, and only what is longer than a window inside a sentence.
Knows no file format, no vector and no catalog.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby, pairwise
from typing import Any

from rag.records import CELL, ELEMENT_SEPARATOR, Chunk, Element, Kind, ParsedDocument
from rag.sentences import sentence_spans
from rag.tokens import CountTokens

#: Largest share of the window that context may take.
CONTEXT_SHARE = 0.35
#: Parts that stand on every page and say nothing of their own.
FURNITURE = frozenset({Kind.HEADER, Kind.FOOTER})
#: A text counts at least one token for so many characters: many a tokenizer takes any long word for one unknown token.
CHARS_PER_TOKEN = 32
#: Where a sentence is longer than a window, words are cut after so many characters.
LONGEST_WORD = 100
#: Parts of so few tokens are not cut any further: a single character may have as many.
LEAST_PART = 16
_LONG_WORD = re.compile(rf"\S{{{LONGEST_WORD + 1},}}")


def chunk(parsed: ParsedDocument, window: int, count_tokens: CountTokens) -> list[Chunk]:
    """Cut a document into chunks of at most ``window`` tokens, in the order of the text.

    ``count_tokens`` counts in the embedder's tokens, its special tokens included. Each visible character of each
    element, page headers and footers apart, is in exactly one chunk; ``chunk.text`` is exactly
    ``parsed.text[chunk.start:chunk.end]``.
    """
    text = parsed.text
    cutter = _Cutter(window, count_tokens)
    chunks = [piece for run in _runs(parsed.elements) for piece in _chunks_of_run(run, text, parsed.title, cutter)]
    sizes = count_tokens([piece.indexed_text for piece in chunks])
    return [
        whole
        for piece, size in zip(chunks, sizes, strict=True)
        for whole in ([replace(piece, tokens=size)] if size <= window else cutter.cut_again(piece))
    ]


def _runs(elements: Sequence[Element]) -> Iterator[list[Element]]:
    """Yield neighbours that belong together: a heading with what follows it in its section, one table, hidden text."""

    def key(numbered: tuple[int, Element]) -> tuple[object, ...]:
        number, element = numbered
        if element.kind is Kind.TABLE or element.kind in FURNITURE:
            return (number,)
        return (Kind.HIDDEN, element.page) if element.kind is Kind.HIDDEN else ("", *_home(element))

    for _, group in groupby(enumerate(elements), key):
        run = [element for _, element in group]
        if run[0].kind not in FURNITURE:
            yield run


def _home(element: Element) -> tuple[str, ...]:
    """The section that an element opens or stands in."""
    return (*element.section, element.text) if element.kind is Kind.TITLE else element.section


def _chunks_of_run(run: list[Element], text: str, title: str | None, cutter: _Cutter) -> Iterator[Chunk]:
    start, end = run[0].start, run[-1].end
    is_table = run[0].kind is Kind.TABLE
    section = _home(run[0])
    opening = cutter.path([title or "", *run[0].section])
    later = cutter.path([title or "", *section], cutter.header(run[0].text) if is_table else "")
    most = cutter.window - cutter.special - max(cutter.size(opening), cutter.size(later))
    ends = [element.end for element in run]
    cursor = start
    for piece in cutter.split(text[start:end], "\n" if is_table else ELEMENT_SEPARATOR, most):
        cursor = text.index(piece, cursor)
        stop = cursor + len(piece)
        # A chunk that begins with the heading or the header row itself does not need it again as context.
        context = opening if cursor == start else later
        first, last = bisect_right(ends, cursor), bisect_right(ends, stop - 1)
        kinds = {element.kind for element in run[first : last + 1]}
        kind = kinds.pop() if len(kinds) == 1 else Kind.TEXT
        yield Chunk(piece, context, cursor, stop, kind, run[first].page, section, 0)
        cursor = stop


class _Cutter:
    """Cuts texts to the window of one embedder. Sizes are in its tokens, without the special ones."""

    def __init__(self, window: int, count_tokens: CountTokens) -> None:
        self.window = window
        self.special = count_tokens([""])[0]
        self._count = count_tokens
        self._room = int(window * CONTEXT_SHARE) - self.special
        self._sizes: dict[str, int] = {"": 0}
        self._splitters: dict[str, Any] = {}

    def size(self, text: str) -> int:
        """Return the size of ``text``; anything visible counts at least 1, and words that come again count once."""
        if (known := self._sizes.get(text)) is not None:
            return known
        least = max(len(text) // CHARS_PER_TOKEN, 1) if text.strip() else 0
        size = max(self._count([text])[0] - self.special, least)
        if len(text) <= LONGEST_WORD:
            self._sizes[text] = size
        return size

    def path(self, headings: Sequence[str], header: str = "") -> str:
        """Join title and headings, and a table's ``header`` under them; where room is short the first ones go."""
        kept = [part for part, before in zip(headings, ["", *headings], strict=False) if part and part != before]
        while True:
            context = "\n".join(filter(None, (" > ".join(kept), header)))
            if not kept or self.size(context) <= self._room:
                return context
            kept = kept[1:]

    def header(self, table: str) -> str:
        """Return the first row of ``table``, or its first cells (or words) that the room for context holds."""
        row = table.partition("\n")[0]
        if self.size(row) <= self._room:
            return row
        return self._head(row, CELL) or self._head(row, " ")

    def split(self, text: str, separator: str, most: int) -> list[str]:
        """Return pieces of ``text`` in order, each of at most ``most`` tokens; only white space is between them."""
        if self.size(text) <= most:
            return [text.strip()] if text.strip() else []
        splitter = self._splitter(separator)
        splitter.chunk_size = most
        return [piece for piece in splitter.split_text(text) if piece]

    def cut_again(self, piece: Chunk, most: int | None = None) -> Iterator[Chunk]:
        """Cut a chunk that came out too long into parts of at most ``most`` tokens, or fewer until the window holds it.

        That is needed where the tokens of the parts are fewer than those of the whole.
        """
        if most is None:
            most = self.window - self.special - self.size(piece.context)
        most = most * 3 // 4
        cursor = 0
        for text in self.split(piece.text, ELEMENT_SEPARATOR, most):
            cursor = piece.text.index(text, cursor)
            start, stop = piece.start + cursor, piece.start + cursor + len(text)
            cursor += len(text)
            part = replace(piece, text=text, start=start, end=stop)
            part = replace(part, tokens=self._count([part.indexed_text])[0])
            if part.tokens <= self.window or most <= LEAST_PART:
                yield part
            else:
                yield from self.cut_again(part, most)

    def _head(self, row: str, separator: str) -> str:
        """Return as many of the first parts of ``row`` as there is room for."""
        parts = row.split(separator)
        fitting = bisect_right(range(1, len(parts) + 1), self._room, key=lambda n: self.size(separator.join(parts[:n])))
        return separator.join(parts[:fitting])

    def _splitter(self, separator: str) -> Any:
        """Return the splitter that prefers ``separator``; its ``chunk_size`` is set at each use."""
        from llama_index.core.node_parser import SentenceSplitter

        if separator not in self._splitters:
            splitter: Any = SentenceSplitter(
                chunk_size=self.window,
                chunk_overlap=0,
                tokenizer=lambda piece: range(self.size(piece)),
                paragraph_separator=separator,
                chunking_tokenizer_fn=lambda piece: self._sentences(piece, splitter.chunk_size),
                include_metadata=False,
            )
            self._splitters[separator] = splitter
        return self._splitters[separator]

    def _sentences(self, text: str, most: int) -> list[str]:
        """Return the sentences of ``text`` with the white space behind them, so that they join to the whole again.

        Sentences longer than ``most`` are cut inside words that are too long.
        """
        starts = [0, *(start for start, _ in sentence_spans(text)[1:]), len(text)]
        sentences = [text[a:b] for a, b in pairwise(starts) if a < b]
        return [part for whole in sentences for part in (_cut_words(whole) if self.size(whole) > most else [whole])]


def _cut_words(text: str) -> list[str]:
    """Cut ``text`` after each ``LONGEST_WORD`` characters without white space."""
    cuts = [0]
    for match in _LONG_WORD.finditer(text):
        cuts.extend(range(match.start() + LONGEST_WORD, match.end(), LONGEST_WORD))
    return [text[a:b] for a, b in pairwise([*cuts, len(text)])]
