"""Many waiting callers, few calls: what waits is taken in rounds, and the questions of a round are embedded together.

A round begins as soon as a thread is free, and takes whoever waits, first come first served, up to a limit; while it is
worked on, the next one gathers. So nobody ever waits for company: alone, a caller is a round of one, and the more there
are, the larger the rounds become by themselves. How many may be there at once is bounded; one more is refused.

Knows no event loop and no web: a caller gets a `concurrent.futures.Future`, for which a thread can wait as well as a
coroutine, and which it cancels when it leaves. Knows no index either: what is done with a round, the caller says.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar

from rag.errors import Busy, Unavailable
from rag.protocols import Embedder, Encoding, Role
from rag.telemetry import SILENT, Telemetry

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")
#: How much the newest round counts in the measured seconds for one item.
NEWEST = 0.2


@dataclass(frozen=True, slots=True, eq=False)
class Turn(Generic[ItemT, ResultT]):
    """The ``item`` of one caller, the ``future`` that it waits for, and ``since`` when (of `time.monotonic`)."""

    item: ItemT
    future: Future[ResultT] = field(default_factory=Future)
    since: float = field(default_factory=time.monotonic)

    @property
    def over(self) -> bool:
        """Whether nothing is to be done for it any more: it has its result, or its caller has left."""
        return self.future.done()

    def settle(self, step: Callable[[], ResultT]) -> None:
        """Give the caller what ``step`` returns or raises; for one who has left, ``step`` is not called."""
        if self.over or not self.future.set_running_or_notify_cancel():
            return
        try:
            result = step()
        except BaseException as error:  # noqa: BLE001 -- the caller gets it; the others of the round go on
            self.future.set_exception(error)
        else:
            self.future.set_result(result)

    def fail(self, error: BaseException) -> None:
        """Let the caller have an error."""
        if not self.over and self.future.set_running_or_notify_cancel():
            self.future.set_exception(error)


class Rounds(Generic[ItemT, ResultT]):
    """Works off the items of many callers in rounds of at most ``most``. Thread-safe.

    ``work`` settles the turns of a round, and is called in ``threads`` threads at once; turns that it leaves open fail
    with what it raised. At most ``places`` callers are there at any time, waiting or being served. Who has waited for
    longer than ``patience`` seconds is refused when its turn comes: few read an answer that late, and others wait.
    """

    def __init__(
        self,
        work: Callable[[Sequence[Turn[ItemT, ResultT]]], None],
        *,
        name: str,
        threads: int,
        most: int,
        places: int,
        patience: float,
    ) -> None:
        self._work = work
        self._most = most
        self._places = places
        self._patience = patience
        self._waiting: deque[Turn[ItemT, ResultT]] = deque()
        self._there = 0
        self._each = 0.0
        self._closed = False
        self._changed = threading.Condition()
        self._counting = threading.Lock()
        self._threads = [
            threading.Thread(target=self._run, name=f"{name}-{number}", daemon=True) for number in range(threads)
        ]

    def submit(self, item: ItemT) -> Future[ResultT]:
        """Return the future of an item; cancelling it takes the item out of the line, and frees its place.

        Raises `Busy` at once if all places are taken, and `Unavailable` when this is closed.
        """
        turn: Turn[ItemT, ResultT] = Turn(item)
        with self._changed:
            if self._closed:
                raise _closing()
            with self._counting:
                if self._there >= self._places:
                    raise self._busy()
                self._there += 1
            turn.future.add_done_callback(self._leave)
            self._waiting.append(turn)
            if self._threads[0].ident is None:  # who never asks needs no threads
                for thread in self._threads:
                    thread.start()
            self._changed.notify()
        return turn.future

    @property
    def there(self) -> int:
        """How many callers are there now, waiting or being served."""
        return self._there

    def close(self) -> None:
        """Finish the rounds in hand, and let everyone who still waits have `Unavailable`."""
        with self._changed:
            self._closed = True
            left, self._waiting = self._waiting, deque()
            self._changed.notify_all()
        for turn in left:
            turn.fail(_closing())
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()

    def _leave(self, _: Future[ResultT]) -> None:
        with self._counting:
            self._there -= 1

    def _busy(self) -> Busy:
        """The refusal, with the seconds after which those who are there now should be done."""
        seconds = math.ceil(self._there * self._each / len(self._threads))
        return Busy(retry_after=max(1, seconds))

    def _run(self) -> None:
        while turns := self._take():
            start = time.perf_counter()
            try:
                self._work(turns)
                missed: BaseException = AssertionError("a round must settle each of its turns")
            except BaseException as error:  # noqa: BLE001 -- a thread that ended would leave all later callers waiting
                missed = error
            for turn in turns:
                turn.fail(missed)
            seconds = (time.perf_counter() - start) / len(turns)
            self._each = seconds if not self._each else (1 - NEWEST) * self._each + NEWEST * seconds

    def _take(self) -> list[Turn[ItemT, ResultT]]:
        """Wait for callers, and return who is first in the line; nobody when this is closed."""
        while True:
            late: list[Turn[ItemT, ResultT]] = []
            turns: list[Turn[ItemT, ResultT]] = []
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                if self._closed:
                    return []
                oldest = time.monotonic() - self._patience
                while self._waiting and len(turns) < self._most:
                    turn = self._waiting.popleft()
                    if not turn.over:
                        (late if turn.since < oldest else turns).append(turn)
            for turn in late:
                turn.fail(self._busy())
            if turns:
                return turns


def _closing() -> Unavailable:
    return Unavailable("The server is stopping; ask again when it runs.")


@dataclass(slots=True)
class _Company:
    """The questions of a round that are asked one by one: who still wants an answer, and what is embedded already."""

    wanted: Callable[[], Sequence[str]]
    ready: dict[tuple[str, bool, bool], Encoding] = field(default_factory=dict)
    apart: bool = False


class BatchingEmbedder:
    """An `Embedder` that embeds the questions of a round in one call, for code that asks for them one by one.

    In `together`, the first question that is asked for takes along all that are wanted at that moment; when the others
    are asked for, theirs are there. Everything else passes through to ``inner``. A joint call that fails is made again
    for each question alone, so that a bad one does not spoil its neighbours. Thread-safe: a round belongs to a thread.
    """

    def __init__(self, inner: Embedder, telemetry: Telemetry = SILENT) -> None:
        self._inner = inner
        self._meters = telemetry.meters
        self._local = threading.local()

    @property
    def fingerprint(self) -> str:
        return self._inner.fingerprint

    @property
    def engine(self) -> str:
        return self._inner.engine

    @property
    def batch(self) -> int:
        return self._inner.batch

    @property
    def counter(self) -> str:
        return self._inner.counter

    @property
    def dimension(self) -> int:
        return self._inner.dimension

    @property
    def window(self) -> int:
        return self._inner.window

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """See `rag.protocols.Embedder`."""
        return self._inner.count_tokens(texts)

    @contextmanager
    def together(self, wanted: Callable[[], Sequence[str]]) -> Iterator[None]:
        """While this lasts, this thread asks for the questions that ``wanted`` returns; it leaves out who has left."""
        self._local.company = _Company(wanted)
        try:
            yield
        finally:
            self._local.company = None

    def encode(
        self, texts: Sequence[str], *, role: Role = "passage", tokens: bool = False, codes: bool = False
    ) -> Encoding:
        """See `rag.protocols.Embedder`."""
        company: _Company | None = getattr(self._local, "company", None)
        if company is not None and role == "query" and len(texts) == 1:
            if (texts[0], tokens, codes) not in company.ready:
                self._fetch(company, texts[0], tokens=tokens, codes=codes)
            if found := company.ready.get((texts[0], tokens, codes)):
                return found
        self._meters.embedded(role, len(texts))
        return self._inner.encode(texts, role=role, tokens=tokens, codes=codes)

    def _fetch(self, company: _Company, text: str, *, tokens: bool, codes: bool) -> None:
        """Embed ``text`` with all that are wanted beside it, if any are."""
        wanted = [other for other in dict.fromkeys(company.wanted()) if (other, tokens, codes) not in company.ready]
        if company.apart or text not in wanted or len(wanted) == 1:
            return
        self._meters.embedded("query", len(wanted))
        try:
            joint = self._inner.encode(wanted, role="query", tokens=tokens, codes=codes)
        except Exception:  # noqa: BLE001 -- one of them may be at fault, and raises again when it is embedded alone
            company.apart = True
            return
        for row, other in enumerate(wanted):
            own = slice(row, row + 1)
            company.ready[other, tokens, codes] = replace(
                joint, vectors=joint.vectors[own], tokens=joint.tokens[own], codes=joint.codes[own]
            )
