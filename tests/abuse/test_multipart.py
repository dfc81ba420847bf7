"""Forms that no browser sends, over a bare socket at a real server: refused or taken whole, never half."""

from __future__ import annotations

import re
import secrets
import socket
from collections.abc import Iterator
from contextlib import suppress
from urllib.parse import urlsplit

import httpx
import pytest
from hypothesis import HealthCheck, event, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from rag.assembly import open_citewell
from rag.settings import load_settings
from tests.api.live import serving

_PATIENCE = 60
_BEGIN, _END = b"BEGIN ", b" END"
#: What a refusal may be. 404 and 405 are not among them: the address and the method are right.
REFUSED = {400, 411, 413, 415, 422, 431}

GOOD = b'Content-Disposition: form-data; name="files"; filename="a.txt"'

names = st.sampled_from([
    b"files", b"metadata", b"file", b"", b"files[]", b"FILES", b"\xff\xfe", b"files\0", b"a" * 300,
    "f\u00efles".encode(),
])  # fmt: skip
filenames = st.sampled_from([
    b"a.txt", b"../../etc/passwd", b"C:\\a.txt", b"", b".", b"..", b"a\0b.txt", b"\xff.txt", "\u202etxt.exe".encode(),
    b"x" * 3000, b'a"b.txt', b"a;b.txt", b"%00.txt", b"a\tb.txt", b"/", b"con", b"a/./b.txt", b"\x1b[31m.txt",
])  # fmt: skip
dispositions = st.one_of(
    st.builds(lambda f: b'form-data; name="files"; filename="%s"' % f, filenames),
    st.builds(lambda n, f: b'form-data; name="%s"; filename="%s"' % (n, f), names, filenames),
    st.builds(lambda n: b'form-data; name="%s"' % n, names),
    st.sampled_from([
        b"", b"form-data", b"form-data; name=files; filename=a.txt", b"attachment; filename=a.txt", b"form-data; name",
        b"form-data; name*=utf-8''files; filename*=utf-8''%e2%82%ac.txt", b'form-data; name="files"; filename="a',
        b'form-data; name="files"; name="metadata"; filename="a.txt"', b";;;;", b"form-data; " + b"x=y; " * 500,
    ]),
)  # fmt: skip
odd = st.one_of(
    st.builds(lambda d: b"Content-Disposition: " + d, dispositions),
    st.sampled_from([
        b"Content-Type: multipart/mixed; boundary=inner", b"Content-Type: text/html", b"Content-Length: 999999999",
        b"Content-Transfer-Encoding: base64", b"Transfer-Encoding: chunked", b"no colon here", b": no name",
        b"X-Null: a\0b", b"X-\0: a", b"X-Long: " + b"y" * 10_000, b" folded", b"X-Bytes: \x80\xff",
        b"Content-Disposition",
    ]),
)  # fmt: skip
headers = st.one_of(st.just([GOOD]), odd.map(lambda line: [GOOD, line]), st.lists(odd, max_size=12))
ends = st.sampled_from([b"\r\n"] * 6 + [b"\n", b"\r"])
parts = st.lists(st.tuples(headers, ends), max_size=4)
boundaries = st.sampled_from([b"xyz"] * 8 + [b"'", b"a b", b"-" * 70, b"-" * 300, b"\xff", b"", b"x;y", b'"xyz"'])
closings = st.sampled_from(
    [b"--%s--\r\n"] * 6 + [b"--%s--", b"--%s", b"", b"--%s--\r\nepilogue", b"--%s--" * 50, b"--"]
)
lengths = st.sampled_from(
    ["right"] * 8 + ["less", "more", "none", "minus", "huge", "words", "twice", "chunks", "bad chunks"]
)


def _form(boundary: bytes, made: list[tuple[list[bytes], bytes]], closing: bytes, sent: set[bytes]) -> bytes:
    body = b""
    for lines, end in made:
        content = _BEGIN + secrets.token_hex(8).encode() + _END
        sent.add(content)
        body += b"--" + boundary + end + b"".join(line + end for line in lines) + end + content + b"\r\n"
    return body + (closing.replace(b"%s", boundary))


def _head(path: str, host: str, boundary: bytes, length: str, body: bytes) -> bytes:
    kind = b"Content-Type: multipart/form-data; boundary=" + boundary
    size = len(body)
    chunked = "Transfer-Encoding: chunked"
    sizes = {"right": size, "less": size // 2, "more": size + 9, "minus": -1, "huge": 1 << 62, "words": "many"}
    others = {"none": [], "twice": [f"Content-Length: {size}", "Content-Length: 3"]}
    told = others.get(length, [f"Content-Length: {sizes[length]}" if length in sizes else chunked])
    lines = [f"POST {path} HTTP/1.1", f"Host: {host}", "Connection: close", *told]
    return "\r\n".join(lines).encode() + b"\r\n" + kind + b"\r\n\r\n"


def _framed(length: str, body: bytes) -> bytes:
    if length == "chunks":
        return b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    return b"zz\r\n%s\r\n0\r\n\r\n" % body if length == "bad chunks" else body


def _status(url: str, request: bytes, *, leave: bool) -> int | None:
    """Send bytes, all or half of them, and return the status of the reply; None where the server says nothing."""
    address = urlsplit(url)
    reply = b""
    with suppress(ConnectionError), socket.create_connection((address.hostname, address.port), _PATIENCE) as line:
        line.sendall(request[: len(request) // 2] if leave else request)
        line.shutdown(socket.SHUT_WR)
        while block := line.recv(65536):
            reply += block
    found = re.match(rb"HTTP/1\.1 (\d{3})", reply)
    return int(found[1]) if found else None


@pytest.fixture(scope="module")
def served(tmp_path_factory, embedder) -> Iterator[tuple[httpx.Client, set[bytes]]]:
    """A server with one collection, and the contents that were ever sent to it."""
    settings = load_settings(data=tmp_path_factory.mktemp("forms"), ingest={"max_file_bytes": 1 << 20})
    with open_citewell(settings, embedder=embedder) as citewell:
        citewell.store.catalog.create_collection("demo")
        with serving(citewell) as client:
            yield client, set()


@examples(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(boundary=boundaries, made=parts, closing=closings, length=lengths, leave=st.sampled_from([False] * 4 + [True]))
def test_no_form_breaks_the_server_or_is_taken_by_halves(served, boundary, made, closing, length, leave):
    """What is accepted has the whole content of a part that was sent, whatever its headers, lengths and ends were."""
    client, sent = served
    url = str(client.base_url).rstrip("/")
    path = "/v1/collections/demo/documents"
    body = _form(boundary, made, closing, sent)
    request = _head(path, urlsplit(url).netloc, boundary, length, body) + _framed(length, body)
    status = _status(url, request, leave=leave)
    event(f"status {status}")
    assert status is None or status == 202 or status in REFUSED
    if status == 202:
        _check_all(client, sent)


def test_what_was_taken_is_what_was_sent(served):
    """After all that: each document holds the whole of one part, and the server serves."""
    client, sent = served
    name = b'form-data; name="files"; filename="last.txt"'
    made = [([b"Content-Disposition: " + name], b"\r\n")]
    body = _form(b"xyz", made, b"--%s--\r\n", sent)
    kind = {"Content-Type": "multipart/form-data; boundary=xyz"}
    assert client.post("/v1/collections/demo/documents", content=body, headers=kind).status_code == 202
    _check_all(client, sent)


def _check_all(client: httpx.Client, sent: set[bytes]) -> None:
    documents = client.get("/v1/collections/demo/documents", params={"limit": 1000}).json()["documents"]
    for document in documents:
        content = client.get(f"/v1/documents/{document['id']}/content").content
        held = re.findall(re.escape(_BEGIN) + rb"[0-9a-f]{16}" + re.escape(_END), content)
        assert held, content
        assert set(held) <= sent
        assert content.startswith(_BEGIN)


@pytest.mark.parametrize("part", ["header", "name", "boundary", "preamble", "field"])
def test_what_has_no_end_is_refused_at_its_beginning(served, part):
    """A header, a name or a field of any length is refused long before it is all there: memory does not grow."""
    client, _ = served
    endless = {
        "header": b"--xyz\r\nX-Long: ", "name": b'--xyz\r\nContent-Disposition: form-data; name="',
        "boundary": b"", "preamble": b"", "field": b'--xyz\r\nContent-Disposition: form-data; name="metadata"\r\n\r\n',
    }[part]  # fmt: skip
    sent = 0

    def body() -> Iterator[bytes]:
        nonlocal sent
        yield endless
        for _ in range(512):
            sent += 1 << 16
            yield b"y" * (1 << 16)

    boundary = "y" * 100_000 if part == "boundary" else "xyz"
    kind = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
    status = None
    with suppress(httpx.WriteError, httpx.ReadError, httpx.RemoteProtocolError):
        status = client.post("/v1/collections/demo/documents", content=body(), headers=kind).status_code
    assert status is None or status in REFUSED
    assert client.get("/health/ready").status_code == 200
