"""The database under the catalog: old catalogs are brought up to date, and what is wrong with it is one sentence."""

from __future__ import annotations

import functools
import json
import os
import signal
import sqlite3
import subprocess
import sys
import traceback
import zlib
from contextlib import closing
from pathlib import Path

import numpy as np
import psycopg
import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext

from rag.catalog import Catalog, Seal
from rag.errors import BadInput, CitewellError, Misconfigured, Unavailable
from rag.filters import LARGEST
from rag.records import State
from rag.schema import metadata
from tests.contracts.strategies import EMBEDDER, chunks_of, parsed_of, put, vectors_for
from tests.postgres import PASSWORD, Server, database_of, running_server

ROOT = Path(__file__).parent.parent.parent
BORN = "2026-02-03 04:05:06.000000"


class TestOldCatalogs:
    """A catalog of migration 0001, filled by plain SQL, is opened by the code of today."""

    # Four chunks of "rules", the first of them retired, the third and the fourth with one text; one chunk of "other".
    TEXTS = ("old rule", "Sturm über Ägäis", "tide", "tide")
    PLACES = ((0, 8), (0, 16), (18, 22), (24, 28))

    @pytest.fixture(params=["sqlite", "postgresql"])
    def url(self, request, tmp_path):
        if request.param == "sqlite":
            found = f"sqlite:///{tmp_path / 'catalog.sqlite3'}"
        else:
            found = request.getfixturevalue("empty_database")
        engine = sa.create_engine(found.replace("postgresql://", "postgresql+psycopg://"))
        config = Config()
        config.set_main_option("script_location", str(ROOT / "rag" / "migrations"))
        with engine.begin() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, "0001")
            self.fill(connection)
        engine.dispose()
        return found

    def fill(self, connection: sa.Connection) -> None:
        def add(table: str, **row: object) -> None:
            names = ", ".join(f'"{name}"' for name in row)
            values = ", ".join(f":{name}" for name in row)
            connection.execute(sa.text(f"INSERT INTO {table} ({names}) VALUES ({values})"), row)

        for cid, last in (("c1", 4), ("c2", 1)):
            add("collections", id=cid, name=f"name-{cid}", created_at=BORN, embedder=EMBEDDER, commits=3, last_seq=last)
        for did, cid, live in (("d1", "c1", "v2"), ("d2", "c2", "v3"), ("d3", "c1", None)):
            add("documents", id=did, collection_id=cid, name=f"{did}.txt", created_at=BORN, live_version_id=live)
        for vid, did, number, state, facts in (
            ("v1", "d1", 1, "retired", {}), ("v2", "d1", 2, "ready", {"year": 2026}), ("v3", "d2", 1, "ready", {}),
            ("v4", "d3", 1, "queued", {"team": "hr"}),
        ):  # fmt: skip
            ended = BORN if state == "ready" else None
            add(
                "versions", id=vid, document_id=did, number=number, sha256=vid * 32, size=7, metadata=json.dumps(facts),
                state=state, stage="done", progress=1.0, attempts=1, created_at=BORN, ready_at=ended,
                media_type="text/plain", title=f"Title {vid}", pages=2, elements=3, passages=3,
            )  # fmt: skip
        for vid, text in (("v1", "old rule"), ("v2", "Sturm über Ägäis\n\ntide\n\ntide"), ("v3", "tide")):
            elements = json.dumps([["text", 0, len(text.split("\n")[0]), 1, ["Storms"]]])
            add("parses", version_id=vid, text=zlib.compress(text.encode()), elements=zlib.compress(elements.encode()))
        for seq, (text, (start, end)) in enumerate(zip(self.TEXTS, self.PLACES, strict=True), 1):
            self.chunk(add, "c1", seq, "v1" if seq == 1 else "v2", text, start, end, retired=2 if seq == 1 else None)
        self.chunk(add, "c2", 1, "v3", "tide", 0, 4)
        add("seals", collection_id="c1", kind="dense", space=EMBEDDER, folder="dense-1-x", last_seq=2, created_at=BORN)

    def chunk(self, add, cid, seq, vid, text, start, end, retired=None):
        add(
            "chunks", collection_id=cid, seq=seq, id=f"{cid}-{seq}", version_id=vid, start=start, end=end, kind="text",
            page=seq, section=json.dumps(["Storms", "Ägäis"]), tokens=5, context="", text=text, retired_commit=retired,
        )  # fmt: skip
        vector = vectors_for([text])[0].astype("<f4").tobytes()
        add("vectors", collection_id=cid, embedder=EMBEDDER, seq=seq, vector=vector)

    @pytest.fixture
    def catalog(self, url):
        opened = Catalog(url)
        yield opened
        opened.close()

    def test_the_tables_are_those_of_the_schema(self, catalog):
        with catalog._read() as connection:
            assert compare_metadata(MigrationContext.configure(connection), metadata) == []

    def test_rows_keep_their_numbers_texts_and_vectors(self, catalog):
        assert [(r.seq, r.text) for r in catalog.text_rows("c1", 0, 9)] == [*enumerate(self.TEXTS, 1)][1:]
        seqs, vectors = catalog.vector_rows("c1", EMBEDDER, 0, 9)
        assert seqs.tolist() == [2, 3, 4]
        np.testing.assert_array_equal(vectors, vectors_for(self.TEXTS[1:]))
        assert catalog.retired_rows("c1", 0, 3).tolist() == [1]
        assert (catalog.pulse("c1").commits, catalog.pulse("c1").last_seq) == (3, 4)
        assert [row.text for row in catalog.text_rows("c2", 0, 9)] == ["tide"]

    def test_passages_stand_at_their_places_in_the_source(self, catalog):
        source = catalog.source_text("v2")
        passages = catalog.passages("c1", [1, 2, 3, 4])
        assert {s: source[p.start : p.end] for s, p in passages.items()} == dict([*enumerate(self.TEXTS, 1)][1:])
        second = passages[2]
        assert (second.page, second.section, second.document) == (2, ("Storms", "Ägäis"), "d1.txt")
        assert [(e.text, e.page) for e in catalog.elements("v2")] == [("Sturm über Ägäis", 1)]
        assert catalog.source_text("v1") == "old rule"

    def test_versions_filters_and_seals_are_what_they_were(self, catalog):
        version = catalog.version("v2")
        assert (version.state, version.title, version.pages, version.passages) == (State.READY, "Title v2", 2, 3)
        assert f"{version.ended_at:%Y-%m-%d %H:%M:%S%z}" == "2026-02-03 04:05:06+0000"
        assert catalog.allowed_rows("c1", {"year": 2026}).tolist() == [2, 3, 4]
        assert catalog.allowed_rows("c1", {"year": 2025}).tolist() == []
        assert catalog.seal("c1", "dense", EMBEDDER) == Seal("dense-1-x", 2)

    def test_work_goes_on_where_it_stopped(self, catalog):
        """What waited waits, and a text that is there is not embedded or kept a second time."""
        claimed = catalog.claim("w", 60)
        assert (claimed.id, claimed.metadata) == ("v4", {"team": "hr"})
        parsed = parsed_of(["tide", "new"])
        pieces = chunks_of(parsed)
        known = catalog.known_vectors("c1", EMBEDDER, [piece.digest for piece in pieces])
        assert [*known] == [pieces[0].digest]
        assert catalog.commit("v4", "w", parsed, pieces, vectors_for(["tide", "new"]), EMBEDDER)
        assert [(r.seq, r.text) for r in catalog.text_rows("c1", 4, 9)] == [(5, "tide"), (6, "new")]
        with catalog._read() as connection:
            assert connection.exec_driver_sql("SELECT count(*) FROM texts WHERE text = 'tide'").scalar() == 2


def sentence_of(url: str) -> CitewellError:
    """The error of opening a catalog: one line, with no part of the password in it or in what a log would show."""
    with pytest.raises((Misconfigured, Unavailable)) as caught:
        Catalog(url)
    shown = "".join(traceback.format_exception(caught.value))
    assert not any(part in shown for part in ("hunter2", "unt@er2", "er2", PASSWORD))
    assert "\n" not in caught.value.message
    return caught.value


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("hunter2", "is no URL"), ("mysql://u:hunter2@h/d", "neither PostgreSQL nor SQLite"),
        ("postgresql://u:hunter2@h:port/d", "is no URL"), ("postgresql://u:hunter2@h:5:6/d", "is no URL"),
        ("postgresql://u:hunt@er2@h/d", "%40"), ("postgresql://u:hunt@er2:x@h/d", "%40"),
        ("oracle+nothing://u:hunter2@h/d", "neither PostgreSQL nor SQLite"),
    ],
)  # fmt: skip
def test_a_setting_that_is_no_url_is_one_sentence_without_the_password(url, words):
    found = sentence_of(url)
    assert isinstance(found, Misconfigured)
    assert words in found.message


@pytest.mark.parametrize("place", ["127.0.0.1:1", "localhost:1"])
def test_a_server_that_is_not_there_is_one_sentence(place):
    found = sentence_of(f"postgresql://u:hunter2@{place}/citewell")
    assert isinstance(found, Unavailable)
    assert "does not answer" in found.message


def test_a_wrong_password_and_a_missing_database_are_one_sentence(postgresql):
    assert "password authentication failed" in sentence_of(postgresql.url("postgres", password="hunter2")).message
    assert 'database "nowhere" does not exist' in sentence_of(postgresql.url("nowhere")).message


def test_a_user_who_may_not_make_tables_is_told_the_cure(postgresql, empty_database):
    name = database_of(empty_database)
    postgresql.execute("CREATE ROLE guest LOGIN PASSWORD 'hunter2'")
    postgresql.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC", name)  # the default from PostgreSQL 15 on
    found = sentence_of(postgresql.url(name, "guest", "hunter2"))
    assert isinstance(found, Misconfigured)
    assert "make it the owner of the database" in found.message


def test_tables_of_another_program_are_refused(postgresql, empty_database):
    postgresql.execute("CREATE TABLE songs (title TEXT)", database_of(empty_database))
    assert "not Citewell's; use another database" in sentence_of(empty_database).message


def test_several_processes_that_start_at_once_migrate_once(empty_database):
    script = "import sys; from rag.catalog import Catalog; Catalog(sys.argv[1]).ensure_collection('first')"
    started = [
        subprocess.Popen([sys.executable, "-c", script, empty_database], cwd=ROOT, stderr=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    assert [(process.communicate()[1], process.returncode) for process in started] == [("", 0)] * 4
    catalog = Catalog(empty_database)
    assert [collection.name for collection in catalog.list_collections()] == ["first"]
    with catalog._read() as connection:
        assert connection.exec_driver_sql("SELECT version_num FROM alembic_version").all() == [("0008",)]
    catalog.close()


def change_while_it_restarts(catalog: Catalog, server: Server) -> None:
    with catalog._write() as connection:
        connection.exec_driver_sql("UPDATE chunks SET page = 99")
        server.stop()
        server.start()
        connection.exec_driver_sql("UPDATE chunks SET page = 100")


def test_a_server_that_goes_away_and_comes_back_is_one_sentence_and_then_works():
    """Stopped between two calls, in the middle of one, and back: nothing half, nothing to restart on our side."""
    with running_server() as server:
        server.execute("CREATE DATABASE life")
        catalog = Catalog(server.url("life"))
        collection = catalog.create_collection("c").id
        put(catalog, collection, "a", ["storm"])
        server.stop()
        accept = functools.partial(catalog.accept, collection, "b", "b", 1)
        for ask in (catalog.list_collections, functools.partial(catalog.claim, "w", 60), accept):
            with pytest.raises(Unavailable, match="can not be used now"):
                ask()
        server.start()
        assert [row.text for row in catalog.text_rows(collection, 0, 9)] == ["storm"]
        with pytest.raises(Unavailable):
            change_while_it_restarts(catalog, server)
        put(catalog, collection, "b", ["tide"])
        assert [p.page for p in catalog.passages(collection, [1, 2]).values()] == [None, None]
        catalog.close()


def test_a_connection_that_is_in_use_while_all_are_closed_is_closed_after_it(catalog):
    """By the thread that has it, whenever that may be; it is left to no garbage collector."""
    with catalog._read() as connection:
        driver = connection.connection.driver_connection
        catalog.close()
        assert connection.exec_driver_sql("SELECT 1").scalar() == 1
    with pytest.raises((psycopg.OperationalError, sqlite3.ProgrammingError), match="closed"):
        driver.execute("SELECT 1")


FROZEN = """
import sys, time
from rag.catalog import Catalog
catalog = Catalog(sys.argv[1])
with catalog._write() as connection:
    connection.exec_driver_sql("SET idle_in_transaction_session_timeout = '1s'")
    connection.exec_driver_sql("SELECT * FROM collections, documents, versions FOR UPDATE").all()
    print("locked", flush=True)
    time.sleep(600)
"""


def test_a_process_frozen_in_the_middle_of_a_transaction_blocks_the_others_for_a_while_only(postgresql_url):
    """It holds every row when it is stopped; the server ends its transaction, and the others go on."""
    catalog = Catalog(postgresql_url)
    collection = catalog.create_collection("c").id
    document = put(catalog, collection, "a", ["storm"])
    frozen = subprocess.Popen([sys.executable, "-c", FROZEN, postgresql_url], cwd=ROOT, stdout=subprocess.PIPE)
    assert frozen.stdout.readline() == b"locked\n"
    os.kill(frozen.pid, signal.SIGSTOP)
    catalog.delete_document(document)
    assert catalog.text_rows(collection, 0, 9) == []
    frozen.kill()
    frozen.communicate()
    catalog.close()


def test_connections_do_not_wait_for_ever(postgresql_url):
    catalog = Catalog(postgresql_url)
    with catalog._read() as connection:
        found = [
            connection.exec_driver_sql(f"SHOW {name}").scalar()
            for name in ("idle_in_transaction_session_timeout", "lock_timeout")
        ]
    catalog.close()
    assert found == ["1min", "2min"]


def test_the_time_is_that_of_the_server_whatever_its_time_zone(postgresql_url):
    """The server's zone is half an hour off (tests.postgres): a moment before, now and after stand in order."""
    catalog = Catalog(postgresql_url)
    with catalog._write() as connection:
        epoch = sa.text("SELECT extract(epoch FROM clock_timestamp())::float")
        moments = [connection.scalar(epoch), catalog._database.now(connection).timestamp(), connection.scalar(epoch)]
    catalog.close()
    assert moments == sorted(moments)


def test_a_reader_sees_one_state_until_it_ends(postgresql_url):
    """What another commits between two queries of one read is not seen by the second one."""
    catalog = Catalog(postgresql_url)
    count = sa.text("SELECT count(*) FROM collections")
    with catalog._read() as connection:
        before = connection.scalar(count)
        catalog.create_collection("c")
        assert (before, connection.scalar(count)) == (0, 0)
    assert len(catalog.list_collections()) == 1
    catalog.close()


def test_names_are_listed_by_code_point_whatever_the_collation_of_the_database(postgresql):
    """An ICU database would sort a before B; pages go on after a name, and every process must agree on the order."""
    try:
        postgresql.execute(
            "CREATE DATABASE icu TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE 'en' LOCALE 'C' ENCODING 'UTF8'"
        )
    except Exception as error:  # noqa: BLE001 (the driver is not ours to import)
        pytest.skip(f"this PostgreSQL knows no ICU: {error}")
    catalog = Catalog(postgresql.url("icu"))
    collection = catalog.create_collection("b").id
    catalog.create_collection("C")
    for name in ("ä", "b", "a", "B", "Z"):
        catalog.accept(collection, name, name, 1)
    assert [d.name for d in catalog.list_documents(collection)] == ["B", "Z", "a", "b", "ä"]
    assert [d.name for d in catalog.list_documents(collection, after="Z", limit=2)] == ["a", "b"]
    assert [found.name for found in catalog.list_collections()] == ["C", "b"]
    catalog.close()


class TestValues:
    """What comes from outside is kept and compared alike by both databases, or refused in one sentence."""

    KEPT = (
        True, False, 0, 1, -1, 1.0, 0.5, 0.1, 10**15, 1e300, 10**30, "", "1", "true", "a", "A", "ä", "x'y", '"', "$.k",
        "a\0b", "\ud800", float("nan"), None, [], [1, "1"], [True, "a"], [0.1, None], [[1], ["a"]], {"a": 1},
        {"k": "a"}, [{"a": 1}],
    )  # fmt: skip
    ASKED = (
        True, False, 0, 1, -1, 1.0, 2, 0.5, 0.1, 10**15, LARGEST, "", "1", "true", "a", "A", "ä", "x'y", '"',
        "ab",
    )  # fmt: skip

    @staticmethod
    def twin(kept: object, asked: object) -> bool:
        """A value passes if it is equal and of the same type, and a list if one of its values does."""
        kept = "ab" if kept == "a\0b" else "" if kept == "\ud800" else kept
        if isinstance(kept, list):
            return any(not isinstance(item, list | dict) and TestValues.twin(item, asked) for item in kept)
        same = isinstance(kept, bool) is isinstance(asked, bool) and isinstance(kept, str) is isinstance(asked, str)
        return same and kept == asked

    def test_filters_find_what_the_plain_twin_finds(self, catalog_url):
        catalog = Catalog(catalog_url)
        collection = catalog.create_collection("c").id
        for number, value in enumerate(self.KEPT):
            catalog.accept(collection, f"{number:03}", f"{number}", 1, {"k": value})
            version = catalog.claim("w", 60)
            parsed = parsed_of([f"text {number}"])
            assert catalog.commit(version.id, "w", parsed, chunks_of(parsed), vectors_for([f"text {number}"]), EMBEDDER)
        found = [catalog.allowed_rows(collection, {"k": asked}).tolist() for asked in self.ASKED]
        with pytest.raises(BadInput, match="too large a number"):
            catalog.allowed_rows(collection, {"k": LARGEST + 1})
        catalog.close()
        kept = [*enumerate(self.KEPT, 1)]
        assert found == [[seq for seq, value in kept if self.twin(value, asked)] for asked in self.ASKED]

    def test_what_postgresql_can_not_keep_is_refused_in_one_sentence(self, postgresql_url):
        catalog = Catalog(postgresql_url)
        collection = catalog.create_collection("c").id
        for ask in (
            lambda: catalog.find_document(collection, "a\0b"),
            lambda: catalog.accept(collection, "a", "b", 10**30),
        ):  # fmt: skip
            with pytest.raises(BadInput, match=r"can not keep or compare such a value \("):
                ask()
        catalog.close()


def test_a_new_file_has_large_pages_in_every_connection(tmp_path):
    """Large enough for the vectors and codes of several texts; those of an old file stay as they are."""
    Catalog.in_folder(tmp_path).close()
    with closing(sqlite3.connect(tmp_path / "catalog.sqlite3")) as database:
        assert database.execute("PRAGMA page_size").fetchone() == (16384,)
        database.execute("PRAGMA journal_mode = DELETE")
        database.execute("PRAGMA page_size = 4096")
        database.execute("VACUUM")
    Catalog.in_folder(tmp_path).close()
    with closing(sqlite3.connect(tmp_path / "catalog.sqlite3")) as database:
        assert database.execute("PRAGMA page_size").fetchone() == (4096,)


def test_a_migration_that_is_interrupted_ends_with_the_interrupt_and_is_made_at_the_next_start(tmp_path):
    """As by Ctrl-C while a table is being made: nothing else is raised, and nothing is half made."""

    def interrupt(_cursor, statement, *_):
        if "CREATE TABLE chunks" in statement:
            raise KeyboardInterrupt

    sa.event.listen(sa.Engine, "do_execute", interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            Catalog.in_folder(tmp_path)
    finally:
        sa.event.remove(sa.Engine, "do_execute", interrupt)
    catalog = Catalog.in_folder(tmp_path)
    assert catalog.create_collection("notes").name == "notes"
    catalog.close()
