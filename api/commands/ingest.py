"""``citewell ingest``: files and folders into a collection, with a bar, a summary and an honest exit status.

Knows options and output; what happens to the files is in ``api.commands.intake``.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.commands.options import AsJson, CollectionName, Data, Interrupted, NoWait, read_settings
from api.commands.terminal import clean, counted, say, say_pieces
from rag.errors import BadInput, NotFound

if TYPE_CHECKING:
    from api.batch_report import Format
    from api.commands.intake import Found, Summary, Taken
    from api.commands.progress import Display
    from ingest.sources import SourceProblem
    from rag.assembly import Citewell
    from rag.settings import Settings
    from rag.store import Store

#: Metadata for every file of a command.
GivenMetadata = Annotated[
    str | None,
    typer.Option("--metadata", metavar="JSON", help="An object kept with every file, to filter on later."),
]


def ingest(
    ctx: typer.Context,
    paths: Annotated[
        list[Path], typer.Argument(metavar="PATH...", help="Files, and folders with all that is in them.")
    ],
    collection: CollectionName,
    metadata: GivenMetadata = None,
    no_wait: NoWait = False,
    report: Annotated[
        Path | None,
        typer.Option("--report", metavar="FILE", help="Write what became of every file to FILE, a .csv or .json."),
    ] = None,
    as_json: AsJson = False,
    data: Data = None,
) -> None:
    """Read files into a collection and make them searchable.

    A file is named by its file name, the files of a folder by their path in it. The same name with other content
    replaces the document; the same content again changes nothing, but a file that failed is tried again. Each
    file is safe in the data folder before it is read: after a crash or Ctrl-C run the same command again. The files
    make a batch, which `citewell batches` knows.

    The exit status is 0 only if every file is searchable, or waits with --no-wait, and 1 if one failed.
    """
    start = time.perf_counter()
    given, form = read_given(metadata), _report_format(report)
    settings = read_settings(ctx, data)
    from api.commands.intake import sum_up
    from rag.store import open_store

    found, paths_by_name = _found(paths, remember=as_json)
    with open_store(settings) as store:
        summary = _take_in(settings, store, collection, found, given, wait=not no_wait)
        sum_up(store, summary)
        summary.seconds = time.perf_counter() - start
        if report is not None and form is not None:
            write_report(store, summary.batch, report, form)
        show_summary(store, summary, paths_by_name if as_json else None)
    if summary.failures:
        raise typer.Exit(1)


def read_given(text: str | None) -> dict[str, Any] | None:
    """Return the object of ``--metadata``; raises `BadInput`."""
    if text is None:
        return None
    from api.metadata import read_metadata

    return read_metadata(text, "--metadata")


def _report_format(report: Path | None) -> Format | None:
    """Return how the report is to be written, before any work is done; raises `BadInput`."""
    if report is None:
        return None
    if not report.absolute().parent.is_dir():
        raise BadInput(f"--report is {clean(str(report))}, whose folder does not exist.")
    match report.suffix.lower():
        case ".csv":
            return "csv"
        case ".json":
            return "json"
    raise BadInput(f"--report is {clean(str(report))}; its name must end with .csv or .json.")


def _found(paths: list[Path], *, remember: bool) -> tuple[Iterator[Found], dict[str, str]]:
    """Return what is to be ingested as it is found, and, if wanted, where the paths by name will be kept.

    Raises `NotFound` if there is nothing.
    """
    from ingest.sources import SourceFile, each_file

    by_name: dict[str, str] = {}

    def each() -> Iterator[Found]:
        for found in each_file(paths):
            if remember:
                name = found.name if isinstance(found, SourceFile) else str(found.path)
                by_name.setdefault(name, str(found.path))
            yield found

    found = each()
    first = next(found, None)
    if first is None:
        raise NotFound(f"There are no files to ingest in {', '.join(clean(str(path)) for path in paths)}.")
    return itertools.chain([first], found), by_name


def _take_in(
    settings: Settings, store: Store, name: str, found: Iterator[Found], metadata: dict[str, Any] | None, *, wait: bool
) -> Summary:
    from api.commands.intake import Summary, open_collection, take_in
    from api.commands.progress import shown_progress

    problems, found = _first_problems(found)
    summary = Summary(name)
    if (first := next(found, None)) is None:  # nothing to make a collection for
        _count_problems(summary, problems)
        return summary
    with shown_progress() as display:
        collection, summary.created = open_collection(store, name)
        if summary.created:
            display.note("created", f"Created the collection {name}.", collection=name)
        batch = summary.batch = store.catalog.open_batch(collection.id)
        files: Iterable[Found] = itertools.chain(problems, [first], found)

        def tell(taken: Taken) -> None:
            display.accepted(batch, taken, all_of_it=False)

        def accept(files: Iterable[Found]) -> Taken:
            return take_in(store, collection, batch, files, metadata, tell)

        if wait:
            summary.stages = take_in_and_finish(settings, store, batch, display, files, accept)
        else:
            try:
                display.accepted(batch, accept(files), all_of_it=True)
            except KeyboardInterrupt:
                came = counted(store.catalog.batch(batch).files, "file")
                raise Interrupted(
                    f"Stopped; {came} came into the queue, as batch {batch}. Run the same command again to go on."
                ) from None
    return summary


def take_in_and_finish(
    settings: Settings,
    store: Store,
    batch: str,
    display: Display,
    files: Iterable[Found],
    accept: Callable[[Iterable[Found]], Taken],
    citewell: Citewell | None = None,
) -> dict[str, float]:
    """Have ``files`` accepted into a batch in a thread, work it off meanwhile, and return the seconds by stage.

    Raises what accepting raises, after what came has been worked off, and `Interrupted` with what is left to do.
    """
    stop = threading.Event()

    def take_in() -> None:
        taken = accept(itertools.takewhile(lambda _: not stop.is_set(), files))
        display.accepted(batch, taken, all_of_it=True)

    with ThreadPoolExecutor(1, "accept") as executor:
        coming = executor.submit(take_in)
        try:
            seconds = finish(settings, store, batch, display, citewell, lambda: not coming.done())
        finally:
            stop.set()
        coming.result()
    return seconds


def _first_problems(found: Iterator[Found]) -> tuple[list[SourceProblem], Iterator[Found]]:
    """Return the problems that come before the first file, and the rest."""
    from ingest.sources import SourceProblem

    problems: list[SourceProblem] = []
    for item in found:
        if not isinstance(item, SourceProblem):
            return problems, itertools.chain([item], found)
        problems.append(item)
    return problems, iter(())


def _count_problems(summary: Summary, problems: list[SourceProblem]) -> None:
    from api.batch_report import Outcome

    for problem in problems:
        summary.counts[Outcome.FAILED] += 1
        summary.add_failure(str(problem.path), problem.reason)


def finish(
    settings: Settings,
    store: Store,
    batch: str,
    display: Display,
    citewell: Citewell | None = None,
    arriving: Callable[[], bool] = lambda: False,
) -> dict[str, float]:
    """Work off a batch and show how far it is; return the seconds by stage. ``citewell`` is one that is open already.

    ``arriving`` says whether more files come. Raises `Interrupted` with what is left to do.
    """
    from contextlib import nullcontext

    from api.batch_progress import Watch
    from api.commands.intake import work_off
    from api.commands.progress import followed
    from rag.assembly import open_citewell

    said = False

    def waiting(number: int) -> None:
        nonlocal said
        if not said:
            sentence = f"{counted(number, 'file')} left with another worker, or waiting for another try."
            display.note("waiting", sentence, batch=batch, files=number)
        said = True

    try:
        with followed(Watch(store.catalog, batch), display):
            more = True
            while store.catalog.batch(batch).ended_at is not None:  # no model is opened for files that are unchanged
                if not more:
                    return {}
                more = arriving()
                time.sleep(0.1)
            with nullcontext(citewell) if citewell else open_citewell(settings) as opened:
                return dict(work_off(opened, batch, waiting, arriving))
    except KeyboardInterrupt:
        found = store.catalog.batch(batch)
        raise Interrupted(
            f"Stopped; {counted(found.files - found.ended, 'file')} of {found.files:,} left in the queue. "
            "Run the same command again, or `citewell worker`, to go on."
        ) from None


def write_report(store: Store, batch: str | None, file: Path, form: Format) -> None:
    """Write the report of a batch to a file; raises `BadInput` if it can not be written."""
    from api.batch_report import report_of

    if batch is None:
        return
    try:
        with file.open("w", encoding="utf-8", newline="") as stream:
            stream.writelines(report_of(store.catalog, store.catalog.batch(batch), form))
    except OSError as error:
        raise BadInput(f"The report {clean(str(file))} can not be written: {error.strerror}.") from error


def show_summary(store: Store, summary: Summary, paths: dict[str, str] | None) -> None:
    """Print a summary: as text, or as JSON with every file if ``paths`` by name are given."""
    if paths is None:
        say(summary.lines())
        return
    from api.batch_report import as_json_object
    from api.commands.intake import files_as_json

    failed = ({"path": name, "name": name, "outcome": "failed", "error": error} for name, error in summary.failures)
    files = failed if summary.batch is None else files_as_json(store, summary.batch, paths)
    say_pieces(as_json_object(summary.as_json(), "files", files))
