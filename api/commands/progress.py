"""How work that takes a while shows itself, always on standard error: a bar on a terminal, elsewhere JSON lines.

Both show the same `Look` at a batch. A JSON line is one object, ``{"event": "accepted", ...}``, or ``progress``,
``document``, ``end``: at most about one line of progress a second and one for each document. Knows nothing of the work.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from api.batch_progress import Look, Watch, batch_facts, in_hand_facts
from api.batch_report import file_facts, plain
from api.commands.intake import Taken
from api.commands.terminal import clean, counted, note
from rag.errors import Unavailable
from rag.records import Version

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

#: Seconds between two looks; a look may take one part in `_SHARE` of the time.
SECONDS, _SHARE = 1.0, 5
_WIDEST_NAME, _MOST_IN_HAND = 40, 8


class Display(Protocol):
    """Where progress is shown."""

    def accepted(self, batch: str, taken: Taken, *, all_of_it: bool) -> None:
        """Show how many files have been accepted."""

    def show(self, look: Look) -> None:
        """Show how far a batch is, and the files that have ended since the last look."""

    def end(self, look: Look) -> None:
        """Show that a batch has ended."""

    def note(self, event: str, sentence: str, **facts: Any) -> None:
        """Say something about the work."""


@contextmanager
def shown_progress() -> Iterator[Display]:
    """Yield the display that fits standard error."""
    if not sys.stderr.isatty():
        yield _Lines()
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

    text, name = (TextColumn(f"{{task.fields[{field}]}}", markup=False) for field in ("text", "name"))
    columns = (BarColumn(), TaskProgressColumn(), text, name)
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        yield _Bar(progress)


@contextmanager
def followed(watch: Watch, display: Display) -> Iterator[None]:
    """Show a batch from a thread while the body works on it, and all that is left to show at the end."""
    stop = threading.Event()
    looks = threading.Thread(target=_look_again, args=(watch, display, stop), name="progress", daemon=True)
    looks.start()
    try:
        yield
    finally:
        stop.set()
        looks.join()
        _show_the_rest(watch, display)


def follow(watch: Watch, display: Display) -> Look:
    """Show a batch until it has ended, and return the last look at it."""
    while True:
        started = time.monotonic()
        look = watch.look()
        display.show(look)
        if look.is_over:
            display.end(look)
            return look
        if not look.more:
            time.sleep(max(SECONDS, _SHARE * (time.monotonic() - started)))


def _look_again(watch: Watch, display: Display, stop: threading.Event) -> None:
    pause = SECONDS
    while not stop.wait(pause):
        started = time.monotonic()
        try:
            look = watch.look()
        except Unavailable:  # the work itself says so
            continue
        display.show(look)
        pause = 0.0 if look.more else max(SECONDS, _SHARE * (time.monotonic() - started))


def _show_the_rest(watch: Watch, display: Display) -> None:
    while True:
        look = watch.look()
        display.show(look)
        if not look.more:
            break
    if look.is_over:
        display.end(look)


class _Lines:
    """JSON lines. Progress is told when something has changed."""

    def __init__(self) -> None:
        self._accepted_at = time.monotonic()
        self._shown: object = None

    def accepted(self, batch: str, taken: Taken, *, all_of_it: bool) -> None:
        now = time.monotonic()
        if all_of_it or now - self._accepted_at > SECONDS:
            self._accepted_at = now
            self._tell("accepted", batch=batch, files=taken.files, bytes=taken.size, refused=taken.refused)

    def show(self, look: Look) -> None:
        for ended in look.ended:
            facts = file_facts(ended.file, look.batch)
            told = {name: value for name, value in facts.items() if value is not None}
            self._tell("document", batch=look.batch.id, **told)
        changing = look.batch, look.in_hand
        if changing != self._shown:
            self._shown = changing
            self._progress("progress", look)

    def end(self, look: Look) -> None:
        self._progress("end", look)

    def note(self, event: str, sentence: str, **facts: Any) -> None:
        self._tell(event, message=sentence, **facts)

    def _progress(self, event: str, look: Look) -> None:
        facts = batch_facts(look.batch, look.pace)
        self._tell(event, batch=facts.pop("id"), **facts, in_hand=in_hand_facts(look))

    def _tell(self, event: str, **facts: Any) -> None:
        note(json.dumps({"event": event, **facts}, default=plain))


class _Bar:
    """A bar for the batch, and one for each of some documents in hand."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._whole = progress.add_task("", total=None, text="", name="")
        self._in_hand: dict[str, TaskID] = {}

    def accepted(self, batch: str, taken: Taken, *, all_of_it: bool) -> None:  # noqa: ARG002 -- the bar moves anyway
        if self._progress.tasks[self._whole].total is None:  # nothing of it has been looked at yet
            text = f"{counted(taken.files, 'file')} accepted, {_bytes(taken.size)}"
            self._progress.update(self._whole, text=text)

    def show(self, look: Look) -> None:
        for ended in look.ended:
            facts = file_facts(ended.file, look.batch)
            if facts["outcome"] == "failed":
                self._progress.console.print(f"failed {clean(ended.file.name)}", markup=False, highlight=False)
        batch, pace = look.batch, look.pace
        text = f"{batch.ended:,}/{batch.files:,} files, {batch.passages:,} passages, {_bytes(pace.bytes_per_second)}/s"
        left = "" if pace.seconds_left is None else f"{_duration(pace.seconds_left)} left"
        self._progress.update(self._whole, total=batch.files, completed=batch.ended, text=text, name=left)
        self._show_in_hand([file.version for file in look.in_hand if file.version][:_MOST_IN_HAND])

    def _show_in_hand(self, versions: list[Version]) -> None:
        for gone in set(self._in_hand) - {version.id for version in versions}:
            self._progress.remove_task(self._in_hand.pop(gone))
        for version in versions:
            if version.id not in self._in_hand:
                added = self._progress.add_task("", total=1.0, text="", name=_short(version.name))
                self._in_hand[version.id] = added
            task = self._in_hand[version.id]
            self._progress.update(task, completed=version.progress, text=str(version.stage))

    def end(self, look: Look) -> None:
        """The summary that follows says it."""

    def note(self, event: str, sentence: str, **facts: Any) -> None:  # noqa: ARG002 -- the sentence says it all
        self._progress.console.print(sentence, markup=False, highlight=False)


def _bytes(size: float) -> str:
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _short(line: str) -> str:
    line = clean(line)
    return line if len(line) <= _WIDEST_NAME else f"{line[:18]}...{line[-19:]}"
