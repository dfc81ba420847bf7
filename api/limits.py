"""How much one key may ask: requests in a time, by a token bucket, and requests at once; all processes count together.

`Meter` decides, `_Table` is what it counts in: a mapped file of the data folder, which every request process on this
machine reads and writes. What a process had under way when it was killed counts no longer as soon as somebody would be
refused because of it: each process has a seat, and whether it still lives is a lock that the kernel gives back. Servers
on other machines count by themselves. Knows no route and no secret.
"""

from __future__ import annotations

import fcntl
import hashlib
import math
import mmap
import os
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Final

import structlog

from rag.access import Limits
from rag.errors import RateLimited
from rag.settings import AccessSettings

log = structlog.get_logger(__name__)

#: The folder of the data folder in which processes count together.
FOLDER: Final = "limits"
#: Processes that may count at once: those that answer, and those before them that still finish something.
SEATS: Final = 64
#: Keys that are counted at once; a key lies in one of ``NEAR`` places, and takes that of whoever was quiet the longest.
PLACES, NEAR = 2048, 8
#: Tries to have the table alone, and seconds between two of them: a process that is frozen holds nobody up for long.
TRIES, PAUSE = 100, 0.0001
#: Whose the place is, the tokens left at a moment, and the moment in seconds; then the requests under way by seat.
_BUCKET, _UNDER_WAY, _ONE = struct.Struct("=16sdd"), struct.Struct(f"={SEATS}I"), struct.Struct("=I")
_PLACE: Final = _BUCKET.size + _UNDER_WAY.size
#: Bytes of a name, and nobody's name.
_NAME_BYTES: Final = 16
_FREE: Final = bytes(_NAME_BYTES)


class Meter:
    """Counts what each key asks for, together with all that count in ``folder``; without one, by itself.

    For the thread of one event loop. ``clock`` counts seconds, for all processes alike.
    """

    def __init__(
        self, settings: AccessSettings, folder: Path | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._table = _opened(folder)

    @contextmanager
    def one(self, who: str, limits: Limits) -> Iterator[None]:
        """Let one request of somebody through, who is under way with it until the end of the ``with`` block.

        Raises `RateLimited`, with the seconds after which to come again, where that is one too many.
        """
        rate = limits.requests_per_minute or self._settings.requests_per_minute
        most = limits.in_flight or self._settings.in_flight
        name = hashlib.blake2b(who.encode(), digest_size=_NAME_BYTES).digest()
        with self._table.alone():
            place, now = self._table.place_of(name), self._clock()
            tokens = self._tokens(place, rate, now)
            if self._table.under_way(place) >= most and self._table.without_the_dead(place) >= most:
                raise RateLimited(f"This key has {most:,} requests under way, which is its limit.", retry_after=1)
            if tokens < 1:
                after = math.ceil((1 - tokens) * 60 / rate)
                raise RateLimited(f"This key may send {rate:,} requests a minute.", retry_after=max(1, after))
            self._table.write(place, name, tokens - 1, now)
            self._table.add(place, 1)
        try:
            yield
        finally:
            with self._table.alone():
                self._table.add(place, -1)

    def close(self) -> None:
        """Leave the seat to another process."""
        self._table.close()

    def _tokens(self, place: int, rate: int, now: float) -> float:
        """Return what a bucket holds now, with what has come since it was last looked at."""
        burst, (whose, tokens, at) = float(self._settings.burst), self._table.bucket(place)
        if whose == _FREE:
            return burst
        return min(burst, tokens + max(0.0, now - at) * rate / 60)  # the clock begins anew with the machine


class _Table:
    """Buckets in shared memory. Every method but `alone` and `close` is for within `alone`."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._file: IO[bytes] | None = None
        self._lock: IO[bytes] | None = None
        if folder is None:
            self._seat, self._map = 0, mmap.mmap(-1, PLACES * _PLACE)
            return
        folder.mkdir(parents=True, exist_ok=True)
        self._file = (folder / "table").open("a+b")
        try:
            os.posix_fallocate(self._file.fileno(), 0, PLACES * _PLACE)  # a page that no disk has would end the process
            self._map = mmap.mmap(self._file.fileno(), PLACES * _PLACE)
            self._seat = self._taken_seat(folder)
        except OSError:
            self.close()
            raise

    def _taken_seat(self, folder: Path) -> int:
        """Return a seat that nobody has, with nothing under way on it; raises `OSError` if all are taken."""
        for seat in range(SEATS):
            if (lock := _locked(folder / f"seat-{seat}")) is not None:
                self._lock = lock
                with self.alone():
                    for place in range(PLACES):
                        _ONE.pack_into(self._map, self._cell(place, seat), 0)
                return seat
        raise OSError(0, f"all {SEATS} seats are taken")

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Have the table for oneself; or, should a frozen process have it, go on without, and count a little wrong."""
        if self._file is None:
            yield
            return
        for _ in range(TRIES):
            with suppress(BlockingIOError):
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            time.sleep(PAUSE)
        try:
            yield
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def place_of(self, name: bytes) -> int:
        """Return somebody's place: the one that is his, else a free one, else that of who was quiet the longest."""
        first = int.from_bytes(name[:4])
        near = [(first + step) % PLACES for step in range(NEAR)]
        buckets = [(place, *self.bucket(place)) for place in near]
        if (own := next((place for place, whose, *_ in buckets if whose == name), None)) is not None:
            return own
        idle = [bucket for bucket in buckets if not self.under_way(bucket[0])] or buckets
        place = min(idle, key=lambda bucket: (bucket[1] != _FREE, bucket[3]))[0]
        _BUCKET.pack_into(self._map, place * _PLACE, _FREE, 0.0, 0.0)
        return place

    def bucket(self, place: int) -> tuple[bytes, float, float]:
        """Return whose a place is, the tokens there at a moment, and the moment."""
        whose, tokens, at = _BUCKET.unpack_from(self._map, place * _PLACE)
        return whose, tokens, at

    def write(self, place: int, name: bytes, tokens: float, at: float) -> None:
        """Say how many tokens somebody has at a moment."""
        _BUCKET.pack_into(self._map, place * _PLACE, name, tokens, at)

    def under_way(self, place: int) -> int:
        """Return how many requests are under way, in all processes."""
        return sum(_UNDER_WAY.unpack_from(self._map, place * _PLACE + _BUCKET.size))

    def without_the_dead(self, place: int) -> int:
        """Return the same once those are forgotten that ended with their process."""
        if self._folder is not None:
            for seat, count in enumerate(_UNDER_WAY.unpack_from(self._map, place * _PLACE + _BUCKET.size)):
                if count and seat != self._seat and (lock := _locked(self._folder / f"seat-{seat}")) is not None:
                    with lock:
                        _ONE.pack_into(self._map, self._cell(place, seat), 0)
        return self.under_way(place)

    def add(self, place: int, count: int) -> None:
        """Note one request more or less under way in this process."""
        cell = self._cell(place, self._seat)
        _ONE.pack_into(self._map, cell, max(0, _ONE.unpack_from(self._map, cell)[0] + count))

    def _cell(self, place: int, seat: int) -> int:
        return place * _PLACE + _BUCKET.size + seat * _ONE.size

    def close(self) -> None:
        """Leave the seat to another process."""
        for file in (self._lock, self._file):
            if file is not None:
                file.close()


def _opened(folder: Path | None) -> _Table:
    try:
        return _Table(folder)
    except OSError as error:
        log.warning("requests are not counted together with other processes", reason=error.strerror)
        return _Table(None)


def _locked(file: Path) -> IO[bytes] | None:
    """Return the file open and locked, None if a process that lives has the lock."""
    stream = file.open("ab")
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        stream.close()
        return None
    return stream
