"""The product needs no network, and looks for none: real processes, over whole journeys.

Once in a network namespace that has nothing but loopback, where everything has to work; and twice where every attempt
of any process to reach something is recorded: by the kernel (strace), also what libraries in C try, and by Python.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rag.settings import load_settings
from tests.scripted_llm import CHAT, ScriptedLLM, stream

ROOT = Path(__file__).parent.parent
PATIENCE = 500
#: What this machine may have in its environment that keeps libraries quiet: the product has to do that itself.
SWITCHES = ("HF_", "TRANSFORMERS_", "DO_NOT_", "RAGAS_", "SCARF_", "ANONYMIZED_")
#: Written into the folder that Python looks into first: every process of Python writes down what it tries to reach.
RECORDER = """
import sys
from pathlib import Path
seen = Path(__file__).with_name("seen")
def listen(event, arguments):
    if event in {"socket.connect", "socket.sendto"} and isinstance(arguments[1], tuple):
        note(event, repr(arguments[1][:2]))
    elif event in {"socket.getaddrinfo", "socket.gethostbyname"}:
        note(event, repr(arguments[:2]))
def note(event, what):
    with seen.open("a") as file:
        file.write(f"{event} {what}\\n")
note("process", " ".join(sys.argv[:3]))
sys.addaudithook(listen)
"""


def environment(folder: Path, **more: str) -> dict[str, str]:
    """The environment of a user who has switched nothing off, with an empty home."""
    for name in ("home", "tmp"):
        (folder / name).mkdir()
    kept = {name: value for name, value in os.environ.items() if not name.startswith(SWITCHES)}
    places = {"HOME": str(folder / "home"), "TMPDIR": str(folder / "tmp"), "PYTHONPATH": str(ROOT)}
    short = {"CITEWELL_REPORT__GENERATED": "1", "CITEWELL_REPORT__TRAFFIC": "1", "CITEWELL_SERVER__PROCESSES": "2"}
    return kept | places | short | {"CITEWELL_CACHE": str(load_settings().cache)} | more


def walk(folder: Path, variables: dict[str, str], before: list[str], prefix: list[str]) -> dict[str, Any]:
    """Walk the journey of `tests.journey`, and check that all of it has gone well."""
    done = subprocess.run(
        [*before, sys.executable, "-m", "tests.journey", str(folder), *prefix],
        cwd=ROOT, env=variables, capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["states"] == ["ready"] * 9
    assert told["stopped"] == 0
    assert "145 euros" in told["answer"]["text"]
    assert told["answer"]["citations"]
    assert "event: done" in told["streamed"]
    for name in ("ingest", "asked", "report"):
        assert told[name]["status"] == 0, told[name]
    assert "145 euros" in json.loads(told["asked"]["out"])["text"]
    assert json.loads(told["report"]["out"])
    return told


def way_into_a_namespace() -> list[str]:
    """Return the words that start something in a network namespace of its own, as root or as anybody; none do: skip."""
    for way in (["unshare", "--net"], ["unshare", "--net", "--map-root-user"]):
        if shutil.which("unshare") and subprocess.run([*way, "true"], capture_output=True, check=False).returncode == 0:
            return way
    pytest.skip("network namespaces can not be made here: unshare --net is refused")


@pytest.mark.long
def test_everything_works_without_any_network(tmp_path):
    """Server, worker, upload, ask, stream, ingest and report, in a namespace whose one interface is loopback."""
    told = walk(tmp_path, environment(tmp_path), way_into_a_namespace(), [])
    assert told["interfaces"] == ["lo"]
    assert told["outside"] == "Network is unreachable"


def scripted() -> ScriptedLLM:
    """A language model that says the same of every question."""
    llm = ScriptedLLM()
    llm.on(CHAT, stream("The hotel limit for domestic travel is 145 euros per night. [1]"))
    return llm


def model(llm: ScriptedLLM) -> dict[str, str]:
    return {"CITEWELL_GENERATOR__KIND": "openai", "CITEWELL_GENERATOR__BASE_URL": llm.base_url}


@pytest.mark.long
@pytest.mark.skipif(not shutil.which("strace"), reason="strace is not installed")
def test_the_kernel_sees_no_attempt_to_reach_what_is_not_configured(tmp_path):
    """Every connect and every datagram of every process and thread, parsers included, is to the model that is set."""
    tracer = ["strace", "-D", "-ff", "-qq", "--seccomp-bpf", "-e", "trace=connect,sendto,sendmsg,sendmmsg", "-o"]
    tried = subprocess.run([*tracer, str(tmp_path / "tried"), "true"], capture_output=True, text=True, check=False)
    if tried.returncode != 0:
        pytest.skip(f"strace may not trace here: {tried.stderr}")
    (tmp_path / "calls").mkdir()
    prefix = [*tracer, str(tmp_path / "calls" / "of")]
    with scripted() as llm:
        walk(tmp_path, environment(tmp_path, **model(llm)), [], prefix)
        assert reached(tmp_path / "calls") == ({("127.0.0.1", llm.port)}, set())
        assert llm.chats
    assert len([*(tmp_path / "calls").iterdir()]) > 20


def reached(folder: Path) -> tuple[set[tuple[str, int]], set[str]]:
    """Return the addresses that traced processes tried to reach, and the local sockets by which names are looked up."""
    hosts: set[tuple[str, int]] = set()
    names: set[str] = set()
    for file in folder.iterdir():
        text = file.read_text(errors="replace")
        for port, address in re.findall(r'sin_port=htons\((\d+)\), sin_addr=inet_addr\("([^"]+)"\)', text):
            hosts.add((address, int(port)))
        for port, address in re.findall(r'sin6_port=htons\((\d+)\).*?inet_pton\(AF_INET6, "([^"]+)"', text):
            hosts.add((address, int(port)))
        names |= {path for path in re.findall(r'sun_path="([^"]+)"', text) if re.search("resolve|dns", path)}
    return hosts, names


def test_the_reader_of_traces_finds_every_kind_of_address(tmp_path):
    """Of IPv4 and IPv6, connections and datagrams, and of the services by which names are looked up."""
    (tmp_path / "of.1").write_text(
        'connect(3, {sa_family=AF_INET, sin_port=htons(443), sin_addr=inet_addr("192.0.2.7")}, 16) = 0\n'
        'sendto(4, "x", 1, 0, {sa_family=AF_INET, sin_port=htons(53), sin_addr=inet_addr("192.0.2.53")}, 16) = 1\n'
        "connect(5, {sa_family=AF_INET6, sin6_port=htons(80), sin6_flowinfo=htonl(0), "
        'inet_pton(AF_INET6, "2001:db8::1", &sin6_addr), sin6_scope_id=0}, 28) = -1 ENETUNREACH\n'
        'connect(6, {sa_family=AF_UNIX, sun_path="/run/systemd/resolve/io.systemd.Resolve"}, 42) = 0\n'
        'connect(6, {sa_family=AF_UNIX, sun_path="/tmp/own"}, 42) = 0\n'
    )
    assert reached(tmp_path) == (
        {("192.0.2.7", 443), ("192.0.2.53", 53), ("2001:db8::1", 80)}, {"/run/systemd/resolve/io.systemd.Resolve"}
    )  # fmt: skip


@pytest.mark.long
def test_python_sees_no_attempt_to_reach_what_is_not_configured(tmp_path):
    """As above by Python's own audit events, which need no tracer; names that are looked up are recorded as well."""
    (tmp_path / "hooks").mkdir()
    (tmp_path / "hooks" / "sitecustomize.py").write_text(RECORDER)
    with scripted() as llm:
        variables = environment(tmp_path, **model(llm))
        hooked = ["env", f"PYTHONPATH={tmp_path / 'hooks'}:{ROOT}"]
        walk(tmp_path, variables, [], hooked)
        lines = (tmp_path / "hooks" / "seen").read_text().splitlines()
        assert llm.chats
    processes = {line for line in lines if line.startswith("process ")}
    assert any("worker" in line for line in processes)
    tried = {line for line in lines if not line.startswith("process ")}
    assert {line for line in tried if str(llm.port) not in line} == set()
