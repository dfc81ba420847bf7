"""What the catalog can say of itself in figures: how much waits, and for how long.

For those who watch over the whole: what is counted here is every caller's. Knows the tables, and no one who looks.
"""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

from rag.catalog.part import ACTIVE, Part
from rag.records import State
from rag.schema import versions


@dataclass(frozen=True, slots=True)
class QueueFigures:
    """How many files wait, how many are being worked on, and how long the oldest that is not done has been there."""

    waiting: int
    processing: int
    oldest_seconds: float


class Figures(Part):
    """The part of the catalog that counts."""

    def queue_figures(self) -> QueueFigures:
        """Return how full the queue is, and how old."""
        query = (
            sa.select(versions.c.state, sa.func.count(), sa.func.min(versions.c.created_at))
            .where(versions.c.state.in_(ACTIVE))
            .group_by(versions.c.state)
        )
        with self._read() as connection:
            found = {state: (count, oldest) for state, count, oldest in connection.execute(query)}
            at = self._database.now(connection)
        ages = [(at - oldest).total_seconds() for _, oldest in found.values()]
        waiting, processing = (found.get(state.value, (0, None))[0] for state in (State.QUEUED, State.PROCESSING))
        return QueueFigures(waiting, processing, max(0.0, *ages) if ages else 0.0)
