"""A real server that is stopped or replaced while it works: what runs is finished, and nobody is turned away."""

from __future__ import annotations

import io
import shutil
import signal
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from ingest.worker import accept
from rag.assembly import open_citewell
from rag.protocols import Embedder
from rag.settings import load_settings
from tests.api.live import HOTEL, events, read_all, upload
from tests.api.served import PATIENCE, Served, started, until
from tests.processes import alive
from tests.scripted_llm import CHAT, Pause, ScriptedLLM, stream

POLICY = b"The hotel limit for domestic travel is 145 euros per night."
ASK = {"question": HOTEL, "collections": ["demo"], "stream": True}
#: Seconds between two requests of a client that asks all the time: who has all processors to itself starts nothing.
BREATH = 0.02
WORKERLESS = {"CITEWELL_SERVER__WORKER": "false"}
#: One process that answers, and none that reads files.
ALONE = {"CITEWELL_SERVER__PROCESSES": "1", **WORKERLESS}
WHOLE = "The limit is 145 euros per night. [1]"


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory, embedder: Embedder) -> Path:
    """A data folder whose collection ``demo`` holds one document. Tests serve a copy."""
    data = tmp_path_factory.mktemp("policy") / "data"
    with open_citewell(load_settings(data=data), embedder=embedder) as citewell:
        catalog = citewell.store.catalog
        accept(citewell.store, catalog.create_collection("demo"), "limit.txt", io.BytesIO(POLICY))
        read_all(citewell)
        assert catalog.pulse(catalog.collection("demo").id).last_seq == 1
    return data


@contextmanager
def answering(policy: Path, folder: Path, pause: float, **variables: str) -> Iterator[tuple[Served, ScriptedLLM]]:
    """A server over one document, whose language model stops in the middle of each answer for so many seconds.

    It has one process and no worker, unless ``variables`` say otherwise.
    """
    shutil.copytree(policy, folder / "data")
    with ScriptedLLM() as llm:
        llm.on(CHAT, stream("The limit is 145 euros", Pause(pause), " per night. [1]"))
        model = {"CITEWELL_GENERATOR__KIND": "openai", "CITEWELL_GENERATOR__BASE_URL": llm.base_url}
        with started(folder / "data", folder / "log", **ALONE | model | variables) as server:
            yield server, llm


@contextmanager
def half_an_answer(server: Served) -> Iterator[Iterator[tuple[str, str, dict]]]:
    """Yield the events of an answer from behind its first words on; the rest has not been written yet."""
    with (
        httpx.Client(base_url=server.url, timeout=PATIENCE, trust_env=False) as client,
        client.stream("POST", "/v1/ask", json=ASK) as response,
    ):
        told = events(response.iter_lines())
        assert [next(told)[1], next(told)[1]] == ["passages", "token"]
        yield told


def test_a_stream_that_runs_when_the_server_is_stopped_is_finished(policy, tmp_path):
    """It goes on to its end, while nobody new is let in; the server then ends in good order."""
    with answering(policy, tmp_path, pause=4) as (server, llm), half_an_answer(server) as told:
        server.process.send_signal(signal.SIGTERM)
        until(lambda: not accepts(server))
        rest = list(told)
        assert [name for _, name, _ in rest][-1] == "done"
        assert rest[-1][2]["text"] == WHOLE
        assert server.process.wait(PATIENCE) == 0
        assert len(llm.chats) == 1


def accepts(server: Served) -> bool:
    try:
        return httpx.get(f"{server.url}/health/live", trust_env=False, timeout=PATIENCE).is_success
    except httpx.TransportError:
        return False


def test_a_stopped_server_does_not_wait_for_ever(policy, tmp_path):
    """An answer that takes longer than ``server.grace_seconds`` is broken off, and the model is told."""
    with answering(policy, tmp_path, pause=600, CITEWELL_SERVER__GRACE_SECONDS="1") as (server, llm):
        with half_an_answer(server) as told:
            server.process.send_signal(signal.SIGTERM)
            with pytest.raises(httpx.RemoteProtocolError):
                list(told)
        assert server.process.wait(PATIENCE) == 0
        assert llm.hung_up.wait(PATIENCE)


def test_a_second_signal_waits_for_no_answer(policy, tmp_path):
    """Who presses Ctrl-C twice has the server ended at once."""
    with (
        answering(policy, tmp_path, pause=600, CITEWELL_SERVER__GRACE_SECONDS="500") as (server, _),
        half_an_answer(server) as told,
    ):
        server.process.send_signal(signal.SIGINT)
        until(lambda: "Waiting for connections to close" in server.log.read_text())
        server.process.send_signal(signal.SIGINT)
        with pytest.raises(httpx.RemoteProtocolError):
            list(told)
        assert server.process.wait(PATIENCE) == 0


@dataclass
class Caller:
    """A client that asks again and again on connections that it keeps, and notes what does not go well."""

    url: str
    stop: threading.Event
    answered: int = 0
    failures: list[str] = field(default_factory=list)

    def run(self) -> None:
        """Search and look until told to stop."""
        body = {"query": HOTEL, "collections": ["demo"]}
        with httpx.Client(base_url=self.url, timeout=PATIENCE, trust_env=False) as client:
            while not self.stop.is_set():
                try:
                    found = client.post("/v1/search", json=body)
                    assert [passage["document"] for passage in found.json()["passages"]] == ["limit.txt"], found.text
                    assert client.get("/health/live").status_code == 200
                    self.answered += 2
                    time.sleep(BREATH)
                except (httpx.HTTPError, AssertionError, KeyError) as error:
                    self.failures.append(repr(error))


@contextmanager
def calling(server: Served, count: int) -> Iterator[list[Caller]]:
    """Let so many clients ask all the time."""
    stop = threading.Event()
    callers = [Caller(server.url, stop) for _ in range(count)]
    threads = [threading.Thread(target=caller.run) for caller in callers]
    for thread in threads:
        thread.start()
    try:
        yield callers
    finally:
        stop.set()
        for thread in threads:
            thread.join(PATIENCE)


@pytest.mark.long
def test_no_request_fails_while_the_processes_are_replaced(policy, tmp_path):
    """Under constant requests, with a stream that began before: every request is answered, in the end by new ones."""
    team = {"CITEWELL_SERVER__PROCESSES": "2", "CITEWELL_SERVER__WORKER": "true"}
    with (
        answering(policy, tmp_path, pause=8, **team) as (server, _),
        calling(server, 3) as callers,
        half_an_answer(server) as told,
    ):
        pid, before = server.process.pid, server.answering()
        server.process.send_signal(signal.SIGHUP)
        until(lambda: '"restarted"' in server.log.read_text())
        answered = sum(caller.answered for caller in callers)
        assert answered
        assert list(told)[-1][2]["text"] == WHOLE
        until(lambda: not any(map(alive, before)))
        until(lambda: len(server.workers()) == 1)
        until(lambda: sum(caller.answered for caller in callers) > answered + 10)
        assert len(server.answering()) == 2
        assert not {*before} & {*server.answering()}
        assert server.process.pid == pid
        assert [caller.failures for caller in callers] == [[]] * 3
    assert [caller.failures for caller in callers] == [[]] * 3


def test_new_processes_read_the_settings_anew_and_bad_ones_change_nothing(tmp_path):
    """The settings file may change between; where it can not be read, or names another place, all goes on as before."""
    file = tmp_path / "citewell.toml"
    file.write_text("[server]\nmax_question_chars = 100\nprocesses = 1\n")
    with started(tmp_path / "data", tmp_path / "log", CITEWELL_CONFIG=str(file), **WORKERLESS) as server:
        server.client.post("/v1/collections", json={"name": "demo"})
        ask = {"question": "cat " * 10, "collections": ["demo"]}
        assert server.client.post("/v1/ask", json=ask).status_code == 200
        file.write_text("[server]\nmax_question_chars = 20\nprocesses = 1\n")
        server.process.send_signal(signal.SIGHUP)
        until(lambda: '"restarted"' in server.log.read_text())
        assert httpx.post(f"{server.url}/v1/ask", json=ask, timeout=PATIENCE, trust_env=False).status_code == 400
        left = server.answering()
        for refused, text in enumerate(("[server]\nmax_question_chars = -1\n", "[server]\nprocesses = 3\n", "["), 1):
            file.write_text(text)
            server.process.send_signal(signal.SIGHUP)
            until(lambda refused=refused: server.log.read_text().count("not restarted") == refused)
        assert set(left) & set(server.answering())
        assert httpx.post(f"{server.url}/v1/ask", json=ask, timeout=PATIENCE, trust_env=False).status_code == 400
        assert server.stop() == 0


def test_a_worker_that_is_stopped_hands_its_file_back(tmp_path):
    """What it has in hand waits in the queue again at once, without a try or a death counted against it."""
    data = tmp_path / "data"
    text = "\n\n".join(f"Paragraph {number} tells of the harbour and its ships. " * 20 for number in range(3000))
    with started(data, tmp_path / "log", CITEWELL_SERVER__PROCESSES="1") as server:
        server.client.post("/v1/collections", json={"name": "demo"})
        [document] = upload(server.client, "demo", ("long.txt", text.encode())).json()["documents"]
        state = lambda: server.client.get(f"/v1/documents/{document['id']}").json()["state"]  # noqa: E731
        until(lambda: state() == "processing")
        assert server.stop() == 0
    with closing(sqlite3.connect(data / "catalog.sqlite3")) as catalog:
        rows = catalog.execute("SELECT state, lease_owner, attempts, deaths FROM versions").fetchall()
    assert rows == [("queued", None, 0, 0)]
