"""An answer of the log made anew, and what has changed: in the indexes, in what was found, in what is said.

Knows the log's records, and shows nothing: what is compared here, others print.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace

from rag.answering import Answering
from rag.answers import Answer, Keeping
from rag.catalog import Catalog
from rag.errors import BadInput, NotFound
from rag.logged import Facts, IndexState, Logged, Texts
from rag.pipeline import Done, Passages
from rag.records import Collection, Plan, Ranking

#: Differences of a support score below this come from how it was added up.
SAME = 1e-6


@dataclass(frozen=True, slots=True)
class Moved:
    """Chunks that are found now and were not then, and the other way round; ``reordered`` if only places differ."""

    gained: tuple[str, ...]
    lost: tuple[str, ...]
    reordered: bool

    @property
    def any(self) -> bool:
        return bool(self.gained or self.lost or self.reordered)


@dataclass(frozen=True, slots=True)
class Replayed:
    """An answer ``then`` and ``now``. ``indexes`` and ``stages`` hold what differs, by the name of each.

    ``text`` is a difference in lines that begin with ``-`` (then), ``+`` (now) or a space; empty if nothing differs.
    """

    then: Answer
    now: Answer
    settings: tuple[str, str]
    indexes: Mapping[str, tuple[IndexState, IndexState]]
    stages: Mapping[str, Moved]
    passages: Moved
    text: tuple[str, ...]
    support: tuple[float, float]

    @property
    def is_same(self) -> bool:
        """Whether the same is said, from the same passages and with the same support."""
        same_support = abs(self.support[0] - self.support[1]) < SAME
        cited = [[(c.document_id, c.version_id, c.quote) for c in answer.citations] for answer in (self.then, self.now)]
        return not self.text and not self.passages.any and same_support and cited[0] == cited[1]


async def replay(answering: Answering, catalog: Catalog, logged: Logged) -> Replayed:
    """Answer what was asked again as it was asked, with the settings and documents of now, past cache and log.

    Raises `BadInput` if the log does not say what was asked, and `NotFound` if a collection is gone.
    """
    if logged.texts is None or logged.texts.plan is None or logged.facts is None:
        reason = "it rests on a document that was purged" if logged.purged_at else "the log has no texts of it"
        raise BadInput(f"The answer {logged.id} can not be replayed: {reason}.")
    texts, facts = logged.texts, logged.facts
    plan = _as_of_now(catalog, logged.texts.plan)
    states = answering.index_states(plan)
    ranking: Ranking | None = None
    async with aclosing(answering.stream(plan, texts.wish, Keeping(store=False, cached=False))) as events:
        async for event in events:
            if isinstance(event, Passages):
                ranking = event.ranking
            elif isinstance(event, Done) and ranking is not None:
                return _compared(texts, facts, event.answer, ranking, states)
    raise AssertionError("a stream of events ends with Done")


def support_of(answer: Answer) -> float:
    """Return the mean support of an answer's claims; 0 for one without any."""
    return sum(claim.support for claim in answer.claims) / len(answer.claims) if answer.claims else 0.0


def _as_of_now(catalog: Catalog, plan: Plan) -> Plan:
    """Return a plan with its collections as they are now, under whatever name."""
    there = {found.id: found for found in catalog.list_collections(counted=False)}
    return replace(plan, collections=tuple(_still(there, found) for found in plan.collections))


def _still(there: Mapping[str, Collection], then: Collection) -> Collection:
    if then.id not in there:
        raise NotFound(f"The collection {then.name} was deleted since.")
    return there[then.id]


def _compared(
    texts: Texts, facts: Facts, now: Answer, ranking: Ranking, states: Sequence[IndexState]
) -> Replayed:  # fmt: skip
    then = texts.answer
    before = {state.collection_id: state for state in facts.indexes}
    ids = {name: [chunk_id for chunk_id, _ in stage] for name, stage in facts.stages.items()}
    names = list(dict.fromkeys([*ids, *ranking.stages]))
    stages = {name: _moved(ids.get(name, []), ranking.stages.get(name, ())) for name in names}
    return Replayed(
        then,
        now,
        (facts.settings_digest, now.settings_digest),
        {
            state.name: (before[state.collection_id], state)
            for state in states
            if state.collection_id in before and before[state.collection_id].digest != state.digest
        },
        {name: moved for name, moved in stages.items() if moved.any},
        _moved([p.chunk_id for p in then.passages], [p.chunk_id for p in now.passages]),
        _difference(then.text, now.text),
        (support_of(then), support_of(now)),
    )


def _moved(then: Sequence[str], now: Sequence[str]) -> Moved:
    gained, lost = tuple(i for i in now if i not in then), tuple(i for i in then if i not in now)
    return Moved(gained, lost, not gained and not lost and list(then) != list(now))


def _difference(then: str, now: str) -> tuple[str, ...]:
    if then == now:
        return ()
    return tuple(line for line in difflib.ndiff(then.splitlines(), now.splitlines()) if not line.startswith("?"))
