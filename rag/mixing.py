"""One ranking out of those of several queries.

Some queries ask: the question, its parts, the same in other words. A passage that answers one of them is as good as
any, so that of these the best score counts, and each part has its passages among the first. Others surround what is
asked: a passage that might answer it, the conversation before it. Who is close to these is not yet an answer, and they
only back up what is found:

    score(p) = max over asking queries a of s(a, p)  +  BACKING * sum over backing queries b of s(b, p) / max of s(b, .)

A passage that a query has not found has 0 from it. eval/LOG.md has what was tried beside this: the mean, taking turns
and reciprocal ranks are worse for parts, the maximum is worse for the others.

Knows no index and no passage: scores are numbers by key.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import TypeVar

from rag.queries import Query, QueryRole

KeyT = TypeVar("KeyT", bound=Hashable)
#: What the best find of a backing query counts beside that of an asking one.
BACKING = 0.5
BACKING_ROLES = frozenset({QueryRole.HYPOTHETICAL, QueryRole.CONVERSATION})


def mixed(queries: Sequence[Query], scores: Sequence[Mapping[KeyT, float]]) -> dict[KeyT, float]:
    """Return the scores of all that any of ``queries`` found, see above; ``scores`` has one mapping for each of them.

    The scores of a query are 0 or more. The result of one asking query alone is its own scores.
    """
    found: dict[KeyT, float] = {}
    for query, own in zip(queries, scores, strict=True):
        if query.role not in BACKING_ROLES:
            for key, score in own.items():
                found[key] = max(score, found.get(key, 0.0))
    for query, own in zip(queries, scores, strict=True):
        if query.role in BACKING_ROLES and (best := max(own.values(), default=0.0)) > 0:
            for key, score in own.items():
                found[key] = found.get(key, 0.0) + BACKING * score / best
    return found
