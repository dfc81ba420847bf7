from __future__ import annotations

import json
import re
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from api.app import create_app
from api.dialects import SPOKEN
from api.problems import STATUS, status_of
from rag import errors
from tests.api.live import problem
from tests.api.openai_clients import openai_cases

JSON = {"Content-Type": "application/json"}
FORM = {"Content-Type": "multipart/form-data; boundary=b"}
DEEP = b"[" * 100_000
LONE = '"\\ud800"'

BODIES: list[bytes] = [
    b"", b"{", b"null", b"[]", b'"x"', b"1", b"NaN", b"\xff\xfe", b"\x00", DEEP, b'{"a":' * 50_000, b"{}",
    b"1" * 5000, b'{"question":1', b"\xef\xbb\xbf{}", b'{"x": "\xed\xa0\x80"}', b"A" * 2_000_000,
]  # fmt: skip
TEXTS = ['""', '"   "', '"?!."', '"\\u0000"', LONE, "5", "null", '["x"]', '"' + "x" * 100_000 + '"']
COLLECTIONS = [
    "[]", '"demo"', '["nope"]', '[""]', "[5]", f"[{LONE}]", '["demo\\u0000"]', '{"demo": 1}', '["\' OR 1=1 --"]',
    "[" + '"x",' * 200 + '"x"]',
]  # fmt: skip
NUMBERS = ["0", "-1", "1001", "1.5", '"5"', "true", "1e400", "9" * 400, "NaN", "[]"]
FILTERS = [
    "[]", "1", '{"a": null}', '{"a": []}', '{"a": {}}', '{"a": NaN}', '{"a": Infinity}', f'{{"a": 1{"0" * 400}}}',
    f'{{"a": {LONE}}}', f"{{{LONE}: 1}}", '{"": 1}', '{"a b": 1}', '{"a\\"b": 1}', '{"$.x": 1}', '{"a\\u0000": 1}',
    json.dumps({f"k{i}": i for i in range(2000)}), '{"a": {"in": []}}', '{"a": {"$gt": 1}}', '{"a": {"gt": true}}',
    '{"and": {}}', '{"or": []}', '{"not": 1}', '{"kind": "x"}', '{"page": "1"}', '{"ingested_at": "x"}',
    '{"a": {"prefix": 1}}', f'{{"a": {{"in": [{LONE}]}}}}', '{"not": ' * 11 + '{"a": 1}' + "}" * 11,
    '{"not": ' * 900 + '{"a": 1}' + "}" * 900, json.dumps({"a": {"in": ["x"] * 50_000}}), '{"a\\": {"\\u0000": 1}}',
]  # fmt: skip
IDS = [
    "x",
    "0" * 32,
    "%00",
    "%ff%fe",
    "%ED%A0%80",
    "..%2f..%2fetc%2fpasswd",
    "' OR 1=1 --",
    "A" * 5000,
    "%0d%0aX: y",
    "☃",
]
PAGES = [
    "limit=0",
    "limit=-1",
    "limit=1001",
    "limit=x",
    "limit=",
    "limit=1e9",
    "limit=" + "9" * 99,
    "state=done",
    "state=",
]
PARTS: list[bytes] = [
    b"", b"--b--\r\n", b"--b\r\n", b"nonsense", b"--b\r\n\r\nx\r\n--b--\r\n", b"\x00" * 100,
    b"--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n--b--\r\n",
    b'--b\r\nContent-Disposition: form-data; name="files"\r\n\r\nx\r\n--b--\r\n',
    b'--b\r\nContent-Disposition: form-data; name="files"; filename=""\r\n\r\nx\r\n--b--\r\n',
    b'--b\r\nContent-Disposition: form-data; name="files"; filename="/"\r\n\r\nx\r\n--b--\r\n',
    b'--b\r\nContent-Disposition: form-data; name="files"; filename="a\x00.txt"\r\n\r\nx\r\n--b--\r\n',
    b'--b\r\nContent-Disposition: form-data; name="files"; filename="a.txt"\r\n\r\nhalf',
    b'--b\r\nContent-Disposition: form-data; name="metadata"\r\n\r\n' + b"x" * 2_000_000 + b"\r\n--b--\r\n",
    b"--b\r\n" + b"X-Header: " + b"y" * 100_000 + b"\r\n\r\nx\r\n--b--\r\n",
    b"".join(b'--b\r\nContent-Disposition: form-data; name="f%d"\r\n\r\nx\r\n' % i for i in range(1100)) + b"--b--\r\n",
]  # fmt: skip
UPLOAD = "/v1/collections/demo/documents"

Case = tuple[str, str, dict[str, Any]]


def queries(field: str) -> list[str]:
    """Bad bodies for search and ask, one thing wrong in each."""
    good = f'"{field}": "cat", "collections": ["demo"]'
    return [
        f"{{{good.split(', ')[0]}}}",
        f"{{{good.split(', ')[1]}}}",
        f'{{{good}, "surprise": 1}}',
        f"{{{good}, {LONE}: 1}}",
        *(f'{{"{field}": {text}, "collections": ["demo"]}}' for text in TEXTS),
        *(f'{{"{field}": "cat", "collections": {names}}}' for names in COLLECTIONS),
        *(f'{{{good}, "top_k": {number}}}' for number in NUMBERS),
        *(f'{{{good}, "filters": {filters}}}' for filters in FILTERS),
    ]


def cases() -> list[Case]:
    """Bad input for every route: method, address, and what else goes with it."""
    made: list[Case] = []
    for path in ("/v1/collections", "/v1/search", "/v1/ask"):
        made += [("POST", path, {"content": body, "headers": JSON}) for body in BODIES]
        made += [
            ("POST", path, {"content": b'{"name": "x"}', "headers": {"Content-Type": kind}})
            for kind in (
                "text/plain",
                "application/xml",
                "nonsense",
                "multipart/form-data",
                "application/x-www-form-urlencoded",
            )
        ]
    made += [("POST", "/v1/search", {"content": body, "headers": JSON}) for body in queries("query")]
    made += [("POST", "/v1/ask", {"content": body, "headers": JSON}) for body in queries("question")]
    made += [
        ("POST", "/v1/ask", {"json": {"question": "cat", "collections": ["demo"], "stream": value}})
        for value in ("true", 1, None, [])
    ]
    made += [
        ("POST", "/v1/collections", {"content": f'{{"name": {name}}}', "headers": JSON})
        for name in ('""', '" "', LONE, "5", "null", '"a/b"', '"a\\u0000"', '"' + "x" * 101 + '"', '"demo"')
    ]
    for bad in IDS:
        made += [(method, f"/v1/documents/{bad}", {}) for method in ("GET", "DELETE")]
        made += [(method, f"/v1/collections/{bad}", {}) for method in ("GET", "DELETE")]
        made += [("POST", f"/v1/documents/{bad}/retry", {})]
        made += [("GET", f"/v1/documents/{bad}/content", {}), ("GET", f"/v1/collections/{bad}/documents", {})]
        made += [("POST", f"/v1/collections/{bad}/documents", {"files": [("files", ("a.txt", b"x"))]})]
        made += [("GET", f"/v1/collections/{bad}/batches", {}), ("POST", f"/v1/collections/{bad}/batches", {})]
        made += [("POST", f"/v1/collections/{bad}/purge", {"json": {}})]
        made += [("PUT", f"/v1/collections/{bad}/documents/a.txt", {"content": b"x"})]
        made += [("GET", f"/v1/batches/{bad}{more}", {}) for more in ("", "/files", "/report", "/events")]
        made += [("PUT", f"{UPLOAD}/a.txt?batch={bad}", {"content": b"x"})]
        made += [("GET", f"/v1/documents/{bad}/text", {})]
        made += [("GET", f"/v1/answers/{bad}", {}), ("DELETE", f"/v1/answers/{bad}", {})]
        made += [("GET", f"/v1/answers/{bad}/events", {})]
        made += [("POST", f"/v1/answers/{bad}/feedback", {"json": {"rating": "up"}})]
        made += [(method, f"/v1/golden/{bad}", {}) for method in ("GET", "DELETE")]
        made += [("POST", f"/v1/golden/{bad}/confirm", {})]
        made += [(method, f"/v1/reports/{bad}", {}) for method in ("GET", "DELETE")]
        made += [("POST", "/v1/golden", {"json": {"collection": "demo", "answers": [bad]}})]
    made += [
        ("GET", f"/v1/documents/{'0' * 32}/text?{part}", {})
        for part in ("start=-1", "start=x", "start=" + "9" * 99, "length=0", "length=100001", "length=")
    ]
    asked = {"question": "cat", "collections": ["demo"]}
    made += [
        ("POST", "/v1/ask", {"json": asked | more})
        for more in (
            *({"conversation": value} for value in ("", " ", "a/b", "\0", "x" * 65, 5, [])),
            *({name: value} for name in ("store", "cache", "resumable") for value in ("yes", 1, None)),
            {"resumable": True}, {"conversation": "c", "store": False}, {"conversation": "c", "history": [
                {"role": "user", "content": "dog"}]}, {"stream": True, "resumable": True, "store": False},
        )
    ]  # fmt: skip
    made += [("GET", f"/v1/answers?{part}", {}) for part in ("limit=0", "limit=101", "limit=x", "collection=nope")]
    made += [("POST", "/v1/answers/x/feedback", {"content": body, "headers": JSON}) for body in BODIES]
    made += [("GET", f"/v1/golden?{part}", {}) for part in ("limit=0", "limit=1001", "limit=x", "collection=nope")]
    made += [("POST", "/v1/golden", {"content": body, "headers": JSON}) for body in BODIES]
    made += [
        ("POST", "/v1/golden", {"content": f'{{"collection": "demo", "questions": [{one}]}}', "headers": JSON})
        for one in ("", "1", "{}", *(f'{{"question": {text}}}' for text in TEXTS),
            '{"question": "x", "documents": ["a.txt"]}', '{"question": "x", "documents": [{"name": ""}]}',
            '{"question": "x", "answer": "y", "answerable": false}', '{"question": "x", "answerable": 0}',
            '{"question": "x", "tags": "y"}', '{"question": "x", "tags": [""]}', f'{{"question": {LONE}}}')
    ]  # fmt: skip
    wrong = [body for body in BODIES if not body.endswith(b"{}")]
    made += [("POST", "/v1/collections/demo/purge", {"content": body, "headers": JSON}) for body in wrong]
    made += [("POST", "/v1/reports", {"content": body, "headers": JSON}) for body in wrong]
    made += [
        ("POST", "/v1/reports", {"content": one, "headers": JSON})
        for one in ('{"collections": ["nope"]}', '{"collections": "demo"}', '{"since": "yesterday"}', '{"limit": 0}',
            '{"limit": 1.5}', f'{{"label": {LONE}}}', '{"colour": 1}')
    ]  # fmt: skip
    made += [("GET", f"/v1/documents/{'0' * 32}/pages/{page}", {}) for page in ("0", "x", "1")]
    made += [("POST", "/v1/keys", {"content": body, "headers": JSON}) for body in wrong]
    made += [
        ("POST", "/v1/keys", {"json": one})
        for one in (
            {"name": "a"},
            {"name": "a", "role": "king"},
            {"name": "", "role": "reader"},
            {"name": "\x00", "role": "reader"},
            {"name": "a", "role": "admin", "collections": ["demo"]},
            {"name": "a", "role": "reader", "collections": []},
            {"name": "a", "role": "reader", "expires_at": "2020-01-01T00:00:00Z"},
            {"name": "a", "role": "reader", "in_flight": 0},
        )
    ]
    made += [("POST", "/v1/keys/nobody/rotate", {"json": one}) for one in ({}, {"overlap_seconds": -1})]
    made += [("DELETE", "/v1/keys/nobody", {})]
    made += [("GET", f"/v1/audit?{part}", {}) for part in ("limit=0", "limit=1001", "before=x")]
    made += [("GET", f"/v1/reports?{part}", {}) for part in ("limit=0", "limit=101", "limit=x")]
    made += [("GET", f"/v1/reports/{'0' * 32}?format={form}", {}) for form in ("xml", "html", "json")]
    made += [
        ("POST", "/v1/collections/demo/purge", {"json": {"documents": named}})
        for named in ([], "x", [1], ["never"], {"a": 1})
    ]
    made += [("PUT", f"{UPLOAD}/{name}", {"content": b"x"}) for name in ("", "%00", "%2e%2e", "a%0ab", "x" * 1001)]
    made += [
        ("PUT", f"{UPLOAD}/a.txt?metadata={text}", {"content": b"x"}) for text in ("[", "[]", "1", "{%22a%20b%22:1}")
    ]
    made += [("GET", f"{UPLOAD}?{query}", {}) for query in PAGES]
    made += [("GET", f"{UPLOAD}?after={'x' * 1001}", {})]
    made += [("POST", UPLOAD, {"content": body, "headers": FORM}) for body in PARTS]
    made += [("POST", UPLOAD, {"content": b"{}", "headers": JSON}), ("POST", UPLOAD, {})]
    made += [
        ("POST", UPLOAD, {"content": b"--b--", "headers": {"Content-Type": kind}})
        for kind in (
            "multipart/form-data",
            "multipart/form-data; boundary=",
            "multipart/mixed; boundary=b",
            "text/plain",
        )
    ]
    made += [
        ("POST", "/health/live", {}),
        ("POST", "/health/ready", {}),
        ("PUT", "/v1/ask", {}),
        ("GET", "/v1/ask", {}),
    ]
    made += [
        ("GET", path, {})
        for path in (
            "/nope",
            "/v1",
            "/v1/",
            "/v1/collections/",
            "/pages/",
            "/pages/../app.py",
            "/pages/..%2fapp.py",
            "/pages/app.py",
            "/redoc",
            "/docs/",
            "/%00",
            "/favicon.ico",
            "/v1/documents/",
        )
    ]
    made += [(method, "/v1/collections", {}) for method in ("PUT", "PATCH", "OPTIONS", "TRACE", "DELETE")]
    return made + openai_cases(BODIES, IDS)


def test_bad_input_to_any_route_is_refused_in_one_shape(reading):
    """Whatever comes, the answer is a 4xx in the one shape with a clear sentence, and the service goes on."""
    before = reading.get(UPLOAD).json()
    wrong = []
    for method, path, more in cases():
        reply = reading.request(method, path, **more)
        try:
            assert 400 <= reply.status_code < 500, reply.status_code
            error = problem(reply)
            assert len(error["message"]) < 600
        except (AssertionError, KeyError, ValueError) as failure:
            wrong.append((method, path[:80], str(more)[:160], reply.status_code, reply.text[:200], str(failure)[:200]))
    assert not wrong, "\n".join(map(str, wrong))
    assert reading.get(UPLOAD).json() == before
    assert reading.get("/health/ready").json()["status"] == "ready"


def test_the_list_of_bad_input_knows_every_route(indexed):
    """A route that is added without bad input for it is noticed."""
    tried = {(method, re.sub(r"\?.*", "", path)) for method, path, _ in cases()}
    for path, operations in create_app(indexed).openapi()["paths"].items():
        pattern = re.compile(re.sub(r"\{\w+\}", "[^/]+", path))
        for method in operations:
            if not (method == "get" and "{" not in path):  # nothing can be wrong with these
                assert any(m == method.upper() and pattern.fullmatch(p) for m, p in tried), (method, path)


def test_a_wrong_field_is_named(reading):
    """The first wrong field is in the sentence, all of them are in the details."""
    reply = reading.post("/v1/ask", json={"question": 5, "collections": ["demo"], "top_k": "many", "colour": 1})
    error = problem(reply, 422)
    assert {field["field"] for field in error["details"]["fields"]} == {"question", "top_k", "colour"}
    assert error["message"].startswith(error["details"]["fields"][0]["field"])
    assert "2 more" in error["message"]


def test_a_long_question_is_told_the_limit(reading):
    """100,000 characters: one sentence with both numbers."""
    error = problem(reading.post("/v1/ask", json={"question": "why " * 25_000, "collections": ["demo"]}), 400)
    assert error["message"] == "The question has 100,000 characters; the limit is 4,000. Ask a shorter one."


def test_text_that_is_not_json_is_said_not_to_be(reading):
    """Not JSON, and not sent as JSON, are told apart."""
    assert "not valid JSON" in problem(reading.post("/v1/ask", content=b"{", headers=JSON), 400)["message"]
    plain = reading.post("/v1/ask", content=b'{"question": "x"}', headers={"Content-Type": "text/plain"})
    assert "application/json" in problem(plain, 422)["message"]


def test_a_body_without_an_announced_length_is_counted(reading):
    """A body in chunks can not go round the limit."""
    body = (b" " * 100_000 for _ in range(20))
    assert problem(reading.post("/v1/ask", content=body, headers=JSON), 413)["code"] == "too_large"


def test_a_wrong_method_is_told_the_right_ones(reading):
    """405 with the Allow header, and the same in the sentence."""
    reply = reading.put("/v1/ask")
    assert "POST" in problem(reply, 405)["message"]
    assert reply.headers["allow"] == "POST"


def test_every_kind_of_error_has_the_status_that_was_promised():
    """The table covers each kind, by the nearest of its ancestors."""
    kinds = [
        kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.CitewellError)
    ]
    assert {kind.__name__: status_of(kind()) for kind in kinds} == {
        "BadInput": 400,
        "Unauthorized": 401,
        "Forbidden": 403,
        "NotFound": 404,
        "Conflict": 409,
        "QuotaExceeded": 413,
        "DocumentTooLarge": 413,
        "UnsupportedDocument": 415,
        "DocumentRejected": 422,
        "EmptyDocument": 422,
        "EncryptedDocument": 422,
        "DamagedDocument": 422,
        "ParserStopped": 422,
        "DocumentTooSlow": 413,
        "CitewellError": 500,
        "Misconfigured": 500,
        "IndexDamaged": 500,
        "Unavailable": 503,
        "Busy": 429,
        "RateLimited": 429,
        "GuardrailsFailed": 503,
        "GeneratorFailed": 503,
        "GeneratorDown": 503,
    }
    assert set(STATUS.values()) == {400, 401, 403, 404, 409, 413, 415, 422, 429, 500, 503}


def test_every_response_has_a_request_id(reading):
    """A client's own id is kept when it is plain, and replaced when it could harm a log."""
    given = [reading.get("/health/live").headers["x-request-id"] for _ in range(2)]
    assert given[0] != given[1]
    assert reading.get("/nope", headers={"X-Request-Id": "abc-123"}).headers["x-request-id"] == "abc-123"
    for hostile in ("a b", "x" * 65, "{}", "é".encode()):
        assert reading.get("/health/live", headers={"X-Request-Id": hostile}).headers["x-request-id"] != hostile
    for path in ("/", "/docs", "/openapi.json", "/pages/index.js", "/health/ready", "/v1/collections"):
        reply = reading.get(path)
        assert reply.status_code == 200
        assert reply.headers["x-request-id"]
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert reply.headers["referrer-policy"] == "no-referrer"
        assert "default-src 'none'" in reply.headers["content-security-policy"]


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "localhost.evil.example",
        "127.0.0.1.nip.io",
        "10.0.0.1",
        "0.0.0.0",
        "[::]",
        "",
        "a b",
        "[::1",
        "x@127.0.0.1",
        "127.0.0.1,evil",
    ],
)
def test_a_page_that_points_its_name_at_this_machine_is_refused(reading, host):
    """DNS rebinding: only loopback names are taken, for reading too."""
    for method, path in (("GET", "/"), ("GET", "/v1/collections"), ("POST", "/v1/ask")):
        assert problem(reading.request(method, path, headers={"Host": host}), 403)["code"] == "foreign_host"


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1", "127.1.2.3:99", "[::1]:8321", "[::1]"])
def test_every_name_of_this_machine_is_taken(reading, host):
    """Loopback by name or number, with or without a port."""
    assert reading.get("/health/live", headers={"Host": host}).status_code == 200


def test_a_foreign_page_can_not_write(reading):
    """A browser says where a request comes from; only our own pages may send anything but reads."""
    own = str(reading.base_url).rstrip("/")
    ask = {"question": "What is the hotel limit?", "collections": ["demo"]}
    assert reading.post("/v1/ask", json=ask, headers={"Origin": own}).status_code == 200
    assert reading.get("/v1/collections", headers={"Origin": "https://evil.example"}).status_code == 200
    for origin in (
        "https://evil.example",
        "null",
        "",
        own.replace("http:", "https:"),
        "http://localhost:1",
        f"{own}.evil.example",
    ):
        for method, path in (("POST", "/v1/ask"), ("DELETE", "/v1/collections/demo"), ("POST", UPLOAD)):
            error = problem(reading.request(method, path, headers={"Origin": origin}), 403)
            assert error["code"] == "foreign_origin"
    reply = reading.options("/v1/ask", headers={"Origin": own, "Access-Control-Request-Method": "POST"})
    assert not [name for name in reply.headers if name.startswith("access-control")]


def test_nothing_happens_at_import_and_the_application_is_a_value(indexed):
    """Two applications over one whole do not know of each other, and neither reports to anybody."""
    first, second = create_app(indexed), create_app(indexed)
    assert isinstance(first, FastAPI)
    assert first is not second
    assert first.openapi() == second.openapi()


def test_the_description_promises_the_one_shape(indexed):
    """No route documents the framework's own error shape; every route documents its success with a schema."""
    described = create_app(indexed).openapi()
    for path, operations in described["paths"].items():
        for method, operation in operations.items():
            assert operation["summary"], (method, path)
            assert operation["description"], (method, path)
            for status, response in operation["responses"].items():
                if status.startswith(("4", "5")):
                    schema = response["content"]["application/json"]["schema"]
                    name = "OpenAIProblemReply" if SPOKEN.fullmatch(path) else "ProblemReply"
                    assert schema == {"$ref": f"#/components/schemas/{name}"}, (method, path, status)
    for name in ("AskRequest", "SearchRequest", "NewCollection"):
        assert described["components"]["schemas"][name]["examples"]
        assert described["components"]["schemas"][name]["additionalProperties"] is False


def test_examples_of_the_description_work(client):
    """What the OpenAPI page teaches is what the service takes."""
    schemas = client.get("/openapi.json").json()["components"]["schemas"]

    def post(path: str, name: str) -> httpx.Response:
        return client.post(path, json=schemas[name]["examples"][0])

    assert post("/v1/collections", "NewCollection").status_code == 201
    assert post("/v1/search", "SearchRequest").status_code == 200
    assert post("/v1/ask", "AskRequest").status_code == 200
