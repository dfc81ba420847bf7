"""Late interaction in a search: weighs the tokens of a question, reads the codes of the candidates, and scores them.

A token of the question weighs as much as its word is rare in the collections that are searched: the idf of the lexical
index, of today. Stop words and signs weigh nothing. A word with a figure in it (a part number, a year, an error code)
is there or not: to a model all part numbers look alike, so that the lexical index is asked.

Knows the catalog for the codes and the lexical indexes for their terms; the arithmetic is that of `rag.late`.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from rag.catalog import Catalog
from rag.late import max_sim
from rag.protocols import Codes, LexicalIndex, TokenVectors
from rag.words import WORD, Analyser

Scores = npt.NDArray[np.float32]
KeyT = TypeVar("KeyT", bound=Hashable)
#: How many words with figures of one question are looked up.
MOST_FIGURES = 8


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
        terms = [self._analyser.terms(word) for word in words_at(question, spans)]
        wanted = sorted({term for some in terms for term in some})
        found = zip(*(index.rarity(wanted) for index in indexes), strict=True)
        rarity = {term: min(weights) for term, weights in zip(wanted, found, strict=True)}
        return np.array([max((rarity[term] for term in some), default=0.0) for some in terms], dtype=np.float32)

    def settle_figures(
        self,
        question: str,
        spans: npt.NDArray[np.int32],
        matches: Mapping[int, Scores],
        index: LexicalIndex,
        most: int,
    ) -> None:
        """Set the ``matches`` (q,) of words with figures to 1 where a row holds the word, and to 0 at most elsewhere.

        A word that ``most`` rows or more hold tells little, and is left as it is.
        """
        if not (words := figures_in(question)):
            return
        of_tokens = np.array(words_at(question, spans))
        for word in words:
            holding = set(index.search(word, most).seqs.tolist())
            if len(holding) == most:
                continue
            tokens = of_tokens == word
            for seq, row in matches.items():
                settle(row, tokens, is_there=seq in holding)

    def codes(self, collection_id: str, seqs: Sequence[int]) -> Mapping[int, Codes]:
        """Return the codes of rows of a collection, which `matches` scores."""
        return self._catalog.codes(collection_id, self._embedder, self._dimension, seqs)

    @staticmethod
    def matches(tokens: TokenVectors, found: Mapping[KeyT, Codes]) -> dict[KeyT, Scores]:
        """Return how well each token of the question is matched (q,) by each of some rows; without rows of no codes."""
        coded = [key for key, codes in found.items() if len(codes)]
        return dict(zip(coded, max_sim(tokens.vectors, [found[key] for key in coded]), strict=True))


def figures_in(question: str) -> list[str]:
    """Return the words of a question that have a figure in them, each once, up to `MOST_FIGURES`."""
    words = dict.fromkeys(word for word in WORD.findall(question) if any(map(str.isdigit, word)))
    return list(words)[:MOST_FIGURES]


def settle(row: Scores, tokens: npt.NDArray[np.bool_], *, is_there: bool) -> None:
    """Set the matches of a row (q,) at the ``tokens`` of a word that is there to 1, else to 0 at most."""
    row[tokens] = np.maximum(row[tokens], 1) if is_there else np.minimum(row[tokens], 0)


def words_at(question: str, spans: npt.NDArray[np.int32]) -> list[str]:
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
