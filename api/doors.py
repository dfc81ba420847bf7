"""Two doors to a Citewell for programs that are not its server: the URL of one that runs, or a whole in this process.

Both take the requests and give the replies of the REST API, and raise the kinds of `rag.errors`, so that nobody behind
one can tell which it is. Knows none of the adapters that use it (`api.llamaindex`, `api.mcp_server`).
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from api.answer_schemas import AnswerReply, AskRequest, SearchReply, SearchRequest
from api.document_text import read_text
from api.routes.ask import prepared
from api.routes.parts import planned
from api.schemas import CollectionList, CollectionReply, DocumentTextReply
from rag.answers import Wish
from rag.assembly import Citewell, open_citewell
from rag.errors import BadInput, CitewellError, Misconfigured, NotFound, Unavailable
from rag.pipeline import Done, Passages, Restart, Token
from rag.records import Plan
from rag.settings import Settings

#: An answer as it is written: what was found, pieces of text, a new beginning, and at the end the whole.
Heard = SearchReply | str | Restart | AnswerReply
ReplyT = TypeVar("ReplyT", bound=BaseModel)
#: Seconds: a server that is there answers the connection at once, a language model may take its time to answer.
_TIMEOUT = httpx.Timeout(600.0, connect=10.0)
_ID = re.compile(r"[A-Za-z0-9]{1,64}")


class Door(Protocol):
    """A way to ask a Citewell; every method raises `CitewellError`."""

    async def collections(self) -> list[CollectionReply]:
        """Return all collections, by name."""
        ...

    async def search(self, request: SearchRequest) -> SearchReply:
        """Return the passages that match best."""
        ...

    async def ask(self, request: AskRequest) -> AnswerReply:
        """Return the answer to a question."""
        ...

    def stream(self, request: AskRequest) -> AsyncGenerator[Heard, None]:
        """Yield an answer as it is written: `SearchReply` first, then text and `Restart`, then `AnswerReply`."""
        ...

    async def text(self, document_id: str, start: int, length: int) -> DocumentTextReply:
        """Return a part of what was read of a document."""
        ...


@dataclass(frozen=True, slots=True)
class ProcessDoor:
    """The door to a whole that is open in this process; its generator belongs to the event loop that asks here."""

    citewell: Citewell

    async def collections(self) -> list[CollectionReply]:
        """Return all collections, by name."""
        found = await asyncio.to_thread(self.citewell.store.catalog.list_collections)
        return [CollectionReply.of(collection) for collection in found]

    async def search(self, request: SearchRequest) -> SearchReply:
        """Return the passages that match best; raises as `Citewell.plan` and `rag.searches.Searches.submit` do."""
        plan = await asyncio.to_thread(planned, self.citewell, request.query, request)
        plan = await self.citewell.interpreter.understand(plan)
        found = self.citewell.searches.submit(lambda: plan, lambda _, ranking: ranking)
        return SearchReply.of(await asyncio.wrap_future(found), _names(plan))

    async def ask(self, request: AskRequest) -> AnswerReply:
        """Return the answer to a question; raises as `stream` does."""
        async with aclosing(self.stream(request)) as events:
            async for event in events:
                if isinstance(event, AnswerReply):
                    return event
        raise AssertionError("a stream of events ends with the answer")

    async def stream(self, request: AskRequest) -> AsyncGenerator[Heard, None]:
        """Yield an answer as it is written; raises as `Citewell.plan` and `Citewell.stream` do."""
        plan, keeping = await asyncio.to_thread(prepared, self.citewell, request)
        async with aclosing(self.citewell.stream(plan, Wish(policy=request.policy), keeping)) as events:
            async for event in events:
                match event:
                    case Passages(ranking):
                        yield SearchReply.of(ranking, _names(plan))
                    case Token(text):
                        yield text
                    case Restart():
                        yield event
                    case Done(answer):
                        yield AnswerReply.of(answer, _names(plan))

    async def text(self, document_id: str, start: int, length: int) -> DocumentTextReply:
        """Return a part of what was read of a document; raises as `read_text` does."""
        return await asyncio.to_thread(read_text, self.citewell.store.catalog, document_id, start, length)


@asynccontextmanager
async def opened_door(settings: Settings) -> AsyncIterator[ProcessDoor]:
    """Open the whole of a data folder, in a thread since models take seconds, and yield the door to it."""
    opening = open_citewell(settings)
    citewell = await asyncio.to_thread(opening.__enter__)
    try:
        yield ProcessDoor(citewell)
    finally:
        await citewell.generator.aclose()
        await asyncio.to_thread(opening.__exit__, None, None, None)


class ServerDoor:
    """The door to a server by its URL, such as ``http://127.0.0.1:8321``; nothing is sent before the first call.

    Speaks to that URL alone: no proxies from the environment, no redirects. Each call opens a connection of its own, so
    that it may be used from any event loop. ``key`` is the secret of a key, for a server that wants one. Raises
    `Misconfigured` for what is no URL of a server, or no key.
    """

    def __init__(self, url: str, key: str | None = None) -> None:
        if key is not None and not re.fullmatch(r"[!-~]+", key):
            raise Misconfigured("The key for the server is not one: keys have no spaces or line breaks.")
        self._headers = {"User-Agent": "citewell"} | ({"Authorization": f"Bearer {key}"} if key else {})
        try:
            self._url = httpx.URL(url.rstrip("/"))
        except httpx.InvalidURL as error:
            raise Misconfigured(f"{url[:200]!r} is not a URL: {error}.") from error
        if self._url.scheme not in {"http", "https"} or not self._url.host:
            raise Misconfigured(f"{url[:200]!r} is not the URL of a server; an example is http://127.0.0.1:8321.")
        self._tls = httpx.create_ssl_context()  # reading the certificates takes longer than a search

    async def collections(self) -> list[CollectionReply]:
        """Return all collections, by name."""
        return (await self._fetch("GET", "/v1/collections", CollectionList)).collections

    async def search(self, request: SearchRequest) -> SearchReply:
        """Return the passages that match best."""
        return await self._fetch("POST", "/v1/search", SearchReply, body=_body(request))

    async def ask(self, request: AskRequest) -> AnswerReply:
        """Return the answer to a question."""
        return await self._fetch("POST", "/v1/ask", AnswerReply, body=_body(request) | {"stream": False})

    async def stream(self, request: AskRequest) -> AsyncGenerator[Heard, None]:
        """Yield an answer as it is written; closing it closes the connection, which ends the work for it."""
        body = _body(request) | {"stream": True}
        async with self._connected() as client, client.stream("POST", "/v1/ask", json=body) as response:
            if response.status_code != httpx.codes.OK:
                await response.aread()
                raise self._refused(response)
            lines = response.aiter_lines()
            async with aclosing(_events(lines)) as events:
                async for name, data in events:
                    heard = self._heard(name, data)
                    if heard is not None:
                        yield heard

    async def text(self, document_id: str, start: int, length: int) -> DocumentTextReply:
        """Return a part of what was read of a document."""
        if not _ID.fullmatch(document_id):  # what is no id shall not become another address
            raise NotFound(f"There is no document with the id {document_id[:64]!r}.")
        params = {"start": start, "length": length}
        return await self._fetch("GET", f"/v1/documents/{document_id}/text", DocumentTextReply, params=params)

    async def _fetch(
        self,
        method: str,
        path: str,
        kind: type[ReplyT],
        *,
        body: Mapping[str, Any] | None = None,
        params: Mapping[str, int] | None = None,
    ) -> ReplyT:
        async with self._connected() as client:
            response = await client.request(method, path, json=body, params=params)
        if response.status_code != httpx.codes.OK:
            raise self._refused(response)
        return self._read(kind, response.text)

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[httpx.AsyncClient]:
        """Yield a client, and translate what goes wrong on the way, here and nowhere else."""
        try:
            async with httpx.AsyncClient(
                base_url=self._url,
                timeout=_TIMEOUT,
                trust_env=False,
                verify=self._tls,
                headers=self._headers,
            ) as client:
                yield client
        except httpx.TimeoutException as error:
            raise Unavailable(f"The server at {self._place} did not answer in time.") from error
        except httpx.ConnectError as error:
            raise Unavailable(f"The server at {self._place} can not be reached; does `citewell serve` run?") from error
        except httpx.HTTPError as error:
            raise Unavailable(f"The server at {self._place} broke off ({type(error).__name__}).") from error

    def _heard(self, name: str, data: str) -> Heard | None:
        """Return what an event says; None for those that are of no use here. Raises what an ``error`` event names."""
        match name:
            case "passages":
                return self._read(SearchReply, data)
            case "token":
                return self._read(_TokenData, data).text
            case "restart":
                return Restart(self._read(_RestartData, data).notice)
            case "done":
                return self._read(AnswerReply, data)
            case "error":
                raise _named_error(data) or self._foreign()
        return None

    def _read(self, kind: type[ReplyT], text: str) -> ReplyT:
        try:
            return kind.model_validate_json(text)
        except ValidationError as error:
            raise self._foreign() from error

    def _refused(self, response: httpx.Response) -> CitewellError:
        return _named_error(response.text) or self._foreign()

    def _foreign(self) -> CitewellError:
        return Misconfigured(f"What answers at {self._place} is no Citewell server, or one of another version.")

    @property
    def _place(self) -> str:
        """The server as it may be shown: without a user or a password."""
        port = f":{self._url.port}" if self._url.port else ""
        return f"{self._url.scheme}://{self._url.host}{port}"


class _TokenData(BaseModel):
    text: str


class _RestartData(BaseModel):
    notice: str


def _body(request: BaseModel) -> dict[str, Any]:
    """Return a request as it goes over the wire, without what nobody has set: an older server may not know it."""
    return request.model_dump(mode="json", exclude_unset=True)


async def _events(lines: AsyncIterator[str]) -> AsyncGenerator[tuple[str, str], None]:
    """Yield name and data of server-sent events; ids and comments are left out."""
    fields: dict[str, str] = {}
    async for line in lines:
        if line:
            name, _, value = line.partition(":")
            fields[name] = value.removeprefix(" ")
        elif "event" in fields and "data" in fields:
            yield fields["event"], fields["data"]
            fields = {}


def _named_error(text: str) -> CitewellError | None:
    """Return the error that a reply describes in the one shape of all errors; None if it does not."""
    try:
        told = json.loads(text)["error"]
        code, message = str(told["code"]), str(told["message"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    usual = CitewellError if code == "internal" else BadInput
    return next((kind for kind in _kinds(CitewellError) if kind.code == code), usual)(message)


def _kinds(kind: type[CitewellError]) -> Iterator[type[CitewellError]]:
    yield kind
    for narrower in kind.__subclasses__():
        yield from _kinds(narrower)


def _names(plan: Plan) -> dict[str, str]:
    return {collection.id: collection.name for collection in plan.collections}
