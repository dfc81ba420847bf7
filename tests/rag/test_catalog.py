"""The catalog: one transaction a change, a queue that loses nothing, migrations that end where the tables are."""

from __future__ import annotations

import random
import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import func, select

from rag.catalog import Accepted, Catalog
from rag.errors import BadInput, Conflict, Misconfigured, NotFound, Unavailable
from rag.golden import GoldenDocument, Proposed
from rag.records import Stage, State
from rag.schema import chunks, documents, metadata, parses, versions
from rag.schema import texts as texts_table
from rag.tuning import Tuned
from tests.contracts.strategies import EMBEDDER, chunks_of, parsed_of, put, vectors_for


@pytest.fixture
def catalog(catalog_url):
    """An empty catalog, on SQLite and on PostgreSQL in turn."""
    opened = Catalog(catalog_url)
    yield opened
    opened.close()


@pytest.fixture
def sqlite_catalog(tmp_path):
    """An empty catalog in a file."""
    opened = Catalog.in_folder(tmp_path)
    yield opened
    opened.close()


@pytest.fixture
def collection(catalog):
    return catalog.create_collection("handbook").id


def texts(catalog, collection):
    return [row.text for row in catalog.text_rows(collection, 0, 10**6)]


def test_the_migrations_build_exactly_the_tables_of_the_schema(catalog):
    with catalog._read() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []


def test_opening_again_migrates_nothing_and_loses_nothing(catalog, collection, open_another):
    put(catalog, collection, "a", ["storm"])
    assert texts(open_another(), collection) == ["storm"]


def test_a_catalog_of_a_newer_version_is_refused_with_the_cure(catalog, open_another):
    with catalog._write() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(Misconfigured, match=r"newer Citewell.*upgrade"):
        open_another()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [(b"this is no database at all, but a text" * 50, "damaged or not a database"), (b"", None)],
    ids=["rubbish", "empty"],
)
def test_a_file_that_is_no_database_is_refused(tmp_path, content, sentence):
    (tmp_path / "catalog.sqlite3").write_bytes(content)
    if sentence is None:
        Catalog.in_folder(tmp_path).close()
        return
    with pytest.raises(Misconfigured, match=sentence):
        Catalog.in_folder(tmp_path)


def test_the_database_of_another_program_is_refused(tmp_path):
    with sqlite3.connect(tmp_path / "catalog.sqlite3") as connection:
        connection.execute("CREATE TABLE songs (title TEXT)")
    connection.close()
    with pytest.raises(Misconfigured, match="not Citewell's"):
        Catalog.in_folder(tmp_path)


@pytest.mark.parametrize("name", ["", " ", "../up", "a b", "-a", "x" * 101, "ä", "a\n"])
def test_bad_collection_names_are_refused(catalog, name):
    with pytest.raises(BadInput):
        catalog.create_collection(name)


def test_a_collection_name_is_taken_once(catalog, collection):
    with pytest.raises(Conflict, match="handbook"):
        catalog.create_collection("handbook")
    with pytest.raises(NotFound):
        catalog.collection("unknown")
    assert catalog.ensure_collection("handbook").id == collection


class TestAccepting:
    def test_new_same_and_other_bytes(self, catalog, collection):
        """Added once, unchanged as long as the bytes are the same, replaced by others, and back again is a version."""
        outcomes = []
        for sha in ("a", "a", "b", "a"):
            version, outcome = catalog.accept(collection, "x.txt", sha * 64, 1)
            outcomes.append((outcome, version.number))
        assert outcomes == [
            (Accepted.ADDED, 1), (Accepted.UNCHANGED, 1), (Accepted.REPLACED, 2), (Accepted.REPLACED, 3),
        ]  # fmt: skip

    def test_a_failed_file_is_tried_again_when_it_comes_again(self, catalog, collection):
        version, _ = catalog.accept(collection, "x", "a" * 64, 1)
        catalog.claim("w", 60)
        catalog.fail(version.id, "w", "document_damaged", "It is damaged.")
        assert catalog.document(version.document_id).newest.error == "It is damaged."
        again, outcome = catalog.accept(collection, "x", "a" * 64, 1)
        assert (outcome, again.state, again.attempts, again.error) == (Accepted.RETRIED, State.QUEUED, 0, None)

    def test_a_failed_file_can_be_queued_anew_by_hand(self, catalog, collection):
        version, _ = catalog.accept(collection, "x", "a" * 64, 1)
        with pytest.raises(Conflict, match="'x' is queued"):
            catalog.retry(version.document_id)
        catalog.claim("w", 60)
        catalog.fail(version.id, "w", "internal", "It failed.")
        newest = catalog.retry(version.document_id).newest
        assert (newest.state, newest.attempts, newest.error) == (State.QUEUED, 0, None)
        assert catalog.claim("w", 60).id == version.id
        with pytest.raises(NotFound):
            catalog.retry("0" * 32)

    def test_a_deleted_document_can_come_back(self, catalog, collection):
        document = put(catalog, collection, "x", ["storm"])
        catalog.delete_document(document)
        assert texts(catalog, collection) == []
        assert put(catalog, collection, "x", ["storm"]) == document
        assert texts(catalog, collection) == ["storm"]

    @pytest.mark.parametrize("name", ["", "  ", "a\0b", "a\nb", "x" * 1001])
    def test_bad_names_are_refused(self, catalog, collection, name):
        with pytest.raises(BadInput):
            catalog.accept(collection, name, "a" * 64, 1)


class TestTheQueue:
    def test_the_oldest_comes_first_and_to_one_worker_only(self, catalog, collection):
        ids = [catalog.accept(collection, f"{n}", "a" * 64, 1)[0].id for n in range(3)]
        assert [catalog.claim(f"w{n}", 60).id for n in range(3)] == ids
        assert catalog.claim("late", 60) is None

    def test_a_silent_worker_loses_its_file_and_can_not_commit_it(self, catalog, collection):
        """The lease runs out, another worker takes the file, and what the first one then brings is refused."""
        version, _ = catalog.accept(collection, "x", "a" * 64, 1)
        catalog.claim("dead", 0.0)
        time.sleep(0.01)
        taken = catalog.claim("alive", 60)
        assert (taken.id, taken.attempts, taken.deaths) == (version.id, 1, 1)
        held = {version.id: (taken.stage, 0.5)}
        assert (catalog.heartbeat("dead", 60, held), catalog.heartbeat("alive", 60, held)) == (set(), {version.id})
        parsed = parsed_of(["storm"])
        work = (parsed, chunks_of(parsed), vectors_for(["storm"]), EMBEDDER)
        assert not catalog.commit(version.id, "dead", *work)
        assert texts(catalog, collection) == []
        assert catalog.commit(version.id, "alive", *work)
        assert texts(catalog, collection) == ["storm"]
        assert not catalog.commit(version.id, "alive", *work)

    def test_a_released_file_waits_again_as_if_never_taken(self, catalog, collection):
        version, _ = catalog.accept(collection, "x", "a" * 64, 1)
        catalog.claim("w", 60)
        catalog.release("w")
        assert (catalog.version(version.id).state, catalog.version(version.id).attempts) == (State.QUEUED, 0)

    def test_many_workers_share_the_queue_without_taking_a_file_twice(self, catalog, collection, open_another):
        ids = {catalog.accept(collection, f"{n}", f"{n:064x}", 1)[0].id for n in range(40)}
        taken: list[str] = []

        def work(owner: str) -> None:
            own = open_another()
            while version := own.claim(owner, 60):
                taken.append(version.id)

        threads = [threading.Thread(target=work, args=(f"w{n}",)) for n in range(4)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        assert sorted(taken) == sorted(ids)


def at_once(*tasks):
    """Run all tasks in threads that start together; return what they return, in their order."""
    gate = threading.Barrier(len(tasks))

    def run(task):
        gate.wait()
        return task()

    with ThreadPoolExecutor(len(tasks)) as pool:
        return [future.result() for future in [pool.submit(run, task) for task in tasks]]


class TestManyAtOnce:
    """Several catalogs on one database are several processes as far as the database can tell."""

    def test_the_same_new_file_from_all_sides_is_one_document_with_one_version(self, collection, open_another):
        for n in range(5):
            name, sides = f"{n}.txt", [open_another() for _ in range(4)]
            outcomes = at_once(*(partial(side.accept, collection, name, "a" * 64, 1) for side in sides))
            assert sorted(outcome for _, outcome in outcomes) == [Accepted.ADDED] + [Accepted.UNCHANGED] * 3
            assert {version.number for version, _ in outcomes} == {1}

    def test_other_bytes_from_all_sides_are_one_version_each(self, catalog, collection, open_another):
        batch = catalog.open_batch(collection)
        sides = [(open_another(), letter * 64) for letter in "abcde"]
        versions = at_once(*(partial(side.accept, collection, "x", sha, 1, batch=batch) for side, sha in sides))
        assert sorted(version.number for version, _ in versions) == [1, 2, 3, 4, 5]
        assert [f.number for f in catalog.batch_files(batch)] == [0, 1, 2, 3, 4]
        assert catalog.claim("w", 60).number == 5
        assert catalog.claim("w", 60) is None

    def test_work_of_all_kinds_at_once_ends_in_one_truth(self, catalog, collection, open_another):
        """Files come, are read, fail, are deleted and purged by five hands, with shared texts and shared parses.

        Nobody waits for another that waits for it, nothing is half there, and a reader that has seen ``n`` rows
        finds ``n`` rows at every moment.
        """
        names, shared = [f"{n}.txt" for n in range(4)], ["storm at the north buoy", "tide", "anchor and cable", "pilot"]
        stop = threading.Event()

        def accept(own, dice):
            own.accept(collection, dice.choice(names), dice.choice("abc") * 64, 1, {"n": dice.randrange(9)})

        def work(own, dice, owner):
            if (version := own.claim(owner, 60)) is None:
                return
            chosen = dice.sample(shared, 3)
            parsed = parsed_of(chosen)
            pieces, vectors, parse_id = chunks_of(parsed), vectors_for(chosen), "p" * 31 + version.sha256[0]
            if own.keep_parse(version.id, owner, parse_id, parsed):
                own.keep_vectors(collection, EMBEDDER, pieces, vectors)
            own.heartbeat(owner, 60, {version.id: (Stage.EMBED, 0.5)})
            if dice.random() < 0.2:
                own.fail(version.id, owner, "internal", "It failed.")
            elif dice.random() < 0.2:
                own.release(owner)
            else:
                own.commit(version.id, owner, parsed, pieces, vectors, EMBEDDER)

        def delete(own, dice):
            own.delete_document(own.find_document(collection, dice.choice(names)).id)

        def purge(own, dice):
            own.purge(collection) if dice.random() < 0.9 else own.sweep()

        def hand(task, number, *more):
            own, dice = open_another(), random.Random(number)
            for _ in range(40):
                with suppress(NotFound):
                    task(own, dice, *more)

        def read():
            own, looks = open_another(), 0
            while not stop.is_set():
                pulse = own.pulse(collection)
                with own._read() as connection:
                    found = connection.scalar(
                        select(func.count()).select_from(chunks).where(chunks.c.seq <= pulse.last_seq)
                    )
                assert found == pulse.last_seq
                looks += 1
            return looks

        def hands():
            try:
                workers = [partial(hand, work, n, f"w{n}") for n in (1, 2, 3)]
                return at_once(
                    partial(hand, accept, 4),
                    partial(hand, accept, 5),
                    *workers,
                    partial(hand, delete, 6),
                    partial(hand, purge, 7),
                )
            finally:
                stop.set()

        looks, _ = at_once(read, hands)
        assert looks > 0
        with catalog._read() as connection:
            wrong = (
                select(func.count())
                .select_from(chunks.join(versions, versions.c.id == chunks.c.version_id).join(documents))
                .where(
                    chunks.c.retired_commit.is_(None) & (documents.c.live_version_id.is_distinct_from(versions.c.id))
                )
            )
            assert connection.scalar(wrong) == 0
            lost = (
                select(func.count())
                .select_from(versions)
                .where(versions.c.parse_id.is_not(None) & versions.c.parse_id.not_in(select(parses.c.id)))
            )
            assert connection.scalar(lost) == 0
            bare = select(func.count()).select_from(texts_table).where(texts_table.c.like_id.is_(None))
            assert connection.scalar(bare) == 0

    def test_a_collection_deleted_under_all_hands_leaves_no_row(self, catalog, collection, open_another):
        """What comes too late is told so; nothing of it stays behind."""

        def hand(number):
            own = open_another()
            with suppress(NotFound):
                for n in range(20):
                    put_or_lose(own, collection, f"{number}-{n}.txt", ["storm", f"tide {n}"])

        def delete():
            time.sleep(0.1)
            open_another().delete_collection(collection)

        at_once(partial(hand, 1), partial(hand, 2), delete)
        assert set(rows_left(catalog).values()) == {0}


def rows_left(catalog):
    """How many rows each table has, but for the audit log, which goes on to say what was there."""
    tables = [table for table in metadata.sorted_tables if table.name != "audit"]
    with catalog._read() as connection:
        return {table.name: connection.scalar(select(func.count()).select_from(table)) for table in tables}


def put_or_lose(catalog, collection, name, pieces):
    """As `put`, where a version that was claimed may be gone before its commit."""
    catalog.accept(collection, name, f"{name:0>64}"[-64:], 1)
    if (version := catalog.claim(name, 60)) is not None:
        parsed = parsed_of(pieces)
        catalog.commit(version.id, name, parsed, chunks_of(parsed), vectors_for(pieces), EMBEDDER)


class TestCommitting:
    def test_a_new_version_retires_the_one_before_in_the_same_commit(self, catalog, collection):
        put(catalog, collection, "x", ["old rule", "old note"])
        before = catalog.pulse(collection)
        document = put(catalog, collection, "x", ["new rule"])
        after = catalog.pulse(collection)
        assert texts(catalog, collection) == ["new rule"]
        assert (after.commits - before.commits, after.last_seq - before.last_seq) == (1, 1)
        assert catalog.retired_rows(collection, before.commits, after.commits).tolist() == [1, 2]
        assert catalog.document(document).newest.number == 2

    def test_an_older_version_that_comes_late_is_not_shown(self, catalog, collection):
        first, _ = catalog.accept(collection, "x", "a" * 64, 1)
        catalog.claim("slow", 60)
        second, _ = catalog.accept(collection, "x", "b" * 64, 1)
        catalog.claim("fast", 60)
        for version, owner, text in ((second, "fast", "new"), (first, "slow", "old")):
            parsed = parsed_of([text])
            work = (parsed, chunks_of(parsed), vectors_for([text]), EMBEDDER)
            assert catalog.commit(version.id, owner, *work) is (owner == "fast")
        assert texts(catalog, collection) == ["new"]
        assert catalog.version(first.id).state is State.RETIRED

    def test_a_version_that_fails_leaves_the_one_before_searchable(self, catalog, collection):
        document = put(catalog, collection, "x", ["old rule"])
        version, _ = catalog.accept(collection, "x", "b" * 64, 1)
        catalog.claim("w", 60)
        catalog.fail(version.id, "w", "document_damaged", "It is damaged.")
        assert texts(catalog, collection) == ["old rule"]
        found = catalog.document(document)
        assert found.newest.state is State.FAILED
        assert catalog.version(found.live_version_id).number == 1

    def test_work_on_a_document_deleted_meanwhile_is_dropped(self, catalog, collection):
        version, _ = catalog.accept(collection, "x", "a" * 64, 1)
        catalog.claim("w", 60)
        catalog.delete_document(version.document_id)
        parsed = parsed_of(["storm"])
        assert not catalog.commit(version.id, "w", parsed, chunks_of(parsed), vectors_for(["storm"]), EMBEDDER)
        assert texts(catalog, collection) == []
        with pytest.raises(NotFound):
            catalog.document(version.document_id)

    def test_vectors_of_another_embedder_are_refused_with_the_cure(self, catalog, collection):
        put(catalog, collection, "x", ["storm"])
        with pytest.raises(Misconfigured, match=r"embedder\.model back"):
            put(catalog, collection, "y", ["tide"], embedder="another")
        assert texts(catalog, collection) == ["storm"]

    def test_the_parsed_text_holds_every_chunk_at_its_offsets(self, catalog, collection):
        document = put(catalog, collection, "x", ["Sturm über Ägäis", "潮の高さ。", "tide"])
        version = catalog.document(document).newest
        text = catalog.source_text(version.id)
        passages = catalog.passages(collection, [1, 2, 3])
        assert [text[p.start : p.end] for p in passages.values()] == [p.text for p in passages.values()]
        assert [e.text for e in catalog.elements(version.id)] == ["Sturm über Ägäis", "潮の高さ。", "tide"]


def test_a_full_disk_is_one_sentence_and_loses_nothing(sqlite_catalog):
    """SQLite is given no more pages: the write fails as a whole, what was there is there, and later it works."""
    catalog, collection = sqlite_catalog, sqlite_catalog.create_collection("handbook").id
    put(catalog, collection, "a", ["storm"])
    with catalog._database.read() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(Unavailable, match=r"full.*disk"):
        put(catalog, collection, "b", [f"tide {n} " * 500 for n in range(40)])
    assert texts(catalog, collection) == ["storm"]
    with catalog._database.read() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count = 1000000")
    catalog.release("test")
    put(catalog, collection, "c", ["tide"])
    assert texts(catalog, collection) == ["storm", "tide"]


class TestFilters:
    @pytest.fixture
    def years(self, catalog, collection):
        for name, facts in {"a": {"year": 2025, "open": True}, "b": {"year": 2026, "team": "hr"}, "c": {}}.items():
            catalog.accept(collection, name, name * 64, 1, facts)
            version = catalog.claim("w", 60)
            parsed = parsed_of([name])
            catalog.commit(version.id, "w", parsed, chunks_of(parsed), vectors_for([name]), EMBEDDER)
        return collection

    @pytest.mark.parametrize(
        ("filters", "rows"),
        [
            ({"year": 2026}, [2]), ({"year": 2026.0}, [2]), ({"year": "2026"}, []), ({"team": "hr"}, [2]),
            ({"open": True}, [1]), ({"open": False}, []), ({"document": "c"}, [3]), ({"none": "x"}, []),
            ({"year": 2026, "team": "it"}, []), ({"team": 0}, []), ({"open": 1}, []), ({"team": "hr' OR 1=1"}, []),
        ],
        ids=str,
    )  # fmt: skip
    def test_only_rows_with_equal_values_of_the_same_type_pass(self, catalog, years, filters, rows):
        assert catalog.allowed_rows(years, filters).tolist() == rows

    def test_no_filter_is_no_list(self, catalog, years):
        assert catalog.allowed_rows(years, {}) is None

    @pytest.mark.parametrize("key", ["", "a b", 'a"b', "$.x", "a'"])
    def test_a_key_that_is_none_is_refused(self, catalog, years, key):
        with pytest.raises(BadInput):
            catalog.allowed_rows(years, {key: "x"})


def test_documents_are_paged_by_name_and_filtered_by_state(catalog, collection):
    for name in "cab":
        put(catalog, collection, name, [name])
    catalog.accept(collection, "d", "d" * 64, 1)
    assert [d.name for d in catalog.list_documents(collection, limit=2)] == ["a", "b"]
    assert [d.name for d in catalog.list_documents(collection, after="b")] == ["c", "d"]
    assert [d.name for d in catalog.list_documents(collection, state=State.QUEUED)] == ["d"]


def test_deleting_a_collection_leaves_no_row_and_names_the_originals_that_nothing_needs(catalog, collection):
    other = catalog.create_collection("other").id
    put(catalog, collection, "mine", ["storm"])
    put(catalog, collection, "shared", ["tide"])
    put(catalog, other, "shared", ["tide"])
    mine = catalog.find_document(collection, "mine").newest.sha256
    catalog.promote(catalog.add_tuning(collection, EMBEDDER, Tuned(0.5, 0.5), {}).id)
    asked = Proposed("What?", documents=(GoldenDocument("mine"),), tags=frozenset({"t"}))
    catalog.add_golden(collection, [asked])
    assert catalog.delete_collection(collection) == [mine]
    assert rows_left(catalog) == {
        "collections": 1, "documents": 1, "versions": 1, "parses": 1, "chunks": 1, "texts": 1, "vectors": 1, "bands": 5,
        "batches": 1, "batch_files": 1, "seals": 0, "tunings": 0, "promotions": 0, "answers": 0,
        "answer_collections": 0, "answer_documents": 0, "answer_feedback": 0, "answer_events": 0,
        "golden_questions": 0, "golden_tags": 0, "golden_documents": 0, "reports": 0, "report_items": 0, "keys": 0,
    }  # fmt: skip
