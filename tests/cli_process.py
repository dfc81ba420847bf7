"""The command line as users run it: a process of its own, in a folder of its own, with nothing on its terminal."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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


@dataclass(frozen=True)
class Cli:
    """Runs ``citewell`` on one data folder; ``settings`` are environment variables without their prefix."""

    data: Path
    folder: Path

    def environment(self, **settings: str) -> dict[str, str]:
        chosen = {f"CITEWELL_{name}": value for name, value in settings.items()}
        return {**os.environ, "PYTHONPATH": str(ROOT), "CITEWELL_DATA": str(self.data), **chosen}

    def __call__(self, *arguments: str | Path, status: int = 0, **settings: str) -> Ended:
        """Run a command to its end and check its exit status, and that nothing on the way could steer a terminal."""
        process = subprocess.run(
            [*COMMAND, *map(str, arguments)],
            cwd=self.folder,
            env=self.environment(**settings),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        ended = Ended(process.returncode, process.stdout, process.stderr)
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
