"""A warm command line: a process that has imported Citewell and forks commands, so that starting one costs no import.

    python -m tests.warm_cli DESCRIPTOR

What it forks is as real as what a shell starts: a process of its own, in the folder, environment and with the files
that it was given, that opens its models, databases and threads after the fork and ends as Python ends. The parent opens
none of them. What only a cold start shows (what help imports, what a worker or server does with signals, the commands
of the documentation) is for tests that start processes themselves.

Each order is one message on a socket: JSON, and the descriptors of standard output and standard error with it. It is
answered by the process id, and by the exit status when the command has ended. The end of the socket is its end.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import socket
import sys
from pathlib import Path
from typing import Any

from api.cli import main as command_line
from rag.sentences import sentence_spans

#: What commands import, and what that imports when it is first used; not openvino, which starts threads.
WARM = (
    "alembic.command", "alembic.autogenerate", "api.batch_progress", "api.batch_report", "api.commands.intake",
    "api.commands.progress", "api.logs", "api.purging", "datasketch", "eval.gates", "eval.runs", "eval.schedule",
    "faiss", "httpx", "ingest.parse", "ingest.sandbox", "ingest.worker", "rag.assembly", "rag.guardrails",
    "rag.judge", "rag.swapped", "rag.trained_reader", "tokenizers", "zstandard",
)  # fmt: skip
LARGEST = 1 << 20


def main(channel: socket.socket) -> None:
    """Fork what is asked for, one after the other, until nobody asks any more."""
    before = set(os.environ)
    for module in WARM:
        importlib.import_module(module)
    sentence_spans("Loads what it needs.")
    threads = len([*Path("/proc/self/task").iterdir()])
    assert threads == 1, f"the warm process has {threads} threads, which a fork would lose"
    set_by_imports = {name: value for name, value in os.environ.items() if name not in before}
    gc.freeze()  # or each collection in a child would copy the pages of all that is imported
    while True:
        message, descriptors, *_ = socket.recv_fds(channel, LARGEST, 2)
        if not message:
            return
        child = os.fork()
        if child == 0:
            channel.close()
            order = json.loads(message)
            order["environment"] = set_by_imports | order["environment"]
            become(order, descriptors)
            return
        for descriptor in descriptors:
            os.close(descriptor)
        channel.send(str(child).encode())
        _, status = os.waitpid(child, 0)
        channel.send(str(os.waitstatus_to_exitcode(status)).encode())


def become(order: dict[str, Any], descriptors: list[int]) -> None:
    """Be the command line from here on; raises SystemExit with its status."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    for descriptor, target in zip([nothing, *descriptors], range(3), strict=True):
        os.dup2(descriptor, target)
        os.close(descriptor)
    os.chdir(order["folder"])
    os.environ.clear()
    os.environ.update(order["environment"])
    sys.argv = ["citewell", *order["arguments"]]
    command_line()


if __name__ == "__main__":
    with socket.socket(fileno=int(sys.argv[1])) as asked:
        main(asked)
