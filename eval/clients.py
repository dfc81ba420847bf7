"""Many clients at once over real HTTP: how many requests a server answers in a second, and how long each takes.

Each client has one connection that it keeps (HTTP/1.1, RFC 9112), and sends its next request when it has the answer to
the last. The client is written out here, since a full one takes more of the processor for a request than the server
does for some: it reads answers of a known length, and nothing else. Knows no route.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import numpy as np


@dataclass(frozen=True, slots=True)
class Load:
    """What some ``clients`` saw: how long it took all of them, the latency of each good answer, all statuses.

    Status 0 stands for a connection that broke, on which that client gave up.
    """

    clients: int
    seconds: float
    latencies: tuple[float, ...]
    statuses: Mapping[int, int]

    @property
    def errors(self) -> int:
        """How many requests had any other answer than 200."""
        return sum(count for status, count in self.statuses.items() if status != 200)

    @property
    def throughput(self) -> float:
        """Good answers in a second."""
        return len(self.latencies) / self.seconds

    def percentile(self, share: float) -> float:
        """Return the seconds within which this share of the good answers came, from 0 to 1."""
        return float(np.quantile(self.latencies, share)) if self.latencies else float("nan")


def measure_clients(url: str, bodies: Sequence[Mapping[str, Any]], clients: int) -> Load:
    """POST each of ``bodies`` as JSON to ``url`` once, from so many clients at once, each taking the next in turn."""
    return asyncio.run(_measure(url, bodies, clients))


async def _measure(url: str, bodies: Sequence[Mapping[str, Any]], clients: int) -> Load:
    address = urlsplit(url)
    waiting = iter([_request(address.path, address.netloc, body) for body in bodies])
    latencies: list[float] = []
    statuses: Counter[int] = Counter()
    connections = [await asyncio.open_connection(address.hostname, address.port) for _ in range(clients)]
    start = time.perf_counter()
    await asyncio.gather(*(_client(*connection, waiting, latencies, statuses) for connection in connections))
    return Load(clients, time.perf_counter() - start, tuple(latencies), dict(statuses))


async def _client(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    waiting: Iterator[bytes],
    latencies: list[float],
    statuses: Counter[int],
) -> None:
    try:
        for request in waiting:
            start = time.perf_counter()
            writer.write(request)
            status = await _status(reader)
            statuses[status] += 1
            if status == 200:
                latencies.append(time.perf_counter() - start)
    except (ConnectionError, asyncio.IncompleteReadError):
        statuses[0] += 1
    finally:
        writer.close()


async def _status(reader: asyncio.StreamReader) -> int:
    """Read one answer to its end and return its status."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = head.partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0]
    await reader.readexactly(int(length))
    return int(head.split(b" ", 2)[1])


def _request(path: str, host: str, body: Mapping[str, Any]) -> bytes:
    content = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: {len(content)}"
    return f"{head}\r\n\r\n".encode() + content
