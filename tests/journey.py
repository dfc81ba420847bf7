"""A whole journey by real processes, as a user walks it: for tests of what they reach, and of where they run.

    python -m tests.journey FOLDER PREFIX...

Starts a server with its worker, uploads, asks, asks for a stream, asks once more when the language model fails; stops
it; then ingests, asks with the model and without, adds a golden question, reports and loads the measures from the
command line. Each of our processes is started by the words of PREFIX, if there are any. The language model is scripted,
and in this process, to be in the same network. Prints one line of JSON: where that was, and what came of each step.
Works with nothing but a loopback interface, which it takes up itself if it is down.
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

from tests.scripted_llm import CHAT, Reset, ScriptedLLM, stream

ROOT = Path(__file__).parent.parent
SAMPLES = ROOT / "ingest" / "samples"
COMMAND = [sys.executable, "-m", "api.cli"]
MEASURES = "from eval.ranking import import_ir_measures; import_ir_measures()"
QUESTION = "What is the hotel limit for domestic travel?"
GOLDEN = {"question": QUESTION, "answer": "The hotel limit is 145 euros.", "documents": ["2026/travel-policy.pdf"]}
#: By the language model, of every question.
SAID = stream("The hotel limit for domestic travel is 145 euros per night. [1]")
PATIENCE = 240
#: Of Linux, see netdevice(7).
GET_FLAGS, SET_FLAGS, UP = 0x8913, 0x8914, 0x1


def main(folder: Path, prefix: list[str]) -> None:
    """Walk the journey over a data folder in ``folder``."""
    take_up_loopback()
    told = {"interfaces": sorted(name for _, name in socket.if_nameindex()), "outside": outside()}
    with ScriptedLLM() as llm:
        llm.on(CHAT, SAID)
        model = {"CITEWELL_GENERATOR__KIND": "openai", "CITEWELL_GENERATOR__BASE_URL": llm.base_url}
        data = {"CITEWELL_DATA": str(folder / "data")}
        told |= served([*prefix, *COMMAND, "serve", "--port", "0"], folder, os.environ | data | model, llm)
        llm.on(CHAT, SAID)
        (folder / "golden.jsonl").write_text(json.dumps(GOLDEN) + "\n")
        for name, arguments, settings in (
            ("ingest", [*COMMAND, "ingest", str(SAMPLES / "handbook"), "--collection", "second"], model),
            ("asked", [*COMMAND, "ask", QUESTION, "--collection", "demo", "--json"], model),
            ("read", [*COMMAND, "ask", QUESTION, "--collection", "demo", "--json"], {}),
            ("golden", [*COMMAND, "golden", "add", str(folder / "golden.jsonl"), "--collection", "demo"], {}),
            ("report", [*COMMAND, "report", "run", "--collection", "demo", "--json"], model),
            ("measures", [sys.executable, "-c", MEASURES], {}),
        ):
            told[name] = ended([*prefix, *arguments], os.environ | data | settings)
        told |= {"model": llm.port, "chats": len(llm.chats)}
    sys.stdout.write(json.dumps(told) + "\n")


def ended(command: list[str], variables: dict[str, str]) -> dict[str, Any]:
    """Run a command to its end; return its status and what it wrote."""
    done = subprocess.run(
        command, cwd=ROOT, env=variables, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    return {"status": done.returncode, "out": done.stdout[-200_000:], "err": done.stderr[-4_000:]}


def served(command: list[str], folder: Path, variables: dict[str, str], llm: ScriptedLLM) -> dict[str, Any]:
    """Upload and ask over HTTP, at last when the model hangs up; return what was answered."""
    with (folder / "server.log").open("w") as errors:
        process = subprocess.Popen(command, cwd=ROOT, env=variables, stdout=subprocess.PIPE, stderr=errors, text=True)
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
        llm.on(CHAT, (Reset(),))
        fallen_back = client.post("/v1/ask", json=ask | {"cache": False}).raise_for_status().json()
    process.send_signal(signal.SIGTERM)
    status = process.wait(PATIENCE)
    answers = {"answer": answer, "streamed": streamed, "fallen_back": fallen_back}
    return {"states": sorted(states), "stopped": status} | answers


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
