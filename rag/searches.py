"""Searches of many callers at once: each is planned and answered by itself, and all of a round are embedded together.

A caller that leaves is noticed before each of these steps, and none of them is done for it then. Knows how a plan is
retrieved, and nothing of who asks or of what becomes of a ranking.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar, cast

from rag.batching import BatchingEmbedder, Rounds, Turn
from rag.records import Plan, Ranking
from rag.retrieval import Retriever
from rag.settings import ServerSettings

ResultT = TypeVar("ResultT")


@dataclass(frozen=True, slots=True)
class Search:
    """What a caller wants: ``plan`` says how to look, ``reply`` what to make of what was found."""

    plan: Callable[[], Plan]
    reply: Callable[[Plan, Ranking], Any]


class Searches:
    """Searches for many callers with one ``retriever``, whose questions ``embedder`` embeds. Thread-safe."""

    def __init__(self, retriever: Retriever, embedder: BatchingEmbedder, settings: ServerSettings) -> None:
        self._retriever = retriever
        self._embedder = embedder
        self._rounds: Rounds[Search, Any] = Rounds(
            self._work_off,
            name="search",
            threads=settings.search_threads,
            most=settings.search_batch,
            places=settings.max_searches,
            patience=settings.queue_seconds,
        )

    def submit(self, plan: Callable[[], Plan], reply: Callable[[Plan, Ranking], ResultT]) -> Future[ResultT]:
        """Return the future of a search; ``plan`` and ``reply`` are called in the thread that searches.

        What any of its steps raises, the future raises. Cancel it when nobody waits any more. Raises `Busy` at once if
        as many callers are there as the settings allow, and `Unavailable` after `close`.
        """
        return cast(Future[ResultT], self._rounds.submit(Search(plan, reply)))

    def close(self) -> None:
        """Finish what is being searched, and refuse who still waits."""
        self._rounds.close()

    def _work_off(self, turns: Sequence[Turn[Search, Any]]) -> None:
        planned = [(turn, plan) for turn in turns if (plan := _planned(turn)) is not None]
        with self._embedder.together(lambda: [plan.question for turn, plan in planned if not turn.over]):
            for turn, plan in planned:
                turn.settle(partial(self._answered, turn.item, plan))

    def _answered(self, search: Search, plan: Plan) -> Any:
        return search.reply(plan, self._retriever.retrieve(plan))


def _planned(turn: Turn[Search, Any]) -> Plan | None:
    """Return the plan of a search; None if its caller has left, or has the reason why there is none."""
    if turn.over:
        return None
    try:
        return turn.item.plan()
    except BaseException as error:  # noqa: BLE001 -- the caller gets it; the others of the round go on
        turn.fail(error)
        return None
