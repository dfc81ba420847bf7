"""Several worker processes on one PostgreSQL catalog and one data folder, as on several machines with a shared disk."""

from __future__ import annotations

import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from rag.catalog import Catalog
from rag.records import State, Version
from tests.cli_process import SECONDS, Cli

FILES = 24
RULES = {
    "INGEST__LEASE_SECONDS": "3", "INGEST__POLL_SECONDS": "0.1", "INGEST__RETRY_SECONDS": "0.2",
    "INGEST__PARSERS": "1",
}  # fmt: skip


@pytest.fixture
def catalog(postgresql_url) -> Iterator[Catalog]:
    opened = Catalog(postgresql_url)
    yield opened
    opened.close()


@pytest.fixture
def cli(tmp_path, postgresql_url) -> Cli:
    return Cli(tmp_path / "data", tmp_path)


@pytest.fixture
def queued(cli, catalog, postgresql_url) -> list[str]:
    """The names of files that were taken in by `citewell ingest --no-wait` and that nobody has read yet."""
    folder = cli.folder / "files"
    folder.mkdir()
    for n in range(FILES):
        (folder / f"{n:02}.txt").write_text(f"The anchor of buoy {n} weighs {100 + n} kilograms.\n")
    cli("ingest", folder, "--collection", "buoys", "--no-wait", DATABASE=postgresql_url)
    assert catalog.queue_length() == FILES
    return [f"{n:02}.txt" for n in range(FILES)]


@contextmanager
def workers(cli: Cli, number: int, url: str) -> Iterator[list[subprocess.Popen[str]]]:
    """Run so many `citewell worker`; they are told to stop in the end, and those that were not killed do so well."""
    started = [cli.start("worker", DATABASE=url, **RULES) for _ in range(number)]
    try:
        yield started
    finally:
        for process in started:
            process.terminate()
        said = [process.communicate(timeout=SECONDS)[1] for process in started]
    for process, log in zip(started, said, strict=True):
        assert process.returncode in {0, -9}, log
        assert "Traceback" not in log
        assert "tide-and-storm" not in log  # the password in the URL


def wait_for(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def newest(catalog: Catalog) -> list[Version]:
    return [document.newest for document in catalog.list_documents(catalog.collection("buoys").id, limit=1000)]


def check_each_is_there_once(catalog: Catalog, names: list[str]) -> None:
    """Every file is ready, as one version, and every passage of it is found once."""
    found = newest(catalog)
    assert [(version.name, version.state, version.number) for version in found] == [
        (name, State.READY, 1) for name in names
    ]
    collection = catalog.collection("buoys").id
    texts = Counter(row.text.split("\n")[-1] for row in catalog.text_rows(collection, 0, 10**6))
    assert texts == {f"The anchor of buoy {n} weighs {100 + n} kilograms.": 1 for n in range(FILES)}
    assert catalog.pulse(collection).last_seq == FILES


def test_several_workers_read_every_file_exactly_once(cli, catalog, queued, postgresql_url):
    with workers(cli, 3, postgresql_url):
        wait_for(lambda: catalog.queue_length() == 0, "the queue does not empty")
    check_each_is_there_once(catalog, queued)
    assert {(version.attempts, version.deaths) for version in newest(catalog)} == {(1, 0)}


def test_the_files_of_a_killed_worker_are_read_by_another(cli, catalog, queued, postgresql_url):
    """kill -9 with files in hand: their leases run out, and who comes after reads them."""

    def in_hand() -> list[str]:
        return [version.id for version in newest(catalog) if version.state is State.PROCESSING]

    with workers(cli, 1, postgresql_url) as (victim,):
        wait_for(in_hand, "no file is taken")
        victim.kill()
        victim.wait()
        left = in_hand()
    assert left
    with workers(cli, 2, postgresql_url):
        wait_for(lambda: catalog.queue_length() == 0, "the queue does not empty")
    check_each_is_there_once(catalog, queued)
    assert {version.attempts for version in newest(catalog)} == {1}
