"""Late interaction as a reranker of any texts: what a search does with its candidates, without a catalog.

The codes of the passages are made here, of the very text that is given, and the question's tokens look for their best
match among them (`rag.late`). No collection says how rare a word is, and what other passages come along must not matter
to the score of one: every word weighs the same, but for stop words and signs, which weigh nothing. Words with figures
are there or not, as in `rag.interaction`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rag.interaction import Scores, figures_in, settle, words_at
from rag.late import max_sim, weighted
from rag.protocols import Embedder, TokenVectors
from rag.words import Analyser


class LateInteraction:
    """A `rag.protocols.Reranker` over the token vectors of an embedder. Thread-safe."""

    name = "late-interaction"

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder
        self._analyser = Analyser()

    @property
    def window(self) -> int:
        """See `rag.protocols.Reranker`."""
        return self._embedder.window

    def lengths(self, question: str, passages: Sequence[str]) -> list[int]:
        """See `rag.protocols.Reranker`: the question is read apart from the passages."""
        del question
        return self._embedder.count_tokens(passages)

    def score(self, question: str, passages: Sequence[str]) -> list[float]:
        """See `rag.protocols.Reranker`: scores lie in [-1, 1], and a passage without a word has -1."""
        if not passages:
            return []
        asked = self._embedder.encode([question], role="query", tokens=True).tokens[0]
        codes = self._embedder.encode(passages, codes=True).codes
        weights = self._weights(question, asked)
        if (weighty := weights > 0).any():
            weights = weights[weighty]
            asked = TokenVectors(asked.vectors[weighty], asked.spans[weighty], asked.ids[weighty])
        matches = max_sim(asked.vectors, codes)
        self._settle_figures(question, asked, passages, matches)
        found: list[float] = weighted(matches, weights).tolist()
        return found

    def _weights(self, question: str, asked: TokenVectors) -> Scores:
        """Return 1 for each token of a word, and 0 for those of stop words and signs."""
        return np.array([bool(self._analyser.terms(word)) for word in words_at(question, asked.spans)], np.float32)

    def _settle_figures(self, question: str, asked: TokenVectors, passages: Sequence[str], matches: Scores) -> None:
        words = figures_in(question)
        of_tokens = np.array(words_at(question, asked.spans))
        texts = [set(self._analyser.terms(passage)) for passage in passages] if words else []
        for word in words:
            wanted = set(self._analyser.terms(word))
            for row, terms in zip(matches, texts, strict=True):
                settle(row, of_tokens == word, is_there=bool(wanted & terms))
