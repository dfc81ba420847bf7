"""A circuit breaker: who has failed several times in a row is left alone for a while, and then tried once.

While it rests, callers learn so at once instead of waiting for another time-out. It counts what its callers tell it and
reads a clock; it knows neither what is called nor why it failed. For the thread of one event loop.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal

State = Literal["closed", "open", "trying"]


class Breaker:
    """Closed while all is well; open for ``seconds`` after ``failures`` in a row; then one trial decides."""

    def __init__(self, failures: int, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = failures
        self._seconds = seconds
        self._clock = clock
        self._until: float | None = None
        self._trying = False
        self.failures = 0

    @property
    def state(self) -> State:
        """``open``: calls fail at once. ``trying``: the next call, or one on its way, is the trial."""
        if self._until is None:
            return "closed"
        return "open" if self._clock() < self._until else "trying"

    @property
    def rest(self) -> float:
        """Seconds until a call is let through again; 0 if one is now."""
        if self._until is None:
            return 0.0
        return max(0.0, self._until - self._clock(), 1.0 if self._trying else 0.0)

    def enter(self) -> bool:
        """Say whether a call may be made, which then ends with one of the three below."""
        if self.rest:
            return False
        self._trying = self._until is not None
        return True

    def succeeded(self) -> None:
        """A call went well: all is forgotten."""
        self.failures, self._until, self._trying = 0, None, False

    def failed(self) -> None:
        """A call failed: the one too many, and every trial, begins a rest."""
        self.failures += 1
        if self._trying or (self._until is None and self.failures >= self._most):
            self._until, self._trying = self._clock() + self._seconds, False

    def given_up(self) -> None:
        """A call was broken off by its caller and says nothing: if it was the trial, the next one is."""
        self._trying = False
