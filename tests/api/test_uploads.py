"""Uploads as they stream in: forms and bare files, small, large, broken off and lying."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from api.uploads import SMALL, Form
from rag.assembly import open_citewell
from rag.errors import BadInput, DocumentTooLarge
from rag.originals import Originals
from tests.api.live import problem, read_all, serving, upload
from tests.api.test_serve import started, until

LIMIT = 3 * SMALL
BOUNDARY = "----CitewellTest"
KIND = f"multipart/form-data; boundary={BOUNDARY}"


def part(name: str, content: bytes, filename: str | None = None) -> bytes:
    named = "" if filename is None else f'; filename="{filename}"'
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{named}\r\n\r\n'
    return head.encode() + content + b"\r\n"


def form_of(*parts: bytes) -> bytes:
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


def contents(form: Form) -> list[bytes]:
    """What the files of a form hold, wherever they lie."""
    found = []
    for file in form.files:
        if file.incoming is None:
            found.append(form.content(file).getvalue())
        else:
            file.incoming.flush()
            found.append(file.incoming._path.read_bytes())
    return found


def left_behind(folder: Path) -> list[Path]:
    """Files in the folder of originals, but for the lock."""
    return [path for path in folder.rglob("*") if path.is_file() and path.name != ".lock"]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    files=st.lists(st.binary(max_size=300) | st.just(b"\r\n--" + BOUNDARY.encode()[:-1]), min_size=1, max_size=5),
    cuts=st.lists(st.integers(1, 400), min_size=1, max_size=8),
    metadata_first=st.booleans(),
)
def test_a_form_is_read_alike_however_it_is_cut_into_blocks(tmp_path, files, cuts, metadata_first):
    """Every byte of every file arrives, in order, and the metadata may come first or last."""
    told = part("metadata", b'{"0.bin": {"year": 2026}}')
    parts = [part("files", content, f"{number}.bin") for number, content in enumerate(files)]
    body = form_of(*([told, *parts] if metadata_first else [*parts, told]))
    with Form(KIND, Originals(tmp_path), LIMIT, 10) as form:
        turn = 0
        while body:
            cut = cuts[turn % len(cuts)]
            form.feed(body[:cut])
            body, turn = body[cut:], turn + 1
        form.finish()
        assert [file.sent for file in form.files] == [f"{number}.bin" for number in range(len(files))]
        assert contents(form) == files
        assert form.metadata == '{"0.bin": {"year": 2026}}'
    assert left_behind(tmp_path) == []


def test_large_and_small_files_arrive_side_by_side(tmp_path):
    """A large file gets a file of its own, one that is too large is an error of its own, small ones share."""
    sizes = [10, SMALL, SMALL + 1, 7, LIMIT, LIMIT + 1, 0, 5]
    files = [bytes([65 + number]) * size for number, size in enumerate(sizes)]
    body = form_of(*(part("files", content, f"{number}.txt") for number, content in enumerate(files)))
    with Form(KIND, Originals(tmp_path), LIMIT, 10) as form:
        for start in range(0, len(body), 100_000):
            form.feed(body[start : start + 100_000])
        form.finish()
        assert [file.incoming is not None for file in form.files] == [size > SMALL for size in sizes]
        assert [type(file.error) for file in form.files] == [
            DocumentTooLarge if size > LIMIT else type(None) for size in sizes
        ]
        whole = [number for number, size in enumerate(sizes) if size <= LIMIT]
        found = contents(form)
        assert all(found[number] == files[number] for number in whole)
    assert left_behind(tmp_path) == []


@pytest.mark.parametrize("end", [1, 100, 50_000, SMALL + 1000])
def test_a_form_that_breaks_off_is_refused_and_leaves_nothing(tmp_path, end):
    """Wherever it ends too early, nothing of it stays on the disk."""
    body = form_of(part("files", b"x" * (2 * SMALL), "a.txt"))
    with Form(KIND, Originals(tmp_path), LIMIT, 10) as form:
        form.feed(body[:end])
        with pytest.raises(BadInput, match="breaks off"):
            form.finish()
    assert left_behind(tmp_path) == []


def put(client: httpx.Client, name: str, content, **more) -> httpx.Response:
    return client.put(f"/v1/collections/demo/documents/{name}", content=content, **more)


def test_one_file_is_the_body_itself(client, citewell, demo):
    """PUT with a path as name, in chunks of unknown length; then searchable, with its metadata, and unchanged again."""
    body = (b"The cat of the house is grey. " for _ in range(3))
    reply = put(client, "2026/cats/gr%C3%BC%C3%9Fe.txt", body, headers={"Citewell-Metadata": '{"tags": ["cats", 7]}'})
    assert reply.status_code == 202
    [document] = reply.json()["documents"]
    assert (document["name"], document["outcome"], document["state"]) == ("2026/cats/grüße.txt", "added", "queued")
    read_all(citewell)
    found = client.post("/v1/search", json={"query": "cat", "collections": [demo], "filters": {"tags": 7}}).json()
    assert [passage["document"] for passage in found["passages"]] == ["2026/cats/grüße.txt"]
    again = put(client, "2026/cats/grüße.txt", b"The cat of the house is grey. " * 3)
    assert again.json()["documents"][0]["outcome"] == "unchanged"
    assert again.json()["batch"] != reply.json()["batch"]


def test_a_put_file_that_can_not_be_taken_is_noted_in_its_batch(settings, embedder):
    """413 in the one shape; the batch that it was meant for lists it, and nothing of it stays."""
    small = settings.model_copy(update={"ingest": settings.ingest.model_copy(update={"max_file_bytes": 1000})})
    with open_citewell(small, embedder=embedder) as citewell, serving(citewell) as client:
        client.post("/v1/collections", json={"name": "demo"})
        batch = client.post("/v1/collections/demo/batches").json()["id"]
        assert problem(put(client, "big.txt", b"x" * 1001, params={"batch": batch}), 413)
        assert put(client, "ok.txt", b"x" * 1000, params={"batch": batch}).status_code == 202
        files = client.get(f"/v1/batches/{batch}/files").json()["files"]
        assert [(file["name"], file["outcome"]) for file in files] == [
            ("big.txt", "failed"),
            ("ok.txt", "added"),
        ]
        assert files[0]["error"]["code"] == "document_too_large"
        assert [path.stat().st_size for path in left_behind(citewell.store.originals.folder)] == [1000]


@pytest.mark.parametrize(
    ("name", "more", "status"),
    [
        pytest.param("a.txt", {"params": {"metadata": "["}}, 400, id="metadata"),
        pytest.param("a.txt", {"headers": {"Citewell-Metadata": "[1]"}}, 400, id="metadata-header"),
        pytest.param("a.txt", {"params": {"metadata": "{}"}, "headers": {"Citewell-Metadata": "{}"}}, 400, id="twice"),
        pytest.param("a.txt", {"headers": {"Content-Type": KIND}}, 400, id="form"),
        pytest.param("a.txt", {"params": {"batch": "0" * 32}}, 404, id="batch"),
        pytest.param("%00", {}, 400, id="name"),
        pytest.param("%2e%2e", {}, 400, id="dots"),
        pytest.param("", {}, 400, id="no-name"),
        pytest.param("x" * 1001, {}, 400, id="long-name"),
    ],
)
def test_a_bad_put_is_refused_and_nothing_is_taken(client, citewell, demo, name, more, status):
    """Before a byte is kept: bad names and metadata, forms, unknown batches."""
    address = f"/v1/collections/{demo}/documents/{name}"
    request = client.build_request("PUT", str(client.base_url).rstrip("/") + "/x", content=b"x", **more)
    request.url = request.url.copy_with(raw_path=(address + "?" + request.url.query.decode()).encode())
    problem(client.send(request), status)
    assert left_behind(citewell.store.originals.folder) == []
    assert citewell.store.catalog.queue_length() == 0


def test_a_put_that_breaks_off_leaves_nothing(client, citewell, demo):
    """A client that goes away in the middle leaves no document, no batch and no half file."""

    def broken() -> Iterator[bytes]:
        yield b"half"
        raise httpx.WriteError("gone")

    with pytest.raises(httpx.WriteError):
        put(client, "a.txt", broken())
    until(lambda: left_behind(citewell.store.originals.folder) == [])
    assert client.get(f"/v1/collections/{demo}/batches").json() == {"batches": []}
    assert client.get(f"/v1/collections/{demo}/documents").json()["documents"] == []


RICH = {
    "author": {"name": "Ann", "ids": [1, 2.5, None]},
    "tags": ["leave", "2026", True],
    "year": 2026,
    "reviewed": False,
    "source": None,
}


def test_metadata_of_any_shape_is_kept_and_its_top_values_can_be_filtered_on(client, citewell, demo):
    """Nested values come back as they were; what is in a list is found by each of its values, by type."""
    upload(client, demo, ("a.txt", b"The cat is grey."), metadata={"a.txt": RICH})
    read_all(citewell)
    [document] = client.get(f"/v1/collections/{demo}/documents").json()["documents"]
    assert {key: document["newest"]["metadata"][key] for key in RICH} == RICH
    for filters, hits in [
        ({"tags": "leave"}, 1), ({"tags": "2026"}, 1), ({"tags": 2026}, 0), ({"tags": True}, 1), ({"year": 2026}, 1),
        ({"author": "Ann"}, 0), ({"reviewed": False, "tags": "leave"}, 1),
    ]:  # fmt: skip
        body = {"query": "cat", "collections": [demo], "filters": filters}
        assert len(client.post("/v1/search", json=body).json()["passages"]) == hits, filters


@pytest.mark.parametrize(
    "metadata",
    [
        pytest.param({"k": json.loads("[" * 11 + "]" * 11)}, id="deep"),
        pytest.param({"k": "x" * 65_536}, id="large"),
        pytest.param({"k": [2**53 + 1]}, id="inexact"),
        pytest.param({"k": {"a": "\0"}}, id="nul"),
    ],
)
def test_metadata_has_limits(client, demo, metadata):
    """Depth, size, numbers that not every reader keeps, text that no database can hold."""
    assert (
        "metadata of 'a.txt'"
        in problem(upload(client, demo, ("a.txt", b"x"), metadata={"a.txt": metadata}), 400)["message"]
    )


def test_five_hundred_small_files_come_in_one_form(client, citewell, demo):
    """All are taken, in order, in one batch; no more files are open than before."""
    files = [(f"{number:03}.txt", f"File {number}.".encode()) for number in range(500)]
    reply = upload(client, demo, *files)
    assert reply.status_code == 202
    documents = reply.json()["documents"]
    assert [document["name"] for document in documents] == [name for name, _ in files]
    assert {document["outcome"] for document in documents} == {"added"}
    assert client.get(f"/v1/batches/{reply.json()['batch']}").json()["files"] == 500
    assert len(left_behind(citewell.store.originals.folder)) == 500


MEGABYTE = b"\0" * 999_999 + b"\n"
SIZE = 300


def most_memory(pid: int) -> int:
    """The most memory that a process has held so far, in MB."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) // 1000


def test_memory_does_not_grow_with_the_size_of_a_file(tmp_path, monkeypatch):
    """300 MB as a body and 300 MB in a form: the server needs less than 60 MB more than before."""
    monkeypatch.setenv("CITEWELL_INGEST__MAX_FILE_BYTES", "400000000")
    with started(tmp_path / "data", tmp_path / "log") as server:
        server.client.post("/v1/collections", json={"name": "demo"})
        upload(server.client, "demo", ("small.txt", b"x"))
        put(server.client, "small.txt", b"x")
        Path(f"/proc/{server.process.pid}/clear_refs").write_text("5")  # forget the peak of the start
        before = most_memory(server.process.pid)
        bare = put(server.client, "large.bin", (MEGABYTE for _ in range(SIZE)))
        assert bare.status_code == 202, bare.text

        def form() -> Iterator[bytes]:
            whole = form_of(part("files", b"*", "again.bin"))
            head, tail = whole.split(b"*", 1)
            yield head
            yield from (MEGABYTE for _ in range(SIZE))
            yield tail

        address = "/v1/collections/demo/documents"
        formed = server.client.post(address, content=form(), headers={"Content-Type": KIND})
        assert formed.status_code == 202, formed.text
        grown = most_memory(server.process.pid) - before
        for reply, name in ((bare, "large.bin"), (formed, "again.bin")):
            document = server.client.get(f"/v1/documents/{reply.json()['documents'][0]['id']}").json()
            assert (document["name"], document["newest"]["size"]) == (name, SIZE * len(MEGABYTE))
        assert grown < 60
