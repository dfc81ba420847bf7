"""Elements to chunks: owns the llama-index node parsers.

A chunk is a span of the parsed text within one section, that fits the embedder's window together with its context
(title, headings, a table's header row), measured in the embedder's own tokens. Tables are split between rows, lists
between items, prose between paragraphs, then sentences, and only what is longer than a window inside a sentence.
Knows no file format, no vector and no catalog.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby, pairwise
from typing import Any

from rag.records import ELEMENT_SEPARATOR, Chunk, Element, Kind, ParsedDocument
from rag.sentences import sentence_spans

CountTokens = Callable[[Sequence[str]], list[int]]
#: Largest share of the window that context may take.
CONTEXT_SHARE = 0.35
#: Parts that stand on every page and say nothing of their own.
FURNITURE = frozenset({Kind.HEADER, Kind.FOOTER})


def chunk(parsed: ParsedDocument, window: int, count_tokens: CountTokens) -> list[Chunk]:
    """Cut a document into chunks of at most ``window`` tokens, in the order of the text.

    ``count_tokens`` counts in the embedder's tokens, its special tokens included. Each visible character of each
    element, page headers and footers apart, is in exactly one chunk; ``chunk.text`` is exactly
    ``parsed.text[chunk.start:chunk.end]``.
    """
    text = parsed.text
    chunks = [
        piece
        for run in _runs(parsed.elements)
        for piece in _chunks_of_run(run, text, parsed.title, window, count_tokens)
    ]
    sizes = count_tokens([piece.indexed_text for piece in chunks])
    return [replace(piece, tokens=size) for piece, size in zip(chunks, sizes, strict=True)]


def _runs(elements: Sequence[Element]) -> Iterator[list[Element]]:
    """Yield neighbours that belong together: a heading with what follows it in its section, or one table."""

    def key(numbered: tuple[int, Element]) -> tuple[object, ...]:
        number, element = numbered
        if element.kind is Kind.TABLE or element.kind in FURNITURE:
            return (number,)
        return _home(element)

    for _, group in groupby(enumerate(elements), key):
        run = [element for _, element in group]
        if run[0].kind not in FURNITURE:
            yield run


def _home(element: Element) -> tuple[str, ...]:
    """The section that an element opens or stands in."""
    return (*element.section, element.text) if element.kind is Kind.TITLE else element.section


def _chunks_of_run(
    run: list[Element], text: str, title: str | None, window: int, count_tokens: CountTokens
) -> Iterator[Chunk]:
    start, end = run[0].start, run[-1].end
    is_table = run[0].kind is Kind.TABLE
    section = _home(run[0])
    header = run[0].text.partition("\n")[0] if is_table else ""
    room = int(window * CONTEXT_SHARE)
    path = _shortened([title or "", *section], " > ", room, count_tokens)
    later = _shortened([path, header], "\n", room, count_tokens) if header else path
    opening = _shortened([title or "", *run[0].section], " > ", room, count_tokens)
    most = window - max(count_tokens([path, later, opening]))
    cursor = start
    for piece in _split(text[start:end], "\n" if is_table else ELEMENT_SEPARATOR, most, count_tokens):
        cursor = text.index(piece, cursor)
        first = next(element for element in run if element.end > cursor)
        # A chunk that begins with the heading or the header row itself does not need it again as context.
        context = opening if cursor == start else later
        stop = cursor + len(piece)
        kinds = {element.kind for element in run if element.start < stop and element.end > cursor}
        kind = kinds.pop() if len(kinds) == 1 else Kind.TEXT
        yield Chunk(piece, context, cursor, stop, kind, first.page, section, 0)
        cursor = stop


def _shortened(parts: Sequence[str], separator: str, room: int, count_tokens: CountTokens) -> str:
    """Join the parts that differ from the one before, leaving out the first ones until ``room`` tokens hold it."""
    kept = [part for part, before in zip(parts, ["", *parts], strict=False) if part and part != before]
    while kept and count_tokens([separator.join(kept)])[0] > room:
        kept = kept[1:]
    return separator.join(kept)


def _split(text: str, separator: str, most_tokens: int, count_tokens: CountTokens) -> list[str]:
    """Return pieces of ``text`` in order, each within ``most_tokens`` tokens; only white space is between them."""
    from llama_index.core.node_parser import SentenceSplitter

    special = count_tokens([""])[0]

    def tokenize(piece: str) -> Any:
        return range(count_tokens([piece])[0] - special)

    splitter = SentenceSplitter(
        chunk_size=most_tokens,
        chunk_overlap=0,
        tokenizer=tokenize,
        paragraph_separator=separator,
        chunking_tokenizer_fn=_sentences_with_gaps,
        include_metadata=False,
    )
    return [piece for piece in splitter.split_text(text) if piece]


def _sentences_with_gaps(text: str) -> list[str]:
    """Return the sentences of ``text``, each with the white space behind it, so that they join to the whole again."""
    starts = [0, *(start for start, _ in sentence_spans(text)[1:]), len(text)]
    return [text[a:b] for a, b in pairwise(starts) if a < b]
