"""Signals that are noted and looked at later, when what is being opened is open.

An exception in their place would come anywhere: in the middle of a statement of the database, or in a callback of a
library in C, which loses it. Knows nothing of what they mean.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def told_to_stop(*numbers: int) -> Iterator[list[int]]:
    """Note these signals in the list that is yielded, in the order in which they came; for the main thread.

    Who runs inside and sets handlers of its own, as uvicorn does, hears them in its place.
    """
    came: list[int] = []

    def note(number: int, _: FrameType | None) -> None:
        came.append(number)

    before = {number: signal.signal(number, note) for number in numbers}
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
