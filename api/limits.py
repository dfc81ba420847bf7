"""How much one key may ask: requests in a time, by a token bucket, and requests at once.

Counted in each process by itself: a server with several processes lets through as many times as much at the most. Knows
no route and no secret.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rag.access import Limits
from rag.errors import RateLimited
from rag.settings import AccessSettings


@dataclass(slots=True)
class _Bucket:
    """So many tokens at a moment, of which each request takes one; and how many requests are under way."""

    tokens: float
    at: float
    in_flight: int = 0


class Meter:
    """Counts what each key asks for. For the thread of one event loop; ``clock`` counts seconds."""

    def __init__(self, settings: AccessSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._clock = clock
        self._buckets: dict[str, _Bucket] = {}

    @contextmanager
    def one(self, who: str, limits: Limits) -> Iterator[None]:
        """Let one request of somebody through, who is under way with it until the end of the ``with`` block.

        Raises `RateLimited`, with the seconds after which to come again, where that is one too many.
        """
        rate = limits.requests_per_minute or self._settings.requests_per_minute
        most = limits.in_flight or self._settings.in_flight
        bucket = self._filled(who, rate)
        if bucket.in_flight >= most:
            raise RateLimited(f"This key has {most:,} requests under way, which is its limit.", retry_after=1)
        if bucket.tokens < 1:
            after = math.ceil((1 - bucket.tokens) * 60 / rate)
            raise RateLimited(f"This key may send {rate:,} requests a minute.", retry_after=max(1, after))
        bucket.tokens -= 1
        bucket.in_flight += 1
        try:
            yield
        finally:
            bucket.in_flight -= 1

    def _filled(self, who: str, rate: int) -> _Bucket:
        """Return somebody's bucket with the tokens that have come since it was last looked at."""
        now, burst = self._clock(), float(self._settings.burst)
        bucket = self._buckets.setdefault(who, _Bucket(burst, now))
        bucket.tokens = min(burst, bucket.tokens + (now - bucket.at) * rate / 60)
        bucket.at = now
        return bucket
