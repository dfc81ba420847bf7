"""The built-in reader as a reranker: how likely a passage answers the question, by the model that also marks the words.

It has been trained to tell answers from near misses and not to order many passages, so that its log odds join the
ranking before it and do not take its place, see `rag.retrieval.beside`. Knows no index and no catalog.
"""

from __future__ import annotations

from collections.abc import Sequence

from rag.pairs import MOST_TOKENS
from rag.span_reader import Asked, SpanReader


class ReaderHead:
    """A `rag.protocols.Reranker` over a trained reader, which whoever opened it closes. Thread-safe."""

    name = "reader"
    window = MOST_TOKENS

    def __init__(self, reader: SpanReader) -> None:
        self._reader = reader

    def lengths(self, question: str, passages: Sequence[str]) -> list[int]:
        """See `rag.protocols.Reranker`: question, passage and special tokens."""
        return self._reader.lengths(question, passages)

    def score(self, question: str, passages: Sequence[str]) -> list[float]:
        """See `rag.protocols.Reranker`: the log odds that a passage answers."""
        return self._reader.first_odds([Asked(question, "", passage) for passage in passages])
