"""A data folder with a real server, its worker and more workers, and the hand that kills them.

`Zygote` starts processes, `Site` knows which of them belong together, `Killer` chooses one by a seed and ends it with
SIGKILL while it works. Knows no document; what has to be true at the end is said in ``checks``.
"""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests.processes import alive, children, command_line, family

ROOT = Path(__file__).parents[2]
PATIENCE = 240.0
#: Settings of all processes: short leases and pauses, small parts, and so many tries that killing uses none of them up.
QUICK = {
    "INGEST__LEASE_SECONDS": "3", "INGEST__RETRY_SECONDS": "0.1", "INGEST__RETRY_MOST_SECONDS": "0.5",
    "INGEST__DEATHS": "100000", "INGEST__ATTEMPTS": "1000", "INGEST__PARSERS": "1", "INGEST__POLL_SECONDS": "0.1",
    "INGEST__EMBED_BATCH": "16", "INDEX__SEAL_ROWS": "40", "INDEX__SEAL_SHARE": "0.02", "SERVER__PROCESSES": "1",
}  # fmt: skip


def say(text: str) -> None:
    """Tell who looks on how far it is; pytest shows it with ``-s``, or when the test fails."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def until(holds: Callable[[], object], what: str, seconds: float = PATIENCE) -> None:
    """Wait for something that happens in another process."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, f"gave up waiting: {what}"
        time.sleep(0.05)


def kill(*pids: int) -> None:
    """End processes as a power cut would end them, and wait until they are gone."""
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    until(lambda: not any(map(alive, pids)), "killed processes are gone")


class Zygote:
    """Forks processes from a warm one, see ``tests.faults.zygote``; ``environment`` is theirs."""

    def __init__(self, environment: dict[str, str], log: Path) -> None:
        with log.open("a") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.faults.zygote"], cwd=ROOT, env=environment, text=True,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors,
            )  # fmt: skip
        threads = self._answer()
        assert threads == 1, f"the warm process has {threads} threads, which a fork would lose"

    @property
    def pid(self) -> int:
        return self._process.pid

    def fork(self, call: str, arguments: Sequence[Any], log: Path) -> int:
        """Start a function ``module:name`` as a process and return its id."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"call": call, "arguments": list(arguments), "log": str(log)}) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        """End it, and with it all that it has forked."""
        self._process.kill()
        self._process.communicate()

    def _answer(self) -> int:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the warm process has ended"
        return int(line)


@dataclass
class Site:
    """A data folder in ``folder`` and the processes on it; ``temporary`` is where all of them put temporary files."""

    folder: Path
    zygote: Zygote
    port: int
    server: int = 0
    workers: list[int] = field(default_factory=list)

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def temporary(self) -> Path:
        return self.folder / "temporary"

    @property
    def log(self) -> Path:
        return self.folder / "log"

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start_server(self) -> None:
        arguments = ["serve", "--data", str(self.data), "--port", str(self.port)]
        self.server = self.zygote.fork("api.cli:run", [arguments], self.log)

    def start_worker(self) -> int:
        pid = self.zygote.fork("api.cli:run", [["worker", "--data", str(self.data)]], self.log)
        self.workers.append(pid)
        return pid

    def serves(self) -> bool:
        """Whether the server answers."""
        try:
            return httpx.get(f"{self.address}/health/ready", trust_env=False, timeout=5).status_code == 200
        except httpx.TransportError:
            return False

    def mend(self, workers: int) -> None:
        """Start again what is not running."""
        if not alive(self.server):
            self.start_server()
        self.workers = [pid for pid in self.workers if alive(pid)]
        while len(self.workers) < workers:
            self.start_worker()

    def all_workers(self) -> list[int]:
        """Return the workers that run: those started here, and the server's own."""
        own = [pid for pid in children(self.server) if "worker" in command_line(pid)]
        return [pid for pid in (*self.workers, *own) if alive(pid)]

    def processes(self) -> list[int]:
        """Return all processes of this site: those whose environment or command line names its folder."""
        mark, found = str(self.folder).encode(), []
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                named = mark in (entry / "environ").read_bytes() or mark in (entry / "cmdline").read_bytes()
            except OSError:
                continue
            pid = int(entry.name)
            if named and pid not in {self.zygote.pid, os.getpid()} and alive(pid):
                found.append(pid)
        return found

    def query(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        """Ask the catalog's file directly."""
        file = self.data / "catalog.sqlite3"
        if not file.exists():
            return []
        connection = sqlite3.connect(file, timeout=60)
        try:
            return connection.execute(sql, values).fetchall()
        except sqlite3.OperationalError:  # the tables are being made
            return []
        finally:
            connection.close()

    def at_work(self) -> list[int]:
        """Return the workers that have a file in hand."""
        owners = {owner for (owner,) in self.query("SELECT lease_owner FROM versions WHERE state = 'processing'")}
        return [pid for pid in self.all_workers() if any(f"-{pid}-" in str(owner) for owner in owners)]

    def queued(self) -> int:
        """Return how many files are not done."""
        found = self.query("SELECT count(*) FROM versions WHERE state IN ('queued', 'processing')")
        return int(found[0][0]) if found else 0

    def ended(self) -> int:
        """Return how many versions have come to their end."""
        found = self.query("SELECT count(*) FROM versions WHERE state NOT IN ('queued', 'processing')")
        return int(found[0][0]) if found else 0

    def stop(self) -> None:
        """End all in good order: what has been told to stop gives back what it has in hand and leaves nothing."""
        for pid in (self.server, *self.workers):
            if alive(pid):
                os.kill(pid, signal.SIGTERM)
        until(lambda: not self.processes(), "all processes end when they are told to")


@contextmanager
def site(folder: Path, modules: str = str(ROOT), **settings: str) -> Iterator[Site]:
    """Yield a site without processes in an empty folder; all that runs there at the end is killed.

    ``modules`` is the path on which its processes find modules. What they wrote last is shown when the test fails.
    """
    (folder / "temporary").mkdir(parents=True)
    chosen = {f"CITEWELL_{name}": value for name, value in {**QUICK, **settings}.items()}
    environment = {
        **os.environ, **chosen, "PYTHONPATH": modules, "TMPDIR": str(folder / "temporary"),
        "OPENBLAS_NUM_THREADS": "1",  # its threads would be lost in a fork
    }  # fmt: skip
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    zygote = Zygote(environment, folder / "log")
    made = Site(folder, zygote, port)
    try:
        yield made
    except BaseException:
        say(made.log.read_text(errors="replace")[-20_000:])
        raise
    finally:
        zygote.close()
        kill(*made.processes())


#: What can be killed, and how often it is chosen.
VICTIMS = {"worker": 10, "worker and its readers": 6, "reader": 6, "server": 4, "everything": 2}
#: Most seconds that a kill waits for files to be done.
MOST_PAUSE = 5.0


@dataclass
class Killer:
    """Kills parts of a site one after the other, chosen by ``rng``, and starts them again."""

    site: Site
    rng: random.Random
    workers: int
    killed: Counter[str] = field(default_factory=Counter)

    def strike(self) -> str:
        """Wait until something is being done, and a random moment more; kill something, and start it again.

        Every second time on the average files have come to their end since the last one, so that there is progress.
        """
        kind = self.rng.choices([*VICTIMS], [*VICTIMS.values()])[0]
        some, pause = self.rng.choice((0, self.rng.randint(1, 6))), self.rng.uniform(0.0, 0.8)
        until(self.site.at_work, "a worker has something in hand")
        if kind == "server":
            until(self.site.serves, "the server answers")
        wanted, end = self.site.ended() + some, time.monotonic() + MOST_PAUSE
        while self.site.ended() < wanted and self.site.queued() and time.monotonic() < end:
            time.sleep(0.02)
        time.sleep(pause)
        victims = self._victims(kind)
        if not victims:  # it has just ended by itself, or had no reader yet
            kind, victims = "worker", self._victims("worker")
        kill(*victims)
        self.killed[kind] += 1
        self.site.mend(self.workers)
        return kind

    def _victims(self, kind: str) -> list[int]:
        if kind == "everything":
            return self.site.processes()
        if kind == "server":
            return [self.site.server]
        worker = self.rng.choice(sorted(self.site.at_work() or self.site.all_workers() or [self.site.server]))
        if kind == "reader":
            below = family(worker)[1:]
            return [self.rng.choice(below)] if below else []
        return [worker] if kind == "worker" else family(worker)
