"""What a collection has taught its searches: how the parts of a ranking are weighed, and how a question is turned.

    dense vector of the question    q' = q A / |q A|             A: the query adapter
    its token vectors               t' = t P / |t P|             P: the projection of late interaction

Passages stay as they are embedded, so that a tuning takes force, and is taken back, at once. Knows no catalog and no
index; how one is learnt and judged is for `eval.tuning`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import numpy as np

from rag.protocols import Encoding, TokenVectors, Vectors


@dataclass(frozen=True, slots=True)
class Tuned:
    """The weights of `rag.retrieval` in [0, 1], and the maps (dimension, dimension) of a question's vectors, if any.

    ``reader_weight`` is what a log odds of the built-in reader counts beside a standard deviation of the scores: 0 if
    the reader does not rank, None if the settings say.
    """

    dense_weight: float
    late_weight: float
    adapter: Vectors | None = None
    projection: Vectors | None = None
    reader_weight: float | None = None

    def turned(self, asked: Encoding) -> Encoding:
        """Return the vectors of a question as they are looked for; unit rows stay unit rows."""
        if self.adapter is not None:
            asked = replace(asked, vectors=unit_rows(asked.vectors @ self.adapter))
        if self.projection is not None:
            turned = [TokenVectors(unit_rows(t.vectors @ self.projection), t.spans, t.ids) for t in asked.tokens]
            asked = replace(asked, tokens=tuple(turned))
        return asked


@dataclass(frozen=True, slots=True)
class Tuning:
    """A tuning of the catalog. ``embedder`` is the fingerprint of the vectors that it was learnt for.

    ``report`` says in numbers how it was learnt and what each step of it brought on questions that were held back.
    """

    id: str
    collection_id: str
    created_at: datetime
    embedder: str
    dense_weight: float
    late_weight: float
    has_adapter: bool
    has_projection: bool
    report: Mapping[str, Any]
    in_force: bool
    reader_weight: float | None


def unit_rows(vectors: Vectors) -> Vectors:
    """Return rows of length 1; a row of zeros stays as it is."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    found: Vectors = (vectors / np.maximum(lengths, 1e-12)).astype(np.float32)
    return found
