"""The catalog's database: opened, brought up to date, read and written in whole transactions.

Owns Alembic and what is particular to SQLite. Knows the tables by ``rag.schema`` and asks nothing of them: queries are
the catalog's.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from rag.errors import Misconfigured, Unavailable

#: The newest migration that this code knows (the file of this name in ``rag/migrations/versions``).
SCHEMA = "0001"

#: SQLite's result codes for trouble with the disk or with another process, not with what was asked.
_SQLITE_TROUBLE = frozenset(
    {
        sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_FULL, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_NOTADB,
    }
)  # fmt: skip


class Database:
    """The database at a SQLAlchemy ``url``; its tables are made or migrated when it is opened. Thread-safe.

    Raises `Misconfigured` if it was written by a newer Citewell, is damaged, or belongs to another program, and
    `Unavailable` from any use while the database does not answer or its disk is full.
    """

    def __init__(self, url: str) -> None:
        self._engine = sa.create_engine(url)
        if self.dialect == "sqlite":
            _prepare_sqlite(self._engine)
        self._migrate()

    @property
    def dialect(self) -> str:
        return self._engine.dialect.name

    def close(self) -> None:
        self._engine.dispose()

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """One transaction that sees one state of the database and changes nothing."""
        with _translated(), self._engine.connect() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """One transaction that holds SQLite's write lock from its start, so that it can not fail half way for one."""
        with (
            _translated(),
            self._engine.connect().execution_options(write=True) as connection,
            connection.begin(),
        ):
            yield connection

    def _migrate(self) -> None:
        try:
            with self._engine.connect() as connection:
                tables = set(sa.inspect(connection).get_table_names())
                marked = "alembic_version" in tables
                found = connection.scalar(sa.text("SELECT version_num FROM alembic_version")) if marked else None
        except sa.exc.DatabaseError as error:
            raise Misconfigured(
                "The catalog is damaged or not a database; put a backup of the data folder back."
            ) from error
        if found == SCHEMA:
            return
        if found is not None and found > SCHEMA:
            raise Misconfigured(
                f"The data folder was written by a newer Citewell (catalog {found}, this one knows {SCHEMA}); "
                "upgrade Citewell or use another data folder (--data)."
            )
        if found is None and tables - {"alembic_version"}:
            raise Misconfigured("The catalog holds tables that are not Citewell's; use another data folder (--data).")
        self._upgrade()

    def _upgrade(self) -> None:
        from alembic import command
        from alembic.config import Config

        config = Config()
        config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
        with self.write() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, SCHEMA)


@contextmanager
def _translated() -> Iterator[None]:
    """Turn a database that does not answer into our own kind; broken rules and faults of ours pass through."""
    try:
        yield
    except sa.exc.DBAPIError as error:
        code = getattr(error.orig, "sqlite_errorcode", None)
        if code is None and not isinstance(error, sa.exc.OperationalError):
            raise
        if code is not None and code & 0xFF not in _SQLITE_TROUBLE:
            raise
        raise Unavailable(f"The catalog can not be used now ({error.orig}); look at its disk or server.") from error


def _prepare_sqlite(engine: sa.Engine) -> None:
    @sa.event.listens_for(engine, "connect")
    def _connect(connection: Any, _: object) -> None:
        connection.isolation_level = None  # SQLAlchemy's begin event below opens transactions, not the driver
        cursor = connection.cursor()
        for pragma in ("busy_timeout=60000", "journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @sa.event.listens_for(engine, "begin")
    def _begin(connection: sa.Connection) -> None:
        write = connection.get_execution_options().get("write", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")
