"""The product needs no network, and looks for none: real processes, over whole journeys.

One journey in a network namespace that has nothing but loopback, where everything has to work, and where every attempt
of any process to reach something is recorded: by the kernel (strace), also what libraries in C try, and by Python.
Where there is no namespace or no strace it is walked all the same, and only that promise is not looked at.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from eval.scored import METRICS
from rag.settings import load_settings

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


@dataclass(frozen=True)
class Journey:
    """A journey that was walked once, and all that watched it: each promise looks at its own part."""

    folder: Path
    told: dict[str, Any]
    #: Why it was not walked in a network namespace, and why not under strace; empty if it was.
    unconfined: str
    untraced: str

    @property
    def calls(self) -> Path:
        """Where strace has written what each thread tried, one file each."""
        return self.folder / "calls"


@pytest.fixture(scope="module")
def journey(tmp_path_factory: pytest.TempPathFactory) -> Journey:
    """The journey of `tests.journey`: without a network, under strace, heard by Python, each where it can be had."""
    folder = tmp_path_factory.mktemp("airgap")
    for name in ("home", "tmp", "hooks", "calls"):
        (folder / name).mkdir()
    (folder / "hooks" / "sitecustomize.py").write_text(RECORDER)
    confined, unconfined = way_into_a_namespace()
    tracer, untraced = way_to_trace(folder, confined)
    hooked = ["env", f"PYTHONPATH={folder / 'hooks'}:{ROOT}"]
    done = subprocess.run(
        [*confined, sys.executable, "-m", "tests.journey", str(folder), *tracer, *hooked],
        cwd=ROOT, env=environment(folder), capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    return Journey(folder, json.loads(done.stdout.splitlines()[-1]), unconfined, untraced)


def environment(folder: Path) -> dict[str, str]:
    """The environment of a user who has switched nothing off, with an empty home."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(SWITCHES)}
    places = {"HOME": str(folder / "home"), "TMPDIR": str(folder / "tmp"), "PYTHONPATH": str(ROOT)}
    short = {"CITEWELL_REPORT__GENERATED": "1", "CITEWELL_REPORT__TRAFFIC": "1", "CITEWELL_INGEST__PARSERS": "1"}
    chosen = {"CITEWELL_SERVER__PROCESSES": "2", "CITEWELL_CACHE": str(load_settings().cache)}
    return kept | places | short | chosen


def way_into_a_namespace() -> tuple[list[str], str]:
    """Return the words that start something in a network namespace of its own, as root or anybody; or why none do."""
    for way in (["unshare", "--net"], ["unshare", "--net", "--map-root-user"]):
        if shutil.which("unshare") and subprocess.run([*way, "true"], capture_output=True, check=False).returncode == 0:
            return way, ""
    return [], "network namespaces can not be made here: unshare --net is refused"


def way_to_trace(folder: Path, confined: list[str]) -> tuple[list[str], str]:
    """Return the words that start something under strace; or why that can not be done."""
    if not shutil.which("strace"):
        return [], "strace is not installed"
    tracer = ["strace", "-D", "-ff", "-qq", "--seccomp-bpf", "-e", "trace=connect,sendto,sendmsg,sendmmsg", "-o"]
    command = [*confined, *tracer, str(folder / "tried"), "true"]
    tried = subprocess.run(command, capture_output=True, text=True, check=False)
    if tried.returncode != 0:
        return [], f"strace may not trace here: {tried.stderr}"
    return [*tracer, str(folder / "calls" / "of")], ""


@pytest.mark.long
def test_the_whole_journey_goes_well(journey):
    """Server, worker, upload, ask, stream, ingest and report, by the built-in reader as by a language model."""
    told = journey.told
    assert told["states"] == ["ready"] * 9
    assert told["stopped"] == 0
    for name in ("ingest", "asked", "read", "golden", "report", "measures"):
        assert told[name]["status"] == 0, told[name]
    by_model = [told["answer"], json.loads(told["asked"]["out"])]
    by_reader = [told["fallen_back"], json.loads(told["read"]["out"])]
    for answer in [*by_model, *by_reader]:
        assert "145 euros" in answer["text"]
        assert answer["citations"]
    assert {answer["generator"] for answer in by_model} == {"openai:scripted-model"}
    assert {answer["generator"] for answer in by_reader} == {"reader"}
    assert "event: done" in told["streamed"]
    assert [metric for metric in METRICS if f'"{metric}"' not in told["report"]["out"]] == []
    assert told["chats"] > 4


@pytest.mark.long
def test_everything_works_without_any_network(journey):
    """All of it has gone well, see above, in a namespace whose one interface is loopback."""
    if journey.unconfined:
        pytest.skip(journey.unconfined)
    assert journey.told["interfaces"] == ["lo"]
    assert journey.told["outside"] == "Network is unreachable"


@pytest.mark.long
def test_the_kernel_sees_no_attempt_to_reach_what_is_not_configured(journey):
    """Every connect and every datagram of every process and thread, parsers included, is to the model that is set."""
    if journey.untraced:
        pytest.skip(journey.untraced)
    assert reached(journey.calls) == ({("127.0.0.1", journey.told["model"])}, set())
    assert len([*journey.calls.iterdir()]) > 20


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
def test_python_sees_no_attempt_to_reach_what_is_not_configured(journey):
    """As above by Python's own audit events, which need no tracer; names that are looked up are recorded as well."""
    lines = (journey.folder / "hooks" / "seen").read_text().splitlines()
    processes = {line for line in lines if line.startswith("process ")}
    assert any("worker" in line for line in processes)
    tried = {line for line in lines if not line.startswith("process ")}
    assert tried
    assert {line for line in tried if str(journey.told["model"]) not in line} == set()


@pytest.mark.long
def test_no_telemetry_is_left_to_be_sent(journey):
    """What is written in C++ keeps its events in files before it sends them: none are in the home, none in the rest."""
    left = [str(path) for name in ("home", "tmp") for path in (journey.folder / name).rglob("*")]
    assert not [path for path in left if "onnxruntime" in path or "ragas" in path or path.endswith(".ses")]
