"""Hostile documents end in a clear state of their own, through the real child process; nothing of it is left behind."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from pathlib import Path
from typing import Self

import docx
import pytest

from ingest.chunk import chunk
from ingest.parse import parse
from ingest.sandbox import Reading, Sandbox, SandboxFailed, _checked, _regular_file, sweep_folders
from rag.errors import (
    DamagedDocument,
    DocumentRejected,
    DocumentTooLarge,
    DocumentTooSlow,
    EmptyDocument,
    EncryptedDocument,
    ParserStopped,
    Unavailable,
    UnsupportedDocument,
)
from rag.originals import Original
from rag.settings import IngestSettings
from rag.testing import WordEmbedder
from tests.processes import alive, children, family

LIMITS = IngestSettings()
ROOT = Path(__file__).parents[2]
SECONDS = 60


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Folders for temporary files are made here, and must be gone at the end."""
    place = tmp_path / "temporary"
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    yield place
    wait_until(lambda: not list(place.iterdir()))


@pytest.fixture
def sandboxed(folder):
    """Makes a sandbox with limits of its own."""
    return lambda **limits: Sandbox(LIMITS.model_copy(update=limits))


@pytest.fixture
def store(tmp_path):
    """Write a file as the originals are stored, without an extension."""

    def _store(data: bytes | str, name: str = "0123abcd") -> Path:
        path = tmp_path / name
        path.write_bytes(data.encode() if isinstance(data, str) else data)
        return path

    return _store


@pytest.fixture
def good(store):
    return store("Storm at sea.", "good")


@pytest.fixture(scope="module")
def shared():
    """A sandbox with the default limits."""
    with Sandbox(LIMITS) as sandbox:
        yield sandbox


@pytest.fixture(scope="module")
def impatient():
    """A sandbox that gives a document three seconds. Its child may have been ended by the test before."""
    with Sandbox(LIMITS.model_copy(update={"parse_seconds": 3.0})) as sandbox:
        yield sandbox


def wait_until(holds) -> None:
    deadline = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < deadline, "it did not come to hold"
        time.sleep(0.02)


def folder_of(sandbox: Sandbox) -> Path:
    """Where its child works, which is to be gone with the child."""
    return Path(sandbox._child.folder)


def docx_of(text: str) -> bytes:
    document, file = docx.Document(), io.BytesIO()
    document.add_paragraph(text)
    document.save(file)
    return file.getvalue()


class Stuck:
    """A document that the child has begun to read and never comes to the end of: a pipe with nothing in it."""

    def __init__(self, sandbox: Sandbox, path: Path) -> None:
        self.sandbox, self.path, self.error = sandbox, path, None
        self.thread = threading.Thread(target=self._parse)

    def _parse(self) -> None:
        try:
            self.sandbox.parse(self.path, "stuck.txt")
        except DocumentRejected as error:
            self.error = error

    def __enter__(self) -> Self:
        os.mkfifo(self.path)
        self.thread.start()
        self.pipe = os.open(self.path, os.O_WRONLY)  # returns when the child has opened the other end
        return self

    def __exit__(self, *_: object) -> None:
        self.thread.join(SECONDS)
        os.close(self.pipe)
        assert not self.thread.is_alive()


# ------------------------------------------------------------------------------------------------------- what it says


def test_real_files_are_read_as_without_it_by_one_child(shared, sample_files):
    pids = set()
    for path in sample_files:
        assert shared.parse(path, path.name) == parse(path, path.name, LIMITS)
        pids.add(shared.pid)
    assert len(pids) == 1


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", EmptyDocument),
        (b"%PDF-1.7\n" + bytes(range(256)), DamagedDocument),
        (bytes(range(256)) * 20, UnsupportedDocument),
        (b"From: a@b.c\nTo: b@c.d\nContent-Type: multipart/encrypted; boundary=x\n\n--x\n\n--x--\n", EncryptedDocument),
    ],
)
def test_a_refusal_is_the_same_as_without_it(shared, store, data, kind):
    path = store(data)
    with pytest.raises(kind) as direct:
        parse(path, "a.eml", LIMITS)
    with pytest.raises(kind) as through:
        shared.parse(path, "a.eml")
    assert type(through.value) is type(direct.value)
    assert (through.value.message, through.value.facts) == (direct.value.message, direct.value.facts)


@pytest.mark.parametrize("name", ["../../etc/passwd", "a\0b\x1b[31m.txt", "💥" * 999, "half \udc80 a letter", ""])
def test_a_hostile_name_is_only_a_hint(shared, good, name):
    assert shared.parse(good, name).text == "Storm at sea."


@pytest.mark.skipif(shutil.which("soffice") is None, reason="LibreOffice is not installed")
def test_libreoffice_works_behind_the_walls(shared, store):
    document = shared.parse(store(b"{\\rtf1\\ansi{\\b Fat} and gr\\'fc\\'dfe\\par Second.\\par}"), "a.rtf")
    assert document.text == "Fat and grüße\n\nSecond."


def test_a_file_that_is_gone_is_no_fault_of_a_document(shared, good, tmp_path):
    with pytest.raises(FileNotFoundError):
        shared.parse(tmp_path / "gone", "a.txt")
    assert shared.parse(good, "a.txt").elements


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may read what the child may not")
def test_a_file_that_only_we_may_read_is_read(shared, good):
    os.chown(good, 54321, 54321)
    good.chmod(0o600)
    assert shared.parse(good, "a.txt").text == "Storm at sea."


def test_a_child_that_can_not_start_is_no_fault_of_a_document(good, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    with pytest.raises(Unavailable, match="can not be started"):
        Sandbox(LIMITS).parse(good, "a.txt")


# ------------------------------------------------------------------------------------------------------------- limits


def test_too_long_a_time_is_told_and_the_next_document_is_read(sandboxed, store, good):
    """Seconds of work for the parser of HTML, of which there is one."""
    page = store("<html><body>" + "<p>One more paragraph of a page that has no end.</p>" * 100_000)
    with sandboxed(parse_seconds=2.0) as sandbox:
        with pytest.raises(DocumentTooLarge, match=r"longer than 2 seconds \(ingest\.parse_seconds\)"):
            sandbox.parse(page, "a.html")
        assert sandbox.pid is None
        assert sandbox.parse(good, "a.txt").text == "Storm at sea."


def test_a_document_without_an_end_is_given_up(impatient, good, tmp_path):
    with Stuck(impatient, tmp_path / "pipe") as stuck:
        place = folder_of(impatient)
    assert isinstance(stuck.error, DocumentTooLarge)
    assert impatient.parse(good, "a.txt").elements
    wait_until(lambda: not place.exists())


def test_too_much_memory_is_told_and_the_next_document_is_read(sandboxed, store, good):
    rows = "".join(f"{n},{'word ' * 20}\n" for n in range(600_000))
    with sandboxed(parse_memory_bytes=600_000_000, max_text_chars=10**9) as sandbox:
        with pytest.raises(DocumentTooLarge, match=r"600,000,000 bytes of memory \(ingest\.parse_memory_bytes\)"):
            sandbox.parse(store("number,words\n" + rows), "a.csv")
        assert sandbox.parse(good, "a.txt").text == "Storm at sea."


def test_too_long_an_answer_is_told_and_the_child_goes_on(sandboxed, store, good):
    with sandboxed(parse_output_bytes=2000) as sandbox:
        assert sandbox.parse(good, "a.txt").elements
        before = sandbox.pid
        with pytest.raises(DocumentTooLarge, match=r"2,000 bytes \(ingest\.parse_output_bytes\)"):
            sandbox.parse(store("Words, and more words. " * 200), "a.txt")
        assert sandbox.pid == before


def test_the_limits_hold_in_the_kernel(shared, good):
    shared.parse(good, "a.txt")
    reader = children(shared.pid)[0]
    lines = Path(f"/proc/{reader}/limits").read_text().splitlines()
    found = {line[:26].strip(): line[26:].split()[:2] for line in lines}
    assert found["Max address space"] == [str(LIMITS.parse_memory_bytes)] * 2
    assert found["Max open files"] == [str(LIMITS.parse_open_files)] * 2
    assert found["Max file size"] == [str(LIMITS.parse_write_bytes)] * 2
    assert found["Max core file size"] == ["0", "0"]
    assert LIMITS.parse_seconds < int(found["Max cpu time"][0]) < 3 * LIMITS.parse_seconds


def test_a_zip_bomb_is_refused(shared, store, good):
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(docx_of("x"))) as old, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            if name != "word/document.xml":
                new.writestr(name, old.read(name))
        with new.open("word/document.xml", "w") as member:
            for _ in range(450):
                member.write(b" " * 1_000_000)
    with pytest.raises(DocumentTooLarge, match=r"unpacks to 450,.* bytes of XML"):
        shared.parse(store(file.getvalue()), "bomb.docx")
    assert shared.parse(good, "a.txt").elements


# ------------------------------------------------------------------------------------------------------- how it ends


@pytest.mark.parametrize("which", ["warden", "reader"])
def test_a_child_that_is_killed_costs_one_document(shared, good, tmp_path, which):
    shared.parse(good, "a.txt")
    warden = shared.pid
    members = family(warden)
    with Stuck(shared, tmp_path / "pipe") as stuck:
        os.kill(warden if which == "warden" else children(warden)[0], signal.SIGKILL)
    assert isinstance(stuck.error, DamagedDocument)
    assert "crashed the parser (SIGKILL)" in stuck.error.message
    wait_until(lambda: not any(map(alive, members)))
    assert shared.parse(good, "a.txt").text == "Storm at sea."
    assert shared.pid != warden


@pytest.mark.parametrize(
    ("status", "kind", "words"),
    [
        (128 + signal.SIGSEGV, ParserStopped, "crashed the parser (SIGSEGV)"),
        (-signal.SIGKILL, ParserStopped, "crashed the parser (SIGKILL)"),
        (7, ParserStopped, "crashed the parser (status 7)"),
        (0, ParserStopped, "crashed the parser (status 0)"),
        (128 + signal.SIGXCPU, DocumentTooSlow, "(ingest.parse_seconds)"),
    ],
)
def test_how_the_child_ended_says_what_the_document_is(status, kind, words):
    error = Sandbox(LIMITS)._refusal(status)
    assert type(error) is kind
    assert words in error.message


def test_a_child_that_died_in_between_costs_nothing(shared, good):
    shared.parse(good, "a.txt")
    members, place = family(shared.pid), folder_of(shared)
    os.kill(members[0], signal.SIGKILL)
    wait_until(lambda: not any(map(alive, members)))
    assert shared.parse(good, "a.txt").text == "Storm at sea."
    wait_until(lambda: not place.exists())


def test_a_child_that_is_frozen_is_given_up(impatient, good, tmp_path):
    impatient.parse(good, "a.txt")
    members, place = family(impatient.pid), folder_of(impatient)
    with Stuck(impatient, tmp_path / "pipe") as stuck:
        os.kill(members[1], signal.SIGSTOP)
    assert isinstance(stuck.error, DocumentTooLarge)
    assert not any(map(alive, members))
    wait_until(lambda: not place.exists())


def test_a_child_is_replaced_after_some_documents(sandboxed, good):
    with sandboxed(parse_documents=3) as sandbox:
        pids = []
        for _ in range(7):
            sandbox.parse(good, "a.txt")
            pids.append(sandbox.pid)
    assert pids == [pids[0]] * 3 + [pids[3]] * 3 + [pids[6]]
    assert len(set(pids)) == 3


def test_nothing_runs_after_close_and_it_can_be_used_again(sandboxed, good, folder):
    sandbox = sandboxed()
    assert sandbox.pid is None
    for _ in range(2):
        sandbox.parse(good, "a.txt")
        members = family(sandbox.pid)
        assert len(members) == 2
        sandbox.close()
        sandbox.close()
        assert not any(map(alive, members))
        assert list(folder.iterdir()) == []


def test_one_that_is_forgotten_ends_too(sandboxed, good):
    sandbox = sandboxed()
    sandbox.parse(good, "a.txt")
    members = family(sandbox.pid)
    del sandbox
    assert not any(map(alive, members))


PARENT = """
import sys, tempfile
from pathlib import Path
from ingest.sandbox import Sandbox
from rag.settings import IngestSettings
tempfile.tempdir = sys.argv[2]
sandbox = Sandbox(IngestSettings())
sandbox.parse(Path(sys.argv[1]), "a.txt")
print(sandbox.pid, file=sys.stderr, flush=True)
if sys.argv[3:]:
    sandbox.parse(Path(sys.argv[3]), "a.txt")
sys.stdin.read()
"""


@pytest.mark.parametrize("busy", [False, True])
def test_nothing_runs_after_the_parent_is_killed(good, folder, tmp_path, busy):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    command = [sys.executable, "-c", PARENT, str(good), str(folder), *([str(pipe)] if busy else [])]
    with subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdin=subprocess.PIPE, stderr=subprocess.PIPE
    ) as parent:
        members = family(int(parent.stderr.readline()))
        end = os.open(pipe, os.O_WRONLY) if busy else None
        assert all(map(alive, members))
        parent.kill()
    wait_until(lambda: not any(map(alive, members)))
    if end is not None:
        os.close(end)


def command_of(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except FileNotFoundError:
        return ""


@pytest.mark.skipif(shutil.which("soffice") is None, reason="LibreOffice is not installed")
def test_libreoffice_ends_with_the_child(sandboxed, store):
    """A document that takes it a while, and a parent that has no patience."""
    text = "{\\rtf1\\ansi " + "Some words of a paragraph.\\par " * 300_000 + "}"
    sandbox, members = sandboxed(), []

    def convert() -> None:
        with pytest.raises(DamagedDocument, match="SIGKILL"):
            sandbox.parse(store(text), "a.rtf")

    thread = threading.Thread(target=convert)
    thread.start()

    def converting() -> bool:
        members[:] = family(sandbox.pid) if sandbox.pid else []
        return any("soffice.bin" in command_of(pid) for pid in members)

    wait_until(converting)
    os.kill(members[1], signal.SIGKILL)
    thread.join(SECONDS)
    wait_until(lambda: not any(map(alive, members)))
    sandbox.close()


# -------------------------------------------------------------------------------------------------------------- walls


def test_the_child_sees_no_secret(sandboxed, good, monkeypatch):
    monkeypatch.setenv("CITEWELL_GENERATOR__API_KEY", "top-secret")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "top-secret")
    with sandboxed() as sandbox:
        sandbox.parse(good, "a.txt")
        members = family(sandbox.pid)
        assert len(members) == 2
        for pid in members:
            environment = Path(f"/proc/{pid}/environ").read_bytes()
            assert b"PATH=" in environment
            assert b"top-secret" not in environment


def test_the_child_has_no_privilege_and_no_way_to_get_one(shared, good):
    shared.parse(good, "a.txt")
    status = Path(f"/proc/{children(shared.pid)[0]}/status").read_text()
    found = dict(line.split(":\t", 1) for line in status.splitlines())
    assert {int(found[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {0}
    assert found["NoNewPrivs"] == "1"
    assert found["Seccomp"] == "2"


def _can_unshare() -> bool:
    done = subprocess.run(["unshare", "--user", "--net", "--pid", "true"], capture_output=True, check=False)
    return done.returncode == 0


@pytest.mark.skipif(not _can_unshare(), reason="this system lets nobody make namespaces")
def test_the_child_is_in_a_network_of_its_own_which_is_empty(shared, good):
    shared.parse(good, "a.txt")
    reader = children(shared.pid)[0]
    assert Path(f"/proc/{reader}/ns/net").readlink() != Path("/proc/self/ns/net").readlink()
    assert Path(f"/proc/{reader}/ns/pid").readlink() != Path("/proc/self/ns/pid").readlink()
    assert Path(f"/proc/{reader}/net/route").read_text().splitlines()[1:] == []
    assert [line.split(":")[0].strip() for line in Path(f"/proc/{reader}/net/dev").read_text().splitlines()[2:]] == [
        "lo"
    ]


WALLS = """
import ctypes, json, os, socket, subprocess, sys
from ingest.walls import build_walls
from rag.settings import IngestSettings
walls, found = [], {}
build_walls(IngestSettings(), walls)

def tried(name, call):
    try:
        call()
    except OSError as error:
        found[name] = type(error).__name__
    else:
        found[name] = "done"

tried("look up", lambda: socket.getaddrinfo("127.0.0.1", 9))
tried("socket", lambda: socket.socket(socket.AF_INET))
tried("socket 6", lambda: socket.socket(socket.AF_INET6))
tried("netlink", lambda: socket.socket(socket.AF_NETLINK))
one, other = socket.socketpair()
tried("local", lambda: one.send(b"x"))
program = "import socket; socket.socket(socket.AF_INET)"
found["other program"] = subprocess.run([sys.executable, "-c", program], stderr=subprocess.DEVNULL).returncode
found["ptrace"] = ctypes.CDLL(None).ptrace(0, 0, 0, 0)
print(json.dumps([walls, found]))
"""


def test_the_walls_hold_where_there_are_no_namespaces(tmp_path):
    """The filter of system calls and the audit hook alone, in a process of their own and in a program it starts."""
    done = subprocess.run(
        [sys.executable, "-c", WALLS], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    walls, found = json.loads(done.stdout)
    assert walls == ["system calls", "audit hook"]
    refused = dict.fromkeys(("look up", "socket", "socket 6", "netlink"), "PermissionError")
    assert found == refused | {"local": "done", "other program": 1, "ptrace": -1}


CPU = """
import resource
from ingest.walls import build_walls, limit_cpu
from rag.settings import IngestSettings
limits = IngestSettings(parse_seconds=0.1)
build_walls(limits, [])
limit_cpu(limits.parse_seconds)
while True:
    pass
"""


def test_processor_time_ends_the_child_even_if_nobody_looks():
    command, environment = [sys.executable, "-c", CPU], {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, check=False, timeout=SECONDS)
    assert done.returncode == signal.SIGXCPU
    assert isinstance(Sandbox(LIMITS)._refusal(done.returncode), DocumentTooLarge)


# ------------------------------------------------------------------------------------- what a taken over child may say

GOOD = {
    "media_type": "text/plain", "title": None, "pages": None, "metadata": {}, "blocks": [["text", "x", 1, ["y"]]],
    "language": "en", "chunks": [[0, 1, "y", "text", 1, ["y"], 4]], "seconds": {"parse": 0.1, "chunk": 0.1},
}  # fmt: skip


def checked(answer):
    return _checked(answer, LIMITS, Reading(counter="words", window=32), ())


def frame(data: bytes) -> bytes:
    return len(data).to_bytes(8, "big") + data


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        (frame(b'{"blocks": []}'), DamagedDocument),
        (frame(b"[]"), DamagedDocument),
        (frame(b"\xff\xfe"), DamagedDocument),
        (frame(b"[" * 200_000), DamagedDocument),
        (frame(b"9" * 10_000), DamagedDocument),
        (b"\xff" * 8, DocumentTooLarge),
        (b"\0\0", DocumentTooSlow),
    ],
    ids=["no id", "list", "no text", "deep", "long number", "huge", "cut off"],
)
def test_what_is_no_answer_ends_the_child(impatient, good, tmp_path, said, kind):
    """Written into the pipe of the answers behind the back of the child."""
    impatient.parse(good, "a.txt")
    place = folder_of(impatient)
    answers = os.fstat(impatient._child.process.stdout.fileno()).st_ino
    pipes = Path(f"/proc/{children(impatient.pid)[0]}/fd").iterdir()
    pipe = next(link for link in pipes if link.stat().st_ino == answers)
    with Stuck(impatient, tmp_path / "pipe") as stuck:
        pipe.write_bytes(said)
    assert type(stuck.error) is kind
    assert impatient.pid is None
    assert impatient.parse(good, "a.txt").text == "Storm at sea."
    wait_until(lambda: not place.exists())


@pytest.mark.parametrize(
    "change",
    [
        {"blocks": []},
        {"blocks": None},
        {"blocks": [["text", "x"]]},
        {"blocks": [["no kind", "x", 1, []]]},
        {"blocks": [["text", 7, 1, []]]},
        {"blocks": [["text", "half \ud800", 1, []]]},
        {"blocks": [["text", "x", -1, []]]},
        {"blocks": [["text", "x", True, []]]},
        {"blocks": [["text", "x", 1, [None]]]},
        {"media_type": "text/plain\r\nX: y"},
        {"media_type": ["text/plain"]},
        {"title": {}},
        {"pages": 10**9},
        {"pages": "3"},
        {"metadata": []},
        {"metadata": {"a": {"b": None}}},
        {"language": "English"},
        {"chunks": None},
        {"chunks": [[0, 2, "", "text", 1, [], 4]]},
        {"chunks": [[0, 1, "", "text", 1, [], 4], [0, 1, "", "text", 1, [], 4]]},
        {"chunks": [[-1, 1, "", "text", 1, [], 4]]},
        {"chunks": [[0, 1, 7, "text", 1, [], 4]]},
        {"seconds": {}},
        {"metadata": {"a": [None]}},
    ],
    ids=str,
)
def test_an_answer_that_our_code_does_not_give_is_not_taken(change):
    assert checked(GOOD).document.elements[0].section == ("y",)
    assert checked(GOOD).chunks[0].text == "x"
    with pytest.raises((ValueError, TypeError, KeyError, AttributeError)):
        checked(GOOD | change)


def test_an_unknown_refusal_is_a_damaged_document_and_facts_have_known_names():
    answer = {"refused": "bad_input", "message": "No.", "facts": {"event": "x", "cause": "y", "pages": [1]}}
    with pytest.raises(DamagedDocument) as caught:
        checked(answer)
    assert (caught.value.message, caught.value.facts) == ("No.", {"cause": "y"})
    with pytest.raises(SandboxFailed, match="Import"):
        checked({"fault": "ImportError: no module"})


# -------------------------------------------------------------------------------------------- what is inside a document


def archive(store, **members: bytes):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as made:
        for name, content in members.items():
            made.writestr(name, content)
    return store(file.getvalue())


def test_files_inside_a_document_are_stored_and_named(shared, store):
    """Each is handed over as it is, and what is said of it comes from our side alone."""
    kept = []

    def keep(stream):
        kept.append(stream.read())
        return Original(hashlib.sha256(kept[-1]).hexdigest(), len(kept[-1]))

    path = archive(store, **{"a/storm.txt": b"Storm.", "tide.txt": b"Tide!"})
    members = shared.read(path, "x.zip", Reading(keep=keep)).document.members
    assert kept == [b"Storm.", b"Tide!"]
    assert [(m.name, m.size, m.sha256) for m in members] == [
        ("a/storm.txt", 6, hashlib.sha256(b"Storm.").hexdigest()),
        ("tide.txt", 5, hashlib.sha256(b"Tide!").hexdigest()),
    ]  # fmt: skip
    assert shared.parse(path, "x.zip").members == members


def test_a_member_that_is_too_large_is_refused_by_itself(shared, store):
    def keep(stream):
        if len(content := stream.read()) > 5:
            raise DocumentTooLarge("It is too large.")
        return Original(hashlib.sha256(content).hexdigest(), len(content))

    path = archive(store, **{"storm.txt": b"Storm.", "tide.txt": b"Tide!"})
    members = shared.read(path, "x.zip", Reading(keep=keep)).document.members
    assert [(m.name, m.error) for m in members] == [("storm.txt", "It is too large."), ("tide.txt", None)]


def test_only_plain_files_are_taken_from_the_child(tmp_path):
    (tmp_path / "secret").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "secret")
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "pipe", "none", "."):
        with pytest.raises(ValueError):  # noqa: PT011  any of them is caught as nonsense
            _regular_file(tmp_path / name)
    with _regular_file(tmp_path / "secret") as stream:
        assert stream.read() == b"x"


def test_chunks_are_made_in_the_child_as_they_would_be_here(shared, store):
    text = "# Storms\n\n" + "\n\n".join(f"The storm number {n} came from the north." for n in range(30))
    path = store(text)
    read = shared.read(path, "a.md", Reading(counter=WordEmbedder().counter, window=32))
    assert list(read.chunks) == chunk(read.document, 32, WordEmbedder().count_tokens)
    assert len(read.chunks) > 3


def pdf_of(pages):
    """A PDF whose pages all say the same."""
    stream = b"BT /F1 12 Tf 60 700 Td (The storm came from the north.) Tj ET"
    kids = " ".join(f"{number} 0 R" for number in range(5, 5 + pages)).encode()
    page = b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 595 842]/Resources<</Font<</F1 3 0 R>>>>/Contents 4 0 R>>"
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Count %d/Kids[%s]>>" % (pages, kids),
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
        b"<</Length %d>>\nstream\n%s\nendstream" % (len(stream), stream),
        *[page] * pages,
    ]
    data = b"%PDF-1.4\n" + b"".join(b"%d 0 obj\n%s\nendobj\n" % (n, body) for n, body in enumerate(objects, 1))
    return data + b"trailer\n<</Root 1 0 R>>\n%%EOF\n"


def test_how_far_the_reading_is_is_told(shared, store):
    """A PDF tells after some pages; what a parser tells is never out of bounds."""
    told = []
    shared.read(store(pdf_of(120)), "a.pdf", Reading(tell=told.append))
    assert told == sorted(told)
    assert all(0 <= share <= 1 for share in told)
    assert told


def test_folders_of_the_dead_are_swept_and_those_of_the_living_are_not(shared, good, tmp_path):
    shared.parse(good, "a.txt")
    dead = Path(tempfile.mkdtemp(prefix="citewell-parse-"))
    (dead / "document").write_text("x")
    assert sweep_folders() >= 1
    assert not dead.exists()
    assert Path(shared._child.folder).is_dir()
    assert shared.parse(good, "a.txt").elements


def test_a_reader_has_no_torch_and_nobody_trips_over_its_absence(tmp_path):
    """Its import fails, and what looks for it among the modules finds nothing: a long paragraph is split as here."""
    program = (
        "import sys\nfrom ingest.sandbox import _load\n_load()\nimport thinc.compat\n"
        "assert not thinc.compat.has_torch\nassert 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    file, words = tmp_path / "long.txt", WordEmbedder()
    file.write_text("The tide rises and the harbour master sleeps well. " * 500)
    with Sandbox(IngestSettings()) as sandbox:
        read = sandbox.read(file, file.name, Reading(words.counter, words.window))
    assert read.chunks == tuple(chunk(read.document, words.window, words.count_tokens))
    assert len(read.chunks) > 100
