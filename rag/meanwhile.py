"""Something that is done again and again, in a thread, while something else goes on. Knows nothing of either."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def meanwhile(step: Callable[[], None], seconds: float, name: str) -> Iterator[None]:
    """Call ``step`` every so many ``seconds`` in a thread of this ``name`` while the body runs; it may not raise.

    The first call comes after the first pause, and none after the body: what is being done then is waited for.
    """
    stop = threading.Event()

    def run() -> None:
        while not stop.wait(seconds):
            step()

    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
