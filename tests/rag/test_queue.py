"""The queue against a plain twin: who is claimed next, how long a pause is, what a death costs, who never comes."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from rag.catalog import Catalog, Retry
from rag.errors import NotFound
from rag.records import Stage, State
from rag.schema import versions
from tests.contracts.strategies import EMBEDDER, chunks_of, parsed_of, vectors_for


def sha(text: str) -> str:
    return text.encode().hex().rjust(64, "0")[-64:]


def accept(catalog: Catalog, collection: str, name: str, content: str = "x", batch: str | None = None) -> str:
    return catalog.accept(collection, name, sha(content), 1, batch=batch)[0].id


def commit(catalog: Catalog, version_id: str, owner: str) -> bool:
    parsed = parsed_of(["storm"])
    return catalog.commit(version_id, owner, parsed, chunks_of(parsed), vectors_for(["storm"]), EMBEDDER)


def claimed_names(catalog: Catalog, count: int) -> list[str]:
    claimed = [catalog.claim("w", 60) for _ in range(count)]
    return [version.name for version in claimed if version is not None]


# -- order -------------------------------------------------------------------------------------------------------------


def test_a_small_batch_does_not_wait_for_the_end_of_a_large_one(catalog, collection):
    """60 files, of which 20 are taken; then a batch of 3: its files alternate with those that were next in line."""
    bulk = catalog.open_batch(collection)
    for n in range(60):
        accept(catalog, collection, f"bulk{n:03}", batch=bulk)
    assert claimed_names(catalog, 20) == [f"bulk{n:03}" for n in range(20)]
    small = catalog.open_batch(collection)
    for n in range(3):
        accept(catalog, collection, f"small{n}", batch=small)
    assert claimed_names(catalog, 8) == [
        "bulk020", "small0", "bulk021", "small1", "bulk022", "small2", "bulk023", "bulk024",
    ]  # fmt: skip


def test_files_without_a_batch_come_with_the_next_in_line(catalog, collection):
    bulk = catalog.open_batch(collection)
    for n in range(4):
        accept(catalog, collection, f"bulk{n}", batch=bulk)
    claimed_names(catalog, 1)
    accept(catalog, collection, "one")
    accept(catalog, collection, "two")
    assert claimed_names(catalog, 6) == ["bulk1", "one", "two", "bulk2", "bulk3"]


@settings(max_examples=15, deadline=None)
@given(st.lists(st.sampled_from(["a", "b", "c", "-", "claim"]), min_size=1, max_size=30))
def test_the_order_is_that_of_the_plain_twin(steps):
    """Files of three batches, files without one, and claims in any order: turns as in start-time fair queueing."""
    with fresh_catalog() as catalog:
        collection = catalog.create_collection("c").id
        batches: dict[str, str] = {}
        last: dict[str, int] = {}
        waiting: list[tuple[int, int, str]] = []
        for number, step in enumerate(steps):
            if step == "claim":
                version = catalog.claim("w", 60)
                expected = min(waiting, default=None)
                assert (version.name if version else None) == (expected[2] if expected else None)
                waiting = [item for item in waiting if item is not expected]
                continue
            head = min((turn for turn, *_ in waiting), default=0)
            turn = head if step == "-" else max(head, last.get(step, -1) + 1)
            if step != "-":
                last[step] = turn
                batches.setdefault(step, catalog.open_batch(collection))
            accept(catalog, collection, f"file {number}", batch=batches.get(step))
            waiting.append((turn, number, f"file {number}"))
        assert claimed_names(catalog, len(waiting) + 1) == [name for *_, name in sorted(waiting)]


@lru_cache(maxsize=1)
def empty_catalog() -> bytes:
    """The file of an empty catalog: migrating a new one for every example takes longer than the example."""
    with tempfile.TemporaryDirectory() as folder:
        Catalog.in_folder(Path(folder)).close()
        return (Path(folder) / "catalog.sqlite3").read_bytes()


@contextmanager
def fresh_catalog() -> Iterator[Catalog]:
    """An empty catalog in a folder of its own, for tests that need a new one for every example."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "catalog.sqlite3").write_bytes(empty_catalog())
        catalog = Catalog.in_folder(Path(folder))
        yield catalog
        catalog.close()


def test_a_claim_can_be_restricted_to_a_batch(catalog, collection):
    """What came with other batches, or with none, waits; a file that two batches brought is of both."""
    one, other = catalog.open_batch(collection), catalog.open_batch(collection)
    accept(catalog, collection, "alone")
    accept(catalog, collection, "both", batch=one)
    accept(catalog, collection, "other", batch=other)
    accept(catalog, collection, "both", batch=other)
    assert catalog.claim("w", 60, batch=other).name == "both"
    assert catalog.claim("w", 60, batch=one) is None
    assert catalog.claim("w", 60, batch=other).name == "other"
    assert catalog.claim("w", 60, batch=other) is None
    assert catalog.claim("w", 60).name == "alone"


def test_a_queued_version_that_is_overtaken_is_never_claimed(catalog, collection):
    first = accept(catalog, collection, "a", "1")
    second = accept(catalog, collection, "a", "2")
    assert catalog.version(first).state is State.RETIRED
    assert catalog.version(first).ended_at is not None
    assert catalog.claim("w", 60).id == second
    assert catalog.claim("w", 60) is None


# -- pauses and ends ---------------------------------------------------------------------------------------------------


@given(st.integers(1, 200), st.floats(0.01, 100), st.floats(0.01, 1000))
def test_pauses_double_up_to_the_longest(failures, seconds, most):
    """Within a fifth of its length, so that files do not come back all at once; none after no failure."""
    rules = Retry(seconds=seconds, most_seconds=most)
    middle = min(seconds * 2 ** (failures - 1), most)
    pause = rules.pause(failures).total_seconds()
    assert 0.8 * middle - 1e-6 <= pause <= 1.2 * middle + 1e-6
    assert rules.pause(0) == timedelta(0)


def test_the_pauses_of_many_files_differ():
    rules = Retry(seconds=10)
    seconds = [rules.pause(1).total_seconds() for _ in range(200)]
    assert min(seconds) < 9 < 11 < max(seconds)


def test_what_is_tried_again_later_is_not_claimed_before(catalog, collection):
    """The sentence of the failure is there meanwhile; an attempt counts; the last one ends it with the time."""
    version = accept(catalog, collection, "a")
    rules = Retry(attempts=2, seconds=100)
    catalog.claim("w", 60)
    before = datetime.now(UTC)
    catalog.defer(version, "w", "internal", "It did not work.", rules)
    waits = catalog.version(version)
    assert (waits.state, waits.attempts, waits.error, waits.error_code) == (
        State.QUEUED, 1, "It did not work.", "internal",
    )  # fmt: skip
    assert timedelta(seconds=79) < waits.not_before - before < timedelta(seconds=130)
    assert catalog.claim("w", 60) is None
    assert catalog.queue_length() == 1
    soon(catalog, version)
    assert catalog.claim("w", 60).attempts == 2
    catalog.defer(version, "w", "internal", "It did not work.", rules)
    ended = catalog.version(version)
    assert (ended.state, ended.attempts, ended.not_before) == (State.FAILED, 2, None)
    assert ended.ended_at >= before
    assert catalog.claim("w", 60) is None


def soon(catalog: Catalog, version_id: str) -> None:
    """Let a pause be over."""
    with catalog._write() as connection:
        past = datetime.now(UTC) - timedelta(seconds=1)
        connection.execute(versions.update().where(versions.c.id == version_id).values(not_before=past))


def test_deaths_are_counted_apart_from_attempts_and_a_release_is_free(catalog, collection):
    """A worker that dies costs a death and no attempt, and the first death no pause; reading on clears the deaths."""
    version = accept(catalog, collection, "a")
    catalog.claim("gone", 0.0)
    time.sleep(0.01)
    claimed = catalog.claim("w", 60)
    assert (claimed.deaths, claimed.attempts) == (1, 1)
    catalog.release("w")
    back = catalog.version(version)
    assert (back.state, back.deaths, back.attempts, back.not_before) == (State.QUEUED, 1, 0, None)
    assert catalog.claim("w", 60).attempts == 1
    assert catalog.keep_parse(version, "w", "p" * 32, parsed_of(["storm"]))
    assert catalog.version(version).deaths == 0


def test_a_release_of_some_leaves_the_others(catalog, collection):
    one, other = accept(catalog, collection, "a"), accept(catalog, collection, "b")
    claimed_names(catalog, 2)
    catalog.release("w", [other])
    assert [catalog.version(v).state for v in (one, other)] == [State.PROCESSING, State.QUEUED]
    catalog.release("another")
    assert catalog.version(one).state is State.PROCESSING


def test_only_the_holder_can_end_or_prolong_the_work(catalog, collection):
    version = accept(catalog, collection, "a")
    catalog.claim("w", 60)
    catalog.fail(version, "another", "x", "x")
    catalog.defer(version, "another", "x", "x", Retry())
    assert catalog.heartbeat("another", 60, {version: (Stage.EMBED, 0.5)}) == set()
    assert not catalog.keep_parse(version, "another", "p" * 32, parsed_of(["storm"]))
    assert not commit(catalog, version, "another")
    held = catalog.version(version)
    assert (held.state, held.progress, held.error, held.parse_id) == (State.PROCESSING, 0.0, None, None)
    assert catalog.heartbeat("w", 60, {version: (Stage.EMBED, 0.5), "unknown": (Stage.EMBED, 0.5)}) == {version}
    assert (catalog.version(version).stage, catalog.version(version).progress) == (Stage.EMBED, 0.5)


# -- all of it at random -----------------------------------------------------------------------------------------------


@dataclass
class Twin:
    """A version as the plain twin sees it."""

    id: str
    name: str
    turn: int
    content: str
    born: int
    state: State = State.QUEUED
    owner: str | None = None
    attempts: int = 0
    paused: bool = False
    batches: set[str] = field(default_factory=set)


RULES = Retry(attempts=2, seconds=1000, most_seconds=1000)


class QueueMachine(RuleBasedStateMachine):
    """A random sequence of all that can happen to files; the twin keeps a list, and picks by looking at all of it."""

    def __init__(self) -> None:
        super().__init__()
        self.opened = fresh_catalog()
        self.versions: list[Twin] = []
        self.newest: dict[str, Twin] = {}
        self.last: dict[str, int] = {}

    @initialize()
    def begin(self) -> None:
        self.catalog = self.opened.__enter__()
        self.collection = self.catalog.create_collection("c").id
        self.batches = [self.catalog.open_batch(self.collection) for _ in range(2)]

    def held(self) -> list[Twin]:
        return [twin for twin in self.versions if twin.state is State.PROCESSING]

    def next_turn(self, batch: str | None) -> int:
        head = min((t.turn for t in self.versions if t.state is State.QUEUED), default=0)
        if batch is None:
            return head
        self.last[batch] = max(head, self.last.get(batch, -1) + 1)
        return self.last[batch]

    @rule(name=st.sampled_from("abcd"), content=st.sampled_from("xyz"), batch=st.sampled_from([None, 0, 1]))
    def accept(self, name: str, content: str, batch: int | None) -> None:
        chosen = None if batch is None else self.batches[batch]
        version, outcome = self.catalog.accept(self.collection, name, sha(content), 1, batch=chosen)
        twin = self.newest.get(name)
        if twin is not None and twin.content == content:
            assert outcome == ("retried" if twin.state is State.FAILED else "unchanged")
            assert version.id == twin.id
            if twin.state is State.FAILED:
                twin.turn = self.next_turn(chosen)
                twin.state, twin.attempts, twin.paused = State.QUEUED, 0, False
        else:
            assert outcome == ("replaced" if twin else "added")
            for other in self.versions:
                if other.name == name and other.state is State.QUEUED:
                    other.state = State.RETIRED
            turn = self.next_turn(chosen)
            twin = self.newest[name] = Twin(version.id, name, turn, content, len(self.versions))
            self.versions.append(twin)
        if chosen is not None:
            twin.batches.add(chosen)

    @rule(owner=st.sampled_from(["v", "w"]), batch=st.sampled_from([None, 0, 1]))
    def claim(self, owner: str, batch: int | None) -> None:
        chosen = None if batch is None else self.batches[batch]
        may = [t for t in self.versions if t.state is State.QUEUED and not t.paused]
        expected = min((t for t in may if chosen is None or chosen in t.batches), key=key_of, default=None)
        version = self.catalog.claim(owner, 60, batch=chosen, retry=RULES)
        assert (version.id if version else None) == (expected.id if expected else None)
        if expected is not None:
            expected.state, expected.owner, expected.attempts = State.PROCESSING, owner, expected.attempts + 1

    @precondition(lambda self: self.held())
    @rule(data=st.data(), how=st.sampled_from(["fail", "defer", "release", "commit", "heartbeat"]))
    def end(self, data: st.DataObject, how: str) -> None:
        twin = data.draw(st.sampled_from(self.held()))
        owner = data.draw(st.sampled_from(["v", "w"]))
        ours = owner == twin.owner
        if how == "fail":
            self.catalog.fail(twin.id, owner, "x", "It is damaged.")
            twin.state = State.FAILED if ours else twin.state
        elif how == "defer":
            self.catalog.defer(twin.id, owner, "x", "It did not work.", RULES)
            if ours:
                twin.state = State.FAILED if twin.attempts == RULES.attempts else State.QUEUED
                twin.paused = twin.state is State.QUEUED
        elif how == "release":
            self.catalog.release(owner, [twin.id])
            if ours:
                twin.state, twin.attempts = State.QUEUED, twin.attempts - 1
        elif how == "heartbeat":
            kept = self.catalog.heartbeat(owner, 60, {t.id: (Stage.EMBED, 0.5) for t in self.held()})
            assert kept == {t.id for t in self.held() if t.owner == owner}
        else:
            self.commit(twin, owner)

    def commit(self, twin: Twin, owner: str) -> None:
        newer = [t for t in self.versions if t.name == twin.name and t.born > twin.born and t.state is State.READY]
        ours = owner == twin.owner
        assert commit(self.catalog, twin.id, owner) == (ours and not newer)
        if ours and newer:
            twin.state = State.RETIRED
        elif ours:
            for other in self.versions:
                if other.name == twin.name and other.state is State.READY:
                    other.state = State.RETIRED
            twin.state = State.READY

    @precondition(lambda self: self.newest)
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.newest)))
        document = self.catalog.version(self.newest.pop(name).id).document_id
        self.catalog.delete_document(document)
        with pytest.raises(NotFound):
            self.catalog.delete_document(document)
        for twin in self.versions:
            if twin.name == name and twin.state is not State.FAILED:
                twin.state = State.RETIRED

    @precondition(lambda self: [t for t in self.versions if t.paused and t.state is State.QUEUED])
    @rule()
    def time_passes(self) -> None:
        for twin in self.versions:
            if twin.paused and twin.state is State.QUEUED:
                soon(self.catalog, twin.id)
            twin.paused = False

    def teardown(self) -> None:
        """Every version stands as the twin says, and what is searched is what was committed last."""
        if not hasattr(self, "catalog"):
            return
        found = {v.id: v for v in self.catalog.versions([t.id for t in self.versions])}
        states = {t.id: (t.state, t.attempts if t.state is not State.RETIRED else None) for t in self.versions}
        seen = {v.id: (v.state, v.attempts if v.state is not State.RETIRED else None) for v in found.values()}
        assert seen == states
        active = (State.QUEUED, State.PROCESSING)
        assert all((v.ended_at is None) == (v.state in active) for v in found.values())
        assert self.catalog.queue_length() == sum(t.state in active for t in self.versions)
        live = len(self.catalog.text_rows(self.collection, 0, 10**6))
        assert live == sum(t.state is State.READY for t in self.versions)
        self.opened.__exit__(None, None, None)


def key_of(twin: Twin) -> tuple[int, int]:
    return twin.turn, twin.born


QueueMachine.TestCase.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)
TestAgainstTheTwin = QueueMachine.TestCase
