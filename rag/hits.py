"""Rows and their scores: which rows a search may return, and which are the best of them.

Arrays of sequence numbers are sorted. Knows no index and no catalog.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from rag.protocols import Hits, Rows

Mask = np.ndarray[Any, np.dtype[np.bool_]]
Scores = np.ndarray[Any, np.dtype[np.float32]]
#: With fewer numbers than one in so many rows, each is looked up; otherwise all rows are gone through.
_FEW = 16


def places(seqs: Rows, some: Rows) -> Rows:
    """Return where the numbers ``some`` stand in ``seqs``, in order; those that do not are left out."""
    if not len(seqs):
        return np.zeros(0, dtype=np.int64)
    found = np.minimum(np.searchsorted(seqs, some), len(seqs) - 1)
    there: Rows = found[seqs[found] == some]
    return there


def within(seqs: Rows, alive: Mask, allowed: Rows | None) -> Mask:
    """Return the mask of rows that are alive and, if ``allowed`` (sorted) is given, in it."""
    if allowed is None:
        return alive
    mask = np.zeros_like(alive)
    if not len(seqs):
        return mask
    here = allowed[np.searchsorted(allowed, seqs[0]) : np.searchsorted(allowed, seqs[-1], side="right")]
    if len(here) * _FEW < len(seqs):
        found = places(seqs, here)
        mask[found] = alive[found]
        return mask
    member = np.zeros(seqs[-1] - seqs[0] + 1, dtype=bool)
    member[here - seqs[0]] = True
    np.logical_and(member[seqs - seqs[0]], alive, out=mask)
    return mask


def top(seqs: Rows, scores: Scores, k: int) -> Hits:
    """Return the ``k`` best of parallel arrays, best first, equal scores in the order of their numbers."""
    if len(scores) > k:
        # Everything that ties with the last place stays in until the order by number has been applied.
        bar = np.partition(scores, len(scores) - k)[len(scores) - k]
        kept = np.flatnonzero(scores >= bar)
        seqs, scores = seqs[kept], scores[kept]
    return ordered(seqs, scores, k)


def ordered(seqs: Rows, scores: Scores, k: int | None = None) -> Hits:
    """Return parallel arrays as hits, best first, cut after ``k``."""
    order = np.lexsort((seqs, -scores))[:k]
    return Hits(seqs[order], scores[order].astype(np.float32))


def merge(a: Hits, b: Hits, k: int) -> Hits:
    """Return the ``k`` best of two lists of hits that have no row in common."""
    return top(np.concatenate([a.seqs, b.seqs]), np.concatenate([a.scores, b.scores]), k)


def no_hits() -> Hits:
    return Hits(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float32))
