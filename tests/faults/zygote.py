"""A warm parent: a process that has imported Citewell and forks its commands, so that starting one costs no import.

What it forks is as real as what a shell starts: a process of its own, in a session of its own, that opens its models,
databases and threads after the fork. The parent opens none of them; it says how many threads it has, which must be one.
It reads orders as lines of JSON and answers each with a process id; at the end of its input all that it forked ends.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import signal
import sys
from pathlib import Path

#: Not what starts threads when it is imported: openvino, and onnxruntime behind the modules of ``ingest``.
WARM = (
    "api.cli", "api.problems", "api.schemas", "uvicorn", "fastapi", "httpx", "rag.assembly", "rag.encoders",
    "rag.testing", "alembic.command", "faiss", "lxml.etree",
)  # fmt: skip
_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Fork what is asked for until the input ends."""
    for module in WARM:
        importlib.import_module(module)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for what is killed here
    say(len(list(Path("/proc/self/task").iterdir())))
    for line in sys.stdin:
        order = json.loads(line)
        pid = os.fork()
        if pid == 0:
            become(order["call"], order["arguments"], order["log"])
        say(pid)


def say(number: int) -> None:
    sys.stdout.write(f"{number}\n")
    sys.stdout.flush()


def become(call: str, arguments: list[object], log: str) -> None:
    """Be the function ``module:name`` from here on, and end with what it returns; what it writes goes to ``log``."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    nothing, file = os.open(os.devnull, os.O_RDONLY), os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for descriptor, target in ((nothing, 0), (file, 1), (file, 2)):
        os.dup2(descriptor, target)
    module, _, name = call.partition(":")
    sys.exit(getattr(importlib.import_module(module), name)(*arguments))


if __name__ == "__main__":
    main()
