"""``citewell ask`` and ``citewell search``: a question to an answer with its sources, or to the passages alone.

Knows how both are shown, and nothing of how they come about.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING, Annotated

import typer

from api.commands.options import (
    Around,
    AsJson,
    CollectionNames,
    Data,
    Diversity,
    FilterOptions,
    History,
    Section,
    TopK,
    With,
    Without,
    read_filters,
    read_history,
    read_parts,
    read_used_settings,
)
from api.commands.terminal import clean, clean_lines, note, place, say, say_json, wrapped
from rag.answers import Policy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rag.answers import Answer, Citation, Claim, Conflict
    from rag.assembly import Citewell
    from rag.queries import Message, Query
    from rag.records import Copy, Neighbour, Passage, Plan, Ranking
    from rag.settings import Settings

Question = Annotated[str, typer.Argument(metavar="QUESTION", help="The question, in quotation marks.")]
ConversationOption = Annotated[
    str | None,
    typer.Option("--conversation", metavar="NAME", help="The conversation that the question is a turn of."),
]
PolicyOption = Annotated[
    Policy | None,
    typer.Option("--policy", help="What becomes of sentences that the documents do not support; default: the setting."),
]


def ask(
    ctx: typer.Context,
    question: Question,
    collection: CollectionNames,
    filters: FilterOptions = None,
    top_k: TopK = None,
    around: Around = None,
    section: Section = None,
    diversity: Diversity = None,
    with_parts: With = None,
    without_parts: Without = None,
    history: History = None,
    conversation: ConversationOption = None,
    policy: PolicyOption = None,
    as_json: AsJson = False,
    data: Data = None,
) -> None:
    """Answer a question, each sentence with its source.

    The words that answer are bold on a terminal. A number in brackets points to the source below, with the words in the
    document that support the sentence and how far they do, from 0 to 1. Where the documents do not answer, it says so;
    where one says other than another, both are shown, the newer first. --policy filter leaves out sentences that the
    documents do not support, --policy strict the whole answer if there is one.
    What stands around the passages is read for the answer, too, where --around or --section ask for it.
    A question with --conversation NAME is understood after those that were asked with the same name before.
    """
    from rag.answers import Keeping, Wish
    from rag.errors import BadInput

    if conversation and history:
        raise BadInput("Give either --conversation or --history: a conversation has its own.")

    settings = read_used_settings(ctx, data)
    wanted = _Wanted(
        top_k, around, section, diversity, read_parts(with_parts, without_parts), read_history(history)
    )  # fmt: skip
    with _planned(settings, question, collection, filters, wanted) as (citewell, first):
        plan = replace(first, history=tuple(citewell.answering.said(conversation))) if conversation else first
        answer = citewell.ask_once(plan, Wish(policy=policy), Keeping(conversation=conversation))
    if as_json:
        from api.answer_schemas import AnswerReply

        say_json(AnswerReply.of(answer, _names(plan)).model_dump(mode="json"))
    else:
        say(answer_lines(answer))


def search(
    ctx: typer.Context,
    query: Annotated[str, typer.Argument(metavar="QUERY", help="A question or some words.")],
    collection: CollectionNames,
    filters: FilterOptions = None,
    top_k: TopK = None,
    around: Around = None,
    section: Section = None,
    diversity: Diversity = None,
    with_parts: With = None,
    without_parts: Without = None,
    history: History = None,
    as_json: AsJson = False,
    data: Data = None,
) -> None:
    """Find passages without writing an answer.

    The best of them come first, each with its place in its document and its scores. Lines that begin with a bar stand
    around a passage and were not ranked: --around and --section add them.
    """
    settings = read_used_settings(ctx, data)
    wanted = _Wanted(
        top_k, around, section, diversity, read_parts(with_parts, without_parts), read_history(history)
    )  # fmt: skip
    with _planned(settings, query, collection, filters, wanted) as (citewell, plan):
        ranking = citewell.search(plan)
    if as_json:
        from api.answer_schemas import SearchReply

        say_json(SearchReply.of(ranking, _names(plan)).model_dump(mode="json"))
    else:
        say(_ranking_lines(ranking))


@dataclass(frozen=True, slots=True)
class _Wanted:
    """How much is wanted, where the command line says so."""

    top_k: int | None
    around: int | None
    section: bool | None
    diversity: float | None
    parts: Mapping[str, bool]
    history: Sequence[Message]


@contextmanager
def _planned(
    settings: Settings, question: str, collections: Sequence[str], filters: list[str] | None, wanted: _Wanted
) -> Iterator[tuple[Citewell, Plan]]:
    """Check what was asked before any model is opened; say so when there is nothing to look in."""
    from rag.assembly import open_citewell
    from rag.plan import make_plan
    from rag.store import open_store

    conditions = read_filters(filters)
    with open_store(settings) as store:
        found = [store.catalog.collection(name) for name in dict.fromkeys(collections)]
        plan = make_plan(
            question, found, settings, filters=conditions, top_k=wanted.top_k,
            diversity=wanted.diversity, around=wanted.around, section=wanted.section,
            parts=wanted.parts, history=wanted.history,
        )  # fmt: skip
    for collection in found:
        if not collection.passages:
            note(f"The collection {collection.name} holds nothing to search yet.")
    with open_citewell(settings) as citewell:
        yield citewell, plan


def _names(plan: Plan) -> dict[str, str]:
    return {collection.id: collection.name for collection in plan.collections}


def answer_lines(answer: Answer) -> list[str]:
    """Return the answer as text: what it says, what the reader must know of it, and its sources by number.

    The words that answer are bold where a terminal shows it.
    """
    lines = wrapped(answer.text)
    if answer.short:
        lines = _bold(lines, *(_letters(answer.text[:end]) for end in (answer.short.start, answer.short.end)))
    if answer.notice:
        lines += ["", *wrapped(f"Note: {answer.notice}")]
    if made := _query_lines(answer.queries):
        lines += ["", *made]
    cited = sorted(answer.citations, key=lambda citation: (citation.number, citation.source_start))
    copies = {passage.chunk_id: passage.also_in for passage in answer.passages}
    if cited:
        lines += ["", "Sources"]
    for (number, _), citations in groupby(cited, key=lambda citation: (citation.number, citation.chunk_id)):
        lines += _source_lines(number, list(citations), copies)
    return [*lines, *_doubt_lines(answer.claims, answer.withheld), *_conflict_lines(answer.conflicts)]


def _bold(lines: Sequence[str], first: int, last: int) -> list[str]:
    """Return lines with their characters from ``first`` to ``last`` in bold, white space not counted."""
    found, seen = [], 0
    for line in lines:
        places = [place for place, c in enumerate(line) if not c.isspace()]
        inside = [place for number, place in enumerate(places, seen) if first <= number < last]
        seen += len(places)
        start, end = (inside[0], inside[-1] + 1) if inside else (0, 0)
        found.append(line[:start] + typer.style(line[start:end], bold=True) + line[end:] if inside else line)
    return found


def _letters(text: str) -> int:
    """Return how many characters of a text would be shown and are no white space."""
    return sum(not c.isspace() for c in "".join(clean_lines(text)))


def _source_lines(number: int, citations: Sequence[Citation], copies: Mapping[str, tuple[Copy, ...]]) -> list[str]:
    first = citations[0]
    lines = wrapped(f"[{number}] {_named(first.document, first.version, first.page, first.section)}", hanging=4)
    for citation in {citation.quote: citation for citation in citations}.values():
        found = ", found by the judge" if citation.attributed else ""
        lines += [*wrapped(f'"{citation.quote}"', indent=4), f"    support {citation.score:.2f}{found}"]
    return [*lines, *_copy_lines(copies.get(first.chunk_id, ()), indent=4)]


def _doubt_lines(claims: Sequence[Claim], withheld: int) -> list[str]:
    """Return what of an answer the documents do not support, and how much of it is left out for that."""
    doubtful = [claim for claim in claims if claim.checkable and not claim.supported]
    lines = ["", "Not supported by the documents"] if doubtful else []
    for claim in doubtful:
        lines += wrapped(f'"{claim.text}" (support {claim.support:.2f})', indent=4)
    if withheld:
        many = "1 sentence was" if withheld == 1 else f"{withheld} sentences were"
        lines += ["", f"{many} withheld: the documents do not support {'it' if withheld == 1 else 'them'}."]
    return lines


def _conflict_lines(conflicts: Sequence[Conflict]) -> list[str]:
    """Return what each document says where they contradict each other, with its date, the newest first."""
    lines: list[str] = []
    for conflict in conflicts:
        lines += ["", f"These documents differ in a {conflict.differs}, the newest first"]
        for side in conflict.statements:
            cited = side.citation
            since = side.date[:10] if side.dated != "ingested_at" else f"ingested {side.date[:10]}"
            named = _named(cited.document, cited.version, cited.page, cited.section)
            lines += wrapped(f"{clean(since)}: {named}", indent=4)
            lines += wrapped(f'"{cited.quote}"', indent=8)
    return lines


def _copy_lines(copies: Sequence[Copy], indent: int) -> list[str]:
    """Return where else the same is said."""
    names = dict.fromkeys(_named(copy.document, copy.version, copy.page, ()) for copy in copies)
    return wrapped(f"also in: {'; '.join(names)}", indent=indent) if names else []


def _ranking_lines(ranking: Ranking) -> list[str]:
    from rag.windows import each_once

    about = _query_lines(ranking.queries)
    if ranking.notice:
        about += wrapped(f"Note: {ranking.notice}")
    if not ranking.passages:
        return [*about, "Nothing was found."]
    passages = each_once(ranking.passages)
    lines = [line for rank, passage in enumerate(passages, 1) for line in _passage_lines(rank, passage)]
    return [*about, "", *lines] if about else lines


def _query_lines(queries: Sequence[Query]) -> list[str]:
    """Return what was looked for, where that is more or other than what was asked."""
    made = [query for query in queries if query.role != "question"]
    return [line for query in made for line in wrapped(f"{query.role}: {query.text}", hanging=4)]


def _passage_lines(rank: int, passage: Passage) -> list[str]:
    heading = wrapped(f"{rank}. {_named(passage.document, passage.version, passage.page, passage.section)}", hanging=3)
    before = [line for chunk in passage.around if chunk.seq < passage.seq for line in _around_lines(chunk, passage)]
    after = [line for chunk in passage.around if chunk.seq > passage.seq for line in _around_lines(chunk, passage)]
    copies = _copy_lines(passage.also_in, indent=3)
    scores = f"   {_scores(passage.score, passage.scores)}"
    return [*heading, scores, *before, *wrapped(passage.text, indent=3), *after, *copies, ""]


def _around_lines(chunk: Neighbour, passage: Passage) -> list[str]:
    """Return a chunk next to a passage behind a bar, with its place where that is another one."""
    here = place(chunk.page, chunk.section)
    moved = here and here != place(passage.page, passage.section)
    shown = [*(wrapped(f"({here})", indent=5) if moved else []), *wrapped(chunk.text, indent=5)]
    return [f"   | {line[5:]}".rstrip() for line in shown]


def _scores(score: float, parts: Mapping[str, float]) -> str:
    return ", ".join([f"score {score:.3f}", *(f"{name} {value:.3f}" for name, value in parts.items())])


def _named(document: str, version: int, page: int | None, section: Sequence[str]) -> str:
    return ", ".join(part for part in (clean(document), f"version {version}", place(page, section)) if part)
