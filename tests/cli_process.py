"""The command line as users run it: a process of its own, in a folder of its own, with nothing on its terminal.

A command that is run to its end is forked from a warm process, see `tests.warm_cli`; one that asks on a terminal or is
ended by the test is started from the disk.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from threading import Lock
from typing import IO, Any

ROOT = Path(__file__).parent.parent
COMMAND = [sys.executable, "-m", "api.cli"]
SECONDS = 240


@dataclass(frozen=True)
class Ended:
    """How a command ended and what it wrote."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Warm:
    """Has commands forked from a process that has imported them already, one at a time."""

    def __init__(self) -> None:
        self._one_at_a_time = Lock()
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # A pool of threads for matrices would be there before the fork.
        alone = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.warm_cli", str(theirs.fileno())], cwd=ROOT, env=os.environ | alone,
                stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()], start_new_session=True,
            )  # fmt: skip

    def run(
        self, arguments: Sequence[str], folder: Path, environment: dict[str, str], files: tuple[IO[str], IO[str]]
    ) -> int:
        """Run a command to its end, with standard output and error in files, and return its exit status."""
        order = {"arguments": arguments, "folder": str(folder), "environment": environment}
        with self._one_at_a_time:
            socket.send_fds(self._channel, [json.dumps(order).encode()], [file.fileno() for file in files])
            pid = self._answer()
            self._channel.settimeout(SECONDS)
            try:
                return self._answer()
            except TimeoutError:
                os.kill(pid, signal.SIGKILL)
                self._answer()
                raise
            finally:
                self._channel.settimeout(None)

    def close(self) -> None:
        self._channel.close()
        self._process.wait()

    def _answer(self) -> int:
        answer = self._channel.recv(100)
        assert answer, "the warm process has ended"
        return int(answer)


@cache
def warm() -> Warm:
    """The warm process of this process, started when it is first needed."""
    started = Warm()
    atexit.register(started.close)
    return started


@dataclass(frozen=True)
class Cli:
    """Runs ``citewell`` on one data folder; ``settings`` are environment variables without their prefix."""

    data: Path
    folder: Path

    def environment(self, **settings: str) -> dict[str, str]:
        chosen = {f"CITEWELL_{name}": value for name, value in settings.items()}
        # One process that parses: each has its libraries to import, which takes longer than the few files here.
        usual = {"PYTHONPATH": str(ROOT), "CITEWELL_DATA": str(self.data), "CITEWELL_INGEST__PARSERS": "1"}
        return {**os.environ, **usual, **chosen}

    def __call__(self, *arguments: str | Path, status: int = 0, **settings: str) -> Ended:
        """Run a command to its end and check its exit status, and that nothing on the way could steer a terminal."""
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            returned = warm().run([*map(str, arguments)], self.folder, self.environment(**settings), (out, err))
            for file in (out, err):
                file.seek(0)
            ended = Ended(returned, out.read(), err.read())
        assert ended.status == status, (arguments, ended)
        assert "Traceback" not in ended.err
        unprintable = {c for c in ended.out + ended.err if not c.isprintable()} - {"\n"}
        assert not unprintable, (arguments, unprintable)
        return ended

    def answered(self, answer: str, *arguments: str | Path) -> Ended:
        """Run a command that asks on a terminal, and answer it."""
        primary, secondary = os.openpty()
        with subprocess.Popen(
            [*COMMAND, *map(str, arguments)],
            cwd=self.folder,
            env=self.environment(),
            stdin=secondary,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            os.write(primary, f"{answer}\n".encode())
            out, err = process.communicate(timeout=SECONDS)
        os.close(primary)
        os.close(secondary)
        return Ended(process.returncode, out, err)

    def start(self, *arguments: str | Path, **settings: str) -> subprocess.Popen[str]:
        """Start a command that the test ends; standard error is a pipe."""
        return subprocess.Popen(
            [*COMMAND, *map(str, arguments)],
            cwd=self.folder,
            env=self.environment(**settings),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
