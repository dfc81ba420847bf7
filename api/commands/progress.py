"""How work that takes a while shows itself: a bar on a terminal, plain lines elsewhere, always on standard error.

Knows nothing of the work: it is told what is done, and asks how far the rest is.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from api.commands.terminal import clean, note

#: Says how much of the work that has begun is done, in parts of a unit, and what it is.
Begun = Callable[[], tuple[float, str]]
_SECONDS = 0.5


@contextmanager
def shown_progress(total: int, begun: Begun) -> Iterator[Callable[[str], None]]:
    """Show the progress of ``total`` units; yields what is to be called with a line after each."""
    if sys.stderr.isatty():
        with _bar(total, begun) as done:
            yield done
        return
    count = 0

    def done_plainly(line: str) -> None:
        nonlocal count
        count += 1
        note(f"[{count}/{total}] {clean(line)}")

    yield done_plainly


@contextmanager
def _bar(total: int, begun: Begun) -> Iterator[Callable[[str], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    units = TextColumn("{task.fields[units]}", markup=False)
    now = TextColumn("{task.fields[now]}", markup=False)
    columns = (BarColumn(), units, TimeRemainingColumn(compact=True), now)
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=total, units=f"0/{total}", now="")
        count = 0

        def done(line: str) -> None:
            nonlocal count
            count += 1
            progress.update(task, completed=count, units=f"{count}/{total}", now=_short(line))

        def look() -> None:
            part, name = begun()
            if name:
                progress.update(task, completed=min(count + part, total), now=_short(name))

        with _every(_SECONDS, look):
            yield done


@contextmanager
def _every(seconds: float, call: Callable[[], None]) -> Iterator[None]:
    """Call a function from a thread again and again while the body runs."""
    stop = threading.Event()

    def run() -> None:
        while not stop.wait(seconds):
            call()

    thread = threading.Thread(target=run, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _short(line: str) -> str:
    line = clean(line)
    return line if len(line) <= 40 else f"{line[:18]}...{line[-19:]}"
