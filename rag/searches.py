"""Searches of many callers at once: each is planned and answered by itself, and those of a round share what they can.

Their questions are embedded together, what they read of the catalog is read together (`rag.reading`), and the counters
of a collection are looked up once for all of them. What each finds is what it would find alone. A caller that leaves is
noticed before each of these steps, and none of them is done for it then. Knows how a plan is retrieved, and nothing of
who asks or of what becomes of a ranking.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar, cast

from rag.batching import BatchingEmbedder, Rounds, Turn
from rag.queries import QueryRole
from rag.reading import Step, serve
from rag.records import Plan, Ranking
from rag.retrieval import Retriever
from rag.settings import ServerSettings
from rag.telemetry import SILENT, Clock, Telemetry

ResultT = TypeVar("ResultT")


@dataclass(frozen=True, slots=True)
class Search:
    """What a caller wants: ``plan`` says how to look, ``reply`` what to make of what was found, traced or not.

    ``clock`` measures the stages of the search, and knows the caller's place in a trace.
    """

    plan: Callable[[], Plan]
    reply: Callable[[Plan, Ranking], Any]
    trace: bool
    clock: Clock


class Searches:
    """Searches for many callers with one ``retriever``, whose questions ``embedder`` embeds. Thread-safe."""

    def __init__(
        self,
        retriever: Retriever,
        embedder: BatchingEmbedder,
        settings: ServerSettings,
        telemetry: Telemetry = SILENT,
    ) -> None:
        self._retriever = retriever
        self._embedder = embedder
        self._telemetry = telemetry
        self._rounds: Rounds[Search, Any] = Rounds(
            self._work_off,
            name="search",
            threads=settings.search_threads,
            most=settings.search_batch,
            places=settings.max_searches,
            patience=settings.queue_seconds,
        )

    def submit(
        self, plan: Callable[[], Plan], reply: Callable[[Plan, Ranking], ResultT], *, trace: bool = False
    ) -> Future[ResultT]:
        """Return the future of a search; ``plan`` and ``reply`` are called in the thread that searches.

        For ``trace`` see `rag.retrieval.Retriever.retrieve`. What any of its steps raises, the future raises. Cancel it
        when nobody waits any more. Raises `Busy` at once if as many callers are there as the settings allow, and
        `Unavailable` after `close`.
        """
        clock = Clock("search", self._telemetry)
        return cast(Future[ResultT], self._rounds.submit(Search(plan, reply, trace, clock)))

    @property
    def in_hand(self) -> int:
        """How many searches wait or are being made."""
        return self._rounds.there

    def close(self) -> None:
        """Finish what is being searched, and refuse who still waits."""
        self._rounds.close()

    def _work_off(self, turns: Sequence[Turn[Search, Any]]) -> None:
        with self._retriever.one_moment():
            planned = [(turn, plan) for turn in turns if (plan := _planned(turn)) is not None]
            with self._embedder.together(lambda: [text for turn, p in planned if not turn.over for text in _texts(p)]):
                self._answer(planned)

    def _answer(self, planned: Sequence[tuple[Turn[Search, Any], Plan]]) -> None:
        """Let searches go on in step, and settle each as soon as it has ended."""
        begun = (
            (turn, plan, self._retriever.steps(plan, trace=turn.item.trace, clock=turn.item.clock))
            for turn, plan in planned
        )
        going = [(turn, plan, Step(steps)) for turn, plan, steps in begun if not turn.over]
        while going:
            for turn, plan, step in going:
                if step.wanted is None:
                    turn.settle(partial(_replied, turn.item, plan, step))
            going = [(turn, plan, step) for turn, plan, step in going if not turn.over]
            serve([step for _, _, step in going])


def _replied(search: Search, plan: Plan, step: Step[Ranking]) -> Any:
    return search.reply(plan, step.result)


def _texts(plan: Plan) -> list[str]:
    """Return what is embedded as a question for a plan."""
    return [query.text for query in plan.queries if query.role is not QueryRole.HYPOTHETICAL]


def _planned(turn: Turn[Search, Any]) -> Plan | None:
    """Return the plan of a search; None if its caller has left, or has the reason why there is none."""
    if turn.over:
        return None
    try:
        return turn.item.plan()
    except BaseException as error:  # noqa: BLE001 -- the caller gets it; the others of the round go on
        turn.fail(error)
        return None
