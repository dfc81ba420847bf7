"""Late interaction in a search: weighs the tokens of a question, reads the codes of the candidates, and scores them.

A token of the question weighs as much as its word is rare in the collections that are searched: the idf of the lexical
index, of today. Stop words and signs weigh nothing. Knows the catalog for the codes and the lexical indexes for how
rare a term is; the arithmetic is that of `rag.late`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from rag.catalog import Catalog
from rag.late import max_sim
from rag.protocols import Codes, LexicalIndex, TokenVectors
from rag.words import WORD, Analyser

Scores = npt.NDArray[np.float32]


class Interaction:
    """Scores rows of collections under one embedder of ``dimension``. Thread-safe."""

    def __init__(self, catalog: Catalog, embedder: str, dimension: int) -> None:
        self._catalog = catalog
        self._embedder = embedder
        self._dimension = dimension
        self._analyser = Analyser()

    def weights(self, question: str, spans: npt.NDArray[np.int32], indexes: Sequence[LexicalIndex]) -> Scores:
        """Return the weight (q,) of each token of a question by its place in ``spans`` (q, 2).

        A word of several terms weighs as its rarest, and over several indexes as in the one where it is most common.
        """
        terms = [self._analyser.terms(word) for word in _words_at(question, spans)]
        wanted = sorted({term for some in terms for term in some})
        found = zip(*(index.rarity(wanted) for index in indexes), strict=True)
        rarity = {term: min(weights) for term, weights in zip(wanted, found, strict=True)}
        return np.array([max((rarity[term] for term in some), default=0.0) for some in terms], dtype=np.float32)

    def matches(self, collection_id: str, tokens: TokenVectors, seqs: Sequence[int]) -> dict[int, Scores]:
        """Return how well each token of the question is matched (q,) by each of ``seqs``; without rows of no codes."""
        found: Mapping[int, Codes] = self._catalog.codes(collection_id, self._embedder, self._dimension, seqs)
        coded = [seq for seq, codes in found.items() if len(codes)]
        return dict(zip(coded, max_sim(tokens.vectors, [found[seq] for seq in coded]), strict=True))


def _words_at(question: str, spans: npt.NDArray[np.int32]) -> list[str]:
    """Return for each token the word that it is part of: its own characters where writing knows no spaces."""
    words = [(match.start(), match.end()) for match in WORD.finditer(question)]
    found = []
    for start, end in spans.tolist():
        first, last = next(((a, b) for a, b in words if a <= start < b), (start, start))
        spaced = question[first:last].isascii() or last - first <= LONGEST_WORD
        found.append(question[first:last] if spaced else question[start:end])
    return found


#: A longer run of letters that are not ASCII is taken for words without spaces between them.
LONGEST_WORD = 20
