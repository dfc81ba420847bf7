"""A multipart form as it comes in, block by block: its files go to disk at once, memory does not grow with them.

Knows the form's two fields and no route: what becomes of the files is decided when the whole form is there. Small files
share one nameless file, so that a thousand of them do not need a thousand open ones; a large one goes straight to where
originals come in. Whatever happens before they are taken, nothing of them stays behind.
"""

from __future__ import annotations

import asyncio
import io
import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Self

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.exceptions import HTTPException

from rag.errors import BadInput, CitewellError, Unavailable
from rag.originals import Incoming, Originals

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

#: A file beyond so many bytes has a file of its own on disk from then on.
SMALL = 4 << 20
#: Bytes that are parsed and written at one go, in a thread.
BLOCK = 256 << 10
MOST_METADATA = 8 << 20
_BROKEN = "The form breaks off before its end; send it again."
_FIELDS = ("files", "metadata")


@dataclass(slots=True)
class FormFile:
    """A file of a form, under the name that the client sent. ``error`` says why it can not be taken."""

    sent: str
    start: int
    size: int = 0
    incoming: Incoming | None = None
    error: CitewellError | None = None


@dataclass(slots=True)
class _Part:
    """The part of the form that is being read: its headers, then its field and, for a file, where it goes."""

    headers: dict[bytes, bytes] = field(default_factory=dict)
    key: bytearray = field(default_factory=bytearray)
    value: bytearray = field(default_factory=bytearray)
    file: FormFile | None = None


class Form:
    """The files and the metadata of an upload. Give it every block in order, then `finish`; use it as a context.

    Raises `BadInput` for what is no such form, and refuses one without files with status 422.
    """

    def __init__(self, content_type: str, originals: Originals, max_bytes: int, max_files: int) -> None:
        self.files: list[FormFile] = []
        self.metadata: str | None = None
        self._originals, self._max_bytes, self._max_files = originals, max_bytes, max_files
        self._parser = _parser(content_type, self)
        self._part, self._text, self._ended = _Part(), bytearray(), False
        self._stack = ExitStack()
        self._spool: IO[bytes] | None = None
        self._spooled = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def feed(self, block: bytes) -> None:
        """Take the next block of the form. Raises `Unavailable` if the disk takes no more."""
        try:
            with disk_trouble():
                self._parser.write(block)
        except FormParserError as error:
            message = "The form is not valid multipart/form-data; send it as a browser or curl -F does."
            raise BadInput(message) from error

    def finish(self) -> None:
        """Say that nothing more comes."""
        if not self._ended:
            raise BadInput(_BROKEN)
        if not self.files:
            raise HTTPException(422, "files: a part with a file name is missing")

    def content(self, file: FormFile) -> io.BytesIO:
        """Return the content of a small file, one that is not ``incoming``."""
        if self._spool is None:
            return io.BytesIO()
        return io.BytesIO(os.pread(self._spool.fileno(), file.size, file.start))

    # -- what the parser calls ---------------------------------------------------------------------------------------

    def on_part_begin(self) -> None:
        self._part = _Part()

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._part.key += data[start:end]

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._part.value += data[start:end]

    def on_header_end(self) -> None:
        part = self._part
        part.headers[bytes(part.key).lower()] = bytes(part.value)
        part.key, part.value = bytearray(), bytearray()

    def on_headers_finished(self) -> None:
        _, options = parse_options_header(self._part.headers.get(b"content-disposition"))
        name = _text(options.get(b"name", b""))
        if name not in _FIELDS:
            raise BadInput(f"The form has a field {_ascii(name)!r}; it takes only 'files' and 'metadata'.")
        if name == "metadata":
            if self.metadata is not None:
                raise BadInput("The form has several fields 'metadata'; it takes one, for all files.")
            self.metadata = ""
        elif b"filename" not in options:
            raise HTTPException(422, "files: this must be a part with a file name")
        elif len(self.files) >= self._max_files:
            raise BadInput(
                f"The form has more than {self._max_files:,} files, which is the limit (server.max_files_per_upload); "
                "send the others in further requests with the same ?batch=."
            )
        else:
            self._part.file = FormFile(_text(options[b"filename"]), self._spooled)
            self.files.append(self._part.file)

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        block = data[start:end]
        if self._part.file is None:
            self._text += block
            if len(self._text) > MOST_METADATA:
                raise BadInput(f"The metadata has more than {MOST_METADATA:,} bytes, which is the limit.")
        elif self._part.file.error is None:
            try:
                self._write(self._part.file, block)
            except CitewellError as error:  # of this file alone: too large
                self._part.file.error = error
                self._spooled = self._part.file.start

    def on_part_end(self) -> None:
        if self._part.file is None:
            self.metadata = _text(bytes(self._text))

    def on_end(self) -> None:
        self._ended = True

    def _write(self, file: FormFile, block: bytes) -> None:
        file.size += len(block)
        if file.incoming is None and file.size > min(SMALL, self._max_bytes):
            file.incoming = self._stack.enter_context(self._originals.incoming(self._max_bytes))
            before = file.size - len(block)
            file.incoming.write(self.content(FormFile(file.sent, file.start, before)).getvalue())
            self._spooled = file.start
        if file.incoming is not None:
            file.incoming.write(block)
            return
        if self._spool is None:
            nameless = tempfile.TemporaryFile(dir=self._originals.folder, buffering=0)  # noqa: SIM115 -- closed with it
            self._spool = self._stack.enter_context(nameless)
        while block:  # a disk that is almost full takes less than it is given
            written = os.pwrite(self._spool.fileno(), block, self._spooled)
            self._spooled += written
            block = block[written:]


def _parser(content_type: str, form: Form) -> MultipartParser:
    kind, options = parse_options_header(content_type)
    if kind != b"multipart/form-data" or not options.get(b"boundary"):
        raise HTTPException(422, "files: the body must be a multipart/form-data form with a boundary")
    called: MultipartCallbacks = {
        "on_part_begin": form.on_part_begin,
        "on_part_data": form.on_part_data,
        "on_part_end": form.on_part_end,
        "on_header_field": form.on_header_field,
        "on_header_value": form.on_header_value,
        "on_header_end": form.on_header_end,
        "on_headers_finished": form.on_headers_finished,
        "on_end": form.on_end,
    }
    try:
        return MultipartParser(options[b"boundary"], called)
    except FormParserError as error:
        raise BadInput("The boundary of the form is not valid.") from error


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("latin-1")


def _ascii(name: str) -> str:
    return name[:100].encode("ascii", "replace").decode()


@contextmanager
def disk_trouble() -> Iterator[None]:
    """Say what the disk refuses as `Unavailable`, since the sender can do nothing about it."""
    try:
        yield
    except OSError as error:
        raise Unavailable(f"The data folder takes no more: {error.strerror or error}.") from error


async def read_form(stream: AsyncIterator[bytes], form: Form) -> None:
    """Read a form to its end; parsing and writing happen in a thread."""
    async for block in blocks_of(stream):
        await asyncio.to_thread(form.feed, block)
    await asyncio.to_thread(form.finish)


async def read_file(stream: AsyncIterator[bytes], incoming: Incoming) -> None:
    """Read a body that is one file; writing happens in a thread. Raises `DocumentTooLarge` and `Unavailable`."""
    async for block in blocks_of(stream):
        with disk_trouble():
            await asyncio.to_thread(incoming.write, block)


async def blocks_of(stream: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield what comes in blocks that are worth a change of threads."""
    block = bytearray()
    async for chunk in stream:
        block += chunk
        if len(block) >= BLOCK:
            yield bytes(block)
            block.clear()
    if block:
        yield bytes(block)
