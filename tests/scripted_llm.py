"""A scripted OpenAI-compatible server on loopback, for tests of whatever talks to a language model.

It speaks real HTTP/1.1 over real sockets from a thread of its own, plays back the replies it is given, and keeps
what it received. It understands nothing: which reply comes next is decided by the path alone.

    with ScriptedLLM() as server:
        server.on("/v1/chat/completions", stream("One. ", "Two."))
        ... OpenAIGenerator(GeneratorSettings(kind="openai", base_url=server.base_url)) ...
        assert server.chats[0].json["stream"] is True
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Self

MODEL = "scripted-model"
CHAT = "/v1/chat/completions"


@dataclass(frozen=True)
class Request:
    """What came in. Header names are in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Pause:
    """Wait, or until the client hangs up."""

    seconds: float


@dataclass(frozen=True)
class Reset:
    """End the connection with a TCP reset, as a server does that dies."""


@dataclass(frozen=True)
class Close:
    """End the connection in good order but in the middle of the reply."""


Step = bytes | Pause | Reset | Close
Reply = tuple[Step, ...]


def reply(status: int, body: bytes | str, content_type: str = "application/json", headers: str = "") -> Reply:
    """A whole reply at once."""
    data = body.encode() if isinstance(body, str) else body
    head = f"HTTP/1.1 {status} Scripted\r\nContent-Type: {content_type}\r\nContent-Length: {len(data)}\r\n{headers}\r\n"
    return (head.encode() + data,)


def json_reply(status: int, body: Any) -> Reply:
    return reply(status, json.dumps(body))


def event_stream(*steps: Step) -> Reply:
    """A chunked event stream of raw steps; bytes are sent as one HTTP chunk each."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n"
    framed = (b"%x\r\n%s\r\n" % (len(step), step) if isinstance(step, bytes) else step for step in steps)
    ending: tuple[Step, ...] = () if steps and isinstance(steps[-1], Reset | Close) else (b"0\r\n\r\n",)
    return (head, *framed, *ending)


def event(data: Any) -> bytes:
    """One event of the stream: ``data`` as JSON, in UTF-8 as TensorRT-LLM writes it, or as it is when it is bytes."""
    payload = data if isinstance(data, bytes) else json.dumps(data, ensure_ascii=False).encode()
    return b"data: " + payload + b"\n\n"


def delta(content: str | None = None, finish: str | None = None, **more: Any) -> bytes:
    """A chat completion chunk."""
    choice = {"index": 0, "delta": {"content": content, **more}, "finish_reason": finish}
    return event({"id": "x", "object": "chat.completion.chunk", "created": 0, "model": MODEL, "choices": [choice]})


DONE = event(b"[DONE]")


def stream(*texts: str | Step, finish: str = "stop") -> Reply:
    """A well-formed answer: the role, each text as a chunk of its own, the finish reason. Other steps in between."""
    middle = (delta(text) if isinstance(text, str) else text for text in texts)
    return event_stream(delta("", role="assistant"), *middle, delta(finish=finish), DONE)


def completion(text: str) -> Reply:
    """A whole answer at once, as a server gives it that was not asked for a stream."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    return json_reply(200, {"id": "x", "object": "chat.completion", "created": 0, "model": MODEL, "choices": [choice]})


@dataclass
class ScriptedLLM:
    """The server, as a context manager. By default it lists one model and answers 404 to everything else."""

    requests: list[Request] = field(default_factory=list)
    #: Set when a client closed its end while a reply was still going on.
    hung_up: threading.Event = field(default_factory=threading.Event)
    #: How many coming connections are reset before anything is read from them.
    resets: int = 0
    connections: int = 0
    port: int = 0

    def __post_init__(self) -> None:
        models = {"object": "list", "data": [{"id": MODEL, "object": "model", "created": 0, "owned_by": "tests"}]}
        self._script: dict[str, list[Reply]] = {"/v1/models": [json_reply(200, models)]}
        self._stop = asyncio.Event()
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, name="scripted-llm", daemon=True)

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def chats(self) -> list[Request]:
        return [request for request in self.requests if request.path == CHAT]

    def on(self, path: str, *replies: Reply) -> None:
        """Answer requests for ``path`` with these in turn, and with the last one ever after."""
        self._script[path] = list(replies)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._started.wait(60)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(60)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        tasks: set[asyncio.Task[None]] = set()

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task
            tasks.add(task)
            with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await self._connection(reader, writer)
            await _close(writer)
            tasks.discard(task)

        server = await asyncio.start_server(accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._started.set()
        await self._stop.wait()
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        if self.resets:
            self.resets -= 1
            _reset(writer)
            return
        while request := await _read_request(reader):
            self.requests.append(request)
            if not await self._play(self._next_reply(request.path), reader, writer):
                return

    def _next_reply(self, path: str) -> Reply:
        replies = self._script.get(path, [json_reply(404, {"detail": "Not Found"})])
        return replies.pop(0) if len(replies) > 1 else replies[0]

    async def _play(self, steps: Sequence[Step], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Return whether the connection may be used again."""
        for step in steps:
            if isinstance(step, bytes):
                writer.write(step)
                await writer.drain()
            elif isinstance(step, Pause):
                if await self._hangs_up(reader, step.seconds):
                    return False
            else:
                if isinstance(step, Reset):
                    _reset(writer)
                return False
        return True

    async def _hangs_up(self, reader: asyncio.StreamReader, seconds: float) -> bool:
        try:
            gone = await asyncio.wait_for(reader.read(1), seconds) == b""
        except TimeoutError:
            return False
        except ConnectionError:
            gone = True
        if gone:
            self.hung_up.set()
        return gone


async def _read_request(reader: asyncio.StreamReader) -> Request | None:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.rstrip("\r\n").split("\r\n")
    method, path, _ = first.split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Request(method, path, headers, body)


def _reset(writer: asyncio.StreamWriter) -> None:
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()


def refused_port() -> tuple[socket.socket, int]:
    """A loopback port at which connections are refused for as long as the socket, bound but not listening, is open."""
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    return sock, sock.getsockname()[1]
