"""Traces: the spans of an answer and of a file at a real collector over HTTP, and nothing at all where none is set."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest

from api.observing import opened_telemetry
from ingest.worker import Worker
from rag.assembly import Citewell, open_citewell
from rag.errors import Misconfigured
from rag.settings import GeneratorSettings, ObserveSettings, Settings, load_settings
from rag.testing import WordEmbedder
from tests.api.live import problem, serving, upload
from tests.api.served import ROOT, environment
from tests.listening import listening
from tests.scripted_llm import CHAT, ScriptedLLM, reply, stream

pytest.importorskip("opentelemetry.sdk", reason="traces need the extra `observe`")

MARK = "Quetzalcoatlus"
ASK = {"question": f"What is the {MARK} limit?", "collections": ["secretname"]}
CLIENTS = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@dataclass
class Collector:
    """A collector for OTLP over HTTP: what came, as bytes and as spans by name."""

    bodies: list[bytes] = field(default_factory=list)
    paths: set[str] = field(default_factory=set)
    status: int = 200
    url: str = ""

    @property
    def spans(self) -> list[Any]:
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

        return [
            span
            for body in self.bodies
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def named(self, name: str) -> Any:
        """Return the only span of a name."""
        [found] = [span for span in self.spans if span.name == name]
        return found

    def facts(self, name: str) -> dict[str, Any]:
        return {fact.key: getattr(fact.value, fact.value.WhichOneof("value")) for fact in self.named(name).attributes}


@pytest.fixture
def collector() -> Iterator[Collector]:
    found = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            found.paths.add(self.path)
            found.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(found.status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *args: object) -> None:
            """Nothing is printed."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found.url = f"http://127.0.0.1:{server.server_port}"
    with listening(server):
        yield found


@contextmanager
def traced(settings: Settings, endpoint: str, **values: Any) -> Iterator[tuple[Citewell, httpx.Client]]:
    """A server in this process whose spans have been sent when this ends."""
    observe = ObserveSettings(otlp_endpoint=endpoint, **values)
    with (
        opened_telemetry(settings.model_copy(update={"observe": observe}), "server") as telemetry,
        open_citewell(settings, embedder=WordEmbedder(), telemetry=telemetry) as citewell,
        serving(citewell) as client,
    ):
        client.post("/v1/collections", json={"name": "secretname"})
        yield citewell, client


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_an_answer_is_one_trace_from_the_client_to_the_language_model(
    settings: Settings, collector: Collector, streamed: bool
) -> None:
    """Request, answer and every stage hang together under the client's own span, and the model's server is told."""
    with ScriptedLLM() as llm:
        llm.on(CHAT, stream(f"The {MARK} limit is 145 euros. [1]"))
        generator = GeneratorSettings(kind="openai", base_url=llm.base_url, model="m")
        with traced(settings.model_copy(update={"generator": generator}), collector.url) as (citewell, client):
            upload(client, "secretname", ("secretfile.md", f"The {MARK} limit is 145 euros.".encode()))
            Worker(citewell).drain()
            asked = client.post("/v1/ask", json=ASK | {"stream": streamed}, headers={"traceparent": CLIENTS})
        passed_on = llm.chats[0].headers["traceparent"]
    assert asked.status_code == 200
    assert collector.paths == {"/v1/traces"}
    request, answer = collector.named("POST /v1/ask"), collector.named("answer")
    trace, parent = CLIENTS.split("-")[1:3]
    assert request.trace_id.hex() == trace
    assert request.parent_span_id.hex() == parent
    assert answer.parent_span_id == request.span_id
    stages = [span for span in collector.spans if span.name.startswith("answer ")]
    assert {span.name for span in stages} >= {f"answer {s}" for s in ("plan", "search", "prompt", "generate", "cite")}
    for span in stages:
        assert (span.trace_id, span.parent_span_id) == (request.trace_id, answer.span_id), span.name
        assert answer.start_time_unix_nano <= span.start_time_unix_nano
        assert span.end_time_unix_nano <= answer.end_time_unix_nano
    search = collector.named("answer search")
    for stage in ("embed", "dense", "lexical", "fuse", "read"):
        span = collector.named(f"search {stage}")
        assert (span.trace_id, span.parent_span_id) == (request.trace_id, search.span_id), stage
    assert passed_on.split("-")[1:3] == [trace, collector.named("answer generate").span_id.hex()]
    facts = collector.facts("answer")
    assert facts["citewell.generator"] == "openai:m"
    assert facts["citewell.claims"] == 1
    assert facts["citewell.abstained"] is False
    if not streamed:
        assert facts["citewell.answer_id"] == asked.json()["id"]
    assert collector.facts("POST /v1/ask")["http.response.status_code"] == 200
    sent = b"".join(collector.bodies)
    assert MARK.encode() not in sent
    assert b"secret" not in sent


def test_the_work_on_a_file_is_a_trace_of_its_own(settings: Settings, collector: Collector) -> None:
    """Reading, chunks, vectors and commit hang under one span, in their order; a file that fails says of what kind."""
    with traced(settings, collector.url) as (citewell, client):
        name = upload(client, "secretname", ("secretfile.md", MARK.encode())).json()["documents"][0]
        Worker(citewell).drain()
    file = collector.named("ingest")
    assert collector.facts("ingest")["citewell.document_id"] == name["id"]
    assert file.parent_span_id == b""
    stages = [collector.named(f"ingest {stage}") for stage in ("parse", "chunk", "keep", "embed", "commit")]
    assert {span.trace_id for span in stages} == {file.trace_id}
    starts = [span.start_time_unix_nano for span in stages]
    assert starts == sorted(starts)
    read = collector.named("ingest read")
    assert [span.parent_span_id for span in stages] == [read.span_id, read.span_id, *[file.span_id] * 3]
    assert all(span.end_time_unix_nano <= file.end_time_unix_nano for span in stages)

    collector.bodies.clear()
    with traced(settings.model_copy(update={"data": settings.data / "b"}), collector.url) as (citewell, client):
        upload(client, "secretname", ("broken.pdf", f"%PDF-1.4 {MARK}".encode()))
        Worker(citewell).drain()
    assert collector.named("ingest").status.code == 2
    assert collector.facts("ingest")["error.type"] == "DamagedDocument"
    assert MARK.encode() not in b"".join(collector.bodies)


def test_a_request_that_fails_says_so_and_quotes_nothing(settings: Settings, collector: Collector) -> None:
    """The status of the span is that of an error, its words are the kind; a place in a trace that is none is left."""
    with ScriptedLLM() as llm:
        llm.on(CHAT, reply(500, MARK))
        generator = GeneratorSettings(kind="openai", base_url=llm.base_url, model="m", fall_back=False)
        with traced(settings.model_copy(update={"generator": generator}), collector.url) as (citewell, client):
            upload(client, "secretname", ("a.md", f"The {MARK} limit is 145 euros.".encode()))
            Worker(citewell).drain()
            problem(client.post("/v1/ask", json=ASK, headers={"traceparent": f"00-{MARK}"}), 503)
    generate = collector.named("answer generate")
    assert (generate.status.code, generate.status.message) == (2, "GeneratorDown")
    assert collector.named("POST /v1/ask").status.code == 2
    assert collector.named("POST /v1/ask").parent_span_id == b""
    assert MARK.encode() not in b"".join(collector.bodies)


def test_the_share_that_is_sent_is_that_of_the_settings_unless_the_client_decides(
    settings: Settings, collector: Collector
) -> None:
    """With a share of 0 nothing is sent of what begins here; a trace that a client records is recorded."""
    with traced(settings, collector.url, trace_share=0.0) as (_, client):
        client.get("/health/live")
        assert client.get("/health/live", headers={"traceparent": CLIENTS}).status_code == 200
    assert [span.name for span in collector.spans] == ["GET /health/live"]


def test_a_collector_that_refuses_or_is_not_there_costs_no_answer(settings: Settings, collector: Collector) -> None:
    """Requests are answered, and the end waits for no one longer than a sending may take."""
    collector.status = 400
    for endpoint in (collector.url, "http://127.0.0.1:9"):
        chosen = settings.model_copy(update={"data": settings.data / endpoint[-4:]})
        with traced(chosen, endpoint) as (_, client):
            assert client.get("/health/live").status_code == 200


@pytest.mark.parametrize("endpoint", ["ftp://somewhere", "localhost:4318", "http://"])
def test_what_is_no_address_of_a_collector_is_refused_at_the_start(
    settings: Settings, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By our own name for it and by the usual one."""
    with pytest.raises(Misconfigured, match="http"):
        _ = load_settings(observe={"otlp_endpoint": endpoint}).traces_to, _opened(endpoint, settings, monkeypatch)


def _opened(endpoint: str, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
    with opened_telemetry(settings, "server"):
        pass


QUIET = """
import sys
from api.observing import open_observed
from rag.settings import load_settings
with open_observed(load_settings(data=sys.argv[1], generator={"reader": "words"}), "server") as citewell:
    assert citewell.telemetry.tracer is None
print([name for name in sys.modules if name.startswith(("opentelemetry.sdk", "opentelemetry.exporter"))])
"""


def test_without_an_endpoint_nothing_of_it_is_imported(settings: Settings) -> None:
    """A process of a server knows neither the SDK nor the exporter."""
    words = [sys.executable, "-c", QUIET, str(settings.data)]
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, env=environment(), check=True)
    assert done.stdout == "[]\n"
