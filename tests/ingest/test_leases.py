"""Leases: only what moved is written until a third of the lease is over, lost ones are marked, a hang ends all."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from ingest.leases import STALLED, LeaseLost, Leases
from rag.catalog import Catalog
from rag.errors import Unavailable
from rag.records import Stage, Version


class ListeningCatalog(Catalog):
    """A real catalog that also notes what it is told."""

    told: list[dict[str, tuple[Stage, float]]]

    def heartbeat(self, owner: str, lease_seconds: float, held: Mapping[str, tuple[Stage, float]]) -> set[str]:
        self.told.append(dict(held))
        return super().heartbeat(owner, lease_seconds, held)


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[ListeningCatalog]:
    opened = ListeningCatalog.in_folder(tmp_path)
    opened.told = []
    yield opened
    opened.close()


def claimed(catalog: Catalog, count: int, seconds: float = 60.0) -> list[Version]:
    collection = catalog.ensure_collection("c").id
    for n in range(count):
        catalog.accept(collection, f"{n}", f"{n}" * 64, 1)
    return [version for _ in range(count) if (version := catalog.claim("w", seconds)) is not None]


def test_only_what_moved_is_written_until_a_third_of_the_lease_is_over(catalog):
    leases = Leases(catalog, "w", 60.0, 60.0)
    first, second = (leases.add(version) for version in claimed(catalog, 2))
    leases.beat()
    leases.beat()
    second.at(Stage.EMBED, 0.5)
    leases.beat()
    second.at(Stage.EMBED, 0.50001)  # no thousandth further
    leases.beat()
    one, other = first.version.id, second.version.id
    assert catalog.told == [{one: (Stage.PARSE, 0.0), other: (Stage.PARSE, 0.0)}, {other: (Stage.EMBED, 0.625)}]
    leases._written -= 20.0  # a third of 60 seconds ago
    leases.beat()
    assert catalog.told[2:] == [{one: (Stage.PARSE, 0.0), other: (Stage.EMBED, 0.625)}]
    leases.let_go(second)
    leases._written -= 20.0
    leases.beat()
    assert catalog.told[3:] == [{one: (Stage.PARSE, 0.0)}]


def test_a_lease_that_is_lost_is_marked_and_the_others_go_on(catalog):
    leases = Leases(catalog, "w", 60.0, 60.0)
    first, second = (leases.add(version) for version in claimed(catalog, 2))
    catalog.delete_document(first.version.document_id)
    leases.beat()
    assert (first.lost, second.lost, len(leases)) == (True, False, 2)
    with pytest.raises(LeaseLost):
        first.at(Stage.CHUNK)
    second.at(Stage.CHUNK)


def test_a_lease_is_prolonged_while_its_holder_works(catalog):
    """Held for three times its length: nobody else can have it; let go, it is free when it has run out."""
    leases = Leases(catalog, "w", 0.9, 60.0)
    lease = leases.add(claimed(catalog, 1, seconds=0.9)[0])
    with leases.beating():
        for _ in range(9):
            wait(0.3)
            assert catalog.claim("another", 60) is None
    leases.let_go(lease)
    wait(1.0)
    taken = catalog.claim("another", 60)
    assert taken is not None
    assert (taken.id, taken.deaths) == (lease.version.id, 1)


def wait(seconds: float) -> None:
    import time

    time.sleep(seconds)


class SilentCatalog(ListeningCatalog):
    """A catalog that does not answer the first two times."""

    def heartbeat(self, owner: str, lease_seconds: float, held: Mapping[str, tuple[Stage, float]]) -> set[str]:
        kept = super().heartbeat(owner, lease_seconds, held)
        if len(self.told) < 3:
            raise Unavailable
        return kept


def test_a_catalog_that_is_silent_for_a_while_does_not_end_the_beating(tmp_path):
    catalog = SilentCatalog.in_folder(tmp_path)
    catalog.told = []
    leases = Leases(catalog, "w", 0.1, 60.0)
    lease = leases.add(claimed(catalog, 1)[0])
    with leases.beating():
        for _ in range(100):
            if len(catalog.told) >= 4:
                break
            wait(0.05)
    assert len(catalog.told) >= 4
    assert not lease.lost
    catalog.close()


HANGS = """
import sys, time
from pathlib import Path
from ingest.leases import Leases
from rag.catalog import Catalog

leases = Leases(Catalog.in_folder(Path(sys.argv[1])), "w", 60.0, stall_seconds=0.2)
with leases.beating():
    for _ in range(30):
        with leases.step("embed"):
            time.sleep(0.1)
    print("steps that end are no hang", flush=True)
    with leases.step("commit"):
        time.sleep(60)
"""


def test_a_step_that_hangs_ends_the_process_with_a_status_of_its_own(tmp_path):
    """Many steps that end, however many, are no hang; one that does not ends all, and says which one it was."""
    process = subprocess.run(
        [sys.executable, "-c", HANGS, str(tmp_path)],
        capture_output=True, text=True, timeout=50, check=False, env={**os.environ, "PYTHONPATH": str(Path.cwd())},
    )  # fmt: skip
    assert process.returncode == STALLED == 70
    assert "no hang" in process.stdout
    assert "commit" in process.stdout + process.stderr
