"""A real server, from its start to its end: its processes, its lock, its address."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from api.serve import hold, serve, worker_command
from rag.errors import Conflict, Misconfigured
from rag.settings import Settings, environment_for, load_settings, read_told, tell
from tests.api.live import HOTEL, SAMPLES, events, problem, upload
from tests.api.served import PATIENCE, ROOT, Served, command, environment, run, started, until
from tests.processes import alive

#: Seconds between two requests of a client that asks all the time.
BREATH = 0.02


def one_sentence(result: subprocess.CompletedProcess[str]) -> str:
    """Return what a refused start wrote: one line, no trace-back, and a status that is not 0."""
    assert result.returncode != 0
    assert result.stdout == ""
    [line] = result.stderr.splitlines()
    assert line.endswith(".")
    return line


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server of two request processes; tests may kill a child, which comes back. On SIGTERM all of them end."""
    folder = tmp_path_factory.mktemp("served")
    with started(folder / "data", folder / "log", CITEWELL_SERVER__PROCESSES="2") as server:
        yield server
        children = [*server.answering(), *server.workers()]
        assert len(children) == 3
        assert server.stop() == 0
        assert not any(map(alive, children))


def test_from_upload_to_answer_to_deletion(served):
    """The whole way through real processes: upload, wait, ask, stream, fetch, delete, and the text is gone."""
    client = served.client
    assert served.lines[0].strip().endswith(served.url)
    assert served.lines[1].strip().endswith(f"{served.url}/docs")
    assert client.post("/v1/collections", json={"name": "demo"}).status_code == 201
    files = [(name, (SAMPLES / name).read_bytes()) for name in ("2026/travel-policy.pdf", "handbook/onboarding.md")]
    reply = upload(client, "demo", *files)
    assert reply.status_code == 202
    ids = [document["id"] for document in reply.json()["documents"]]
    until(lambda: all(client.get(f"/v1/documents/{i}").json()["state"] not in {"queued", "processing"} for i in ids))
    assert [client.get(f"/v1/documents/{i}").json()["state"] for i in ids] == ["ready", "ready"]

    ask = {"question": HOTEL, "collections": ["demo"]}
    answer = client.post("/v1/ask", json=ask).json()
    assert "145 euros" in answer["text"]
    assert answer["citations"][0]["document_id"] == ids[0]
    with client.stream("POST", "/v1/ask", json=ask | {"stream": True}) as response:
        told = list(events(response.iter_lines()))
    assert (told[0][1], told[-1][1]) == ("passages", "done")
    assert told[-1][2]["text"] == answer["text"]
    assert client.get(f"/v1/documents/{ids[0]}/content").content == files[0][1]

    assert client.delete(f"/v1/documents/{ids[0]}").status_code == 204
    found = client.post("/v1/search", json={"query": HOTEL, "collections": ["demo"], "top_k": 100}).json()["passages"]
    assert {passage["document_id"] for passage in found} == {ids[1]}
    assert "145 euros" not in client.post("/v1/ask", json=ask).text
    problem(client.get(f"/v1/documents/{ids[0]}"), 404)


def test_a_second_server_on_the_data_folder_is_refused(served):
    """One sentence that names the first one's address; the first one goes on."""
    data = Path(served.process.args[served.process.args.index("--data") + 1])
    assert served.url in one_sentence(run(data, "--port", "0"))
    assert served.client.get("/health/ready").status_code == 200


def test_a_port_in_use_is_refused_with_the_cure(served, tmp_path):
    """One sentence that names --port."""
    port = served.url.rsplit(":", 1)[1]
    sentence = one_sentence(run(tmp_path / "data", "--port", port))
    assert port in sentence
    assert "--port" in sentence


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.1.2.3", "example.org", ""])
def test_only_this_machine_is_served(tmp_path, host):
    """Without keys no other address is listened on; the sentence says what to do."""
    settings = load_settings(data=tmp_path / "data", server={"host": host, "port": 0})
    with pytest.raises(Misconfigured, match=r"--host 127\.0\.0\.1"):
        serve(settings)
    assert not (tmp_path / "data").exists()


def test_a_worker_that_dies_is_started_again(served):
    """Killed, it comes back by itself, the log says so, and uploads are read as before."""
    client = served.client
    until(served.workers)
    [first] = served.workers()
    os.kill(first, signal.SIGKILL)
    until(lambda: served.workers() not in ([], [first]))
    client.post("/v1/collections", json={"name": "cats"})
    [document] = upload(client, "cats", ("cat.txt", b"The cat is grey.")).json()["documents"]
    until(lambda: client.get(f"/v1/documents/{document['id']}").json()["state"] == "ready")
    assert "worker ended, it is started again" in served.log.read_text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_server_that_is_stopped_while_it_starts_ends_in_good_order(tmp_path, number):
    """A signal before it is ready ends it with status 0 and without a trace-back; no process stays behind."""
    log = tmp_path / "log"
    with log.open("w") as errors:
        process = subprocess.Popen(
            command(tmp_path / "data", "--port", "0"), cwd=ROOT, env=environment(), stderr=errors
        )
    lock = tmp_path / "data" / "serve.lock"
    until(lambda: lock.exists() and lock.read_text())  # signals are handled from before the lock is written
    process.send_signal(number)
    assert process.wait(PATIENCE) == 0
    assert "Traceback" not in log.read_text()


def sockets(pid: int) -> int:
    return sum(str(file.readlink()).startswith("socket:") for file in Path(f"/proc/{pid}/fd").iterdir())


def test_every_process_answers_and_one_that_dies_comes_back(served):
    """Connections are spread over both; one is killed and replaced, and new connections are answered always."""
    first, second = served.answering()
    assert served.client.post("/v1/collections", json={"name": "spread"}).status_code == 201
    body = {"query": "cat", "collections": ["spread"]}
    before = sockets(second)
    with ExitStack() as opened:
        clients = [
            opened.enter_context(httpx.Client(base_url=served.url, timeout=PATIENCE, trust_env=False))
            for _ in range(32)
        ]
        assert [client.post("/v1/search", json=body).json()["passages"] for client in clients] == [[]] * 32
        assert before < sockets(second) < before + 32
    os.kill(second, signal.SIGKILL)
    until(lambda: not alive(second))
    with httpx.Client(timeout=PATIENCE, trust_env=False, headers={"Connection": "close"}) as client:
        while len(served.answering()) < 2:
            assert client.get(f"{served.url}/health/live").status_code == 200
            time.sleep(BREATH)
    [third] = set(served.answering()) - {first}
    assert third != second
    assert "request process ended, it is started again" in served.log.read_text()


def test_the_children_of_a_server_end_when_it_is_killed(tmp_path):
    """They notice at once: nothing is left running, and port and data folder are free for the next server."""
    with started(tmp_path / "data", tmp_path / "log", CITEWELL_SERVER__PROCESSES="2") as server:
        until(lambda: "worker started" in server.log.read_text())
        children = [*server.answering(), *server.workers()]
        assert len(children) == 3
        port = int(server.url.rsplit(":", 1)[1])
        assert server.stop(signal.SIGKILL) == -signal.SIGKILL
        with hold(tmp_path / "data"):
            until(lambda: not any(map(alive, children)))
        with socket.socket() as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("127.0.0.1", port))


def test_a_killed_server_is_followed_by_the_next_even_if_its_port_is_not_free_at_once(tmp_path):
    """On a busy machine its request processes die after it, and have the port until then: here a socket of the test."""
    data, log = tmp_path / "data", tmp_path / "log of the next"
    with started(data, tmp_path / "log", CITEWELL_SERVER__PROCESSES="1") as server:
        children = [*server.answering(), *server.workers()]
        assert server.stop(signal.SIGKILL) == -signal.SIGKILL
        until(lambda: not any(map(alive, children)))
    port = int(server.url.rsplit(":", 1)[1])

    def let_go() -> None:
        until(lambda: log.exists() and "is still in use" in log.read_text())
        late.close()

    with socket.create_server(("127.0.0.1", port)) as late:
        thread = threading.Thread(target=let_go)
        thread.start()
        with started(data, log, "--port", str(port)) as following:
            assert following.url == server.url
            assert following.client.get("/health/ready").status_code == 200
        thread.join()


def test_a_server_that_can_not_open_its_parts_says_why(tmp_path, monkeypatch):
    """What a request process can not do is the sentence of the server that is refused."""
    monkeypatch.setenv("CITEWELL_SERVER__PROCESSES", "1")
    data = tmp_path / "data"
    data.mkdir()
    (data / "catalog.sqlite3").write_text("this is no database, and was never meant to be one " * 100)
    sentence = one_sentence(run(data, "--port", "0"))
    assert "catalog" in sentence


def test_what_a_request_process_is_told_are_the_settings_of_its_server(tmp_path, monkeypatch):
    """Passwords and paths come through, and what nobody has set is not set there either."""
    monkeypatch.setenv("CITEWELL_GENERATOR__API_KEY", "secret")
    settings = load_settings(data=tmp_path, server={"port": 1, "max_answers": 3}, database="postgresql://u:p@h/d")
    told, descriptor = read_told(tell(settings, descriptor=77))
    assert (told, descriptor) == (settings, 77)
    assert told.model_fields_set == settings.model_fields_set
    assert told.generator.api_key.get_secret_value() == "secret"
    assert told.database.get_secret_value() == "postgresql://u:p@h/d"


def test_a_server_without_a_worker_has_none_and_finishes_its_answer_when_stopped(tmp_path):
    """With `server.worker` off nothing reads files beside it. A request that runs when the signal comes is answered."""
    alone = {"CITEWELL_SERVER__WORKER": "false", "CITEWELL_SERVER__PROCESSES": "1"}
    with started(tmp_path / "data", tmp_path / "log", **alone) as server:
        assert server.client.get("/health/ready").status_code == 200
        assert server.workers() == []
        assert len(server.answering()) == 1
        server.client.post("/v1/collections", json={"name": "demo"})
        got: list[httpx.Response] = []

        def body() -> Iterator[bytes]:
            yield b'{"query": "cat", '
            server.process.send_signal(signal.SIGTERM)
            until(lambda: "Shutting down" in server.log.read_text())
            yield b'"collections": ["demo"]}'

        headers = {"Content-Type": "application/json"}
        thread = threading.Thread(
            target=lambda: got.append(server.client.post("/v1/search", content=body(), headers=headers))
        )
        thread.start()
        thread.join(PATIENCE)
        assert [reply.status_code for reply in got] == [200]
        assert server.process.wait(PATIENCE) == 0


def test_the_lock_names_its_holder_and_is_given_back(tmp_path):
    """While it is held a second hold is a conflict that names the address; afterwards the folder is free."""
    with hold(tmp_path) as lock:
        with pytest.raises(Conflict, match="a server that is starting"), hold(tmp_path):
            pass
        lock.name_owner("http://127.0.0.1:1")
        with pytest.raises(Conflict, match=re.escape(f"http://127.0.0.1:1 (process {os.getpid()})")), hold(tmp_path):
            pass
    with hold(tmp_path), pytest.raises(Conflict, match="a server that is starting"), hold(tmp_path):
        pass


def _fail_while_held(data: Path) -> None:
    with hold(data) as lock:
        lock.name_owner("http://127.0.0.1:1")
        _ = 1 / 0


def test_a_lock_knows_whether_the_one_before_was_lost(tmp_path):
    """Given back after work or an error it was not; what a killed server leaves is its name in the file."""
    with hold(tmp_path) as lock:
        assert not lock.after_a_kill
        lock.name_owner("http://127.0.0.1:1")
    with pytest.raises(ZeroDivisionError):
        _fail_while_held(tmp_path)
    (tmp_path / "serve.lock").write_text('{"pid": 1, "url": "http://127.0.0.1:1"}')
    with hold(tmp_path) as lock:
        assert lock.after_a_kill
    with hold(tmp_path) as lock:
        assert not lock.after_a_kill


def test_a_data_folder_that_can_not_be_used_is_named(tmp_path):
    """A file in its place: one sentence with its name."""
    (tmp_path / "data").write_text("in the way")
    with pytest.raises(Misconfigured, match="data can not be used"), hold(tmp_path / "data"):
        pass


def test_the_worker_gets_the_settings_of_its_server(tmp_path, monkeypatch):
    """Wherever they came from: code, command line, environment; the environment's other values do not shine through."""
    monkeypatch.setenv("CITEWELL_INGEST__ATTEMPTS", "9")
    monkeypatch.setenv("CITEWELL_GENERATOR__TEMPERATURE", "0.5")
    settings = load_settings(data=tmp_path, cache=tmp_path / "c", ingest={"attempts": 7}, index={"seal_rows": 5})
    given = environment_for(settings)
    for name in [name for name in os.environ if name.startswith("CITEWELL_")]:
        monkeypatch.delenv(name)
    for name, value in given.items():
        if name.startswith("CITEWELL_"):
            monkeypatch.setenv(name, value)
    theirs = Settings(data=tmp_path)
    assert (theirs.cache, theirs.ingest, theirs.index) == (settings.cache, settings.ingest, settings.index)
    assert (theirs.ingest.attempts, theirs.generator.temperature) == (7, 0.5)
    assert theirs.digest() == settings.digest()
    assert worker_command(settings)[-1] == str(tmp_path)


def test_a_taken_port_is_a_conflict_before_anything_is_loaded(tmp_path):
    """The port is tried first, so that a server that can not run says so at once."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = load_settings(data=tmp_path / "data", server={"port": taken.getsockname()[1]})
        with pytest.raises(Conflict, match="--port"):
            serve(settings)
