"""Killed at the n-th point of its work, for one n after the other: the next process finds a whole, and finishes it.

A point is a statement, a commit, a flush to disk, or a file made, renamed or removed (see ``points``). The suite takes
a sample of the points, chosen by the seed; a soak takes all.
"""

from __future__ import annotations

import io
import os
import random
import shutil
import time
import zipfile
from contextlib import closing
from pathlib import Path

import pytest

from rag.catalog import Accepted
from rag.plan import make_plan
from rag.records import State
from tests.faults.checks import check_files, check_rows
from tests.faults.points import ACTS, NAME, Here, opened
from tests.faults.supervisor import ROOT, Zygote, until
from tests.faults.test_kills import SOAK
from tests.processes import alive

SAMPLE = 10
OLD, NEW = "The oldmark stands here.\n", "The newmark stands here.\n"


@pytest.fixture(scope="module")
def zygote(tmp_path_factory):
    """A warm process from which the victims are forked."""
    folder = tmp_path_factory.mktemp("zygote")
    environment = {
        **os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(folder), "OPENBLAS_NUM_THREADS": "1",
    }  # fmt: skip
    with closing(Zygote(environment, folder / "log")) as made:
        yield made


def archive(mark):
    """An archive with a text, and an archive with another text in it."""

    def pack(files):
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as file:
            for name, data in files.items():
                file.writestr(zipfile.ZipInfo(name), data)
        return packed.getvalue()

    inner = pack({"deep.txt": f"The deep {mark} stands here.\n"})
    return pack({"flat.txt": f"The flat {mark} stands here.\n", "inner.zip": inner})


def begin(data, old, new, acts):
    """Make a data folder with a document: ``old`` is searchable, ``new`` waits; then do ``acts``."""
    with opened(data) as citewell:
        citewell.store.catalog.create_collection("c")
        take(citewell, old)
        drain(citewell)
        if new is not None:
            take(citewell, new)
        for act in acts:
            ACTS[act](citewell, Path())


def take(citewell, content):
    from ingest.worker import accept

    return accept(citewell.store, citewell.store.catalog.collection("c"), NAME, io.BytesIO(content))


def drain(citewell):
    """Work until nothing waits, what dead workers had in hand included."""
    end = time.monotonic() + 60
    with Here(citewell) as worker:
        while citewell.store.catalog.queue_length():
            assert time.monotonic() < end
            worker.drain()


def found(citewell, mark):
    """Return what of the passages of a search says ``mark``."""
    catalog = citewell.store.catalog
    plan = make_plan(mark, [catalog.collection("c")], citewell.store.settings, top_k=50)
    return sorted(p.text for p in citewell.search(plan).passages if mark in p.text)


def points_of(zygote, act, template, file, folder):
    """Return all points of an act, in order, by letting it come to its end."""
    data, points = folder / "all", folder / "points"
    shutil.copytree(template, data)
    pid = zygote.fork("tests.faults.points:die", [act, str(data), str(file), 0, str(points)], folder / "log")
    until(lambda: not alive(pid), "the act comes to its end")
    return points.read_text().splitlines()


def chosen(points, kills, seed):
    """Return the numbers of the points at which to kill, from 1."""
    every = range(1, len(points) + 1)
    if kills >= SOAK or len(points) <= SAMPLE:
        return list(every)
    return sorted(random.Random(seed).sample(every, SAMPLE))


def checked(data):
    """Sweep, then check that nothing lies there that nothing needs."""
    with opened(data) as citewell:
        citewell.store.sweep()
    check_rows(data)
    check_files(data)


CASES = {
    "accept": (OLD.encode(), None, (), NEW.encode()),
    "work": (OLD.encode(), NEW.encode(), (), b""),
    "work-archive": (archive("oldmark"), archive("newmark"), (), b""),
    "seal": (OLD.encode(), NEW.encode(), ("work",), b""),
    "delete": (archive("oldmark"), archive("newmark"), ("work",), b""),
    "purge": (archive("oldmark"), archive("newmark"), ("work",), b""),
    "delete_collection": (archive("oldmark"), archive("newmark"), ("work",), b""),
    "sweep": (OLD.encode(), None, ("seal", "delete", "purge"), b""),
}


@pytest.mark.parametrize("case", CASES)
def test_killed_at_any_point_the_next_process_finishes(zygote, tmp_path, kills, seed, case):
    """Old or new, never both and never neither; afterwards nothing lies there that nothing needs."""
    old, new, acts, content = CASES[case]
    act, _, _ = case.partition("-")
    template, file = tmp_path / "template", tmp_path / "content"
    file.write_bytes(content)
    begin(template, old, new, acts)
    points = points_of(zygote, act, template, file, tmp_path)
    assert len(points) > 3
    for n in chosen(points, kills, seed):
        data = tmp_path / "killed"
        shutil.copytree(template, data)
        pid = zygote.fork("tests.faults.points:die", [act, str(data), str(file), n], tmp_path / "log")
        until(lambda pid=pid: not alive(pid), "the victim is dead")
        try:
            check_after(act, data, content)
        except BaseException as error:
            error.add_note(f"killed at point {n} of {len(points)}: {points[n - 1]}")
            raise
        shutil.rmtree(data)


def check_after(act, data, content):
    """Check what may be there right after the death of an act, let the next process do its work, and check again."""
    with opened(data) as citewell:
        catalog = citewell.store.catalog
        if act == "delete_collection":
            if catalog.list_collections():
                citewell.store.delete_collection("c")
        elif act == "accept":
            assert [len(found(citewell, "oldmark")), len(found(citewell, "newmark"))] == [1, 0]
            waits = catalog.queue_length()
            _, outcome = take(citewell, content)
            assert outcome is (Accepted.UNCHANGED if waits else Accepted.REPLACED)
            drain(citewell)
            assert [len(found(citewell, "oldmark")), len(found(citewell, "newmark"))] == [0, 1]
            assert [d.newest.number for d in catalog.list_documents(catalog.collection("c").id)] == [2]
        elif act == "work":
            old, new = len(found(citewell, "oldmark")), len(found(citewell, "newmark"))
            assert old + new <= 2
            drain(citewell)
            documents = catalog.list_documents(catalog.collection("c").id)
            assert {d.newest.state for d in documents} == {State.READY}
            assert {d.newest.attempts for d in documents} == {1}
            assert len(found(citewell, "oldmark")) == 0
            assert len(found(citewell, "newmark")) == (2 if len(documents) > 1 else 1)
            assert len(documents) in {1, 4}
        elif act == "delete":
            left = len(found(citewell, "newmark"))
            assert left in {0, 2}
            ACTS["delete"](citewell, Path())
            assert catalog.list_documents(catalog.collection("c").id) == []
            assert found(citewell, "newmark") == found(citewell, "oldmark") == []
        elif act == "seal":
            assert [len(found(citewell, "oldmark")), len(found(citewell, "newmark"))] == [0, 1]
        elif act == "purge":
            assert len(found(citewell, "newmark")) == 2
            citewell.purge(catalog.collection("c"))
            assert len(found(citewell, "newmark")) == 2
    checked(data)
