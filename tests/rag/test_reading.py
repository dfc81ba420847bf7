"""Searches in step: each is sent what it would read alone, whatever the others of its round want or do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag.reading import Key, Step, Steps, Wanted, alone, serve

KEYS = st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 9)), max_size=6)
#: What a search does one after the other: looks up some rows, in one of two ways.
SCRIPTS = st.lists(st.tuples(st.sampled_from(["names", "texts"]), KEYS), max_size=4)
#: Rows that are there, and one that spoils every look-up that it is part of.
LAST, BAD = 7, 5


class Table:
    """Rows of two collections; it counts its look-ups. A look-up that asks for `BAD` raises."""

    def __init__(self, *, fails: bool = False) -> None:
        self.calls: list[tuple[str, str, list[int]]] = []
        self._fails = fails

    def names(self, collection_id: str, seqs: Sequence[int]) -> Mapping[int, str]:
        return self._found("names", collection_id, seqs)

    def texts(self, collection_id: str, seqs: Sequence[int]) -> Mapping[int, str]:
        return self._found("texts", collection_id, seqs)

    def _found(self, kind: str, collection_id: str, seqs: Sequence[int]) -> Mapping[int, str]:
        self.calls.append((kind, collection_id, list(seqs)))
        if self._fails and BAD in seqs:
            raise OSError(f"row {BAD}")
        return {seq: f"{kind} {collection_id}{seq}" for seq in seqs if seq <= LAST}


def search(table: Table, script: Sequence[tuple[str, list[Key]]]) -> Steps[list[dict[Key, str]]]:
    told = []
    for kind, keys in script:
        told.append((yield Wanted(getattr(table, kind), keys)))
    return told


def in_step(searches: Sequence[Steps[list[dict[Key, str]]]]) -> list[Step[list[dict[Key, str]]]]:
    steps = [Step(each) for each in searches]
    while any(step.wanted is not None for step in steps):
        serve(steps)
    return steps


@given(st.lists(SCRIPTS, max_size=5))
def test_each_is_sent_what_it_would_read_alone(scripts):
    """The same rows and no others, and no more look-ups than one a step, kind and collection."""
    expected = [alone(search(Table(), script)) for script in scripts]
    table = Table()
    steps = in_step([search(table, script) for script in scripts])
    assert [step.result for step in steps] == expected
    for number, found in enumerate(expected):
        for (kind, keys), rows in zip(scripts[number], found, strict=True):
            assert rows == {(c, seq): f"{kind} {c}{seq}" for c, seq in keys if seq <= LAST}
    assert len(table.calls) <= 4 * max(map(len, scripts), default=0)
    assert all(len(seqs) == len(set(seqs)) for _, _, seqs in table.calls)


@given(st.lists(SCRIPTS, max_size=5))
def test_a_row_that_can_not_be_read_fails_those_alone_that_want_it(scripts):
    steps = in_step([search(Table(), script) for script in scripts])
    table = Table(fails=True)
    for step, whole, script in zip(in_step([search(table, script) for script in scripts]), steps, scripts, strict=True):
        if any(seq == BAD for _, keys in script for _, seq in keys):
            assert isinstance(step.error, OSError)
        else:
            assert step.result == whole.result


def test_a_search_may_go_on_without_what_could_not_be_read():
    """It is told by an exception where it reads, like a function."""

    def patient(table: Table) -> Steps[str]:
        try:
            yield Wanted(table.names, [("a", BAD)])
        except OSError as error:
            found = yield Wanted(table.names, [("a", 1)])
            return f"{error}, {found['a', 1]}"
        return "read"

    assert alone(patient(Table(fails=True))) == "row 5, names a1"
    assert alone(patient(Table())) == "read"


def test_what_a_search_raises_is_raised_where_its_result_is_asked_for():
    def broken() -> Steps[None]:
        yield Wanted(Table().names, [])
        raise LookupError("nothing there")

    with pytest.raises(LookupError, match="nothing there"):
        alone(broken())
