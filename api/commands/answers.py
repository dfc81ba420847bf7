"""``citewell answers``: the log of answers, listed, explained and removed.

Knows the catalog alone: no model is opened.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from api.commands.options import AsJson, Data, Yes, read_used_settings
from api.commands.terminal import clean, confirmed, counted, say, say_json, table, wrapped

if TYPE_CHECKING:
    from rag.logged import Logged, Texts

AnswerId = Annotated[str, typer.Argument(metavar="ANSWER", help="The id of the answer.")]
#: Candidates of a stage that are shown, and characters of a question or text in the list.
SHOWN, WIDTH = 5, 60


def list_answers(
    ctx: typer.Context,
    collection: Annotated[
        str | None, typer.Option("--collection", "-c", metavar="NAME", help="Only those that looked in it.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", metavar="N", min=1, max=1000, help="Most answers.")] = 20,
    as_json: AsJson = False,
    data: Data = None,
) -> None:
    """List the last answers, the newest first."""
    from rag.store import open_store

    with open_store(read_used_settings(ctx, data)) as store:
        found_in = store.catalog.collection(collection, counted=False).id if collection else None
        found = store.catalog.list_answers(found_in, limit=limit)
    if as_json:
        from api.log_schemas import HeadlineReply

        say_json({"answers": [HeadlineReply.of(headline).model_dump(mode="json") for headline in found]})
        return
    if not found:
        say("There are no answers in the log.")
        return
    rows = [
        (f"{h.created_at:%Y-%m-%d %H:%M}", h.id, h.generator or "", _short(h.question), _short(h.text)) for h in found
    ]
    say(table(("CREATED", "ANSWER", "GENERATOR", "QUESTION", "TEXT"), rows))


def show_answer(ctx: typer.Context, answer: AnswerId, as_json: AsJson = False, data: Data = None) -> None:
    """Explain an answer: what was asked, what each stage found, what the generator was given, and what it said."""
    from rag.store import open_store

    with open_store(read_used_settings(ctx, data)) as store:
        found = store.catalog.answer(answer)
    if as_json:
        from api.log_schemas import LoggedReply

        say_json(LoggedReply.of(found).model_dump(mode="json"))
    else:
        say(_lines(found))


def delete_answer(ctx: typer.Context, answer: AnswerId, yes: Yes = False, data: Data = None) -> None:
    """Remove an answer from the log, with all that was said of it."""
    from rag.store import open_store

    with open_store(read_used_settings(ctx, data)) as store:
        store.catalog.answer(answer)
        if not confirmed(f"Remove the answer {clean(answer)} from the log?", yes=yes):
            say("Nothing was removed.")
            raise typer.Exit(1)
        store.catalog.delete_answer(answer)
    say("Removed.")


def _lines(logged: Logged) -> list[str]:
    facts = {
        "answer": logged.id,
        "created": f"{logged.created_at:%Y-%m-%d %H:%M:%S} UTC",
        "conversation": logged.conversation,
        "generator": logged.generator,
        "cached": "yes" if logged.cached else None,
        "purged": f"{logged.purged_at:%Y-%m-%d %H:%M:%S} UTC" if logged.purged_at else None,
        "settings": logged.facts.settings_digest if logged.facts else None,
        "indexes": ", ".join(f"{state.name} {state.digest[:12]}" for state in logged.facts.indexes)
        if logged.facts
        else None,
    }
    lines = [f"{name:<12}  {clean(str(value))}" for name, value in facts.items() if value]
    if logged.texts is not None:
        lines += _texts(logged.texts)
    if logged.facts is None:
        return [*lines, "", "It is being written, or was broken off before its end."]
    for name, stage in logged.facts.stages.items():
        best = ", ".join(f"{chunk_id[:8]} {score:.3f}" for chunk_id, score in stage[:SHOWN])
        lines += wrapped(f"{name:<12}  {counted(len(stage), 'candidate')}: {best}", hanging=14)
    spent = ", ".join(f"{name} {seconds * 1000:.1f} ms" for name, seconds in logged.facts.timings.items())
    lines += wrapped(f"{'timings':<12}  {spent}", hanging=14)
    for said in logged.feedback:
        which = "" if said.claim is None else f" (claim {said.claim})"
        lines += wrapped(f"{'feedback':<12}  {said.rating:+g}{which} {said.comment or ''}", hanging=14)
    return lines


def _texts(texts: Texts) -> list[str]:
    from api.commands.ask import answer_lines

    asked = wrapped(f"{'question':<12}  {texts.plan.question}", hanging=14) if texts.plan else []
    return [*asked, "", *answer_lines(texts.answer), ""]


def _short(text: str | None) -> str:
    line = clean(text or "-")
    return line if len(line) <= WIDTH else f"{line[: WIDTH - 1]}…"
