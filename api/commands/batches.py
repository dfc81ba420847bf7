"""``citewell batches``: files that came together, how far they are, and what became of each.

Knows the catalog alone: no model is opened.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.commands.ingest import write_report
from api.commands.options import AsJson, CollectionName, Data, Interrupted, read_used_settings
from api.commands.terminal import counted, say, say_json, say_pieces, table

if TYPE_CHECKING:
    from rag.records import Batch
    from rag.store import Store

BatchId = Annotated[str, typer.Argument(metavar="BATCH", help="The id of the batch.")]


class ReportFormat(StrEnum):
    """How a report is written."""

    CSV = "csv"
    JSON = "json"


def list_batches(ctx: typer.Context, collection: CollectionName, as_json: AsJson = False, data: Data = None) -> None:
    """List the last batches of a collection, the newest first."""
    from rag.store import open_store

    with open_store(read_used_settings(ctx, data)) as store:
        found = store.catalog.list_batches(store.catalog.collection(collection, counted=False).id)
        facts = [_facts(store, batch) for batch in found]
    if as_json:
        say_json({"collection": collection, "batches": facts})
        return
    if not found:
        say("There are no batches.")
        return
    rows = [
        (f"{b.created_at:%Y-%m-%d %H:%M}", _standing(b), f"{b.files:,}", f"{b.ended:,}", f"{b.passages:,}", b.id)
        for b in found
    ]
    say(table(("CREATED", "STATE", "FILES", "ENDED", "PASSAGES", "BATCH"), rows))


def show_batch(ctx: typer.Context, batch: BatchId, as_json: AsJson = False, data: Data = None) -> None:
    """Show how far a batch is: files by state, bytes, pace and time left."""
    from rag.store import open_store

    with open_store(read_used_settings(ctx, data)) as store:
        found = store.catalog.batch(batch)
        facts = _facts(store, found)
    if as_json:
        say_json(facts)
    else:
        say(_lines(found, facts))


def report_batch(
    ctx: typer.Context,
    batch: BatchId,
    form: Annotated[ReportFormat, typer.Option("--format", help="How it is written.")] = ReportFormat.CSV,
    output: Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write it to FILE.")] = None,
    data: Data = None,
) -> None:
    """Print what became of every file of a batch.

    In CSV a cell that a spreadsheet would take for a formula begins with an apostrophe.
    """
    from api.batch_report import report_of
    from rag.store import open_store

    with open_store(read_used_settings(ctx, data)) as store:
        found = store.catalog.batch(batch)
        if output is None:
            say_pieces(report_of(store.catalog, found, form.value))
        else:
            write_report(store, found.id, output, form.value)


def watch_batch(ctx: typer.Context, batch: BatchId, data: Data = None) -> None:
    """Show the progress of a batch until every file of it has ended.

    A bar on a terminal, elsewhere a line of JSON for each second and each file, on standard error.
    """
    from api.batch_progress import Watch
    from api.commands.progress import follow, shown_progress
    from rag.store import open_store

    with open_store(read_used_settings(ctx, data)) as store:
        try:
            with shown_progress() as display:
                found = follow(Watch(store.catalog, batch), display).batch
        except KeyboardInterrupt:
            raise Interrupted("Stopped watching; the work goes on.") from None
        say(_lines(found, _facts(store, found)))


def _facts(store: Store, batch: Batch) -> dict[str, Any]:
    from api.batch_progress import batch_facts, pace_of

    collection = store.catalog.collection_name(batch.collection_id)
    return batch_facts(batch, pace_of(store.catalog, batch)) | {"collection": collection}


def _standing(batch: Batch) -> str:
    if not batch.files:
        return "empty"
    return "ended" if batch.ended_at else f"{batch.ended / batch.files:.0%}"


def _lines(batch: Batch, facts: dict[str, Any]) -> list[str]:
    states = ", ".join(f"{count:,} {state}" for state, count in sorted(batch.states.items()))
    left = facts["seconds_left"]
    shown: dict[str, object] = {
        "batch": batch.id,
        "collection": facts["collection"],
        "state": _standing(batch),
        "created": f"{batch.created_at:%Y-%m-%d %H:%M:%S} UTC",
        "ended": f"{batch.ended_at:%Y-%m-%d %H:%M:%S} UTC" if batch.files and batch.ended_at else None,
        "files": f"{batch.files:,}, {batch.ended:,} ended" + (f": {states}" if states else ""),
        "size": f"{counted(batch.size, 'byte')}, {batch.size_ended:,} ended",
        "passages": f"{batch.passages:,}",
        "pace": f"{facts['files_per_second']:.1f} files/s, {facts['bytes_per_second'] / 1e6:.2f} MB/s",
        "time left": f"{left:.0f} seconds" if left else None,
    }
    return [f"{name:<10}  {value}" for name, value in shown.items() if value is not None]
