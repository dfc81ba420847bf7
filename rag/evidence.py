"""What the passages of a prompt hold that a claim may rest on: their sentences and rows, and which are near to a claim.

Made once for an answer. Knows no judge: which of the near ones support a claim, `rag.citations` asks one.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property

from rag.near import Near
from rag.records import Passage, Quote
from rag.tables import evidence_spans, header_of
from rag.windows import quoted_chunk, window


@dataclass(frozen=True, slots=True)
class Unit:
    """A sentence, or a row of a table, at [start, end) of a chunk's text, in passage ``number`` or around it."""

    number: int
    chunk: Passage
    start: int
    end: int

    @property
    def text(self) -> str:
        return self.chunk.text[self.start : self.end]

    @property
    def stated(self) -> str:
        """Its words as they are to be understood: a row stands under its header."""
        header = header_of(self.chunk)
        return f"{header}\n{self.text}" if header and header.strip() != self.text else self.text

    @property
    def headed(self) -> str:
        """Its words under the title and headings above them."""
        context = self.chunk.context
        under = self.text if header_of(self.chunk) and context.endswith(header_of(self.chunk)) else self.stated
        return f"{context}\n{under}" if context else under


class Evidence:
    """All that the passages of a prompt, and the chunks around them, say."""

    def __init__(self, passages: Sequence[Passage]) -> None:
        self.passages = passages

    @cached_property
    def units(self) -> list[Unit]:
        """Every sentence and row, by passage; the passage's own before those around it."""
        return [
            Unit(number, chunk, start, end)
            for number, passage in enumerate(self.passages, 1)
            for chunk in sorted(window(passage), key=lambda chunk: chunk.chunk_id != passage.chunk_id)
            for start, end in evidence_spans(chunk)
        ]

    def near(self, claim: str, numbers: Collection[int], most: int) -> list[Unit]:
        """Return at most ``most`` units of the passages ``numbers`` that share the rarest words with a claim."""
        ranked = (self.units[place] for place in self._near.nearest(claim, len(self.units)))
        return [unit for unit in ranked if unit.number in numbers][:most]

    def first(self, number: int, most: int) -> list[Unit]:
        """Return the first units of a passage."""
        return [unit for unit in self.units if unit.number == number][:most]

    def quoted(self, quote: Quote) -> Unit:
        """Return what a generator quoted as a unit of the chunk that holds it."""
        chunk = quoted_chunk(self.passages[quote.passage - 1], quote)
        return Unit(quote.passage, chunk, quote.start - chunk.start, quote.end - chunk.start)

    @cached_property
    def _near(self) -> Near:
        return Near([unit.text for unit in self.units])
