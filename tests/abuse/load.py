"""Clients that do everything at once, each among its own documents, and notice any word that is another one's.

Every client has a collection and a mark, ``C12-5f0e91aa`` for client 12, in all that it uploads. A reply that holds
another client's mark is a wrong answer, wherever it stands. Replies other than the expected ones and 429 are faults.
"""

from __future__ import annotations

import json
import random
import re
import resource
import socket
import statistics
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import httpx

from tests.processes import family

_MARK = re.compile(r"\bC(\d+)-[0-9a-f]{8}")
_DOCUMENTS = 4
_PATIENCE = 60
_MOST_WAIT = 2.0
_FILLER = "The office of this client opens at nine and closes at five, and its mail is read on Mondays."


@dataclass
class Tally:
    """What all clients have seen: how many replies of each kind, how long they took, and what was wrong."""

    replies: Counter[str] = field(default_factory=Counter)
    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    faults: list[str] = field(default_factory=list)
    swapped: list[str] = field(default_factory=list)
    answered: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def took(self, act: str, status: int, seconds: float) -> None:
        with self.lock:
            self.replies[f"{act} {status}"] += 1
            if status != 429:
                self.seconds[act].append(seconds)

    def fault(self, what: str) -> None:
        with self.lock:
            self.faults.append(what)

    def figures(self) -> dict[str, Any]:
        """Return what came of it, as plain values."""
        return {
            "requests": sum(self.replies.values()),
            "busy": sum(count for name, count in self.replies.items() if name.endswith(" 429")),
            "answered": self.answered,
            "replies": dict(sorted(self.replies.items())),
            "milliseconds": {act: _percentiles(times) for act, times in sorted(self.seconds.items())},
            "faults": self.faults[:20],
            "swapped": self.swapped[:20],
        }


def _percentiles(seconds: Sequence[float]) -> dict[str, int]:
    ordered = sorted(seconds)
    return {f"p{p}": round(1000 * ordered[min(len(ordered) - 1, len(ordered) * p // 100)]) for p in (50, 95, 99)}


class Client:
    """One of the clients, with a connection of its own, to be run in a thread of its own."""

    def __init__(self, number: int, url: str, tally: Tally, seed: int) -> None:
        self._number, self._url, self._tally = number, url, tally
        self._name = f"client-{number}"
        self._rng = random.Random(f"{seed} {number}")
        self._ids: dict[str, str] = {}
        self._http = httpx.Client(base_url=url, timeout=_PATIENCE, trust_env=False)
        self._question = f"What is the secret code of client {number}?"
        self._acts: dict[Callable[[], None], int] = {
            self._search: 6, self._ask: 5, self._stream: 4, self._upload: 2, self._delete: 1, self._drop: 1,
            self._break_off: 1, self._list: 2, self._stray: 1,
        }  # fmt: skip

    def run(self, until: float) -> None:
        """Do one thing after another up to a moment of the monotonic clock, and on until somebody has an answer."""
        with self._http:
            self._call("create", "POST", "/v1/collections", {201}, json={"name": self._name})
            self._upload()
            acts, weights = [*self._acts], [*self._acts.values()]
            while (at := time.monotonic()) < until or (not self._tally.answered and at < until + _PATIENCE):
                act = self._rng.choices(acts, weights)[0]
                try:
                    act()
                except httpx.HTTPError as error:
                    self._tally.fault(f"{self._name} {act.__name__}: {type(error).__name__}: {error}")

    def _call(self, act: str, method: str, path: str, expected: set[int], **given: Any) -> httpx.Response:
        started = time.perf_counter()
        response = self._http.request(method, path, **given)
        self._look_at(act, response.status_code, response.headers, response.text, expected, started)
        return response

    def _look_at(
        self, act: str, status: int, headers: httpx.Headers, text: str, expected: set[int], started: float
    ) -> None:
        self._tally.took(act, status, time.perf_counter() - started)
        if status == 429:
            time.sleep(min(float(headers.get("retry-after", "1")), _MOST_WAIT))
        elif status not in expected:
            self._tally.fault(f"{self._name} {act}: {status} {text[:200]}")
        if strangers := {number for number in _MARK.findall(text) if int(number) != self._number}:
            self._tally.swapped.append(f"{self._name} {act}: marks of {strangers}: {text[:200]}")

    def _search(self) -> None:
        body = {"query": self._question, "collections": [self._name], "top_k": self._rng.choice((1, 8, 100))}
        response = self._call("search", "POST", "/v1/search", {200}, json=body)
        if response.status_code == 200:
            strangers = {p["collection"] for p in response.json()["passages"]} - {self._name}
            if strangers:
                self._tally.swapped.append(f"{self._name} search: {strangers}")

    def _asked(self, **more: Any) -> dict[str, Any]:
        return {"question": self._question, "collections": [self._name], "cache": self._rng.random() < 0.5, **more}

    def _ask(self) -> None:
        self._check_answer(self._call("ask", "POST", "/v1/ask", {200}, json=self._asked()).text)

    def _check_answer(self, text: str) -> None:
        if _MARK.search(text):
            self._tally.answered += 1

    def _stream(self) -> None:
        started = time.perf_counter()
        with self._http.stream("POST", "/v1/ask", json=self._asked(stream=True)) as response:
            text = "".join(response.iter_text())
        self._look_at("stream", response.status_code, response.headers, text, {200}, started)
        if response.status_code == 200:
            self._check_answer(text)
            if "event: done" not in text:
                self._tally.fault(f"{self._name} stream: ended early: {text[-200:]}")

    def _upload(self) -> None:
        name = f"{self._rng.randrange(_DOCUMENTS)}.txt"
        code = f"C{self._number}-{self._rng.getrandbits(32):08x}"
        content = f"The secret code of client {self._number} is {code}.\n\n{_FILLER}"
        path = f"/v1/collections/{self._name}/documents"
        response = self._call("upload", "POST", path, {202}, files=[("files", (name, content.encode()))])
        if response.status_code == 202:
            self._ids[name] = response.json()["documents"][0]["id"]

    def _delete(self) -> None:
        if len(self._ids) > 1:
            _, document_id = self._ids.popitem()
            self._call("delete", "DELETE", f"/v1/documents/{document_id}", {204})

    def _drop(self) -> None:
        """Leave in the middle of an answer."""
        started = time.perf_counter()
        with self._http.stream("POST", "/v1/ask", json=self._asked(stream=True)) as response:
            text = next(response.iter_text(), "")
        self._look_at("dropped answer", response.status_code, response.headers, text, {200}, started)

    def _break_off(self) -> None:
        """Leave in the middle of an upload; nothing of it may ever be seen."""
        address = urlsplit(self._url)
        body = b'--x\r\nContent-Disposition: form-data; name="files"; filename="never.txt"\r\n\r\nhalf a fi'
        head = (
            f"POST /v1/collections/{self._name}/documents HTTP/1.1\r\nHost: {address.netloc}\r\n"
            f"Content-Type: multipart/form-data; boundary=x\r\nContent-Length: {len(body) + 100}\r\n\r\n"
        )
        started = time.perf_counter()
        with suppress(ConnectionError), socket.create_connection((address.hostname, address.port), _PATIENCE) as line:
            line.sendall(head.encode() + body)
        self._tally.took("broken upload", 0, time.perf_counter() - started)

    def _list(self) -> None:
        response = self._call("list", "GET", f"/v1/collections/{self._name}/documents", {200})
        if "never.txt" in response.text:
            self._tally.fault(f"{self._name} list: half a file was taken")

    def _stray(self) -> None:
        body = {"query": self._question, "collections": ["nobody's"]}
        self._call("stray", "POST", "/v1/search", {404}, json=body)


class Memory:
    """Watches what a process and all below it hold, in a thread, every second."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self.samples: list[tuple[float, int]] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="memory", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(1):
            self.samples.append((time.monotonic(), sum(map(_resident, family(self._pid)))))

    def figures(self) -> dict[str, float]:
        """Return MiB at the beginning, the middle and the end, and how the second half grows in MiB a minute."""
        sizes = [size / 2**20 for _, size in self.samples]
        some = max(1, len(sizes) // 20)
        half = len(sizes) // 2
        times = [moment / 60 for moment, _ in self.samples[half:]]
        slope = statistics.linear_regression(times, sizes[half:]).slope if len(times) > 2 else 0.0
        places = {"start": sizes[:some], "middle": sizes[half : half + some], "end": sizes[-some:]}
        found = {f"{name}_mib": round(statistics.median(part), 1) for name, part in places.items()}
        return {**found, "slope_mib_per_minute": round(slope, 2), "minutes_of_slope": round(times[-1] - times[0], 2)}


def _resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()
    except (OSError, IndexError):  # it has just ended
        return 0


def load(url: str, clients: int, seconds: float, seed: int = 0) -> Tally:
    """Let so many clients do as they like for so many seconds and return what they saw."""
    tally = Tally()
    until = time.monotonic() + seconds
    each = [Client(number, url, tally, seed) for number in range(clients)]
    threads = [threading.Thread(target=client.run, args=(until,), name=f"client {n}") for n, client in enumerate(each)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return tally


def told(tally: Tally, memory: Memory) -> str:
    """Return all figures as one JSON text."""
    return json.dumps({**tally.figures(), "memory": memory.figures()}, indent=1)
