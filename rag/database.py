"""The catalog's database: opened, brought up to date, read and written in whole transactions.

Owns Alembic and what is particular to SQLite and to PostgreSQL. Knows the tables by
``rag.schema`` and asks nothing of them: queries are the catalog's.
"""

from __future__ import annotations

import json
import math
import re
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from rag.errors import BadInput, Misconfigured, Unavailable
from rag.filters import instant

#: The newest migration that this code knows (the file of this name in ``rag/migrations/versions``).
SCHEMA = "0008"

#: The number of the lock under which one process migrates a PostgreSQL database.
MIGRATION_LOCK = 0x63697465
#: SQLite's result codes for trouble with the disk or with another process, not with what was asked.
_SQLITE_TROUBLE = frozenset(
    {
        sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_FULL, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_NOTADB,
    }
)  # fmt: skip
#: Characters that JSON can write and PostgreSQL can not keep.
_UNREADABLE = re.compile("[\0\ud800-\udfff]")
#: PostgreSQL's codes for what the user of a connection may not do, and for writing to a server that follows another.
FORBIDDEN, READ_ONLY = "42501", "25006"
#: What a connection to PostgreSQL begins with. A worker that is frozen in the middle of a transaction loses it, and
#: with it the locks that others wait for; nobody waits for a lock for ever.
SESSION = {"idle_in_transaction_session_timeout": "60s", "lock_timeout": "120s"}
#: A server that fell off the network is noticed in about a minute, not in the hours that systems wait by default.
KEEPALIVE = {"connect_timeout": 10, "keepalives_idle": 20, "keepalives_interval": 10, "keepalives_count": 3}
#: Connections to PostgreSQL that a process keeps open, and how many more it opens when all are in use.
CONNECTIONS, MORE_CONNECTIONS = 12, 36


class Database:
    """The database at a SQLAlchemy ``url``; its tables are made or migrated when it is opened. Thread-safe.

    Raises `Misconfigured` if it was written by a newer Citewell, is damaged, or belongs to another program,
    `Unavailable` from any use while the database does not answer or its disk is full, and `BadInput` for a value that
    it can not keep.
    """

    def __init__(self, url: str) -> None:
        self._engine = _engine(url)
        self._closed = False
        sa.event.listen(self._engine, "checkin", self._given_back)
        self._one_writer = threading.Lock()  # threads of one process stand in line here rather than poll SQLite's lock
        if self.dialect == "sqlite":
            _prepare_sqlite(self._engine)
        else:
            _prepare_postgresql(self._engine)
        try:
            self._migrate()
        except BaseException:
            self.close()
            raise

    @property
    def dialect(self) -> str:
        return self._engine.dialect.name

    def close(self) -> None:
        """Close all connections; one that a thread is still using is closed when that is done with it."""
        self._closed = True
        self._engine.dispose()

    def _given_back(self, _: object, record: sa.pool.ConnectionPoolEntry) -> None:
        if self._closed:
            record.invalidate()

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """One transaction that sees one state of the database and changes nothing."""
        options: dict[str, Any] = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
        with _translated(), self._engine.connect() as connection:
            if self.dialect == "postgresql":
                connection.execution_options(**options)
            yield connection

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """One transaction that holds SQLite's write lock from its start, so that it can not fail half way for one.

        PostgreSQL runs such transactions side by side; each query sees what is committed by then (READ COMMITTED).
        """
        with (
            self._one_writer if self.dialect == "sqlite" else nullcontext(),
            _translated(),
            self._engine.connect().execution_options(write=True) as connection,
            connection.begin(),
        ):
            yield connection

    @contextmanager
    def erasing(self) -> Iterator[sa.Connection]:
        """One writing transaction after which nothing that it deleted is left in SQLite's files.

        PostgreSQL keeps deleted rows in its files until its own VACUUM.
        """
        with self.write() as connection:
            yield connection
        if self.dialect == "sqlite":
            with _translated(), self._engine.connect() as connection:
                connection.rollback()  # the pragmas below work outside of a transaction only
                connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")

    def now(self, connection: sa.Connection) -> datetime:
        """Return the time by the one clock that all workers share: the server's, or that of the one machine."""
        if self.dialect == "sqlite":
            return datetime.now(UTC)
        at: datetime = connection.execute(sa.select(sa.func.timezone("UTC", sa.func.clock_timestamp()))).scalar_one()
        return at.replace(tzinfo=UTC)

    def insert_new(self, table: sa.Table) -> Any:
        """Return an insert that leaves out the rows that are there already."""
        if self.dialect == "sqlite":
            return sqlite.insert(table).on_conflict_do_nothing()
        return postgresql.insert(table).on_conflict_do_nothing()

    def _migrate(self) -> None:
        try:
            with self._engine.connect() as connection:
                tables = set(sa.inspect(connection).get_table_names())
                marked = "alembic_version" in tables
                found = connection.scalar(sa.text("SELECT version_num FROM alembic_version")) if marked else None
        except sa.exc.DatabaseError as error:
            code = getattr(error.orig, "sqlite_errorcode", 0) & 0xFF
            if self.dialect == "sqlite" and code in {sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT}:
                raise Misconfigured(
                    "The catalog is damaged or not a database; put a backup of the data folder back."
                ) from error
            raise Unavailable(f"The catalog does not answer ({_reason(error)}); look at its disk or server.") from error
        if found == SCHEMA:
            return
        if found is not None and found > SCHEMA:
            raise Misconfigured(
                f"The catalog was written by a newer Citewell (catalog {found}, this one knows {SCHEMA}); "
                f"upgrade Citewell or use {self._another}."
            )
        if found is None and tables - {"alembic_version"}:
            raise Misconfigured(f"The catalog holds tables that are not Citewell's; use {self._another}.")
        self._upgrade()

    @property
    def _another(self) -> str:
        return "another data folder (--data)" if self.dialect == "sqlite" else "another database (setting `database`)"

    def _upgrade(self) -> None:
        from alembic import command
        from alembic.config import Config

        config = Config()
        config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
        try:
            with self._rebuilding() as connection:
                if self.dialect == "postgresql":  # SQLite's write lock keeps others out already
                    connection.exec_driver_sql("SET LOCAL lock_timeout = 0")  # another's migration may take long
                    connection.execute(sa.select(sa.func.pg_advisory_xact_lock(MIGRATION_LOCK)))
                config.attributes["connection"] = connection
                command.upgrade(config, SCHEMA)
        except sa.exc.ProgrammingError as error:
            if getattr(error.orig, "sqlstate", None) != FORBIDDEN:
                raise
            raise Misconfigured(
                f"The user of the setting `database` may not make tables there ({_reason(error)}); "
                "make it the owner of the database."
            ) from error

    @contextmanager
    def _rebuilding(self) -> Iterator[sa.Connection]:
        """One writing transaction in which SQLite's tables may be replaced while rows of others refer to theirs."""
        if self.dialect == "postgresql":
            with self.write() as connection:
                yield connection
            return
        with _translated(), self._engine.connect().execution_options(write=True) as connection:
            driver: Any = connection.connection.driver_connection
            driver.execute("PRAGMA foreign_keys = OFF")  # says nothing inside of a transaction
            try:
                with connection.begin():
                    yield connection
                    broken = connection.exec_driver_sql("PRAGMA foreign_key_check").first()
                    if broken is not None:
                        raise Misconfigured(f"The catalog is damaged: a row of {broken[0]} refers to a lost one.")
            finally:
                if not connection.invalidated:  # as it is when a signal ends a statement
                    driver.execute("PRAGMA foreign_keys = ON")


def _engine(url: str) -> sa.Engine:
    """Return the engine for a URL of SQLite or PostgreSQL; raises `Misconfigured` for any other."""
    try:
        parsed = sa.engine.make_url(url)
    except (sa.exc.ArgumentError, ValueError):  # not chained: it may hold a part of the password
        raise Misconfigured(
            "The setting `database` is no URL; write for example postgresql://user:password@host/citewell, with "
            "%40, %2F and %3A for @, / and : in the password."
        ) from None
    if parsed.get_backend_name() not in {"sqlite", "postgres", "postgresql"}:
        raise Misconfigured("The setting `database` is neither PostgreSQL nor SQLite; postgresql://... is.")
    if "@" in (parsed.host or ""):
        raise Misconfigured("The password in the setting `database` holds an @; write %40 for it.")
    if parsed.get_backend_name() == "sqlite":
        return sa.create_engine(parsed, hide_parameters=True, json_serializer=_json)
    try:
        return sa.create_engine(
            parsed.set(drivername="postgresql+psycopg"),
            connect_args={name: value for name, value in KEEPALIVE.items() if name not in parsed.query},
            json_serializer=_json,
            hide_parameters=True,  # of an error: they are the texts of documents
            pool_pre_ping=True,  # a connection that the server has closed is found out before it is used
            pool_size=CONNECTIONS,
            max_overflow=MORE_CONNECTIONS,
        )
    except ImportError as error:
        raise Misconfigured("PostgreSQL needs its driver; run `pip install citewell[postgres]`.") from error


def _json(value: Any) -> str:
    """Return JSON that every database can read: one bad value would spoil each later question about its column."""
    return json.dumps(readable(value), allow_nan=False)


def readable(value: Any) -> Any:
    """Return a value of JSON, or a text, without what no database of ours can keep."""
    if isinstance(value, str):
        return _UNREADABLE.sub("", value)
    if isinstance(value, Mapping):
        return {readable(key): readable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [readable(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@contextmanager
def _translated() -> Iterator[None]:
    """Turn a database that does not answer into our own kind; broken rules and faults of ours pass through."""
    try:
        yield
    except sa.exc.TimeoutError as error:
        raise Unavailable("The catalog can not be used now: all connections to it are in use.") from error
    except sa.exc.DataError as error:
        raise BadInput(f"The catalog can not keep or compare such a value ({_reason(error)}).") from error
    except sa.exc.DBAPIError as error:
        if not _is_trouble(error):
            raise
        raise Unavailable(f"The catalog can not be used now ({_reason(error)}); look at its disk or server.") from error


def _is_trouble(error: sa.exc.DBAPIError) -> bool:
    """Say whether the database is in trouble, rather than asked for what it can not do."""
    code = getattr(error.orig, "sqlite_errorcode", None)
    if code is not None:
        return code & 0xFF in _SQLITE_TROUBLE
    follows = getattr(error.orig, "sqlstate", None) == READ_ONLY
    return follows or error.connection_invalidated or isinstance(error, sa.exc.OperationalError)


def _reason(error: sa.exc.DBAPIError) -> str:
    """Return the first line of what the database said."""
    return next(iter(str(error.orig).strip().splitlines()), type(error.orig).__name__)


def _prepare_postgresql(engine: sa.Engine) -> None:
    @sa.event.listens_for(engine, "connect")
    def _connect(connection: Any, _: object) -> None:
        with connection.cursor() as cursor:
            for name, value in SESSION.items():
                cursor.execute(f"SET {name} = '{value}'")
        connection.commit()


#: A new file has pages of 16 KiB: vector and codes of a text are 1 to 6 KB, and on the usual 4 KiB many take two pages
#: for themselves (`eval/LOG.md`). The log is written back as often as with these. What an update or a moved row leaves
#: behind can be overwritten only then, not when the row is purged: hence secure_delete from the first day on.
_PRAGMAS = (
    "busy_timeout=60000", "page_size=16384", "journal_mode=WAL", "wal_autocheckpoint=250", "synchronous=FULL",
    "foreign_keys=ON", "secure_delete=ON",
)  # fmt: skip


def _prepare_sqlite(engine: sa.Engine) -> None:
    @sa.event.listens_for(engine, "connect")
    def _connect(connection: Any, _: object) -> None:
        connection.isolation_level = None  # SQLAlchemy's begin event below opens transactions, not the driver
        cursor = connection.cursor()
        for pragma in _PRAGMAS:
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()
        connection.create_function("instant", 1, instant, deterministic=True)  # for filters on dates

    @sa.event.listens_for(engine, "begin")
    def _begin(connection: sa.Connection) -> None:
        if connection.get_execution_options().get("write", False):
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        else:  # by the shortest way: it can not fail, and a search reads a dozen times
            driver: Any = connection.connection.driver_connection
            driver.execute("BEGIN")
