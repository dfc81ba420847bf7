"""The catalog: one transaction a change, a queue that loses nothing, migrations that end where the tables are."""

from __future__ import annotations

import sqlite3
import threading
import time

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from rag.catalog import Accepted, Catalog
from rag.errors import BadInput, Conflict, Misconfigured, NotFound, Unavailable
from rag.records import State
from rag.schema import metadata
from tests.contracts.strategies import EMBEDDER, chunks_of, parsed_of, put, vectors_for


@pytest.fixture
def catalog(tmp_path):
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


def test_opening_again_migrates_nothing_and_loses_nothing(catalog, collection, tmp_path):
    put(catalog, collection, "a", ["storm"])
    again = Catalog.in_folder(tmp_path)
    assert texts(again, collection) == ["storm"]
    again.close()


def test_a_catalog_of_a_newer_version_is_refused_with_the_cure(catalog, tmp_path):
    with sqlite3.connect(tmp_path / "catalog.sqlite3") as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    with pytest.raises(Misconfigured, match=r"newer Citewell.*upgrade"):
        Catalog.in_folder(tmp_path)


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
        assert (taken.id, taken.attempts) == (version.id, 2)
        assert not catalog.heartbeat(version.id, "dead", 60, taken.stage, 0.5)
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

    def test_many_workers_share_the_queue_without_taking_a_file_twice(self, catalog, collection, tmp_path):
        ids = {catalog.accept(collection, f"{n}", f"{n:064x}", 1)[0].id for n in range(40)}
        taken: list[str] = []

        def work(owner: str) -> None:
            own = Catalog.in_folder(tmp_path)
            while version := own.claim(owner, 60):
                taken.append(version.id)
            own.close()

        threads = [threading.Thread(target=work, args=(f"w{n}",)) for n in range(4)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        assert sorted(taken) == sorted(ids)


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
        second, _ = catalog.accept(collection, "x", "b" * 64, 1)
        catalog.claim("slow", 60), catalog.claim("fast", 60)
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


def test_a_full_disk_is_one_sentence_and_loses_nothing(catalog, collection):
    """SQLite is given no more pages: the write fails as a whole, what was there is there, and later it works."""
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
    assert catalog.delete_collection(collection) == [mine]
    with catalog._read() as connection:
        from sqlalchemy import func, select

        left = {
            table.name: connection.scalar(select(func.count()).select_from(table)) for table in metadata.sorted_tables
        }
    assert left == {
        "collections": 1, "documents": 1, "versions": 1, "parses": 1, "chunks": 1, "vectors": 1, "seals": 0,
    }  # fmt: skip
