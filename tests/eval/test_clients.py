"""Clients: each request is sent once, over as many connections as there are clients, and every answer is counted."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from eval.clients import measure_clients
from tests.listening import listening


class Echo(ThreadingHTTPServer):
    """A server that keeps what it was sent by connection; answers 429 to even numbers, and breaks off at 13."""

    def __init__(self) -> None:
        self.seen: dict[int, list[int]] = {}
        super().__init__(("127.0.0.1", 0), Answer)


class Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Echo

    def do_POST(self) -> None:
        number = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["number"]
        self.server.seen.setdefault(self.client_address[1], []).append(number)
        if number == 13:
            self.close_connection = True
            return
        content = b"x" * (70_000 if number == 1 else 10)
        self.send_response(429 if number % 2 == 0 else 200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Tests are silent."""


@pytest.fixture
def server() -> Iterator[Echo]:
    echo = Echo()
    with listening(echo):
        yield echo


def load_of(server: Echo, numbers: list[int], clients: int):
    url = f"http://127.0.0.1:{server.server_address[1]}/v1/search"
    return measure_clients(url, [{"number": number} for number in numbers], clients)


def test_every_request_is_sent_once_over_connections_that_are_kept(server):
    """Four clients, one connection each, forty requests; good ones are timed, refused ones are errors."""
    load = load_of(server, [n for n in range(40) if n != 13], 4)
    assert len(server.seen) <= 4
    assert sorted(number for numbers in server.seen.values() for number in numbers) == [n for n in range(40) if n != 13]
    assert load.statuses == {200: 19, 429: 20}
    assert (load.clients, load.errors, len(load.latencies)) == (4, 20, 19)
    assert 0 < load.percentile(0.5) <= load.percentile(0.99) <= load.seconds
    assert load.throughput == pytest.approx(19 / load.seconds)


def test_a_connection_that_breaks_is_an_error_and_the_others_go_on(server):
    """One of two clients gives up; the other one sends what is left."""
    load = load_of(server, [13, *range(21, 41, 2)], 2)
    assert load.statuses == {0: 1, 200: 10}
    assert load.errors == 1
