"""Texts that are near to another text by their words, of a few held in memory.

BM25 (Robertson and Zaragoza, "The Probabilistic Relevance Framework", 2009; k1 = 1.2, b = 0.75) over a list of texts in
memory, exact: sentences of an article near to a claim, passages near to a training question. Knows no index.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from rag.words import Analyser

_K1, _B = 1.2, 0.75


class Near:
    """Finds those of ``texts`` that share the rarest words with a question."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._analyser = Analyser()
        counts = [Counter(self._analyser.terms(text)) for text in texts]
        sizes = np.array([sum(count.values()) for count in counts], dtype=np.float32)
        norms = _K1 * (1 - _B + _B * sizes / max(float(sizes.mean()), 1.0)) if len(texts) else sizes
        found: dict[str, list[tuple[int, int]]] = {}
        for number, count in enumerate(counts):
            for term, often in count.items():
                found.setdefault(term, []).append((number, often))
        self._texts = len(texts)
        self._postings: dict[str, tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]] = {}
        for term, rows in found.items():
            numbers, times = (np.array(column) for column in zip(*rows, strict=True))
            rarity = np.log(1 + (len(texts) - len(rows) + 0.5) / (len(rows) + 0.5))
            self._postings[term] = numbers, (rarity * times * (_K1 + 1) / (times + norms[numbers])).astype(np.float32)

    def nearest(self, question: str, most: int) -> list[int]:
        """Return the numbers of at most ``most`` texts that share a word with ``question``, nearest first."""
        scores = np.zeros(self._texts, dtype=np.float32)
        for term in set(self._analyser.terms(question)):
            if term in self._postings:
                numbers, weights = self._postings[term]
                scores[numbers] += weights
        there = np.flatnonzero(scores > 0)
        if len(there) > most:
            least = np.partition(scores[there], -most)[-most]
            there = there[scores[there] >= least]
        best = np.argsort(-scores[there], kind="stable")[:most]
        return [int(number) for number in there[best]]
