"""The real application under a real server in a thread, and what tests of it say again and again."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import uvicorn

from api.app import create_app
from rag.assembly import Citewell
from tests.reading import read_waiting

SAMPLES = Path(__file__).parents[2] / "ingest" / "samples"
HOTEL = "What is the hotel limit for domestic travel?"
#: What errors have besides on the addresses of OpenAI's API.
OPENAI = {"type", "param"}


@contextmanager
def serving(citewell: Citewell) -> Iterator[httpx.Client]:
    """Serve ``citewell`` on a free port and yield a client of it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(
            create_app(citewell), log_config=None, access_log=False, ws="none", timeout_graceful_shutdown=5
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        try:
            with httpx.Client(base_url=address, timeout=60, trust_env=False) as client:
                yield client
        finally:
            server.should_exit = True
            thread.join(30)
            assert not thread.is_alive()


def problem(response: httpx.Response, status: int | None = None) -> dict[str, Any]:
    """Check that a response is an error in the one shape, and return what is in it."""
    assert response.headers["x-request-id"]
    assert response.headers["content-type"] == "application/json"
    error = response.json()["error"]
    assert set(error) - OPENAI <= {"code", "message", "details"}, error
    assert error["code"]
    assert error["message"].rstrip(")").endswith("."), error
    assert "Traceback" not in response.text
    assert status is None or response.status_code == status, response.text
    return error


def read_all(citewell: Citewell) -> None:
    """Do the worker's work until nothing waits."""
    read_waiting(citewell)


def upload(client: httpx.Client, collection: str, *files: tuple[str, bytes], metadata: Any = None) -> httpx.Response:
    """Upload files, given as name and content."""
    parts = [("files", (name, content)) for name, content in files]
    data = {} if metadata is None else {"metadata": json.dumps(metadata)}
    return client.post(f"/v1/collections/{collection}/documents", files=parts, data=data)


def events(lines: Iterator[str]) -> Iterator[tuple[str, str, Any]]:
    """Read server-sent events: id, name, data."""
    fields: dict[str, str] = {}
    for line in lines:
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
        elif fields:
            yield fields["id"], fields["event"], json.loads(fields["data"])
            fields = {}
