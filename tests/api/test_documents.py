from __future__ import annotations

import dataclasses
import json

import httpx
import pytest

from rag.assembly import open_citewell
from rag.catalog.queue import NAME_CHARS
from tests.api.live import HOTEL, SAMPLES, problem, read_all, serving, upload


def named(client, collection, **query):
    found = client.get(f"/v1/collections/{collection}/documents", params=query).json()
    return [document["name"] for document in found["documents"]], found["next"]


def test_an_upload_is_accepted_at_once_and_read_later(client, citewell, demo, travel_policy):
    """202 with an id and a state for each file in order; after the worker they are ready, counted and searchable."""
    onboarding = (SAMPLES / "handbook" / "onboarding.md").read_bytes()
    reply = upload(client, demo, ("2026/travel-policy.pdf", travel_policy), ("onboarding.md", onboarding))
    assert reply.status_code == 202
    first, second = reply.json()["documents"]
    assert (first["name"], second["name"]) == ("2026/travel-policy.pdf", "onboarding.md")
    assert {first["state"], second["state"]} == {"queued"}
    waiting = client.get(f"/v1/documents/{first['id']}").json()
    assert (waiting["state"], waiting["stage"], waiting["progress"]) == ("queued", "accept", 0)
    assert waiting["live"] is None
    read_all(citewell)
    ready = client.get(f"/v1/documents/{first['id']}").json()
    assert (ready["state"], ready["stage"], ready["progress"], ready["error"]) == ("ready", "done", 1, None)
    assert ready["collection"] == demo
    assert ready["live"] == ready["newest"]
    assert ready["live_version"] == ready["live"]["id"]
    assert ready["live"]["pages"] == 3
    assert ready["live"]["elements"] > 10
    assert ready["live"]["passages"] > 3
    passages = client.post("/v1/search", json={"query": HOTEL, "collections": [demo]}).json()["passages"]
    assert passages[0]["document"] == "2026/travel-policy.pdf"


def test_the_same_bytes_change_nothing_and_new_bytes_replace(client, citewell, demo):
    """added, unchanged, replaced; and until the new version is read, the old one answers."""
    outcomes = []
    for content in (b"The cat is grey.", b"The cat is grey.", b"The cat is black."):
        [document] = upload(client, demo, ("cat.txt", content)).json()["documents"]
        outcomes.append((document["outcome"], document["version"]))
        if len(outcomes) < 3:
            read_all(citewell)
    assert outcomes == [("added", 1), ("unchanged", 1), ("replaced", 2)]
    between = client.get(f"/v1/documents/{document['id']}").json()
    assert (between["newest"]["number"], between["newest"]["state"]) == (2, "queued")
    assert (between["live"]["number"], between["live"]["state"]) == (1, "ready")
    assert client.get(f"/v1/documents/{document['id']}/content").content == b"The cat is grey."
    read_all(citewell)
    assert client.get(f"/v1/documents/{document['id']}/content").content == b"The cat is black."
    texts = [
        p["text"] for p in client.post("/v1/search", json={"query": "cat", "collections": [demo]}).json()["passages"]
    ]
    assert texts == ["The cat is black."]


def test_a_file_that_can_not_be_read_says_why_and_can_be_tried_again(client, citewell, demo):
    """State failed, stage, code and one sentence; the same bytes again are retried."""
    [document] = upload(client, demo, ("empty.txt", b"")).json()["documents"]
    read_all(citewell)
    failed = client.get(f"/v1/documents/{document['id']}").json()
    assert (failed["state"], failed["error"]["code"], failed["live"]) == ("failed", "document_empty", None)
    assert failed["error"]["message"].endswith(".")
    assert client.get(f"/v1/documents/{document['id']}/content").content == b""
    assert upload(client, demo, ("empty.txt", b"")).json()["documents"][0]["outcome"] == "retried"


def test_a_new_version_that_fails_leaves_the_old_one_answering(client, citewell, demo):
    """Nothing is lost: the state is failed, the live version is the one before."""
    upload(client, demo, ("cat.txt", b"The cat is grey."))
    read_all(citewell)
    [document] = upload(client, demo, ("cat.txt", b"")).json()["documents"]
    read_all(citewell)
    shown = client.get(f"/v1/documents/{document['id']}").json()
    assert (shown["state"], shown["newest"]["number"], shown["live"]["number"]) == ("failed", 2, 1)
    assert client.get(f"/v1/documents/{document['id']}/content").content == b"The cat is grey."
    passages = client.post("/v1/search", json={"query": "cat", "collections": [demo]}).json()["passages"]
    assert [p["text"] for p in passages] == ["The cat is grey."]


def test_a_bad_file_does_not_spoil_the_others(client, demo):
    """Each file has its own outcome, in order; names are made safe."""
    reply = upload(
        client, demo, ("../../etc/cron.txt", b"one"), ("x" * (NAME_CHARS + 1), b"two"), ("C:\\d\\y.txt", b"three"),
        ("y.txt", b"four"), ("..", b"five"), ("ok.txt", b"six"),
    )  # fmt: skip
    assert reply.status_code == 202
    documents = reply.json()["documents"]
    assert [d["name"] for d in documents] == ["cron.txt", "x" * (NAME_CHARS + 1), "y.txt", "y.txt", "..", "ok.txt"]
    assert [d.get("outcome") or d["error"]["code"] for d in documents] == [
        "added", "bad_input", "added", "conflict", "bad_input", "added"
    ]  # fmt: skip
    assert named(client, demo) == (["cron.txt", "ok.txt", "y.txt"], None)


def test_when_no_file_is_taken_the_status_is_that_of_the_error(settings, embedder):
    """One file that is too large is 413, in the shape of all errors; beside a good one it is an entry of a 202."""
    small = settings.model_copy(update={"ingest": settings.ingest.model_copy(update={"max_file_bytes": 1000})})
    with open_citewell(small, embedder=embedder) as citewell, serving(citewell) as client:
        client.post("/v1/collections", json={"name": "demo"})
        alone = upload(client, "demo", ("big.txt", b"x" * 1001))
        assert problem(alone, 413)["code"] == "document_too_large"
        assert alone.json()["documents"][0]["error"]["code"] == "document_too_large"
        both = upload(client, "demo", ("big.txt", b"x" * 1001), ("small.txt", b"x" * 1000))
        assert both.status_code == 202
        assert [d.get("state") or d["error"]["code"] for d in both.json()["documents"]] == [
            "document_too_large",
            "queued",
        ]
        assert list((small.data / "originals").glob("incoming-*")) == []


@pytest.mark.parametrize("announced", [True, False])
def test_an_upload_as_a_whole_has_a_limit(settings, embedder, announced):
    """Beyond it the request ends with 413, whether its length was announced or not, and nothing is kept."""
    small = settings.model_copy(update={"ingest": settings.ingest.model_copy(update={"max_file_bytes": 1000})})
    with open_citewell(small, embedder=embedder) as citewell, serving(citewell) as client:
        client.post("/v1/collections", json={"name": "demo"})
        request = client.build_request(
            "POST", "/v1/collections/demo/documents", files=[("files", (f"{i}.txt", b"x" * 900)) for i in range(9)]
        )
        body = request.read()
        headers = {"Content-Type": request.headers["Content-Type"]}
        content = body if announced else (body[i : i + 100] for i in range(0, len(body), 100))
        error = problem(client.post(request.url.path, content=content, headers=headers), 413)
        assert "4,000 bytes" in error["message"]
        assert named(client, "demo") == ([], None)


def test_there_is_a_most_of_files_in_one_upload(settings, embedder):
    """One more than the setting allows is refused as a whole, with the number."""
    few = settings.model_copy(update={"server": settings.server.model_copy(update={"max_files_per_upload": 2})})
    with open_citewell(few, embedder=embedder) as citewell, serving(citewell) as client:
        client.post("/v1/collections", json={"name": "demo"})
        files = [(f"{i}.txt", b"x") for i in range(3)]
        assert "2" in problem(upload(client, "demo", *files), 400)["message"]
        assert upload(client, "demo", *files[:2]).status_code == 202


def test_metadata_goes_to_its_file_and_filters_find_it(client, citewell, demo):
    """The form field maps the names of files to objects, whose values can be filtered on by type."""
    metadata = {"a.txt": {"year": 2025, "draft": False, "team": "people"}, "b.txt": {"year": 2026}}
    upload(client, demo, ("a.txt", b"The cat is grey."), ("b.txt", b"The cat is black."), metadata=metadata)
    read_all(citewell)
    for filters, wanted in [
        ({"year": 2026}, ["b.txt"]),
        ({"year": 2025, "draft": False}, ["a.txt"]),
        ({"team": "people"}, ["a.txt"]),
        ({"team": "nobody"}, []),
        ({"document": "b.txt"}, ["b.txt"]),
        ({}, ["a.txt", "b.txt"]),
    ]:
        body = {"query": "cat", "collections": [demo], "filters": filters}
        found = client.post("/v1/search", json=body).json()["passages"]
        assert sorted(p["document"] for p in found) == wanted, filters


@pytest.mark.parametrize(
    "metadata",
    [
        "{", "[]", "null", "1", '"x"', '{"a.txt": 1}', '{"a.txt": [1]}', '{"a.txt": {"k": [NaN]}}',
        '{"a.txt": {"k": NaN}}', '{"a.txt": {"k": 1e999}}', '{"a.txt": {"k": "\\ud800"}}',
        '{"a.txt": {"k": "\\u0000"}}',
        '{"a.txt": {"\\ud800": 1}}', '{"a.txt": {"no good": 1}}', '{"other.txt": {"k": 1}}', "[" * 100_000,
        '{"a.txt": {"k": 1' + "0" * 400 + "}}", '{"a.txt": {"k": 1' + "0" * 5000 + "}}",
    ],
)  # fmt: skip
def test_bad_metadata_is_refused_and_nothing_is_taken(client, demo, metadata):
    """Metadata that would be lost, or could not be filtered on, refuse the upload."""
    reply = client.post(
        f"/v1/collections/{demo}/documents", files=[("files", ("a.txt", b"x"))], data={"metadata": metadata}
    )
    problem(reply, 400)
    assert named(client, demo) == ([], None)


def test_a_misspelt_form_field_is_refused(client, demo):
    """A field that would be ignored is named, so that metadata is not lost in silence."""
    url = f"/v1/collections/{demo}/documents"
    files = [("files", ("a.txt", b"x"))]
    assert "'metdata'" in problem(client.post(url, files=files, data={"metdata": "{}"}), 400)["message"]
    assert "several" in problem(client.post(url, files=files, data={"metadata": ["{}", "{}"]}), 400)["message"]
    assert problem(client.post(url, data={"files": "text"}), 422)["message"].startswith("files")
    assert problem(client.post(url, files=[("file", ("a.txt", b"x"))]), 400)
    assert named(client, demo) == ([], None)


@pytest.mark.parametrize("charset", ["unicode_escape", "utf-7", "hex", "nonsense", "utf-16"])
def test_a_hostile_charset_of_the_form_harms_nothing(client, demo, charset):
    """A name may decode to half of a character pair; it is refused like any other bad name."""
    body = b'--b\r\nContent-Disposition: form-data; name="files"; filename="+2AA-\\ud800.txt"\r\n\r\nhello\r\n--b--\r\n'
    headers = {"Content-Type": f"multipart/form-data; boundary=b; charset={charset}"}
    reply = client.post(f"/v1/collections/{demo}/documents", content=body, headers=headers)
    assert reply.status_code in {202, 400, 422}
    assert client.get(f"/v1/collections/{demo}/documents").status_code == 200


def test_documents_are_listed_in_pages(client, citewell, demo):
    """Every document comes exactly once, in the order of names, with `next` until the last page."""
    names = [f"{i:02}.txt" for i in range(7)]
    upload(client, demo, *[(name, name.encode()) for name in names])
    seen, after, pages = [], "", 0
    while after is not None:
        found, after = named(client, demo, limit=3, after=after)
        seen += found
        pages += 1
    assert (seen, pages) == (names, 3)
    read_all(citewell)
    upload(client, demo, ("late.txt", b"late"))
    assert named(client, demo, state="queued") == (["late.txt"], None)
    assert named(client, demo, state="ready") == (names, None)
    assert named(client, demo, state="ready", limit=7) == (names, None)
    assert named(client, demo, state="failed") == ([], None)


def test_the_original_comes_back_as_a_safe_download(client, citewell, demo, travel_policy):
    """Byte for byte, as an attachment; a known type keeps it, anything that a browser might run is plain bytes."""
    page = b"<html><body><h1>Hello</h1><p>There is a cat.</p><script>alert(1)</script></body></html>"
    reply = upload(client, demo, ("Grüße.pdf", travel_policy), ("page.html", page))
    read_all(citewell)
    pdf, html = (client.get(f"/v1/documents/{d['id']}/content") for d in reply.json()["documents"])
    assert pdf.content == travel_policy
    assert html.content == page
    assert pdf.headers["content-type"] == "application/pdf"
    assert html.headers["content-type"] == "application/octet-stream"
    assert pdf.headers["content-disposition"].endswith("filename*=UTF-8''Gr%C3%BC%C3%9Fe.pdf")
    for response in (pdf, html):
        assert response.headers["content-disposition"].startswith("attachment; ")
        assert response.headers["x-content-type-options"] == "nosniff"
        assert "sandbox" in response.headers["content-security-policy"]


def test_an_original_that_is_missing_on_disk_is_said_to_be(client, citewell, demo):
    """A sentence with the cure, not a fault."""
    [document] = upload(client, demo, ("a.txt", b"x")).json()["documents"]
    citewell.store.originals.remove(client.get(f"/v1/documents/{document['id']}").json()["newest"]["sha256"])
    assert "upload it again" in problem(client.get(f"/v1/documents/{document['id']}/content"), 404)["message"]


def test_a_deleted_document_is_gone_from_everything(client, citewell, demo):
    """After 204 no search, answer, list or download shows it; deleting twice is 404; the same file may come again."""
    [document] = upload(client, demo, ("cat.txt", b"The cat of the house is called Mimi.")).json()["documents"]
    read_all(citewell)
    ask = {"question": "What is the cat of the house called?", "collections": [demo]}
    assert "Mimi" in client.post("/v1/ask", json=ask).json()["text"]
    assert client.delete(f"/v1/documents/{document['id']}").status_code == 204
    assert client.post("/v1/search", json={"query": "cat", "collections": [demo]}).json()["passages"] == []
    answer = client.post("/v1/ask", json=ask).json()
    assert (answer["abstained"], answer["claims"], answer["citations"], answer["passages"]) == (True, [], [], [])
    assert named(client, demo) == ([], None)
    problem(client.get(f"/v1/documents/{document['id']}"), 404)
    problem(client.get(f"/v1/documents/{document['id']}/content"), 404)
    problem(client.delete(f"/v1/documents/{document['id']}"), 404)
    [again] = upload(client, demo, ("cat.txt", b"The cat of the house is called Mimi.")).json()["documents"]
    assert (again["outcome"], again["id"]) == ("added", document["id"])


def test_an_upload_that_breaks_off_leaves_nothing(client, demo):
    """A client that goes away in the middle leaves no document and no half file."""

    def broken():
        yield b'--b\r\nContent-Disposition: form-data; name="files"; filename="a.txt"\r\n\r\nhalf'
        raise httpx.WriteError("gone")

    with pytest.raises(httpx.WriteError):
        client.post(
            f"/v1/collections/{demo}/documents",
            content=broken(),
            headers={"Content-Type": "multipart/form-data; boundary=b"},
        )
    assert named(client, demo) == ([], None)
    assert json.loads(client.get("/health/ready").text)["queue"] == 0


def test_replies_show_everything_that_the_records_know(client, citewell, demo):
    """A field added to the record of a version does not stay hidden from clients by oversight."""
    upload(client, demo, ("a.txt", b"x"))
    [document] = client.get(f"/v1/collections/{demo}/documents").json()["documents"]
    [record] = citewell.store.catalog.list_documents(citewell.store.catalog.collection(demo).id)
    known = {field.name for field in dataclasses.fields(record.newest)}
    elsewhere = {"document_id", "collection_id", "name", "error_code", "parse_id"}
    assert known - elsewhere <= set(document["newest"])


@pytest.mark.parametrize(
    "before", [b"", b'--b\r\nContent-Disposition: form-data; name="files"; filename="b"\r\n\r\nx\r\n']
)
def test_a_form_without_its_end_is_refused(client, demo, before):
    """Half a file is neither taken for a whole one nor left out in silence beside others."""
    body = before + b'--b\r\nContent-Disposition: form-data; name="files"; filename="a.txt"\r\n\r\nhalf'
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    problem(client.post(f"/v1/collections/{demo}/documents", content=body, headers=headers), 400)
    assert named(client, demo) == ([], None)


def test_a_failed_document_is_tried_again_on_demand(citewell, client, demo):
    """202 and back in the queue; a document that did not fail is left as it is."""
    [bad, good] = upload(client, demo, ("bad.txt", b""), ("good.txt", b"The cat is grey.")).json()["documents"]
    read_all(citewell)
    again = client.post(f"/v1/documents/{bad['id']}/retry")
    assert (again.status_code, again.json()["state"], again.json().get("error")) == (202, "queued", None)
    error = problem(client.post(f"/v1/documents/{good['id']}/retry"), 409)
    assert error["message"] == "'good.txt' is ready; only what has failed can be tried again."


def test_equal_files_are_kept_once_and_both_are_named(client, citewell, demo):
    """One original, one passage in a search, one source in an answer, each with the name of the other document."""
    text = b"The harbour light of Saltmere burns from dusk to dawn."
    upload(client, demo, ("a.txt", text), ("copies/b.txt", text))
    read_all(citewell)
    assert len(citewell.store.originals.list()) == 1
    [passage] = client.post("/v1/search", json={"query": "harbour light", "collections": [demo]}).json()["passages"]
    [copy] = passage["also_in"]
    assert {passage["document"], copy["document"]} == {"a.txt", "copies/b.txt"}
    assert (copy["version"], copy["exact"]) == (1, True)
    ask = {"question": "When does the harbour light of Saltmere burn?", "collections": [demo]}
    [citation] = client.post("/v1/ask", json=ask).json()["citations"]
    assert {citation["document"], *(also["document"] for also in citation["also_in"])} == {"a.txt", "copies/b.txt"}
