"""A user of the REST interface who keeps book of what was acknowledged, and asks for what has been promised.

Uploads, replaces, copies, deletes and searches while the server comes and goes. A request that got no answer is sent
again until it does, so that the book is never in doubt. What is promised, and asked for meanwhile:

- a document that is `ready` is found by its mark at once, in this very version or in a copy that says the same;
- from then on none of its older versions is found;
- a document whose deletion was acknowledged is not found any more, and neither is what was taken out of it.
"""

from __future__ import annotations

import io
import random
import threading
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import httpx

from eval.corpus import Entry
from rag.records import digest
from tests.faults.supervisor import PATIENCE

#: A sentence of each document that the product carries, which stands in no other of them.
SENTENCES: Mapping[str, str] = {
    "2025/travel-policy.pdf": "may claim a flat rate of 20 euros per night",
    "2026/travel-policy.pdf": "may claim a flat rate of 25 euros per night",
    "handbook/information-security.html": "locked for 20 minutes after 8 wrong passwords",
    "handbook/leave-policy.docx": "closes from 24 December to 1 January each year",
    "handbook/onboarding.md": "The weekly working time of a full-time contract is 38 hours",
    "products/calibration-faq.md": "Fit the wet cap on a pH sensor",
    "products/tw-buoy-400-manual.pdf": "Wear a life jacket and cut-resistant gloves",
    "support/incident-2026-03-report.html": "Casimir Welde, Head of Platform Operations",
    "support/sla.docx": "The Standard support desk is open from 08:00 to 18:00 UTC",
}


@dataclass(frozen=True)
class File:
    """The content of a document: its bytes, a mark that stands in it and nowhere else, and the error it has to give.

    ``inside`` are the files of an archive by their names in it.
    """

    data: bytes
    mark: str = ""
    error: str | None = None
    inside: Mapping[str, File] = field(default_factory=dict)


def file_of(folder: Path, entry: Entry) -> File:
    """Return a file of a generated corpus."""
    return File((folder / entry.name).read_bytes(), entry.mark, entry.error)


def archive_of(files: Mapping[str, File]) -> File:
    """Return an archive of some files."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, file in files.items():
            archive.writestr(zipfile.ZipInfo(name), file.data)
    return File(packed.getvalue(), inside=dict(files))


def real_files(samples: Path) -> dict[str, File]:
    """Return the documents that the product carries, by name."""
    return {name: File((samples / name).read_bytes(), mark) for name, mark in SENTENCES.items()}


@dataclass
class Book:
    """What was acknowledged: the content that each document has now, and the marks of what is gone."""

    collection: str
    collection_id: str = ""
    live: dict[str, File] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)
    operations: int = 0
    searches: int = 0

    def put(self, name: str, file: File) -> None:
        """Note that a document has this content from now on."""
        self.remove(name)
        self.live[name] = file
        for inner, member in file.inside.items():
            self.live[f"{name}/{inner}"] = member
        self.gone -= {held.mark for held in self.live.values()}

    def remove(self, name: str) -> None:
        """Note that a document is deleted, and what was inside it."""
        for known in [known for known in self.live if known == name or known.startswith(f"{name}/")]:
            self.gone.add(self.live.pop(known).mark)
        self.gone -= {held.mark for held in self.live.values()} | {""}

    def id_of(self, name: str) -> str:
        """Return the id of the document of a name."""
        return digest(self.collection_id, name)


class User:
    """Talks to the server at ``address`` and keeps ``book``; what can not be true raises `AssertionError`."""

    def __init__(self, address: str, book: Book) -> None:
        self.book = book
        self._client = httpx.Client(base_url=address, timeout=60, trust_env=False)

    def close(self) -> None:
        self._client.close()

    def open_collection(self) -> None:
        """Make the collection, or learn that it is there."""
        self._send("POST", "/v1/collections", {201, 409}, json={"name": self.book.collection})
        listed = self._send("GET", "/v1/collections", {200}).json()["collections"]
        self.book.collection_id = next(c["id"] for c in listed if c["name"] == self.book.collection)

    def upload(self, files: Mapping[str, File]) -> None:
        """Upload some files in one form; it is sent again as a whole until it is answered."""
        parts = [("files", (name, file.data)) for name, file in files.items()]
        reply = self._send("POST", f"/v1/collections/{self.book.collection}/documents", {202}, files=parts).json()
        assert [entry.get("error") for entry in reply["documents"]] == [None] * len(files), reply
        for name, file in files.items():
            self.book.put(name, file)
        self.book.operations += len(files)

    def delete(self, name: str) -> None:
        """Delete a document; if the answer got lost it is gone at the second try."""
        document = self.book.id_of(name)
        self._send("DELETE", f"/v1/documents/{document}", {204, 404})
        inside = [self.book.id_of(known) for known in self.book.live if known.startswith(f"{name}/")]
        marks = [file.mark for known, file in self.book.live.items() if known == name or known.startswith(f"{name}/")]
        self.book.remove(name)
        self.book.operations += 1
        for mark in filter(None, marks):
            found = self.search(mark)
            assert not {passage["document_id"] for passage in found} & {document, *inside}, (name, mark)

    def look(self, name: str) -> None:
        """Check what is promised of a document that is ready, if it is."""
        file, document = self.book.live[name], self.book.id_of(name)
        shown = self._send("GET", f"/v1/documents/{document}", {200, 404})
        if shown.status_code == 404:
            assert name not in self._outermost(), f"{name} was acknowledged and is not there"
            return
        found = shown.json()
        if found["state"] != "ready" or file.inside:
            return
        passages = self.search(file.mark)
        older = [p for p in passages if p["document_id"] == document and p["version"] < found["newest"]["number"]]
        assert not older, (name, older)
        assert self.finds(name, passages), f"{name} is ready and its mark {file.mark} is not found"

    def finds(self, name: str, passages: Sequence[Mapping[str, Any]]) -> bool:
        """Whether the passages for a document's mark hold it, in the document's own name.

        Of documents that say the same one is shown, and not always with the names of all others: they are asked for
        by name.
        """
        mark, document = self.book.live[name].mark, self.book.id_of(name)
        saying = [p for p in passages if mark in " ".join(p["text"].split())]
        if not saying:
            return False
        shown = {of["document_id"] for p in saying for of in (p, *p["also_in"])}
        return document in shown or any(mark in " ".join(p["text"].split()) for p in self.search(mark, document=name))

    def search(self, query: str, **filters: str) -> list[dict[str, Any]]:
        """Return the passages for a query."""
        body = {"query": query, "collections": [self.book.collection], "top_k": 10, "filters": filters}
        self.book.searches += 1
        found: list[dict[str, Any]] = self._send("POST", "/v1/search", {200}, json=body).json()["passages"]
        return found

    def purge(self) -> None:
        """Remove for good what was deleted and replaced."""
        self._send("POST", f"/v1/collections/{self.book.collection}/purge", {200}, json={})

    def _outermost(self) -> set[str]:
        """Return the names of what was uploaded itself, not taken out of an archive."""
        inside = {f"{name}/{inner}" for name, file in self.book.live.items() for inner in file.inside}
        return set(self.book.live) - inside

    def _send(self, method: str, path: str, expected: set[int], **content: Any) -> httpx.Response:
        """Send a request until it is answered with one of the expected statuses; 503 means later."""
        end = time.monotonic() + PATIENCE
        while True:
            try:
                response = self._client.request(method, path, **content)
            except httpx.TransportError:
                response = None
            if response is not None and response.status_code != 503:
                assert response.status_code in expected, (method, path, response.status_code, response.text)
                return response
            assert time.monotonic() < end, f"{method} {path} is not answered: {response and response.text}"
            time.sleep(0.1)


@dataclass
class Habits:
    """What a user does at random: uploads of ``files``, in groups, and all that changes what is there already."""

    user: User
    rng: random.Random
    files: list[tuple[str, File]]
    queued: Callable[[], int]
    busy: int = 60

    def begin(self, most: int) -> None:
        """Upload the first ``most`` files in forms of some."""
        while most > 0 and self.files:
            group = dict(self._next() for _ in range(min(self.rng.randint(1, 15), most, len(self.files))))
            self.user.upload(group)
            most -= len(group)

    def go_on(self, stop: threading.Event) -> None:
        """Change and ask at random until told to stop, and let the queue be neither empty nor long."""
        while not stop.is_set():
            if self.queued() < self.busy:
                self.rng.choices([self._add, self._replace, self._copy, self._delete], [3, 5, 1, 2])[0]()
            if names := self._marked():
                self.user.look(self.rng.choice(names))
            stop.wait(0.05)

    def _next(self) -> tuple[str, File]:
        return self.files.pop(0)

    def _add(self) -> None:
        if self.files:
            self.user.upload(dict([self._next()]))
        else:
            self._replace()

    def _replace(self) -> None:
        """Give a document the content of another one of its kind, under a mark of its own."""
        names = [name for name in self._alone() if PurePosixPath(name).suffix in {".txt", ".md", ".rst"}]
        if names:
            name = self.rng.choice(sorted(names))
            mark = f"replaced{self.rng.getrandbits(40):012x}"
            lines = (self.rng.choice(TALK) for _ in range(self.rng.randint(3, 30)))
            text = f"# Notes\n\nThe mark of this version is {mark}.\n\n" + "\n\n".join(lines)
            self.user.upload({name: File(text.encode(), mark)})

    def _copy(self) -> None:
        """Upload what is there once more under another name."""
        name = self.rng.choice(sorted(self._alone()))
        path = PurePosixPath(name)
        self.user.upload({f"copies/{path.stem}-{self.rng.getrandbits(32):08x}{path.suffix}": self.user.book.live[name]})

    def _delete(self) -> None:
        names = sorted(self.user._outermost())
        if len(names) > 40:
            self.user.delete(self.rng.choice(names))

    def _alone(self) -> list[str]:
        """Return the uploaded documents that can be read and hold no others."""
        live = self.user.book.live
        return [name for name in self.user._outermost() if live[name].mark and not live[name].inside]

    def _marked(self) -> list[str]:
        return sorted(name for name, file in self.user.book.live.items() if file.mark)


TALK = (
    "The harbour crane was checked before the first ship came in.",
    "Nobody may enter the tank room without a second person at the door.",
    "The invoice was paid on the day on which the goods were unloaded.",
    "A new lamp costs less than the time that is lost in the dark.",
    "The night shift hands over the keys and the open questions at six.",
    "Of the two pumps the older one runs quieter, and nobody knows why.",
)
