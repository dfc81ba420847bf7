"""The real server as a real process with its real worker, as a user starts it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from tests.api.live import SAMPLES
from tests.processes import children, command_line

ROOT = SAMPLES.parents[1]
PATIENCE = 120


@dataclass
class Served:
    """A running server: what it wrote, and a client of it."""

    process: subprocess.Popen[str]
    url: str
    log: Path
    client: httpx.Client
    lines: list[str] = field(default_factory=list)

    def workers(self) -> list[int]:
        """Return the process ids of the server's workers."""
        return self.children("worker")

    def answering(self) -> list[int]:
        """Return the process ids of those that answer requests."""
        return self.children("api.serving")

    def children(self, word: str) -> list[int]:
        """Return the children that run and have a word in their command lines."""
        return [pid for pid in children(self.process.pid) if word in command_line(pid)]

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(PATIENCE)


def command(data: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "api.cli", "serve", "--data", str(data), *more]


def environment() -> dict[str, str]:
    return dict(os.environ) | {"PYTHONPATH": str(ROOT)}


@contextmanager
def started(data: Path, log: Path, *more: str, **variables: str) -> Iterator[Served]:
    """Start a server on a free port and wait for the line that says where it is."""
    with log.open("w") as errors:
        process = subprocess.Popen(
            command(data, "--port", "0", *more),
            cwd=ROOT,
            env=environment() | variables,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    assert process.stdout is not None
    try:
        lines = [process.stdout.readline(), process.stdout.readline()]
        assert lines[1], log.read_text()
        url = re.search(r"http://\S+", lines[0])
        assert url is not None
        with httpx.Client(base_url=url[0], timeout=PATIENCE, trust_env=False) as client:
            yield Served(process, url[0], log, client, lines)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def run(data: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """Run a server that is expected not to start."""
    return subprocess.run(
        command(data, *more), cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=PATIENCE, check=False
    )


def until(done: Callable[[], object]) -> None:
    """Wait for something that happens in another process."""
    end = time.monotonic() + PATIENCE
    while not done():
        assert time.monotonic() < end, "gave up waiting"
        time.sleep(0.1)
