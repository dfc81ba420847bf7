"""``citewell sync``: a collection that mirrors a folder, once or for as long as it runs.

Knows options and output, and when to look again; what differs is found in ``ingest.mirror``, and what happens to the
files is in ``api.commands.intake``. The owner of the library that tells of changes in a folder.
"""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.commands.ingest import GivenMetadata, read_given, show_summary, take_in_and_finish
from api.commands.options import AsJson, CollectionName, Data, Interrupted, NoWait, Yes, read_settings
from api.commands.terminal import clean, counted, note, say, say_json
from rag.errors import BadInput, NotFound, Unavailable

if TYPE_CHECKING:
    from api.commands.intake import Found, Summary, Taken
    from ingest.mirror import Difference
    from rag.assembly import Citewell
    from rag.records import Collection
    from rag.settings import Settings
    from rag.store import Store

#: Milliseconds: changes that follow each other are taken together, for so long at most, after a silence of so long.
DEBOUNCE, SILENCE = 1600, 200
#: Milliseconds between two looks at a file that may still be written.
LOOK = 1000


def sync(
    ctx: typer.Context,
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="The folder that the collection is to mirror.")],
    collection: CollectionName,
    delete: Annotated[bool, typer.Option("--delete", help="Delete documents that are not in the folder.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Go on following changes until told to stop.")] = False,
    rescan: Annotated[
        float, typer.Option("--rescan", metavar="SECONDS", min=1, help="With --watch: look at every file so often.")
    ] = 300.0,
    metadata: GivenMetadata = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")] = False,
    no_wait: NoWait = False,
    yes: Yes = False,
    as_json: AsJson = False,
    data: Data = None,
) -> None:
    """Make a collection mirror a folder.

    New and changed files are read; a file with the size and time that it had before is not even opened. With
    --delete, documents without a file are deleted, but for those inside archives: they go with their archive. Nothing
    is deleted because a file or folder can not be read, and an empty folder only empties a collection with --yes.

    Metadata is kept with the files that are new or changed. The exit status is 1 if a file failed.
    """
    given = read_given(metadata)
    settings = read_settings(ctx, data)
    _check_apart(settings, folder)
    from rag.store import open_store

    with open_store(settings) as store, ExitStack() as stack:
        mirror = Mirror(settings, store, folder, collection, given, delete, yes, as_json, not no_wait)
        if dry_run:
            mirror.show_difference()
        elif watch:
            _follow(mirror, stack, rescan)
        elif mirror.level().failures:
            raise typer.Exit(1)


def _check_apart(settings: Settings, folder: Path) -> None:
    """Refuse a folder in which the data folder lies: what is kept of a file would be a file to keep."""
    if settings.data.resolve().is_relative_to(folder.resolve()):
        raise BadInput(f"The data folder {settings.data} lies in the folder to mirror; choose another one with --data.")


@dataclass
class Mirror:
    """A collection and the folder that it mirrors. ``citewell`` is opened when there is something to read."""

    settings: Settings
    store: Store
    folder: Path
    name: str
    metadata: dict[str, Any] | None
    delete: bool
    yes: bool
    as_json: bool
    wait: bool
    citewell: Citewell | None = None
    #: Marks of files that looked new or changed when last seen, while following.
    seen: dict[str, str] | None = None
    _said: str = field(default="", init=False)

    def difference(self) -> Difference:
        """Compare the folder with the collection. Raises `NotFound` without the folder."""
        from ingest.mirror import compare

        found = compare(self.folder, self._known())
        if not self.delete:
            found.gone = []
        elif found.gone and not found.files and not self.yes:
            raise BadInput(
                f"There is no file in {clean(str(self.folder))}, so that all of the collection {self.name} would be "
                "deleted; add --yes if that is meant."
            )
        return found

    def _known(self) -> Mapping[str, str | None]:
        try:
            return self.store.catalog.sources(self.store.catalog.collection(self.name, counted=False).id)
        except NotFound:
            return {}

    def show_difference(self) -> None:
        """Print what would be done."""
        found, known = self.difference(), self._known()
        new = [file.name for file in found.changed if file.name not in known]
        changed = [file.name for file in found.changed if file.name in known]
        if self.as_json:
            facts: dict[str, Any] = {"collection": self.name, "dry_run": True, "add": new, "changed": changed}
            facts |= {"delete": found.gone, "unchanged": found.unchanged}
            say_json(facts | {"problems": [{"path": str(p.path), "error": p.reason} for p in found.problems]})
            return
        for verb, names in (("add", new), ("read again", changed), ("delete", found.gone)):
            say(f"would {verb} {clean(name)}" for name in names)
        say(clean(problem.reason) for problem in found.problems)
        say(f"{counted(found.unchanged, 'file')} unchanged.")

    def level(self) -> Summary:
        """Make the collection what the folder is, say what was done, and return it."""
        start = time.perf_counter()
        found = self._settled(self.difference())
        summary = self._work(found)
        summary.seconds = time.perf_counter() - start
        if self.seen is None or summary.batch or found.gone:
            self._show(summary, found)
        return summary

    def _settled(self, found: Difference) -> Difference:
        """While following, leave out files that look other than the last time: they may still be written."""
        if self.seen is not None:
            before, self.seen = self.seen, {}
            self.seen = {name: mark for name, mark in found.marks.items() if before.get(name) != mark}
            found.changed = [file for file in found.changed if file.name not in self.seen]
            said, self._said = self._said, repr(found.problems)
            if said == self._said:  # the same problems again are no news
                found.problems = []
        return found

    def _work(self, found: Difference) -> Summary:
        from api.batch_report import Outcome
        from api.commands.intake import Summary, open_collection, sum_up, take_in
        from api.commands.progress import shown_progress

        summary = Summary(self.name, deleted=len(found.gone) if self.delete else None)
        if not (found.changed or found.problems or found.gone):
            summary.counts[Outcome.UNCHANGED] = found.unchanged
            return summary
        with shown_progress() as display:
            collection, summary.created = open_collection(self.store, self.name)
            if summary.created:
                display.note("created", f"Created the collection {self.name}.", collection=self.name)
            self._delete(collection, found.gone)
            if found.changed or found.problems:
                batch = summary.batch = self.store.catalog.open_batch(collection.id)
                files: list[Found] = [*found.changed, *found.problems]

                def accept(files: Iterable[Found]) -> Taken:
                    marks = found.marks
                    return take_in(
                        self.store, collection, batch, files, self.metadata, mark=lambda file: marks.get(file.name)
                    )

                if self.wait:
                    summary.stages = take_in_and_finish(
                        self.settings, self.store, batch, display, files, accept, self.citewell
                    )
                else:
                    display.accepted(batch, accept(files), all_of_it=True)
        sum_up(self.store, summary)
        summary.counts[Outcome.UNCHANGED] += found.unchanged
        return summary

    def _delete(self, collection: Collection, names: list[str]) -> None:
        catalog = self.store.catalog
        for name in names:
            try:
                catalog.delete_document(catalog.find_document(collection.id, name).id)
            except NotFound:  # somebody else was faster
                continue

    def _show(self, summary: Summary, found: Difference) -> None:
        """Print a summary; while following, JSON is one line each time."""
        if not self.as_json:
            say(f"deleted {clean(name)}" for name in found.gone)
            show_summary(self.store, summary, None)
        elif self.seen is not None:
            say(json.dumps(summary.as_json() | {"deleted_documents": found.gone}))
        else:
            paths = {file.name: str(file.path) for file in found.changed}
            show_summary(self.store, summary, paths | {str(p.path): str(p.path) for p in found.problems})


def _follow(mirror: Mirror, stack: ExitStack, rescan: float) -> None:
    """Look at the folder whenever something in it changes, and at times; until a signal comes."""
    from watchfiles import watch

    mirror.seen = {}
    if not mirror.folder.is_dir():
        raise NotFound(f"There is no folder {clean(str(mirror.folder))}.")
    if mirror.wait:
        from rag.assembly import open_citewell

        mirror.citewell = stack.enter_context(open_citewell(mirror.settings))
    try:
        with _stopped_by_sigterm():
            looked_at = _look(mirror)
            changes = watch(
                mirror.folder,
                watch_filter=None,
                debounce=DEBOUNCE,
                step=SILENCE,
                rust_timeout=LOOK,
                yield_on_timeout=True,
            )
            for number, changed in enumerate(changes):
                missed = number == 0  # what changed while we looked, before the watch began
                if changed or missed or mirror.seen or time.monotonic() - looked_at > rescan:
                    looked_at = _look(mirror)
    except KeyboardInterrupt:
        raise Interrupted("Stopped following; nothing was left half done.") from None


def _look(mirror: Mirror) -> float:
    """Level once; what stands in the way now may be gone at the next look. Returns when that was."""
    try:
        mirror.level()
    except (BadInput, NotFound, Unavailable) as error:
        note(f"citewell: {clean(error.message)}")
    return time.monotonic()


@contextmanager
def _stopped_by_sigterm() -> Iterator[None]:
    """Let SIGTERM end the body as Ctrl-C does."""

    def stop(_: int, __: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
