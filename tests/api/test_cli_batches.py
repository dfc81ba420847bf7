"""What `citewell ingest` tells of its batch, and `citewell batches` afterwards."""

from __future__ import annotations

import csv
import json
import os
import pty
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from rag.catalog import Retry
from rag.records import Stage
from rag.settings import load_settings
from rag.store import open_store
from tests.cli_process import COMMAND, SECONDS, Cli

FILES = 6


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    folder = tmp_path / "files"
    folder.mkdir()
    for number in range(FILES):
        (folder / f"{number}.txt").write_text(f"The buoy number {number} is checked every month.")
    (folder / "=empty.txt").write_text("")
    return Cli(tmp_path / "data", tmp_path)


def lines(err: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in err.splitlines()]


def test_progress_is_told_in_json_lines_and_every_file_reported(cli: Cli) -> None:
    """Accepted, progress, one line a document, the end; the same outcomes in the report and in the batch."""
    ended = cli("ingest", "files", "nowhere", "-c", "buoys", "--report", "out.csv", status=1)
    told = lines(ended.err)
    [batch] = {line["batch"] for line in told if "batch" in line}
    assert ended.out.splitlines()[-1] == f"Batch {batch}"
    assert told[0] == {"event": "created", "message": "Created the collection buoys.", "collection": "buoys"}
    [accepted] = [line for line in told if line["event"] == "accepted"]
    assert (accepted["files"], accepted["refused"]) == (FILES + 2, 1)
    documents = {line["name"]: line["outcome"] for line in told if line["event"] == "document"}
    wanted = {f"{number}.txt": "added" for number in range(FILES)} | {"=empty.txt": "failed", "nowhere": "failed"}
    assert documents == wanted
    assert [line["event"] for line in told].count("document") == FILES + 2
    last = told[-1]
    assert (last["event"], last["ended"]) == ("end", FILES + 2)
    assert last["states"] == {"ready": FILES, "failed": 1, "refused": 1}
    assert all(line["ended"] <= line["files"] for line in told if line["event"] == "progress")

    with (cli.folder / "out.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert {row["name"]: row["outcome"] for row in rows} == {
        f"'{n}" if n[0] == "=" else n: o for n, o in wanted.items()
    }
    report = json.loads(cli("batches", "report", batch, "--format", "json").out)
    assert [file["name"].lstrip("'") for file in report["files"]] == [row["name"].lstrip("'") for row in rows]
    shown = cli("batches", "show", batch, "--json").json
    assert shown == report["batch"] | {"collection": "buoys"}
    assert shown["passages"] == FILES
    [listed] = cli("batches", "list", "-c", "buoys", "--json").json["batches"]
    assert listed == shown
    assert "1 failed, 6 ready, 1 refused" in cli("batches", "show", batch).out
    cli("batches", "report", batch, "--output", "again.csv")
    assert (cli.folder / "again.csv").read_bytes() == (cli.folder / "out.csv").read_bytes()
    assert lines(cli("batches", "watch", batch).err)[-1]["event"] == "end"


def test_files_are_left_to_a_worker_when_nobody_waits(cli: Cli) -> None:
    """Safe in the queue at once; a watcher sees another process work them off."""
    taken = cli("ingest", "files", "-c", "buoys", "--no-wait", "--json").json
    assert (taken["waiting"], taken["failed"], taken["passages"]) == (FILES + 1, 0, 0)
    assert {file["state"] for file in taken["files"]} == {"queued"}
    with cli.start("worker") as worker:
        watched = cli("batches", "watch", taken["batch"])
        worker.terminate()
        worker.communicate(timeout=SECONDS)
    told = lines(watched.err)
    assert sum(line["event"] == "document" for line in told) == FILES + 1
    assert told[-1]["states"] == {"ready": FILES, "failed": 1}
    assert "state       ended" in watched.out


@pytest.mark.parametrize("report", ["out.txt", "nowhere/out.csv"])
def test_a_report_that_can_not_be_written_is_said_before_any_work(cli: Cli, report: str) -> None:
    assert f"--report is {report}" in cli("ingest", "files", "-c", "buoys", "--report", report, status=2).err
    assert not cli.data.exists()


def test_a_terminal_gets_a_bar(cli: Cli) -> None:
    """It moves in place, names what failed, and leaves the summary."""
    primary, secondary = pty.openpty()
    seen: list[bytes] = []

    def read() -> None:
        try:
            while block := os.read(primary, 1 << 16):
                seen.append(block)
        except OSError:  # the terminal is closed
            pass

    reader = threading.Thread(target=read)
    reader.start()
    process = subprocess.run(
        [*COMMAND, "ingest", "files", "-c", "buoys"],
        cwd=cli.folder,
        env=cli.environment() | {"TERM": "xterm", "COLUMNS": "120"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=secondary,
        timeout=SECONDS,
        check=False,
    )
    os.close(secondary)
    reader.join()
    os.close(primary)
    shown = b"".join(seen).decode()
    assert process.returncode == 1
    assert "7 files accepted" in shown
    assert "7/7 files, 6 passages" in shown
    assert "failed =empty.txt" in shown
    assert '"event"' not in shown
    assert process.stdout.decode().startswith("7 files for the collection buoys:\n")


def test_the_list_shows_what_is_done_with_each_document(cli: Cli) -> None:
    """Stage and percent of one in hand, the next try of one that waits for it, nothing of the others."""
    cli("ingest", "files/0.txt", "files/1.txt", "files/2.txt", "-c", "buoys", "--no-wait")
    with open_store(load_settings(data=cli.data)) as store:
        in_hand, waits = (store.catalog.claim("me", 60) for _ in range(2))
        assert in_hand is not None
        assert waits is not None
        store.catalog.heartbeat("me", 60, {in_hand.id: (Stage.EMBED, 0.416)})
        store.catalog.defer(waits.id, "me", "test", "It is a test.", Retry(seconds=600, most_seconds=600))
        waits = store.catalog.version(waits.id)
        assert waits.not_before is not None
    listed = cli("documents", "list", "-c", "buoys").out.splitlines()
    assert listed[0].split() == ["STATE", "NOW", "VERSION", "PASSAGES", "DOCUMENT"]
    rows = {line.split()[-1]: " ".join(line.split()[:-3]) for line in listed[1:]}
    assert rows.pop(in_hand.name) == "processing embed 42%"
    assert rows.pop(waits.name) == f"queued next try {waits.not_before:%H:%M:%S} UTC"
    assert list(rows.values()) == ["queued"]
    assert "next try" in cli("documents", "show", waits.name, "-c", "buoys").out
