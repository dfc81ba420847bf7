"""``citewell ingest``: files and folders into a collection, with a bar, a summary and an honest exit status.

Knows options and output; what happens to the files is in ``api.commands.intake``.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.commands.options import AsJson, CollectionName, Data, Interrupted, read_settings
from api.commands.progress import shown_progress
from api.commands.terminal import clean, counted, note, say, say_json
from rag.errors import BadInput, NotFound

if TYPE_CHECKING:
    from api.commands.intake import Item, Report
    from rag.records import Collection
    from rag.settings import Settings
    from rag.store import Store


def ingest(
    ctx: typer.Context,
    paths: Annotated[
        list[Path], typer.Argument(metavar="PATH...", help="Files, and folders with all that is in them.")
    ],
    collection: CollectionName,
    metadata: Annotated[
        str | None,
        typer.Option("--metadata", metavar="JSON", help="An object kept with every file, to filter on later."),
    ] = None,
    as_json: AsJson = False,
    data: Data = None,
) -> None:
    """Read files into a collection and make them searchable.

    A file is named by its file name, the files of a folder by their path in it. The same name with other content
    replaces the document; the same content again changes nothing, but a file that failed is tried again. Every
    file is safe in the data folder before the first one is read: after a crash or Ctrl-C run the same command again.

    The exit status is 0 only if every file is searchable, and 1 if one failed.
    """
    start = time.perf_counter()
    given = _read_metadata(metadata)
    settings = read_settings(ctx, data)
    report = _ingest(settings, paths, collection, given)
    report.seconds = time.perf_counter() - start
    if as_json:
        say_json(report.as_json())
    else:
        say(report.lines())
    if any(item.error for item in report.items):
        raise typer.Exit(1)


def _read_metadata(text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
    except ValueError as error:
        raise BadInput(f"--metadata is not JSON ({error}); write for example '{{\"year\": 2026}}'.") from error
    if not isinstance(value, dict):
        raise BadInput("--metadata must be a JSON object, for example '{\"year\": 2026}'.")
    return value


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def _ingest(settings: Settings, paths: list[Path], name: str, metadata: dict[str, Any] | None) -> Report:
    from api.commands.intake import Report, refused, take_in
    from ingest.sources import find_files
    from rag.store import open_store

    files, problems = find_files(paths)
    if not files and not problems:
        raise NotFound(f"There are no files to ingest in {', '.join(clean(str(path)) for path in paths)}.")
    report = Report(name, created=False, items=refused(problems))
    if files:
        with open_store(settings) as store:
            collection, report.created = _open_collection(store, name)
            items = take_in(store, collection, files, metadata)
            report.items = [*items, *report.items]
            if any(item.pending for item in items):
                report.stages = _work_off(settings, store, collection, items)
    return report


def _open_collection(store: Store, name: str) -> tuple[Collection, bool]:
    """Return the collection, and whether it had to be made."""
    try:
        return store.catalog.collection(name), False
    except NotFound:
        collection = store.catalog.ensure_collection(name)
        note(f"Created the collection {name}.")
        return collection, True


def _work_off(settings: Settings, store: Store, collection: Collection, items: list[Item]) -> dict[str, float]:
    from api.commands.intake import work_off
    from rag.assembly import open_citewell
    from rag.records import State

    pending = [item for item in items if item.pending]
    ids = {item.version.id for item in pending if item.version}
    said = False

    def begun() -> tuple[float, str]:
        found = store.catalog.list_documents(collection.id, state=State.PROCESSING, limit=20)
        ours = [document for document in found if document.newest.id in ids]
        return sum(d.newest.progress for d in ours), ours[0].name if ours else ""

    def waiting(number: int) -> None:
        nonlocal said
        if not said:
            note(f"Another worker has {counted(number, 'file')} in hand, or its lease has yet to run out; waiting.")
        said = True

    try:
        with shown_progress(len(pending), begun) as tell, open_citewell(settings) as citewell:
            worker = work_off(citewell, pending, lambda item: tell(item.line()), waiting)
    except KeyboardInterrupt:
        left = sum(item.pending for item in pending)
        raise Interrupted(
            f"Stopped; {counted(left, 'file')} of {len(pending):,} left in the queue. "
            "Run the same command again, or `citewell worker`, to go on."
        ) from None
    return worker.clock.seconds
