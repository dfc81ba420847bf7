"""The questions of a report: golden ones, yesterday's traffic, and generated ones, each marked with where it is from.

    golden      as people confirmed them; one whose documents have changed says so (`Wanted.drift`)
    traffic     drawn from the log of answers: by collection and by how well the answer was supported
    generated   made of passages, by the language model or by templates: clozes, headings, words of sentences

What is drawn by chance goes by the seed, so that the same night asks the same. Knows the catalog; asks nothing.
"""

from __future__ import annotations

import hashlib
import heapq
import random
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from itertools import zip_longest
from typing import TypeVar

from eval.golden import check
from eval.runs import Relevant, Source, Wanted
from eval.training.clozes import cloze_rows
from eval.tuning.questions import made_questions, sample_passages, written_question
from rag.assembly import Citewell
from rag.catalog import Catalog
from rag.errors import GeneratorFailed, NotFound
from rag.logged import Exchange
from rag.protocols import Generator
from rag.records import Collection, Passage, digest
from rag.settings import AnswerSettings

KeyT = TypeVar("KeyT", bound=Hashable)

#: A question whose answer is weakly supported, or silence, is drawn so many times as often as another one.
WEAK = 3.0
#: Passages that are drawn for each question that is to be made: not every one makes a question.
SPARE = 3


class Level(StrEnum):
    """How an answer of the log is supported: weak if one of its sentences is not."""

    ABSTAINED = "abstained"
    WEAK = "weak"
    SUPPORTED = "supported"


@dataclass(frozen=True, slots=True)
class Sizes:
    """The most questions of each source; all golden ones, if none is said."""

    golden: int | None = None
    traffic: int = 50
    generated: int = 20


@dataclass(frozen=True, slots=True)
class Gathered:
    """The questions of a report, and of each part that could not be had a sentence."""

    questions: tuple[Wanted, ...]
    left_out: tuple[str, ...] = ()


def gather(
    citewell: Citewell,
    collections: Sequence[Collection],
    since: datetime,
    until: datetime,
    sizes: Sizes | None = None,
    *,
    seed: str | None = None,
) -> Gathered:
    """Return the questions about some collections: golden ones, then traffic of [since, until), then generated ones.

    The seed is by default the date of ``until``.
    """
    sizes = sizes or Sizes()
    night = f"{until.astimezone(UTC):%Y-%m-%d}" if seed is None else seed
    catalog = citewell.store.catalog
    golden = golden_questions(catalog, collections)
    left_out = []
    if sizes.golden is not None and sizes.golden < len(golden):
        left_out.append(f"{len(golden) - sizes.golden:,} golden questions are beyond the limit.")
        golden = [golden[place] for place in _first(range(len(golden)), sizes.golden, night)]
    asked, reason = traffic(citewell, collections, since, until, sizes.traffic, night)
    made, failure = generated(citewell, collections, sizes.generated, night)
    left_out += [sentence for sentence in (reason, failure) if sentence]
    return Gathered((*golden, *asked, *made), tuple(left_out))


# -- golden ------------------------------------------------------------------------------------------------------------


def golden_questions(catalog: Catalog, collections: Sequence[Collection]) -> list[Wanted]:
    """Return the golden questions of some collections, each with what somebody should look at."""
    return [
        Wanted(
            checked.question.id,
            checked.question.question,
            Source.GOLDEN,
            collection.name,
            tuple(sorted(checked.question.tags)),
            (checked.question.reference,) if checked.question.reference else (),
            tuple(
                Relevant(one.name, one.confirmed.sha256 if one.confirmed else None, one.text)
                for one in checked.question.documents
            ),
            checked.question.answerable,
            drift=checked.drift,
        )
        for collection in collections
        for checked in check(catalog, collection, catalog.list_golden(collection.id))
    ]


# -- traffic -----------------------------------------------------------------------------------------------------------


def traffic(
    citewell: Citewell, collections: Sequence[Collection], since: datetime, until: datetime, count: int, seed: str
) -> tuple[list[Wanted], str | None]:
    """Return up to ``count`` questions that were asked in [since, until), or else why there are none.

    What the settings keep no longer, or keep without its words, is not looked at even where it still stands in the log.
    """
    settings = citewell.store.settings
    if not count:
        return [], None
    if reason := closed(settings.answers):
        return [], reason
    catalog, names = citewell.store.catalog, {found.id: found.name for found in collections}
    kept_since = datetime.now(UTC) - timedelta(days=settings.answers.retention_days)
    asked = [
        exchange
        for exchange in catalog.exchanges(max(since, kept_since), until)
        if exchange.collections and names.keys() >= {*exchange.collections}
    ]
    if not asked:
        return [], "Nobody asked anything in this time that the log still has."
    threshold = settings.grounding.threshold
    drawn = sample(asked, count, citewell.judge.threshold if threshold is None else threshold, seed)
    found = []
    for exchange, weight, level in drawn:
        with suppress(NotFound):  # it was deleted this very moment
            if wanted := _of_log(catalog, exchange, names, weight, level):
                found.append(wanted)
    return found, None


def closed(settings: AnswerSettings) -> str | None:
    """Return why the settings do not let the questions of people be asked again; None if they do."""
    if not settings.keep:
        return "Traffic is not looked at: the settings keep no answers (answers.keep)."
    if settings.redact != "none":
        return f"Traffic is not looked at: the settings keep no questions (answers.redact is {settings.redact})."
    return None


def sample(
    exchanges: Sequence[Exchange], count: int, threshold: float, seed: str
) -> list[tuple[Exchange, float, Level]]:
    """Draw up to ``count`` different questions, and say how many of ``exchanges`` each stands for, and their level.

    Strata are the collections with the level of support. A question that was asked again is drawn once, with its last
    answer. Each stratum gets at least one place while there are any; the others go by size, `WEAK` times as often to
    those that are not well supported. Within one, chance goes by the seed and the id alone, so that an answer that
    leaves the log changes no more than its own place. The weights of a stratum add up to about what was asked in it, by
    Horvitz and Thompson, "A Generalization of Sampling Without Replacement From a Finite Universe", JASA 47, 1952.
    """
    times = Counter(map(_words, exchanges))
    last = {_words(exchange): exchange for exchange in exchanges}
    strata: dict[tuple[tuple[str, ...], Level], list[Exchange]] = {}
    for exchange in last.values():
        strata.setdefault((exchange.collections, level_of(exchange, threshold)), []).append(exchange)
    sizes = {key: len(strata[key]) for key in sorted(strata)}
    places = allocate(sizes, count, lambda key: 1.0 if key[1] is Level.SUPPORTED else WEAK)
    return [
        (exchange, times[_words(exchange)] * sizes[key] / places[key], key[1])
        for key, members in sorted(strata.items())
        for exchange in _first(members, places[key], seed, lambda exchange: exchange.id)
    ]


def allocate(sizes: Mapping[KeyT, int], count: int, weight: Callable[[KeyT], float]) -> dict[KeyT, int]:
    """Return how many of ``count`` places each stratum gets, none more than it has members.

    First each gets one, the largest before the others; then the next place always goes to whom it is owed most: weight
    times size, for each place that it has and the next one (D'Hondt's method of highest averages).
    """
    places = dict.fromkeys(sizes, 0)
    owed = {key: weight(key) * size for key, size in sizes.items() if size}
    line = [(False, -owed[key], number, key) for number, key in enumerate(owed)]
    heapq.heapify(line)
    while count > 0 and line:
        _, _, number, key = heapq.heappop(line)
        places[key] += 1
        count -= 1
        if places[key] < sizes[key]:
            heapq.heappush(line, (True, -owed[key] / (places[key] + 1), number, key))
    return places


def level_of(exchange: Exchange, threshold: float) -> Level:
    """Return how an answer is supported; one without a sentence that could be is called supported."""
    if exchange.abstained:
        return Level.ABSTAINED
    return Level.WEAK if exchange.support is not None and exchange.support < threshold else Level.SUPPORTED


def _words(exchange: Exchange) -> tuple[str, ...]:
    """Return what makes a question the same as another one; what follows others is like no other."""
    if exchange.follows:
        return (exchange.id,)
    return (" ".join(exchange.question.split()).casefold(), *exchange.collections)


def _of_log(
    catalog: Catalog, exchange: Exchange, names: Mapping[str, str], weight: float, level: Level
) -> Wanted | None:
    """Return a question of the log with where it looked and what was said before; None if its texts had to go."""
    texts = catalog.answer(exchange.id).texts
    if texts is None or texts.plan is None:
        return None
    where = ", ".join(sorted(names[found] for found in exchange.collections))
    return Wanted(
        exchange.id, texts.plan.question, Source.TRAFFIC, where, (level.value,), filters=texts.plan.filters,
        history=texts.plan.history, answer_id=exchange.id, weight=weight,
    )  # fmt: skip


# -- generated ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Made:
    """A question that was made of passages, and ``how``: cloze, heading, sentence, or generator."""

    text: str
    how: str
    relevant: tuple[Relevant, ...]
    answers: tuple[str, ...] = ()


def generated(
    citewell: Citewell, collections: Sequence[Collection], count: int, seed: str
) -> tuple[list[Wanted], str | None]:
    """Return up to ``count`` questions made of passages, and a sentence if the language model failed to write them.

    Then, and where none is configured, templates make them.
    """
    catalog, writer = citewell.store.catalog, citewell.interpreter.writer
    sizes = {found.id: catalog.pulse(found.id).last_seq for found in collections}
    places = allocate(sizes, count, lambda _: 1.0)
    found: list[Wanted] = []
    failure = None
    for collection in collections:
        wanted = places[collection.id]
        rng = random.Random(f"{seed}\n{collection.id}")
        passages = sample_passages(catalog, collection, SPARE * wanted, rng) if wanted else []
        made: list[Made] = []
        if writer is not None and failure is None:
            try:
                made = [*_by_model(writer, passages, wanted, citewell.store.settings.generator.total_timeout)]
            except GeneratorFailed as error:
                failure = f"Questions are made by templates, since the language model failed: {error.message}"
        made = made or [*_by_templates(passages, rng)]
        found += _of_passages(catalog, collection, made, wanted)
    return found, failure


def _by_model(writer: Generator, passages: Sequence[Passage], count: int, seconds: float) -> Iterator[Made]:
    """Yield the questions that the language model writes for ``count`` of the passages, or for as many as it can."""
    written = 0
    for passage in passages:
        if written < count and (text := written_question(passage, writer, seconds)):
            written += 1
            yield Made(text, "generator", (Relevant(passage.document, text=passage.text),))


def _by_templates(passages: Sequence[Passage], rng: random.Random) -> Iterator[Made]:
    """Yield the questions that templates make of passages: a cloze, a heading and a sentence in turn."""
    by_words = {(passage.text, passage.context): passage for passage in passages}
    by_seq = {passage.seq: passage for passage in passages}
    kinds: dict[str, list[Made]] = {"cloze": [], "heading": [], "sentence": []}
    for row in cloze_rows([*by_words], len(by_words), rng):
        if row.answer is not None:
            relevant = Relevant(by_words[row.text, row.context].document, text=row.text)
            kinds["cloze"].append(Made(row.question, "cloze", (relevant,), (row.text[slice(*row.answer)],)))
    for sought in made_questions(passages, rng):
        answering = [by_seq[seq] for target in sought.targets for seq in sorted(target.seqs)]
        one = sought.source == "sentence"  # under a heading other passages may stand than those that were drawn
        relevant_ones = {Relevant(found.document, text=found.text if one else None): None for found in answering}
        kinds[sought.source].append(Made(sought.text, sought.source, tuple(relevant_ones)))
    for turn in zip_longest(*kinds.values()):
        yield from (made for made in turn if made is not None)


def _of_passages(catalog: Catalog, collection: Collection, made: Sequence[Made], count: int) -> Iterator[Wanted]:
    """Yield the first ``count`` different questions, with the contents that they were made of."""
    different = {one.text: one for one in reversed(made)}
    first = [*reversed(different.values())][:count]
    live = catalog.live_contents(collection.id, {relevant.document for one in first for relevant in one.relevant})
    shas = {name: content.sha256 for name, content in live.items()}
    for one in first:
        yield Wanted(
            digest("generated", collection.id, one.text), one.text, Source.GENERATED, collection.name, (one.how,),
            one.answers, tuple(replace(found, sha256=shas.get(found.document)) for found in one.relevant),
            made=one.how,
        )  # fmt: skip


def _first(
    members: Sequence[KeyT], count: int, seed: str, key: Callable[[KeyT], object] = lambda member: member
) -> list[KeyT]:
    """Return ``count`` of some members: those whose numbers, drawn by the seed, are the lowest."""
    return sorted(members, key=lambda member: hashlib.sha256(f"{seed}\n{key(member)}".encode()).digest())[:count]
