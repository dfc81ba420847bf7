"""``citewell golden``: questions of which people know the answer, added, listed, checked, confirmed and removed.

Knows options and output, and the catalog alone: no model is opened. What has drifted is known in ``eval.golden``.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from api.commands.options import AsJson, CollectionName, Data, Yes, read_used_settings
from api.commands.terminal import clean, confirmed, counted, say, say_json, table, wrapped
from rag.errors import BadInput

if TYPE_CHECKING:
    from eval.golden import Checked
    from rag.catalog import Catalog
    from rag.golden import GoldenQuestion
    from rag.store import Store

#: Characters of a question in a list, and questions of which is said what is wrong with them.
WIDTH, SHOWN = 60, 50

SomeCollection = Annotated[
    str | None, typer.Option("--collection", "-c", metavar="NAME", help="Only those about this collection.")
]
Tags = Annotated[
    list[str] | None, typer.Option("--tag", metavar="TAG", help="Put it on all of them; give it again for one more.")
]
Questions = Annotated[
    list[str] | None, typer.Argument(metavar="[QUESTION]...", help="Ids, as `citewell golden list` shows them.")
]
All = Annotated[
    str | None, typer.Option("--all", metavar="COLLECTION", help="All questions about a collection instead.")
]


def add_golden(
    ctx: typer.Context,
    collection: CollectionName,
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="[FILE]", help="JSON lines or CSV: question, answer, documents, text, tags, answerable."
        ),
    ] = None,
    answer: Annotated[
        list[str] | None,
        typer.Option(
            "--answer", metavar="ID", help="Take a question of the log, with what its answer says and cites, instead."
        ),
    ] = None,
    tag: Tags = None,
    as_json: AsJson = False,
    data: Data = None,
) -> None:
    """Add questions to the golden set of a collection, all or none, each in place of one with the same words.

    Only `question` is needed. `answer` is the reference answer; `documents` are the names of those that answer, with
    semicolons between them in CSV; `text` are words of the passage that does; `answerable` is false for a question that
    nothing answers. The documents are confirmed as they are searched now. Questions that are there already, and say the
    same, stay as they are.
    """
    settings = read_used_settings(ctx, data)
    from dataclasses import replace

    from eval.golden import check, golden_answer, read_golden
    from rag.store import open_store

    if (file is None) == (not answer):
        raise BadInput("Give a file with questions, or the ids of answers with --answer.")
    with open_store(settings) as store:
        catalog = store.catalog
        found = catalog.collection(collection, counted=False)
        wanted = read_golden(file) if file else [golden_answer(catalog, found, one) for one in answer or []]
        added = catalog.add_golden(found.id, [replace(one, tags=one.tags | {*(tag or [])}) for one in wanted])
        checked = check(catalog, found, [question for _, question in added])
    if as_json:
        from api.golden_schemas import AddedReply

        replies = [AddedReply.added(outcome, one) for (outcome, _), one in zip(added, checked, strict=True)]
        say_json({"questions": [reply.model_dump(mode="json") for reply in replies]})
        return
    outcomes = Counter(outcome.value for outcome, _ in added)
    say(f"{counted(len(added), 'question')}: {', '.join(f'{n:,} {name}' for name, n in sorted(outcomes.items()))}.")
    say(_drifted([one for one in checked if one.drift]))


def list_golden(
    ctx: typer.Context,
    collection: SomeCollection = None,
    tag: Annotated[str | None, typer.Option("--tag", metavar="TAG", help="Only those with this tag.")] = None,
    limit: Annotated[int, typer.Option("--limit", metavar="N", min=1, max=100_000, help="Most questions.")] = 1000,
    as_json: AsJson = False,
    data: Data = None,
) -> None:
    """List golden questions, in the order in which they came."""
    from rag.store import open_store

    with open_store(read_used_settings(ctx, data)) as store:
        here = store.catalog.collection(collection, counted=False).id if collection else None
        found = store.catalog.list_golden(here, tag=tag, limit=limit)
        names = {one.id: one.name for one in store.catalog.list_collections(counted=False)}
    if as_json:
        from api.golden_schemas import GoldenReply

        say_json({"questions": [GoldenReply.of(question).model_dump(mode="json") for question in found]})
    elif not found:
        say("There are no golden questions; `citewell golden add` adds some.")
    else:
        rows = [(one.id, names[one.collection_id], ", ".join(sorted(one.tags)), _short(one)) for one in found]
        say(table(("ID", "COLLECTION", "TAGS", "QUESTION"), rows))


def check_golden(
    ctx: typer.Context, collection: SomeCollection = None, as_json: AsJson = False, data: Data = None
) -> None:
    """Find the questions that somebody should look at again.

    A document that answers has another content than the one that was confirmed, no longer says the words that were
    named, or is gone. `citewell golden confirm` says that a question still holds; `golden add` takes it in other words.
    The exit status is 1 if there are any.
    """
    from eval.golden import check_all
    from rag.store import open_store

    with open_store(read_used_settings(ctx, data)) as store:
        checked = check_all(store.catalog, collection)
    drifted = [one for one in checked if one.drift]
    if as_json:
        from api.golden_schemas import CheckReply, GoldenReply

        replies = [GoldenReply.of(one.question, one) for one in drifted]
        say_json(CheckReply(checked=len(checked), drifted=replies).model_dump(mode="json"))
    elif not drifted:
        say(f"{counted(len(checked), 'question')}: all of them stand as they were confirmed.")
    else:
        say(f"{len(drifted):,} of {counted(len(checked), 'question')} should be looked at again:")
        say(_drifted(drifted))
    if drifted:
        raise typer.Exit(1)


def confirm_golden(ctx: typer.Context, questions: Questions = None, collection: All = None, data: Data = None) -> None:
    """Say that questions still hold with the documents as they are now.

    One of which a document is gone, or no longer says the words that were named, can not be confirmed: with --all it is
    passed over and named, and the exit status is 1.
    """
    settings = read_used_settings(ctx, data)
    from eval.golden import check_all, confirm
    from rag.store import open_store

    with open_store(settings) as store:
        ids = _chosen(store, questions, collection)
        checked = check_all(store.catalog, collection) if collection else []
        passed_over = [one for one in checked if not one.can_be_confirmed]
        ids = [one for one in ids if one not in {over.question.id for over in passed_over}]
        for question_id in ids:
            confirm(store.catalog, question_id)
    say(f"Confirmed {counted(len(ids), 'question')}.")
    if passed_over:
        say(f"{counted(len(passed_over), 'question')} can not be confirmed:")
        say(_drifted(passed_over))
        raise typer.Exit(1)


def remove_golden(
    ctx: typer.Context, questions: Questions = None, collection: All = None, yes: Yes = False, data: Data = None
) -> None:
    """Remove golden questions for good."""
    settings = read_used_settings(ctx, data)
    from rag.store import open_store

    with open_store(settings) as store:
        ids = _chosen(store, questions, collection)
        for question_id in ids:
            store.catalog.golden(question_id)  # before anybody is asked
        if ids and not confirmed(f"Remove {counted(len(ids), 'golden question')} for good?", yes=yes):
            say("Nothing was removed.")
            raise typer.Exit(1)
        for question_id in ids:
            store.catalog.remove_golden(question_id)
    say(f"Removed {counted(len(ids), 'question')}.")


def _chosen(store: Store, questions: list[str] | None, collection: str | None) -> list[str]:
    """Return the ids that were given, or those of all questions about a collection; raises `BadInput`."""
    if bool(questions) == (collection is not None):
        raise BadInput("Give the ids of questions, or --all with the name of a collection.")
    return _all(store.catalog, collection) if collection is not None else list(dict.fromkeys(questions or []))


def _all(catalog: Catalog, collection: str) -> list[str]:
    return [one.id for one in catalog.list_golden(catalog.collection(collection, counted=False).id)]


def _drifted(checked: list[Checked]) -> list[str]:
    lines = []
    for one in checked[:SHOWN]:
        lines += wrapped(f"{one.question.id}  {_short(one.question)}", hanging=2)
        lines += [line for sentence in one.drift for line in wrapped(clean(sentence), indent=4, hanging=2)]
    return [*lines, f"... and {len(checked) - SHOWN:,} more."] if len(checked) > SHOWN else lines


def _short(question: GoldenQuestion) -> str:
    line = clean(question.question)
    return line if len(line) <= WIDTH else f"{line[: WIDTH - 1]}…"
