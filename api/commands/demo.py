"""``citewell demo``: the samples that the package carries, read, replaced and asked about, in a data folder of its own.

Knows the samples and what there is to see in them; works through the same steps as ``ingest`` and ``ask``.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from api.commands.options import Data, Session, read_settings
from api.commands.terminal import counted, say

if TYPE_CHECKING:
    from ingest.sources import SourceFile
    from rag.assembly import Citewell
    from rag.records import Collection

COLLECTION = "demo"
POLICY = "travel-policy.pdf"
YEARS = ("2025", "2026")
QUESTIONS = (
    "What is the hotel limit for domestic travel?",
    "What does error code E07 on the TW-Buoy 400 mean?",
    "Does the company pay for a gym membership?",
)


def demo(ctx: typer.Context, data: Data = None) -> None:
    """Show Citewell at work on sample documents.

    Reads them, asks three questions, and ends with the line that starts the server. It uses a data folder of its own
    beside yours, or the one named by --data.
    """
    settings = read_settings(ctx, data)
    if data is None and ctx.ensure_object(Session).data is None:
        settings = read_settings(ctx, settings.data.with_name(f"{settings.data.name}-demo"))
    from rag.assembly import open_citewell

    say(f"Reading the samples into the collection {COLLECTION} of {settings.data}")
    with open_citewell(settings) as citewell:
        _read_samples(citewell)
        for question in QUESTIONS:
            _ask(citewell, question)
    say(["", "This line starts the server on these documents:", _start_line(settings.data)])


def _read_samples(citewell: Citewell) -> None:
    """Read the policy of one year, then that of the next under the same name, then everything else."""
    from ingest.sources import SourceFile

    catalog = citewell.store.catalog
    collection = catalog.ensure_collection(COLLECTION)
    older, newer = (SourceFile(_samples() / year / POLICY, POLICY) for year in YEARS)
    if not catalog.list_documents(collection.id, limit=1):  # a second demo must not go back to last year
        _read(citewell, collection, [older])
    _read(citewell, collection, [newer])
    _read(citewell, collection, _others())
    found = catalog.collection(COLLECTION)
    say(f"{counted(found.documents, 'document')}, {counted(found.passages, 'passage')} can be searched.")


def _samples() -> Path:
    import ingest

    return Path(ingest.__file__).parent / "samples"


def _others() -> list[SourceFile]:
    from ingest.sources import find_files

    files, _ = find_files([_samples()])
    return [file for file in files if not file.name.startswith(YEARS)]


def _read(citewell: Citewell, collection: Collection, files: Sequence[SourceFile]) -> None:
    from api.commands.intake import Summary, file_line, sum_up, take_in, work_off

    catalog = citewell.store.catalog
    batch = catalog.open_batch(collection.id)
    take_in(citewell.store, collection, batch, files, None)
    work_off(citewell, batch)
    done = catalog.batch(batch)
    say(f"  {file_line(file, done)}" for file in catalog.batch_files(batch))
    sum_up(citewell.store, summary := Summary(COLLECTION, batch=batch))
    if summary.failures:
        raise typer.Exit(1)


def _ask(citewell: Citewell, question: str) -> None:
    from api.commands.ask import answer_lines

    answer = citewell.ask_once(citewell.plan(question, [COLLECTION]))
    say(["", f"> {question}", "", *answer_lines(answer)])


def _start_line(data: Path) -> str:
    """Return the command that starts the server from any folder and any shell."""
    command = Path(sys.executable).with_name("citewell")
    run = [str(command)] if command.is_file() else [sys.executable, "-m", "api.cli"]
    line = shlex.join([*run, "serve", "--data", str(data)])
    return line if command.is_file() else f"cd {shlex.quote(str(Path(__file__).parents[2]))} && {line}"
