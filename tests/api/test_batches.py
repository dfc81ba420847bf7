"""Batches over REST: opened, joined, looked at, reported on and followed live."""

from __future__ import annotations

import csv
import io
import json
import threading
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import httpx
import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st

from api.batch_progress import Watch
from api.batch_report import FIELDS
from rag.catalog import Catalog
from rag.records import State
from rag.settings import load_settings
from rag.store import open_store
from tests.api.live import problem, read_all, upload
from tests.api.test_serve import until

CAT = b"The cat of the house is grey."


def sent_events(lines: Iterator[str]) -> Iterator[tuple[str | None, str, Any]]:
    """Read server-sent events: id if there is one, name, data; comments are left out."""
    fields: dict[str, str] = {}
    for line in lines:
        if line.startswith(":"):
            continue
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
        elif fields:
            yield fields.get("id"), fields["event"], json.loads(fields["data"])
            fields = {}


def follow(client: httpx.Client, batch: str, last: int | None = None) -> list[tuple[str | None, str, Any]]:
    """Return all events of a batch to its end."""
    headers = {} if last is None else {"Last-Event-ID": str(last)}
    with client.stream("GET", f"/v1/batches/{batch}/events", headers=headers) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        return list(sent_events(response.iter_lines()))


def test_an_upload_makes_a_batch_that_tells_how_far_it_is(client, citewell, demo):
    """Counts by state before and after the work, bytes, passages, outcome of every file; the refused one counts too."""
    reply = upload(client, demo, ("cat.txt", CAT), ("..", b"x"), ("empty.txt", b""), ("dog.txt", b"The dog is old."))
    batch = reply.json()["batch"]
    waiting = client.get(f"/v1/batches/{batch}").json()
    assert (waiting["collection"], waiting["files"], waiting["ended"], waiting["ended_at"]) == (demo, 4, 1, None)
    assert waiting["states"] == {"queued": 3, "refused": 1}
    assert (waiting["bytes"], waiting["bytes_ended"], waiting["seconds_left"]) == (len(CAT) + 15, 0, None)
    read_all(citewell)
    done = client.get(f"/v1/batches/{batch}").json()
    assert (done["ended"], done["states"]) == (4, {"ready": 2, "failed": 1, "refused": 1})
    assert (done["bytes_ended"], done["passages"], done["seconds_left"]) == (len(CAT) + 15, 2, 0.0)
    assert done["ended_at"] > done["created_at"]
    assert done["files_per_second"] > 0
    pages, after = [], -1
    while after is not None:
        page = client.get(f"/v1/batches/{batch}/files", params={"after": after, "limit": 3}).json()
        pages.append(page["files"])
        after = page["next"]
    assert [[file["number"] for file in page] for page in pages] == [[0, 1, 2], [3]]
    files = [file for page in pages for file in page]
    assert [(file["name"], file["outcome"], file["state"]) for file in files] == [
        ("cat.txt", "added", "ready"), ("..", "failed", None), ("empty.txt", "failed", "failed"),
        ("dog.txt", "added", "ready"),
    ]  # fmt: skip
    assert [file["error"] and file["error"]["code"] for file in files] == [None, "bad_input", "document_empty", None]
    assert [file["passages"] for file in files] == [1, None, 0, 1]
    assert client.get(f"/v1/documents/{files[0]['document_id']}").json()["newest"]["batch_id"] == batch


def test_many_uploads_join_one_batch(client, citewell, demo):
    """Opened empty, filled by forms and bare files; the list has the newest first."""
    opened = client.post(f"/v1/collections/{demo}/batches")
    assert opened.status_code == 201
    batch = opened.json()["id"]
    assert (opened.json()["files"], opened.json()["ended_at"], opened.json()["states"]) == (0, None, {})
    for number in range(3):
        files = [("files", (f"{number}/{part}.txt", f"{number} {part}".encode())) for part in "ab"]
        reply = client.post(f"/v1/collections/{demo}/documents", params={"batch": batch}, files=files)
        assert reply.json()["batch"] == batch
    client.put(f"/v1/collections/{demo}/documents/last.txt", params={"batch": batch}, content=CAT)
    client.post(f"/v1/collections/{demo}/batches")
    read_all(citewell)
    listed = client.get(f"/v1/collections/{demo}/batches").json()["batches"]
    assert [(found["files"], found["ended"]) for found in listed] == [(0, 0), (7, 7)]
    assert listed[1] == client.get(f"/v1/batches/{batch}").json()


def test_a_batch_of_another_collection_can_not_be_joined(client, demo):
    """Nor one that is not there; nothing is taken then."""
    client.post("/v1/collections", json={"name": "other"})
    batch = client.post("/v1/collections/other/batches").json()["id"]
    for unknown in (batch, "0" * 32, "", "'"):
        address = f"/v1/collections/{demo}/documents"
        problem(client.post(address, params={"batch": unknown}, files=[("files", ("a.txt", CAT))]), 404)
    assert client.get(f"/v1/collections/{demo}/documents").json()["documents"] == []


def test_the_events_of_a_batch_tell_of_every_file_once_and_end(client, citewell, demo):
    """While a worker reads: progress, each file with its outcome, the end with all counts."""
    files = [(f"{number}.txt", f"The cat number {number} is grey.".encode()) for number in range(12)]
    batch = upload(client, demo, *files, ("empty.txt", b"")).json()["batch"]
    worker = threading.Thread(target=read_all, args=(citewell,))
    worker.start()
    told = follow(client, batch)
    worker.join()
    documents = [data for _, name, data in told if name == "document"]
    assert sorted(data["number"] for data in documents) == list(range(13))
    assert {data["name"]: data["outcome"] for data in documents} == {
        **{name: "added" for name, _ in files}, "empty.txt": "failed"
    }  # fmt: skip
    identities = [int(number) for number, _, _ in told if number is not None]
    assert identities == sorted(identities)
    assert identities[-1] == 12
    progress = [data for _, name, data in told if name == "progress"]
    assert [data["ended"] for data in progress] == sorted(data["ended"] for data in progress)
    number, name, last = told[-1]
    assert (number, name) == (None, "end")
    assert (last["ended"], last["states"], last["in_hand"]) == (13, {"ready": 12, "failed": 1}, [])


def test_a_client_that_comes_back_misses_nothing(client, citewell, demo):
    """`Last-Event-ID` goes on after that file; a batch that has ended is told of from there and ends."""
    batch = upload(client, demo, *((f"{number}.txt", str(number).encode()) for number in range(5))).json()["batch"]
    read_all(citewell)
    for last, rest in ((None, [0, 1, 2, 3, 4]), (2, [3, 4]), (4, [])):
        told = follow(client, batch, last)
        assert [data["number"] for _, name, data in told if name == "document"] == rest
        assert [name for _, name, _ in told][-2:] == ["progress", "end"]


def test_a_client_that_leaves_ends_the_asking(client, demo):
    """The stream of a batch that is open for ever ends with its reader."""
    batch = client.post(f"/v1/collections/{demo}/batches").json()["id"]
    with structlog.testing.capture_logs() as logs:
        with client.stream("GET", f"/v1/batches/{batch}/events") as response:
            assert next(sent_events(response.iter_lines()))[1] == "progress"
        until(lambda: [line for line in logs if line["event"] == "client left"])


def test_what_is_not_a_batch_has_no_events(client, demo):
    """A status, not a stream."""
    problem(client.get(f"/v1/batches/{'0' * 32}/events"), 404)
    batch = upload(client, demo, ("a.txt", CAT)).json()["batch"]
    problem(client.get(f"/v1/batches/{batch}/events", headers={"Last-Event-ID": "x"}), 422)


def test_a_report_is_safe_to_open_and_whole(client, citewell, demo):
    """The same files as CSV and JSON; no cell of the CSV begins like a formula."""
    names = ["=1+1.txt", "+a.txt", "-b.txt", "@c.txt", " =d.txt", "plain, comma.txt", "\uff1de.txt"]
    batch = upload(client, demo, *((name, CAT) for name in names), ("=cmd|' /C calc'!A0/..", b"x")).json()["batch"]
    read_all(citewell)
    fetched = client.get(f"/v1/batches/{batch}/report", params={"format": "csv"})
    assert fetched.headers["content-type"] == "text/csv; charset=utf-8"
    assert fetched.headers["content-disposition"] == f'attachment; filename="batch-{batch}.csv"'
    rows = list(csv.DictReader(io.StringIO(fetched.text, newline="")))
    assert list(rows[0]) == list(FIELDS)
    assert not [cell for row in rows for cell in row.values() if cell.lstrip()[:1] in set("=+-@\uff1d")]
    assert [row["name"].removeprefix("'") for row in rows[:-1]] == names
    assert [row["outcome"] for row in rows] == ["added"] * 7 + ["failed"]
    report = client.get(f"/v1/batches/{batch}/report").json()
    assert report["batch"]["id"] == batch
    assert [file["name"] for file in report["files"]][:-1] == names
    assert [str(file["number"]) for file in report["files"]] == [row["number"] for row in rows]
    assert {file["sha256"] for file in report["files"][:-1]} == {rows[0]["sha256"]}


def test_an_empty_batch_has_an_empty_report(client, demo):
    batch = client.post(f"/v1/collections/{demo}/batches").json()["id"]
    assert client.get(f"/v1/batches/{batch}/report").json()["files"] == []
    assert client.get(f"/v1/batches/{batch}/report", params={"format": "csv"}).text == ",".join(FIELDS) + "\r\n"
    problem(client.get(f"/v1/batches/{batch}/report", params={"format": "xml"}), 422)


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Catalog]:
    """A catalog for many examples, each with a collection of its own."""
    with open_store(load_settings(data=tmp_path_factory.mktemp("watch"))) as store:
        yield store.catalog


@settings(max_examples=25)
@given(count=st.integers(1, 17), turns=st.lists(st.integers(1, 6), min_size=1, max_size=6), order=st.randoms())
def test_every_file_is_told_of_once_whatever_the_order(catalog, count, turns, order):
    """Files end in any order, between any looks: each is told once, and the id says up to where all were told."""
    collection = catalog.create_collection(uuid4().hex)
    batch = catalog.open_batch(collection.id)
    for number in range(count):
        catalog.accept(collection.id, f"{number}", "0" * 64, 1, batch=batch)
    owners = {version.id: f"o{n}" for n in range(count) if (version := catalog.claim(f"o{n}", 60, batch=batch))}
    ending = sorted(owners)
    order.shuffle(ending)
    watch, told = Watch(catalog, batch, page=4), []
    while ending:
        for version_id in ending[: turns[len(told) % len(turns)]]:
            catalog.fail(version_id, owners[version_id], "test", "It is a test.")
            ending.remove(version_id)
        look = watch.look()
        assert look.is_over is not bool(ending)
        assert {file.name for file in look.in_hand} <= {f"{number}" for number in range(count)}
        for ended in look.ended:
            told.append(ended.file.number)
            assert set(range(ended.all_up_to + 1)) <= set(told)
            assert ended.all_up_to + 1 not in told
            assert ended.file.version is not None
            assert ended.file.version.state is State.FAILED
    assert sorted(told) == list(range(count))
    assert watch.look().ended == ()


@pytest.mark.parametrize("path", ["", "/files", "/report", "/events"])
def test_an_unknown_batch_is_not_found(client, path):
    """404 in the one shape, everywhere."""
    assert "no batch" in problem(client.get(f"/v1/batches/nope{path}"), 404)["message"]


def test_purging_says_what_it_removed(client, citewell, demo):
    """One document by name, one by DELETE, and what was replaced; the report of the batch knows that it was there."""
    batch = upload(client, demo, ("cat.txt", CAT), ("dog.txt", b"The dog is old.")).json()["batch"]
    read_all(citewell)
    documents = {d["name"]: d["id"] for d in client.get(f"/v1/collections/{demo}/documents").json()["documents"]}
    upload(client, demo, ("dog.txt", b"The dog is very old."))
    read_all(citewell)
    address = f"/v1/collections/{demo}/purge"
    replaced = client.post(address, json={"documents": None}).json()
    assert replaced == {
        "documents": 0, "versions": 1, "passages": 1, "texts": 1, "vectors": 1, "parses": 1, "files": 1, "bytes": 15
    }  # fmt: skip
    removed = client.post(address, json={"documents": ["cat.txt"]})
    assert (removed.status_code, removed.json()["documents"], removed.json()["bytes"]) == (200, 1, len(CAT))
    gone = client.delete(f"/v1/documents/{documents['dog.txt']}", params={"purge": True})
    assert (gone.status_code, gone.json()["versions"], gone.json()["bytes"]) == (200, 1, 20)
    assert citewell.store.originals.list() == []
    assert client.post("/v1/search", json={"query": "cat dog", "collections": [demo]}).json()["passages"] == []
    files = client.get(f"/v1/batches/{batch}/files").json()["files"]
    assert [(file["name"], file["outcome"]) for file in files] == [("(purged)", "purged")] * 2
    problem(client.post(address, json={"documents": ["never.txt"]}), 404)
    problem(client.post(address, json={"documents": []}), 422)
