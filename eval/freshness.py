"""How long it takes from an upload to the first search that finds it, while a bulk load is running.

A server with its own worker is given a corpus, a batch of files after the other, as fast as it takes them. Meanwhile
small files are uploaded at a steady pace, each with a word that stands nowhere else, and searched for until one of the
first ten passages holds that word. The time begins before the upload is sent. Knows the product by its REST API only.
"""

from __future__ import annotations

import random
import statistics
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import httpx

from eval.corpus import invent
from eval.formats import WRITERS
from eval.processes import PeakMemory, serving
from eval.tables import Table

COLLECTION = "bench"
PROBES = "uploaded"
#: Files in one request of the bulk load.
BATCH = 20
#: So many files of the bulk load, or half of it, are searchable before the first upload.
UNDERWAY = 20
POLL_SECONDS = 0.1
#: Statuses that ask for another try later.
BUSY = frozenset({429, 503})


@dataclass
class Freshness:
    """What was measured: ``seconds`` of the uploads that were found, ``missed`` that were not while there was patience.

    ``idle`` counts uploads that came when nothing of the bulk load was waiting any more; they are in no figure.
    """

    seconds: list[float] = field(default_factory=list)
    missed: int = 0
    idle: int = 0
    bulk: int = 0
    memory: Table = field(default_factory=list)

    def table(self) -> Table:
        head = [
            "uploads during the load",
            "found",
            "median s",
            "p95 s",
            "slowest s",
            "not found",
            "left out, load over",
        ]
        found = sorted(self.seconds)
        figures = [statistics.median(found), found[int(0.95 * len(found))], found[-1]] if found else []
        times = [f"{value:.2f}" for value in figures] or ["", "", ""]
        counts = [str(len(found) + self.missed), str(len(found))]
        return [[*head, "files of the load"], [*counts, *times, str(self.missed), str(self.idle), f"{self.bulk:,}"]]


def measure(
    corpus: Path, data: Path, *, uploads: int = 30, every: float = 3.0, patience: float = 180.0, seed: int = 1
) -> Freshness:
    """Load ``corpus`` into a server on the empty folder ``data``, and measure ``uploads`` made one ``every`` seconds.

    Ends when all of them are found or out of ``patience`` (in seconds), or when the load is over.
    """
    found = Freshness()
    with ExitStack() as stack:
        url, server = stack.enter_context(serving(data))
        watched = stack.enter_context(PeakMemory(server.pid))
        client = stack.enter_context(httpx.Client(base_url=url, timeout=120, trust_env=False))
        client.post("/v1/collections", json={"name": COLLECTION}).raise_for_status()
        bulk = stack.enter_context(_Bulk(url, corpus))
        _wait_until_underway(client, min(UNDERWAY, bulk.files // 2), patience)
        _probe(client, bulk, found, uploads, every, patience, random.Random(seed))
        found.bulk = bulk.sent
    found.memory = watched.table()
    return found


class _Bulk:
    """Uploads a folder in a thread, from entering to leaving."""

    def __init__(self, url: str, folder: Path) -> None:
        self.sent = 0
        self._client = httpx.Client(base_url=url, timeout=600, trust_env=False)
        self._folder = folder
        self._files = sorted(path for path in folder.rglob("*") if path.is_file())
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._send, name="bulk load", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._client.close()

    @property
    def files(self) -> int:
        return len(self._files)

    @property
    def sending(self) -> bool:
        return self._thread.is_alive()

    def _send(self) -> None:
        for start in range(0, len(self._files), BATCH):
            if self._stop.is_set():
                return
            batch = self._files[start : start + BATCH]
            parts = [("files", (str(path.relative_to(self._folder)), path.read_bytes())) for path in batch]
            while self._post(parts).status_code in BUSY and not self._stop.wait(POLL_SECONDS):
                pass
            self.sent += len(batch)

    def _post(self, parts: list[tuple[str, tuple[str, bytes]]]) -> httpx.Response:
        reply = self._client.post(f"/v1/collections/{COLLECTION}/documents", files=parts)
        return reply if reply.status_code in BUSY else reply.raise_for_status()


def _wait_until_underway(client: httpx.Client, files: int, seconds: float) -> None:
    end = time.perf_counter() + seconds
    while len(_names(client, "ready", max(1, files))) < files and time.perf_counter() < end:
        time.sleep(POLL_SECONDS)


def _probe(
    client: httpx.Client,
    bulk: _Bulk,
    found: Freshness,
    uploads: int,
    every: float,
    patience: float,
    rng: random.Random,
) -> None:
    pending: dict[str, float] = {}
    next_upload, sent = time.perf_counter(), 0
    while sent < uploads or pending:
        if sent < uploads and time.perf_counter() >= next_upload:
            if not bulk.sending and not _waiting(client, len(pending)):
                found.idle += uploads - sent
                sent = uploads
                continue
            mark = f"plover{sent:07d}"
            pending[mark] = time.perf_counter()
            _upload(client, f"{PROBES}/{mark}.md", WRITERS["md"](invent(rng, mark)))
            next_upload, sent = pending[mark] + every, sent + 1
        for mark, begun in list(pending.items()):
            if _is_found(client, mark):
                found.seconds.append(time.perf_counter() - begun)
                del pending[mark]
            elif time.perf_counter() - begun > patience:
                found.missed += 1
                del pending[mark]
        time.sleep(POLL_SECONDS)


def _upload(client: httpx.Client, name: str, data: bytes) -> None:
    client.post(f"/v1/collections/{COLLECTION}/documents", files=[("files", (name, data))]).raise_for_status()


def _is_found(client: httpx.Client, mark: str) -> bool:
    reply = client.post("/v1/search", json={"query": mark, "collections": [COLLECTION], "top_k": 10})
    reply.raise_for_status()
    return any(mark in passage["text"] for passage in reply.json()["passages"])


def _waiting(client: httpx.Client, pending: int) -> bool:
    """Say whether a file of the bulk load is still in the queue, besides our own uploads."""
    return any(not name.startswith(PROBES) for name in _names(client, "queued", pending + 1))


def _names(client: httpx.Client, state: str, limit: int) -> Sequence[str]:
    reply = client.get(f"/v1/collections/{COLLECTION}/documents", params={"state": state, "limit": limit})
    reply.raise_for_status()
    return [document["name"] for document in reply.json()["documents"]]
