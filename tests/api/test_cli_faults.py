"""What happens to the process: stopped, killed, orphaned. Nothing is lost and nothing is there twice."""

from __future__ import annotations

import json
import os
import random
import shlex
import signal
import subprocess
from pathlib import Path

from ingest.sources import SourceFile
from ingest.worker import accept_file
from rag.records import State
from rag.settings import load_settings
from rag.store import open_store
from tests.cli_process import COMMAND, SECONDS, Cli

FILES = 40
WORDS = """
anchor bell bridge cable chain channel cloud compass crane current deck dock engine ferry flag fog funnel gale harbour
hook hull island jetty keel ladder lamp lantern lock mast mist net oar paddle pier pilot pump quay radar reef rigging
rope rudder sail sand seal shell shore signal spring starboard storm tanker tide timber tower tug valve wave weather
""".split()
#: A killed worker's file is free again after so many seconds.
LEASE = "1"


def write_files(folder: Path, lines: int = 4) -> Path:
    folder.mkdir()
    for number in range(FILES):
        words = random.Random(number)
        text = f"The mooring of buoy {number} is checked by crew{number} every month.\n"
        for line in range(lines):  # of other words each: passages that are alike would be folded
            text += f"Day {line}: {' '.join(words.choices(WORDS, k=9))} at the mooring of buoy {number}.\n"
        (folder / f"buoy-{number:02}.txt").write_text(text)
    return folder


def signal_after(process: subprocess.Popen[str], lines: int, number: int) -> str:
    """Send a signal when so many documents have ended that were not there before; return the rest of standard error."""
    assert process.stderr is not None
    seen = 0
    while seen < lines:
        line = process.stderr.readline()
        assert line, "the command ended before the signal"
        told = json.loads(line)
        seen += told["event"] == "document" and told["outcome"] != "unchanged"
    process.send_signal(number)
    out, err = process.communicate(timeout=SECONDS)
    assert out == ""
    return err


def test_an_ingest_that_was_stopped_and_killed_is_finished_by_the_next(tmp_path: Path) -> None:
    cli = Cli(tmp_path / "data", tmp_path)
    command = ("ingest", write_files(tmp_path / "files", lines=60), "-c", "buoys")  # so that not all end at once
    settings = {"INGEST__LEASE_SECONDS": LEASE, "INGEST__EMBED_BATCH": "1"}

    with cli.start(*command, **settings) as stopped:
        last = signal_after(stopped, 3, signal.SIGINT).splitlines()[-1]
    assert stopped.returncode == 130
    assert last.startswith("citewell: Stopped; ")
    assert "in the queue" in last
    states = [d["newest"]["state"] for d in cli("documents", "list", "-c", "buoys", "--json").json["documents"]]
    assert len(states) == FILES
    assert set(states) == {"ready", "queued"}, "the file in hand was given back at once"

    with cli.start(*command, **settings) as killed:
        signal_after(killed, 3, signal.SIGKILL)
    assert killed.returncode == -signal.SIGKILL

    report = cli(*command, "--json", **settings).json
    assert report["failed"] == 0
    assert report["resumed"] + report["unchanged"] == FILES
    assert report["resumed"] > 0
    assert report["unchanged"] >= 6
    found = cli("search", "mooring of a buoy", "-c", "buoys", "--top-k", "1000", "--json").json["passages"]
    places = [(passage["document"], passage["start"]) for passage in found]
    assert len(places) == len(set(places))
    assert {document for document, _ in places} == {f"buoy-{number:02}.txt" for number in range(FILES)}
    [collection] = cli("collections", "list", "--json").json["collections"]
    assert (collection["documents"], collection["passages"]) == (FILES, len(places))


def accept_all(cli: Cli, folder: Path) -> None:
    """Put files into the queue without working on them."""
    with open_store(load_settings(data=cli.data)) as store:
        collection = store.catalog.ensure_collection("buoys")
        for path in sorted(folder.iterdir()):
            file = SourceFile(path, path.name)
            accept_file(store, collection, file.name, file.path)


def count(cli: Cli, state: State) -> int:
    with open_store(load_settings(data=cli.data)) as store:
        return len(store.catalog.list_documents(store.catalog.collection("buoys").id, state=state, limit=1000))


def test_a_worker_logs_each_document_and_stops_when_told_to(tmp_path: Path) -> None:
    cli = Cli(tmp_path / "data", tmp_path)
    accept_all(cli, write_files(tmp_path / "files"))
    with cli.start("worker") as worker:
        assert worker.stderr is not None
        lines = [json.loads(worker.stderr.readline()) for _ in range(4)]
        worker.send_signal(signal.SIGTERM)
        _, err = worker.communicate(timeout=SECONDS)
    lines += [json.loads(line) for line in err.splitlines()]
    assert worker.returncode == 0
    assert [lines[0]["event"], lines[-1]["event"]] == ["worker started", "worker stopped"]
    done = [line for line in lines if line["event"] == "document done"]
    names = [line["document"] for line in done]
    assert len(names) == len(set(names)) > 0
    assert set(names) <= {f"buoy-{number:02}.txt" for number in range(FILES)}
    assert all(line["state"] == "ready" and line["passages"] > 0 for line in done)
    assert count(cli, State.READY) == len(done)
    assert count(cli, State.PROCESSING) == 0
    assert count(cli, State.QUEUED) == FILES - len(done)


def test_a_worker_stops_when_its_parent_is_gone(tmp_path: Path) -> None:
    """The parent is killed; the end of the worker closes the pipe that both write to."""
    cli = Cli(tmp_path / "data", tmp_path)
    accept_all(cli, write_files(tmp_path / "files"))
    worker = shlex.join([*COMMAND, "worker"]) + " --parent $$"
    parent = ["sh", "-c", f"{worker} & echo started >&2; exec sleep {SECONDS}"]
    with subprocess.Popen(
        parent, cwd=tmp_path, env=cli.environment(), stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "started\n"
        assert json.loads(process.stderr.readline())["event"] == "worker started"
        os.kill(process.pid, signal.SIGKILL)
        last = process.stderr.read().splitlines()[-1]
    assert json.loads(last)["event"] == "worker stopped"
    assert count(cli, State.PROCESSING) == 0


def test_an_ingest_waits_for_what_another_worker_has_in_hand(tmp_path: Path) -> None:
    """A worker and an ingest share the files, and the ingest reports on all of them."""
    cli = Cli(tmp_path / "data", tmp_path)
    folder = write_files(tmp_path / "files")
    cli("collections", "create", "buoys")
    with cli.start("worker") as worker:
        assert worker.stderr is not None
        assert json.loads(worker.stderr.readline())["event"] == "worker started"
        report = cli("ingest", folder, "-c", "buoys", "--json").json
        worker.send_signal(signal.SIGINT)
        _, err = worker.communicate(timeout=SECONDS)
    assert worker.returncode == 130
    assert err.splitlines()[-1] == "citewell: The worker has stopped; nothing was left half done."
    assert (report["added"], report["failed"]) == (FILES, 0)
    assert all(file["state"] == "ready" and file["passages"] for file in report["files"])
    assert report["passages"] == sum(file["passages"] for file in report["files"])
    assert any('"document done"' in line for line in err.splitlines()), "the worker had its share"
