"""A whole journey by real processes, as a user walks it: for tests of what they reach, and of where they run.

    python -m tests.journey FOLDER PREFIX...

Starts a server with its worker, uploads, asks, asks for a stream; stops it; then ingests, asks and reports from the
command line. Each of our processes is started by the words of PREFIX, if there are any. Prints one line of JSON: where
the server was, and what came of each step. Works with nothing but a loopback interface, which it takes up itself if it
is down. What it speaks to is said by the environment.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).parent.parent
SAMPLES = ROOT / "ingest" / "samples"
QUESTION = "What is the hotel limit for domestic travel?"
PATIENCE = 240
#: Of Linux, see netdevice(7).
GET_FLAGS, SET_FLAGS, UP = 0x8913, 0x8914, 0x1


def main(folder: Path, prefix: list[str]) -> None:
    """Walk the journey over a data folder in ``folder``."""
    take_up_loopback()
    data = folder / "data"
    command = [*prefix, sys.executable, "-m", "api.cli"]
    told = {"interfaces": sorted(name for _, name in socket.if_nameindex()), "outside": outside()}
    told |= served([*command, "serve", "--data", str(data), "--port", "0"], folder)
    for name, arguments in {
        "ingest": ["ingest", str(SAMPLES / "handbook"), "--collection", "second"],
        "asked": ["ask", QUESTION, "--collection", "demo", "--json"],
        "report": ["report", "run", "--collection", "demo", "--json"],
    }.items():
        done = subprocess.run(
            [*command, *arguments, "--data", str(data)], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE,
            check=False,
        )  # fmt: skip
        told[name] = {"status": done.returncode, "out": done.stdout[-20_000:], "err": done.stderr[-4_000:]}
    sys.stdout.write(json.dumps(told) + "\n")


def served(command: list[str], folder: Path) -> dict[str, Any]:
    """Upload and ask over HTTP; return the server's address and what it answered."""
    with (folder / "server.log").open("w") as errors:
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=errors, text=True)
    assert process.stdout is not None
    line = process.stdout.readline()
    url = re.search(r"http://\S+", line)
    assert url, (folder / "server.log").read_text()
    with httpx.Client(base_url=url[0], timeout=PATIENCE, trust_env=False) as client:
        client.post("/v1/collections", json={"name": "demo"}).raise_for_status()
        paths = sorted(path for path in SAMPLES.rglob("*") if path.is_file() and path.parent.name != "2025")
        files = [("files", (str(path.relative_to(SAMPLES)), path.read_bytes())) for path in paths]
        reply = client.post("/v1/collections/demo/documents", files=files).raise_for_status().json()
        ids = [document["id"] for document in reply["documents"]]
        end = time.monotonic() + PATIENCE
        while waiting(states := [client.get(f"/v1/documents/{each}").json()["state"] for each in ids]):
            assert time.monotonic() < end, states
            time.sleep(0.2)
        ask = {"question": QUESTION, "collections": ["demo"]}
        answer = client.post("/v1/ask", json=ask).raise_for_status().json()
        streamed = client.post("/v1/ask", json=ask | {"stream": True, "cache": False}).raise_for_status().text
    process.send_signal(signal.SIGTERM)
    status = process.wait(PATIENCE)
    return {"url": url[0], "states": sorted(states), "answer": answer, "streamed": streamed, "stopped": status}


def waiting(states: list[str]) -> bool:
    return bool({"queued", "processing"} & {*states})


def take_up_loopback() -> None:
    """Take the loopback interface up, which is down in a new namespace."""
    with socket.socket() as any_socket:
        flags = struct.unpack("16sH14s", fcntl.ioctl(any_socket, GET_FLAGS, struct.pack("16sH14s", b"lo", 0, b"")))[1]
        if not flags & UP:
            fcntl.ioctl(any_socket, SET_FLAGS, struct.pack("16sH14s", b"lo", flags | UP, b""))


def outside() -> str:
    """Return why an address elsewhere can not be reached; empty if it can, or might."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:  # sends nothing: only a route is looked for
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError as error:
            return os.strerror(error.errno or 0)
    return ""


if __name__ == "__main__":
    with suppress(BrokenPipeError):
        main(Path(sys.argv[1]), sys.argv[2:])
