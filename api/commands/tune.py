"""``citewell tune`` and ``citewell tunings``: searches that fit a collection, and the way back.

Knows options and output; ``eval.tuning`` learns and judges, the catalog keeps.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.commands.options import AsJson, CollectionName, Data, read_settings, read_used_settings
from api.commands.terminal import counted, note, say, say_json, table
from rag.errors import BadInput

if TYPE_CHECKING:
    from eval.tuning.run import Outcome
    from rag.tuning import Tuning


def tune(
    ctx: typer.Context,
    collection: CollectionName,
    questions: Annotated[
        Path | None,
        typer.Option(
            "--questions", metavar="FILE", help="JSON lines or CSV with question, document and, if you like, text."
        ),
    ] = None,
    steps: Annotated[
        str, typer.Option("--steps", metavar="NAMES", help="Steps to try, joined by commas, in their order.")
    ] = "weights,adapter,projection",
    keep: Annotated[bool, typer.Option("--keep", help="Keep a tuning that helps, but do not put it in force.")] = False,
    passages: Annotated[
        int, typer.Option("--passages", metavar="N", min=1, help="Make questions of so many passages.")
    ] = 400,
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="How chance is drawn.")] = 1,
    as_json: AsJson = False,
    data: Data = None,
) -> None:
    """Fit the search to a collection.

    Learns from questions with known documents, and from questions that are made of headings, of sentences and by the
    language model, if one is configured: how vectors, words and late interaction are weighed, a rotation of the
    question's vector, a projection of its token vectors. A step is taken only if questions about other documents,
    which were held back, find their passages significantly better with it. What was learnt is put in force at once;
    `citewell tunings rollback` takes it back. Run a command that was stopped again to go on.

    The step `reranker`, which has to be asked for, lets the built-in reader read the best passages in every search of
    the collection: often much better, and slower by what the step tells.

    The exit status is 0 also if nothing helped and nothing was changed.
    """
    settings = read_used_settings(ctx, data)
    from eval.tuning.run import STEPS, Wish
    from eval.tuning.run import tune as run
    from rag.assembly import open_citewell

    chosen = tuple(name.strip() for name in steps.split(",") if name.strip())
    if not chosen or [name for name in STEPS if name in chosen] != [*chosen]:
        raise BadInput(f"--steps is {steps!r}; choose of {', '.join(STEPS)}, each once and in this order.")
    wish = Wish(questions, chosen, passages, seed)
    with open_citewell(settings) as citewell:
        found = citewell.store.catalog.collection(collection)
        outcome = run(citewell, found, wish, promote=not keep, tell=note)
    if as_json:
        say_json(_as_json(outcome))
        return
    say(_shown(outcome))


def _as_json(outcome: Outcome) -> dict[str, Any]:
    tuning = outcome.tuning.id if outcome.tuning else None
    return {
        "collection": outcome.collection, **outcome.report(), "left_out": outcome.left_out, "tuning": tuning,
        "promoted": outcome.promoted,
    }  # fmt: skip


def _shown(outcome: Outcome) -> list[str]:
    rows = []
    for step in outcome.steps:
        d = step.difference
        after = "" if step.after is None else f"{step.after:.4f}"
        change = ["", ""] if d is None else [f"{d.mean:+.4f} ({d.low:+.4f} to {d.high:+.4f})", f"{d.p_value:.4f}"]
        rows.append([step.name, f"{step.before:.4f}", after, *change, "taken" if step.taken else "left", step.learnt])
    made = ", ".join(f"{count:,} {SOURCES[source]}" for source, count in outcome.sources.items())
    lines = [
        f"Questions: {made}; nDCG@10 below is that of {counted(outcome.held, 'question')} held back.",
        *outcome.left_out[:10],
        *([f"... and {len(outcome.left_out) - 10} more."] if len(outcome.left_out) > 10 else []),
        "",
        *table(("STEP", "BEFORE", "AFTER", "DIFFERENCE (95 %)", "P", "", "LEARNT"), rows),
        "",
    ]
    if outcome.tuning is None:
        return [*lines, "No step was significantly better; nothing was changed."]
    if outcome.promoted:
        back = f"`citewell tunings rollback -c {outcome.collection}` takes it back."
        return [*lines, f"Tuning {outcome.tuning.id} is in force; {back}"]
    return [*lines, f"Kept as {outcome.tuning.id}; `citewell tunings promote {outcome.tuning.id}` puts it in force."]


SOURCES = {"file": "of your file", "heading": "of headings", "sentence": "of sentences", "generator": "by the model"}


def list_tunings(ctx: typer.Context, collection: CollectionName, as_json: AsJson = False, data: Data = None) -> None:
    """List the tunings of a collection, the newest first."""
    from rag.store import open_store

    with open_store(read_used_settings(ctx, data)) as store:
        found = store.catalog.list_tunings(store.catalog.collection(collection).id)
    if as_json:
        say_json({"tunings": [_facts(tuning) for tuning in found]})
    elif not found:
        say(f"{collection} has no tunings; `citewell tune -c {collection}` makes one.")
    else:
        say(
            table(
                ("TUNING", "CREATED", "IN FORCE", "DENSE", "LATE", "MAPS", "READER"), [_row(tuning) for tuning in found]
            )
        )


def _facts(tuning: Tuning) -> dict[str, Any]:
    return {
        "id": tuning.id, "created_at": tuning.created_at, "in_force": tuning.in_force, "embedder": tuning.embedder,
        "dense_weight": tuning.dense_weight, "late_weight": tuning.late_weight, "adapter": tuning.has_adapter,
        "projection": tuning.has_projection, "reader_weight": tuning.reader_weight, "report": tuning.report,
    }  # fmt: skip


def _row(tuning: Tuning) -> tuple[str, ...]:
    maps = [name for name, there in (("adapter", tuning.has_adapter), ("projection", tuning.has_projection)) if there]
    return (
        tuning.id, f"{tuning.created_at:%Y-%m-%d %H:%M}", "yes" if tuning.in_force else "", f"{tuning.dense_weight:g}",
        f"{tuning.late_weight:g}", ", ".join(maps), f"{tuning.reader_weight:g}" if tuning.reader_weight else "",
    )  # fmt: skip


def promote_tuning(
    ctx: typer.Context,
    tuning: Annotated[str, typer.Argument(metavar="ID", help="The tuning, as `citewell tunings list` shows it.")],
    as_json: AsJson = False,
    data: Data = None,
) -> None:
    """Put a tuning in force. The next search goes by it, in every process."""
    from rag.store import open_store

    with open_store(read_settings(ctx, data)) as store:
        found = store.catalog.promote(tuning)
    if as_json:
        say_json(_facts(found))
    else:
        say(f"Tuning {found.id} is in force.")


def roll_back_tuning(
    ctx: typer.Context, collection: CollectionName, as_json: AsJson = False, data: Data = None
) -> None:
    """Take the last promotion back. The tuning before it is in force again, or the settings are."""
    from rag.store import open_store

    with open_store(read_used_settings(ctx, data)) as store:
        before = store.catalog.roll_back(store.catalog.collection(collection).id)
    if as_json:
        say_json({"in_force": before and before.id})
    elif before is None:
        say(f"Searches of {collection} go by the settings again.")
    else:
        say(f"Tuning {before.id} is in force again.")
