"""Searches that go on in step: what each of them asks of the catalog next is read for all of them at once.

A search is a generator: it yields the rows that it wants and how they are looked up, and is sent what was found. So it
reads from top to bottom like a function, and the searches of a round cost one query of each kind instead of one each.
That all of them do the same step one after another spares the processor as much again: its caches still hold what the
step needs. Knows no catalog, and nothing of what a search is made of.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

#: A row of the catalog: collection id and sequence number.
Key = tuple[str, int]
#: What finds rows of a collection by their sequence numbers. Equal look-ups are asked together.
LookUp = Callable[[str, Sequence[int]], Mapping[int, Any]]
T = TypeVar("T")
ResultT = TypeVar("ResultT")


@dataclass(frozen=True, slots=True)
class Wanted:
    """The rows ``keys``, as ``look_up`` finds them."""

    look_up: LookUp
    keys: Sequence[Key]


#: A search that returns a ``T``.
Steps = Generator[Wanted, dict[Key, Any], T]


class Step(Generic[T]):
    """A search in hand: what it wants next, or how it has ended."""

    def __init__(self, search: Steps[T]) -> None:
        self._search = search
        self.wanted: Wanted | None = None
        self.error: BaseException | None = None
        self._result: list[T] = []
        self._go(lambda: next(search))

    @property
    def result(self) -> T:
        """What the search returned; raises what it raised."""
        if self.error is not None:
            raise self.error
        return self._result[0]

    def send(self, found: dict[Key, Any]) -> None:
        """Let it go on with what was found."""
        self._go(lambda: self._search.send(found))

    def fail(self, error: BaseException) -> None:
        """Let it know that its rows can not be read."""
        self._go(lambda: self._search.throw(error))

    def _go(self, on: Callable[[], Wanted]) -> None:
        self.wanted = None
        try:
            self.wanted = on()
        except StopIteration as end:
            self._result.append(end.value)
        except BaseException as error:  # noqa: BLE001 -- who asked gets it; the others of the round go on
            self.error = error


def alone(search: Steps[T]) -> T:
    """Return what one search returns; raises what it raises."""
    step = Step(search)
    while step.wanted is not None:
        serve([step])
    return step.result


def serve(steps: Sequence[Step[Any]]) -> None:
    """Read what some searches want, with one look-up of each kind in each collection, and let each of them go on."""
    found = _found([step.wanted for step in steps if step.wanted is not None])
    for step in steps:
        if step.wanted is None:
            continue
        look_up, keys = step.wanted.look_up, step.wanted.keys
        rows = found[look_up]
        if isinstance(rows, Exception):
            rows = _looked_up(look_up, keys)  # one of them may be at fault
        if isinstance(rows, Exception):
            step.fail(rows)
        else:
            step.send({key: rows[key] for key in keys if key in rows})


def _found(wanted: Sequence[Wanted]) -> dict[LookUp, dict[Key, Any] | Exception]:
    keys: dict[LookUp, dict[Key, None]] = {}
    for one in wanted:
        keys.setdefault(one.look_up, {}).update(dict.fromkeys(one.keys))
    return {look_up: _looked_up(look_up, list(some)) for look_up, some in keys.items()}


def _looked_up(look_up: LookUp, keys: Sequence[Key]) -> dict[Key, Any] | Exception:
    by_collection: dict[str, list[int]] = {}
    for collection_id, seq in keys:
        by_collection.setdefault(collection_id, []).append(seq)
    try:
        return {
            (collection_id, seq): row
            for collection_id, seqs in by_collection.items()
            for seq, row in look_up(collection_id, seqs).items()
        }
    except Exception as error:  # noqa: BLE001 -- each that asked gets it
        return error
