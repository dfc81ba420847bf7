"""The walls around parsing: a child process that reads one document after another within limits, and has no network.

Documents are hostile, so that what runs among the parsers' libraries is not trusted: it sees no secret of the
environment, it answers in JSON of bounded size, and everything in its answer is checked before it becomes records.
A document that breaks the child is refused, and the next one gets a new child. The child is kept from document to
document, because its libraries take seconds to import.

Two processes stand behind a `Sandbox`. The *warden* knows no document: it waits for the end of either the reader or
our process, kills the reader and all that it has started (LibreOffice), removes their folder and says how it ended.
The *reader* parses, behind `ingest.walls`. Knows no file format and no catalog.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import resource
import secrets
import select
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from stat import S_ISREG
from typing import Any, BinaryIO, NoReturn, Self, TypeVar

import structlog

from ingest.draft import Draft
from ingest.drawing import DEPTH, MOST_QUOTED, Drawn, View, drawn_from
from ingest.walls import build_walls, end_strays, leave_namespaces, limit_cpu
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
from rag.records import Block, Chunk, Kind, Member, ParsedDocument
from rag.settings import IngestSettings, bare_environment

log = structlog.get_logger(__name__)
AnsweredT = TypeVar("AnsweredT")

#: Seconds that a new child may take until it is ready, and an ended one until all of it is gone.
START_SECONDS, END_SECONDS = 60.0, 10.0
#: What is kept of what the child writes to its standard error, for one document, in characters.
LOG_CHARS = 4000
#: A child that holds so large a part of the memory it may have after a document is replaced: its libraries may leak.
GROWN = 1 / 4

_HEAD = 8
_BLOCK = 1 << 20
_START_BYTES = 10_000
_REFUSALS: Mapping[str, type[DocumentRejected]] = {
    kind.code: kind
    for kind in (EmptyDocument, EncryptedDocument, UnsupportedDocument, DamagedDocument, DocumentTooLarge)
}
#: The facts that the parsers tell with a refusal; the child can not make up names of its own.
_FACTS = frozenset({"cause", "bytes", "pages", "found", "needs"})
_SHA256 = re.compile(r"[0-9a-f]{64}")
_LANGUAGE = re.compile(r"[a-z]{2,3}(-[A-Za-z]{2,8})?")
#: Folders of children, and where in one the files inside a document are put.
_FOLDER, _SPOOL = "citewell-parse-", "members"
#: The file in the latter in which the pixels of a page are.
_PIXELS = "pixels"
_MEDIA_TYPE = re.compile(r"[a-z0-9.+-]{1,100}/[a-z0-9.+-]{1,100}")
#: Exit statuses of the reader; one above 128 is a signal, which the warden adds to that number.
_OUT_OF_MEMORY, _OUT_OF_TIME = 90, int(signal.SIGXCPU)


class SandboxFailed(RuntimeError):
    """The parser failed for a reason that is not the document's: a fault of Citewell's own or of its installation."""


class _Ended(Exception):
    """The child is gone; ``status`` is what the warden, or its death, said of it."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


@dataclass(frozen=True, slots=True)
class Reading:
    """What is asked of one document beside its text, and who is told of it.

    With a ``counter`` (see `rag.tokens`) it is cut into chunks of at most ``window`` tokens as well. ``keep`` stores a
    file that is inside the document; without it such files are only listed. ``depth`` says how many documents this one
    is inside of; ``tell`` is called with the share that is done.
    """

    counter: str | None = None
    window: int = 0
    depth: int = 0
    keep: Callable[[BinaryIO], Original] | None = None
    tell: Callable[[float], None] | None = None

    def request(self, name: str) -> dict[str, Any]:
        """Return what the child is told of it; only the end of a name is a hint."""
        return {"name": name[-255:], "depth": self.depth, "counter": self.counter, "window": self.window}


@dataclass(frozen=True, slots=True)
class Read:
    """A document as it was read, its chunks if they were asked for, and how many seconds either took in the child."""

    document: ParsedDocument
    chunks: tuple[Chunk, ...]
    seconds: Mapping[str, float]


class Sandbox:
    """Parses documents in a child process within ``limits``, see the fields ``parse_...`` of `IngestSettings`.

    The child starts with the first document, serves ``parse_documents`` of them at most, and ends with `close`, with
    this object, or with this process, whatever ends that. One document at a time: others wait. With ``drawing`` the
    child loads only what `draw` needs before the first one comes.
    """

    def __init__(self, limits: IngestSettings, *, drawing: bool = False) -> None:
        self._limits = limits
        self._drawing = drawing
        self._child: _Child | None = None
        self._served, self._grown = 0, False
        self._turn = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int | None:
        """The process id of the warden that runs now, if one does."""
        return self._child.process.pid if self._child else None

    def close(self) -> None:
        """End the child, if there is one, and all that it has started; a later `parse` starts another."""
        with self._turn:
            self._drop()

    def parse(self, path: Path, name: str) -> ParsedDocument:
        """Return what the file at ``path`` says, see `read`."""
        return self.read(path, name, Reading()).document

    def read(self, path: Path, name: str, reading: Reading) -> Read:
        """Read the file at ``path`` as `ingest.parse.parse` does with the same limits, and as ``reading`` asks.

        Raises the same `DocumentRejected` kinds; `DocumentTooLarge` also for one that passes a limit of time, memory
        or output, `DamagedDocument` also for one that ends the child. Raises `Unavailable` if no child can be started,
        `OSError` if there is no such file, and `SandboxFailed` if the parser itself is at fault. Whatever is raised,
        the next document is read.
        """
        limits = self._limits

        def checked(child: _Child, answer: dict[str, Any]) -> Read:
            return _checked(answer, limits, reading, child.members(answer, reading, limits))

        return self._asked(path, reading.request(name), checked, reading.tell)

    def draw(self, path: Path, view: View) -> Drawn:
        """Return a page of the PDF at ``path`` as `ingest.pdf_page.draw_page` does with the same limits.

        Raises what `read` raises.
        """
        request = {"page": view.page, "quote": view.quote[:MOST_QUOTED], "before": view.before[-MOST_QUOTED:]}
        most = self._limits.max_pixels
        return self._asked(path, {"draw": request}, lambda child, answer: child.drawn(answer, most))

    def _asked(
        self,
        path: Path,
        request: dict[str, Any],
        checked: Callable[[_Child, dict[str, Any]], AnsweredT],
        tell: Callable[[float], None] | None = None,
    ) -> AnsweredT:
        with self._turn:
            try:
                return self._ask(path.absolute(), request, checked, tell)
            except DocumentRejected:
                raise
            except BaseException:  # the child may be in the middle of something: its next answer would be to this
                self._drop()
                raise

    def _ask(
        self,
        path: Path,
        request: dict[str, Any],
        checked: Callable[[_Child, dict[str, Any]], AnsweredT],
        tell: Callable[[float], None] | None,
    ) -> AnsweredT:
        limits, child = self._limits, self._ready()
        self._served += 1
        try:
            answer = child.ask(path, request, limits, tell)
            self._grown = int(answer.get("holds", 0)) > GROWN * limits.parse_memory_bytes
            return checked(child, answer)
        except TimeoutError as error:
            self._drop()
            raise _too_slow(limits, with_ocr=child.slow) from error
        except OverflowError as error:
            self._drop()
            raise _too_long(limits) from error
        except _Ended as end:
            self._drop()
            raise self._refusal(end.status, with_ocr=child.slow) from end
        # No answer that our own code gives: whoever wrote the document has the child.
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError, IndexError) as error:
            self._drop()
            raise DamagedDocument(
                "Reading this document made the parser answer nonsense: open it in its own program and save it anew.",
                cause=f"{type(error).__name__}: {error}"[:500],
            ) from error

    def abort(self) -> None:
        """End the child in the middle of a document, from another thread; what it was asked for raises."""
        child = self._child
        if child is not None:
            child.process.kill()

    def _ready(self) -> _Child:
        """Return a child that waits for a document."""
        worn = self._grown or self._served >= self._limits.parse_documents
        if self._child and (worn or not self._child.waits()):
            self._drop()
        if self._child is None:
            self._child, self._served, self._grown = _started(self._limits, drawing=self._drawing), 0, False
            self._child.greet()
        return self._child

    def _drop(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            child.end()

    def _refusal(self, status: int, *, with_ocr: bool = False) -> DocumentRejected:
        """Say of a document what its ending of the child means."""
        if status == _OUT_OF_MEMORY:
            return DocumentTooLarge(
                f"Reading this document needed more than {self._limits.parse_memory_bytes:,} bytes of memory "
                "(ingest.parse_memory_bytes); split it or raise the limit."
            )
        if status in {_OUT_OF_TIME, 128 + signal.SIGXCPU}:
            return _too_slow(self._limits, with_ocr=with_ocr)
        how = -status if status < 0 else status - 128
        reason = signal.Signals(how).name if how in {*signal.Signals} else f"status {status}"
        return ParserStopped(
            f"Reading this document crashed the parser ({reason}): open it in its own program and save it anew.",
            cause=reason,
        )


def _too_slow(limits: IngestSettings, *, with_ocr: bool) -> DocumentTooSlow:
    """Return the refusal of a document that had one limit of time or, with OCR, the other."""
    seconds, name = (limits.ocr_seconds, "ocr") if with_ocr else (limits.parse_seconds, "parse")
    return DocumentTooSlow(
        f"Reading this document took longer than {seconds:g} seconds (ingest.{name}_seconds); "
        "split it or raise the limit."
    )


def _too_long(limits: IngestSettings) -> DocumentTooLarge:
    return DocumentTooLarge(
        f"What was read of this document is more than {limits.parse_output_bytes:,} bytes "
        "(ingest.parse_output_bytes); split it or raise the limit."
    )


# -- our side: the child as we see it --------------------------------------------------------------------------------


def _started(limits: IngestSettings, *, drawing: bool = False) -> _Child:
    """Start a child. Raises `Unavailable` where the system has no room for it."""
    folder = None
    try:
        folder = tempfile.mkdtemp(prefix=_FOLDER)
        return _Child(limits, folder, drawing=drawing)
    except OSError as error:
        if folder:
            shutil.rmtree(folder, ignore_errors=True)
        raise Unavailable(f"The process that reads documents can not be started: {error.strerror}.") from error


class _Child:
    """The pipes to a warden and its reader. Raises `_Ended` from whichever call finds that they are gone."""

    def __init__(self, limits: IngestSettings, folder: str, *, drawing: bool = False) -> None:
        self.folder = folder
        self._mark = _locked(folder)
        root = str(Path(__file__).parent.parent)
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "ingest.sandbox", self.folder, limits.model_dump_json(), *["draw"] * drawing],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            cwd=self.folder,
            env=bare_environment(home=self.folder, python_path=root),
            start_new_session=True,  # Ctrl-C in a terminal is for us, and what the child starts stays in its session
        )
        self.end = weakref.finalize(self, _end, self.process, self.folder, self._mark)
        self._said = bytearray()
        #: Whether the document in hand was said to need OCR, which has a limit of its own.
        self.slow = False
        self._answers = selectors.DefaultSelector()
        for stream in self._pipes():
            os.set_blocking(stream, False)
            self._answers.register(stream, selectors.EVENT_READ)

    def _pipes(self) -> tuple[int, int]:
        assert self.process.stdout, "it was made with pipes"  # noqa: S101
        assert self.process.stderr, "it was made with pipes"  # noqa: S101
        return self.process.stdout.fileno(), self.process.stderr.fileno()

    def waits(self) -> bool:
        """Say whether the child is there and owes us nothing."""
        if self.process.poll() is not None:  # the pipes of one that is killed stay open until its last thread is gone
            return False
        output, errors = self._pipes()
        ready = {key.fd for key, _ in self._answers.select(0)}
        return output not in ready and (errors not in ready or self._listen(errors))

    def greet(self) -> None:
        """Wait until the child is ready. Raises `Unavailable` if it does not become so."""
        try:
            walls = json.loads(self._receive(time.monotonic() + START_SECONDS, _START_BYTES))["walls"]
        except (_Ended, TimeoutError, OverflowError, ValueError, KeyError, TypeError) as error:
            log.error("the parsing process does not start", error=repr(error), said=self._heard())
            raise Unavailable("The process that reads documents does not start; the log says why.") from error
        if not {"namespaces", "system calls"} & {*walls}:
            log.warning("this system lets no process give up its network; only Python's own calls are stopped")

    def ask(
        self, path: Path, request: dict[str, Any], limits: IngestSettings, tell: Callable[[float], None] | None
    ) -> dict[str, Any]:
        """Have a document read, or a page of it drawn, and return the answer as it came, unchecked.

        Raises `TimeoutError` for one that takes too long, `OverflowError` for an answer of too many bytes and
        `ValueError` for one that is none.
        """
        spool = Path(self.folder, _SPOOL)
        shutil.rmtree(spool, ignore_errors=True)
        try:
            spool.mkdir()
        except OSError as error:
            raise Unavailable(f"The folder for temporary files takes no more: {error.strerror}.") from error
        answer = self._exchange(path, request, limits, tell)
        if answer.get("unreadable"):  # it has fewer rights than we have: give it a copy of its own
            copy = Path(self.folder, "document")
            shutil.copyfile(path, copy)
            try:
                answer = self._exchange(copy, request, limits, tell)
            finally:
                copy.unlink()
        return answer

    def _exchange(
        self, path: Path, request: dict[str, Any], limits: IngestSettings, tell: Callable[[float], None] | None
    ) -> dict[str, Any]:
        number = secrets.token_hex(8)
        started, self.slow = time.monotonic(), False
        deadline = started + limits.parse_seconds
        try:
            self._send(json.dumps({"id": number, "path": str(path)} | request).encode())
            while True:
                answer = json.loads(self._receive(deadline, limits.parse_output_bytes), parse_constant=_refuse)
                if not isinstance(answer, dict) or answer.get("id") != number:
                    raise ValueError("an answer to no question")
                if "share" in answer and tell is not None:
                    tell(min(1.0, max(0.0, float(answer["share"]))))
                elif "slow" in answer:
                    self.slow = True
                    deadline = started + max(limits.parse_seconds, limits.ocr_seconds)
                elif "share" not in answer:
                    return answer
        finally:
            if heard := self._heard():
                log.info("the parser says", pid=self.process.pid, text=heard)

    def members(self, answer: dict[str, Any], reading: Reading, limits: IngestSettings) -> tuple[Member, ...]:
        """Return the files inside a document that was just read, stored if somebody keeps them.

        Only their names and errors are taken from the answer. Raises what ``keep`` raises, and for an answer that our
        own code does not give what `_checked` does.
        """
        found = [_member(*member) for member in answer.get("members", ())]
        if len(found) > limits.archive_members:
            raise ValueError("more files than there may be")
        if reading.keep is None:
            return tuple(found)
        kept, size = [], 0
        for number, member in enumerate(found):
            if member.error is None:
                member = _kept(member.name, Path(self.folder, _SPOOL, str(number)), reading.keep)  # noqa: PLW2901
            kept.append(member)
            size += member.size
            if size > limits.archive_bytes:
                raise ValueError("larger files than there may be")
        return tuple(kept)

    def drawn(self, answer: dict[str, Any], most: int) -> Drawn:
        """Return the page that was just drawn. Raises what `_checked` does."""
        if "fault" in answer:
            raise SandboxFailed(_text(answer["fault"]))
        if "refused" in answer:
            raise _refused(answer)
        with _regular_file(Path(self.folder, _SPOOL, _PIXELS)) as stream:
            return drawn_from(answer, stream.read(most * DEPTH + 1), most)

    def _send(self, data: bytes) -> None:
        assert self.process.stdin, "it was made with pipes"  # noqa: S101
        try:
            self.process.stdin.write(len(data).to_bytes(_HEAD, "big") + data)
        except BrokenPipeError as error:
            raise _Ended(self._status()) from error

    def _receive(self, deadline: float, most: int) -> bytes:
        head = self._read(_HEAD, deadline)
        size = int.from_bytes(head, "big")
        if size > most:
            raise OverflowError(size)
        return self._read(size, deadline)

    def _read(self, size: int, deadline: float) -> bytes:
        """Read exactly ``size`` bytes of the answer, and meanwhile whatever comes over standard error."""
        data = bytearray()
        output, errors = self._pipes()
        while len(data) < size:
            ready = {key.fd for key, _ in self._answers.select(max(0.0, deadline - time.monotonic()))}
            if not ready:
                raise TimeoutError
            if errors in ready:
                self._listen(errors)
            if output in ready:
                block = os.read(output, min(_BLOCK, size - len(data)))
                if not block:
                    raise _Ended(self._status())
                data += block
        return bytes(data)

    def _listen(self, errors: int) -> bool:
        """Keep the first of what stands in the pipe of standard error, and forget the rest; False at its end."""
        block = os.read(errors, _BLOCK)
        self._said += block[: LOG_CHARS - len(self._said)]
        if not block:
            self._answers.unregister(errors)
        return bool(block)

    def _heard(self) -> str:
        heard = self._said.decode("utf-8", "replace").strip()
        self._said.clear()
        return heard

    def _status(self) -> int:
        try:
            return self.process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            return -signal.SIGKILL  # which `end` makes true


def _locked(folder: str) -> int:
    """Lock a folder for as long as this process lives, so that `sweep_folders` leaves it alone."""
    mark = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    fcntl.flock(mark, fcntl.LOCK_EX)
    return mark


def sweep_folders() -> int:
    """Remove the folders that were left by processes which were killed with all their children; return how many."""
    swept = 0
    for folder in Path(tempfile.gettempdir()).glob(f"{_FOLDER}*"):
        try:
            mark = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError:  # gone meanwhile, another user's, or none of ours
            continue
        try:
            fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
            swept += 1
        except BlockingIOError:
            pass  # in use
        finally:
            os.close(mark)
    return swept


def _kept(name: str, path: Path, keep: Callable[[BinaryIO], Original]) -> Member:
    try:
        with _regular_file(path) as stream:
            original = keep(stream)
    except DocumentTooLarge as error:
        return Member(name, "", 0, error.message)
    return Member(name, original.sha256, original.size)


def _regular_file(path: Path) -> BinaryIO:
    """Open a file that the child has written; raises `ValueError` for a link or anything else that is no plain file."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise ValueError(f"no file {path.name}") from error
    if not S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise ValueError(f"{path.name} is no plain file")
    return os.fdopen(handle, "rb")


def _end(process: subprocess.Popen[bytes], folder: str, mark: int) -> None:
    """Let go of the warden, which then ends the reader, cleans up and ends; kill it if it does not."""
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()
    try:
        process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()  # the reader has asked the kernel to be killed with it
        process.wait()
    shutil.rmtree(folder, ignore_errors=True)  # the warden did that, unless it was killed
    os.close(mark)


# -- our side: what the child says, checked --------------------------------------------------------------------------


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON number")


def _checked(answer: dict[str, Any], limits: IngestSettings, reading: Reading, members: tuple[Member, ...]) -> Read:
    """Make records of an answer, or raise the refusal that it is.

    Raises `ValueError`, `TypeError`, `KeyError`, `IndexError` or `AttributeError` for one that our own code does not
    give.
    """
    if "fault" in answer:
        raise SandboxFailed(_text(answer["fault"]))
    if "refused" in answer:
        raise _refused(answer)
    language = answer["language"]
    if language is not None and not _LANGUAGE.fullmatch(_text(language)):
        raise ValueError("no language")
    document = ParsedDocument.from_blocks(
        [_block(*block) for block in answer["blocks"]],
        media_type=_text(answer["media_type"]),
        title=None if answer["title"] is None else _text(answer["title"]),
        pages=_count(answer["pages"], limits.max_pages),
        metadata={_text(key): _plain(value) for key, value in answer["metadata"].items()},
        language=language,
        members=members,
    )
    if not (document.elements or members) or not _MEDIA_TYPE.fullmatch(document.media_type):
        raise ValueError("a document without text or type")
    chunks = _chunks(answer["chunks"], document.text) if reading.counter else ()
    seconds = {name: float(answer["seconds"][name]) for name in ("parse", "chunk")}
    return Read(document, chunks, seconds)


def _chunks(rows: Sequence[Sequence[Any]], text: str) -> tuple[Chunk, ...]:
    """Make chunks of their places: in order, and none over another."""
    chunks, last = [], 0
    for start, end, context, kind, page, section, tokens in rows:
        if not last <= (_count(start, len(text)) or 0) < (_count(end, len(text)) or 0):
            raise ValueError("a chunk at no place")
        path = tuple(_text(heading) for heading in section)
        chunks.append(Chunk(text[start:end], _text(context), start, end, Kind(kind), _count(page), path, int(tokens)))
        last = end
    return tuple(chunks)


def _member(name: str, sha256: str, size: int, error: str | None) -> Member:
    if error is None and not _SHA256.fullmatch(_text(sha256)):
        raise ValueError("no digest")
    return Member(
        _text(name), "" if error else sha256, _count(size, 1 << 62) or 0, None if error is None else _text(error)
    )


def _refused(answer: dict[str, Any]) -> DocumentRejected:
    kind = _REFUSALS.get(_text(answer["refused"]), DamagedDocument)
    facts = {name: value for name, value in answer["facts"].items() if name in _FACTS and isinstance(value, int | str)}
    return kind(_text(answer["message"])[:2000] or None, **facts)


def _block(kind: str, text: str, page: int | None, section: list[str]) -> Block:
    return Block(Kind(kind), _text(text), _count(page), tuple(_text(heading) for heading in section))


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{type(value).__name__} in place of text")
    value.encode()  # raises for half a character
    return value


def _count(value: object, most: int = 1 << 31) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
        raise ValueError("a number of pages that there can not be")
    return value


def _plain(value: object) -> Any:
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {_text(key): _plain(item) for key, item in value.items()}
    return value if isinstance(value, int | float) else _text(value)


# -- the child: the warden -------------------------------------------------------------------------------------------


def main(folder: str, limits: IngestSettings, *, drawing: bool = False) -> int:
    """Be the warden of a reader, and return how it ended; in the reader this does not return."""
    walls = leave_namespaces()
    ours, theirs = os.pipe()
    reader = os.fork()
    if reader == 0:
        os.close(ours)  # the other end stays open as long as we live
        _be_reader(limits, walls, drawing=drawing)
    os.close(theirs)
    _replace(1, os.O_WRONLY)  # the answers are the reader's: their end is to be seen
    _wait_for_end(0, ours)
    for kill in (os.killpg, os.kill):
        try:
            kill(reader, signal.SIGKILL)
        except ProcessLookupError:  # it had not yet made its group
            continue
    _, status, usage = os.wait4(reader, 0)
    shutil.rmtree(folder, ignore_errors=True)
    if os.WIFSIGNALED(status) and usage.ru_maxrss * 1024 > limits.parse_memory_bytes // 2:
        return _OUT_OF_MEMORY  # libraries in C crash where Python would say that there is no more
    return 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def _wait_for_end(*pipes: int) -> None:
    """Wait until a pipe has no writer any more; the death signal of a parent would follow one thread of it."""
    poll = select.poll()
    for pipe in pipes:
        poll.register(pipe, 0)
    poll.poll()


def _replace(descriptor: int, flags: int) -> None:
    nowhere = os.open(os.devnull, flags)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)


# -- the child: the reader -------------------------------------------------------------------------------------------


def _be_reader(limits: IngestSettings, walls: list[str], *, drawing: bool) -> NoReturn:
    """Answer requests until there are no more."""
    status = 1
    try:
        os.setpgid(0, 0)
        requests, answers = os.dup(0), os.dup(1)
        _replace(0, os.O_RDONLY)
        os.dup2(2, 1)  # what a library prints is no answer
        build_walls(limits, walls)
        _load(drawing=drawing)
        _write_frame(answers, {"walls": walls})
        while (request := _read_frame(requests)) is not None:
            limit_cpu(limits.parse_seconds)
            answer = {"id": request["id"], **_answer(request, limits, answers)}
            _write_frame(answers, answer | {"holds": _held_bytes()}, limits)
            end_strays()
        status = 0
    except MemoryError:
        status = _OUT_OF_MEMORY
    except BaseException:  # noqa: BLE001 -- the outermost edge of the process: it goes to the log of our parent
        traceback.print_exc()
        sys.stderr.flush()
    os._exit(status)


def _held_bytes() -> int:
    """Return how much memory this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def _load(*, drawing: bool = False) -> None:
    """Load what every document needs before the first one comes, within the limits but not in its time."""
    sys.meta_path.insert(0, _NoTorch())
    if drawing:
        from ingest.pdf_page import draw_page  # noqa: F401

        return
    from ingest.language import detect_language
    from ingest.parse import parse  # noqa: F401

    detect_language("The first sentence that is read has the language model loaded, whatever it says.")


class _NoTorch(MetaPathFinder, Loader):
    """Makes the import of torch fail: a library only asks whether it is there, which costs a second and 200 MB.

    No reader has a use for it. (``None`` in its place in ``sys.modules`` would do, did other libraries not look there.)
    """

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> ModuleSpec | None:  # noqa: ARG002
        """Take charge of torch, and of nothing else."""
        return ModuleSpec(fullname, self) if fullname == "torch" else None

    def create_module(self, spec: ModuleSpec) -> NoReturn:
        """Fail."""
        raise ImportError(f"{spec.name} is not for readers of documents.")

    def exec_module(self, module: object) -> None:
        """Never be reached."""


def _answer(request: Mapping[str, Any], limits: IngestSettings, answers: int) -> dict[str, Any]:
    path = Path(request["path"])
    if not os.access(path, os.R_OK):
        return {"unreadable": True}
    started = time.perf_counter()
    try:
        if "draw" in request:
            return _drawn(path, View(**request["draw"]), limits)
        document = _parsed(path, request, limits, answers)
        parsed = time.perf_counter()
        chunks = _cut(document, request)
    except DocumentRejected as error:
        return {"refused": error.code, "message": error.message, "facts": _told(error.facts)}
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 -- told to our parent, whose fault it may be and who logs it
        traceback.print_exc()
        return {"fault": f"{type(error).__name__}: {error}"[:500]}
    return {
        "media_type": document.media_type,
        "title": document.title,
        "pages": document.pages,
        "language": document.language,
        "metadata": dict(document.metadata),
        "blocks": [(e.kind.value, e.text, e.page, e.section) for e in document.elements],
        "members": [(m.name, m.sha256, m.size, m.error) for m in document.members],
        "chunks": [(c.start, c.end, c.context, c.kind.value, c.page, c.section, c.tokens) for c in chunks],
        "seconds": {"parse": parsed - started, "chunk": time.perf_counter() - parsed},
    }


def _parsed(path: Path, request: Mapping[str, Any], limits: IngestSettings, answers: int) -> ParsedDocument:
    from ingest.parse import parse

    def tell(**said: object) -> None:
        _write_frame(answers, {"id": request["id"], **said})

    def take_time() -> None:
        limit_cpu(max(limits.parse_seconds, limits.ocr_seconds))
        tell(slow=True)

    draft = Draft(
        limits,
        depth=request["depth"],
        spool=Path(tempfile.gettempdir(), _SPOOL),
        tell=lambda share: tell(share=share),
        take_time=take_time,
    )
    return parse(path, request["name"], limits, draft)


def _drawn(path: Path, view: View, limits: IngestSettings) -> dict[str, Any]:
    from ingest.pdf_page import draw_page

    drawn = draw_page(path, view, limits)
    Path(tempfile.gettempdir(), _SPOOL, _PIXELS).write_bytes(drawn.pixels)
    return {"width": drawn.width, "height": drawn.height, "marks": drawn.marks}


def _cut(document: ParsedDocument, request: Mapping[str, Any]) -> list[Chunk]:
    if request["counter"] is None:
        return []
    from ingest.chunk import chunk
    from rag.tokens import open_counter

    return chunk(document, request["window"], open_counter(request["counter"]))


def _told(facts: Mapping[str, object]) -> dict[str, Any]:
    return {name: fact if isinstance(fact, int) else str(fact) for name, fact in facts.items()}


def _write_frame(pipe: int, answer: dict[str, Any], limits: IngestSettings | None = None) -> None:
    data = json.dumps(answer, ensure_ascii=False).encode("utf-8", "replace")
    if limits and len(data) > limits.parse_output_bytes:
        error = _too_long(limits)
        data = json.dumps({"id": answer["id"], "refused": error.code, "message": error.message, "facts": {}}).encode()
    with os.fdopen(pipe, "wb", closefd=False) as stream:
        stream.write(len(data).to_bytes(_HEAD, "big"))
        stream.write(data)


def _read_frame(pipe: int) -> dict[str, Any] | None:
    with os.fdopen(pipe, "rb", buffering=0, closefd=False) as stream:
        head = stream.read(_HEAD)
        if not head:
            return None
        size, data = int.from_bytes(head, "big"), b""
        while len(data) < size and (block := stream.read(size - len(data))):
            data += block
    request: dict[str, Any] = json.loads(data)
    return request


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], IngestSettings.model_validate_json(sys.argv[2]), drawing="draw" in sys.argv[3:]))
