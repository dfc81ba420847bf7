"""What stands around the passages that were found, and how little they repeat each other: two options of a search.

`diversified` is maximal marginal relevance of Carbonell and Goldstein, "The use of MMR, diversity-based reranking"
(SIGIR 1998): each next passage is the one with the largest

    (1 - d) * relevance  -  d * (its largest cosine to those chosen before)

for a diversity d in [0, 1]. Relevance is the score of the last stage, stretched to [0, 1]. `surrounded` adds the chunks
next to a passage, or all of its section, without ranking them. Knows the catalog for both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from rag.catalog import Catalog
from rag.protocols import Vectors
from rag.records import Kind, Neighbour, Passage

#: Chunks on either side among which those of the same section are looked for.
SECTION_REACH = 50


def diversified(relevance: Sequence[float], vectors: Vectors, diversity: float, most: int) -> list[int]:
    """Return the positions of at most ``most`` rows in the order of their choice, see above.

    ``relevance`` (n,) is in [0, 1]; ``vectors`` (n, dimension) have unit rows. Equal values: the first.
    """
    gain = (1 - diversity) * np.asarray(relevance, dtype=np.float64)
    nearest = np.zeros(len(gain))
    chosen: list[int] = []
    left = np.ones(len(gain), dtype=bool)
    while left.any() and len(chosen) < most:
        value = np.where(left, gain - diversity * nearest, -np.inf)
        best = int(np.argmax(value))
        chosen.append(best)
        left[best] = False
        likeness = vectors @ vectors[best]
        nearest = likeness if len(chosen) == 1 else np.maximum(nearest, likeness)
    return chosen


def surrounded(catalog: Catalog, passage: Passage, around: int, *, section: bool) -> Passage:
    """Return a passage with the ``around`` chunks on either side, or with all of its section that is next to it.

    What readers of the document do not see stands around nothing.
    """
    reach = SECTION_REACH if section else around
    near = catalog.neighbours(passage.collection_id, passage.version_id, passage.seq, reach)
    found = [chunk for chunk in near if chunk.kind is not Kind.HIDDEN]
    if section:
        found = _unbroken(passage, found)
    return replace(passage, around=tuple(found))


def _unbroken(passage: Passage, found: Sequence[Neighbour]) -> list[Neighbour]:
    """Return the chunks from which one gets to the passage without leaving its section."""
    kept: list[Neighbour] = []
    before = [chunk for chunk in reversed(found) if chunk.seq < passage.seq]
    after = [chunk for chunk in found if chunk.seq > passage.seq]
    for side in (before, after):
        for chunk in side:
            if chunk.section != passage.section:
                break
            kept.append(chunk)
    return sorted(kept, key=lambda chunk: chunk.seq)
