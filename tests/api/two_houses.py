"""A Citewell with two collections of one content: ``ours``, which some keys see, and ``theirs``, which none does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from rag.access import Limits, Role
from rag.assembly import Citewell, open_citewell
from rag.records import Block, Chunk, Kind, ParsedDocument, digest
from rag.settings import Settings
from rag.testing import WordEmbedder
from tests.api.live import serving

MODEL = WordEmbedder()
QUESTION = "Which animal lives by the sea?"
#: No test is quick enough for this.
UNLIMITED = Limits(requests_per_minute=10**7)


@dataclass(frozen=True)
class House:
    """What there is of one collection, by the names of the parameters of the API; ``conversation`` is one about it."""

    collection: str
    document_id: str
    batch_id: str
    answer_id: str
    question_id: str
    report_id: str
    conversation: str


@dataclass(frozen=True)
class Village:
    """Both collections, a client for each role that sees ``ours`` alone, and one of an admin, who sees both."""

    citewell: Citewell
    ours: House
    theirs: House
    clients: dict[Role, httpx.Client]


@contextmanager
def village(settings: Settings) -> Iterator[Village]:
    """Serve both collections; what is in them came before there were keys."""
    with open_citewell(settings, embedder=MODEL) as opened, serving(opened) as client:
        houses = [furnished(opened, client, name) for name in ("ours", "theirs")]
        catalog = opened.store.catalog
        clients = {}
        try:
            for role in Role:
                seen = None if role is Role.ADMIN else ["ours"]
                _, secret = catalog.create_key(f"a {role}", role, seen, limits=UNLIMITED)
                clients[role] = httpx.Client(
                    base_url=client.base_url, headers={"Authorization": f"Bearer {secret}"}, trust_env=False, timeout=60
                )
            yield Village(opened, *houses, clients)
        finally:
            for each in clients.values():
                each.close()


def furnished(citewell: Citewell, client: httpx.Client, name: str) -> House:
    """Make a collection with a document that is searched, one that has failed, and one of all that is about it."""
    catalog = citewell.store.catalog
    here = catalog.create_collection(name)
    batch = catalog.open_batch(here.id)
    put(citewell, here.id, f"{name}.txt", batch)
    failed, _ = catalog.accept(here.id, f"{name}-broken.txt", digest(name), 7, batch=batch)
    catalog.claim("t", 60)
    catalog.fail(failed.id, "t", "document_damaged", "It is damaged.")
    asked = {"question": QUESTION, "collections": [name], "conversation": f"talk-about-{name}"}
    answer = client.post("/v1/ask", json=asked).json()
    golden = client.post(
        "/v1/golden", json={"collection": name, "questions": [{"question": QUESTION, "answer": "seals"}]}
    )
    report = client.post("/v1/reports", json={"collections": [name]})
    return House(
        name, digest(here.id, f"{name}.txt"), batch, answer["id"], golden.json()["questions"][0]["id"],
        report.json()["id"], f"talk-about-{name}",
    )  # fmt: skip


def put(citewell: Citewell, collection_id: str, name: str, batch: str | None = None) -> None:
    """Make a document searchable without a worker."""
    catalog, text = citewell.store.catalog, f"The seal of {name} lives by the sea."
    version, _ = catalog.accept(collection_id, name, digest(text), len(text), batch=batch)
    catalog.claim("t", 60)
    parsed = ParsedDocument.from_blocks([Block(Kind.TEXT, text, 1)], "text/plain")
    pieces = [Chunk(e.text, "", e.start, e.end, e.kind, e.page, e.section, 1) for e in parsed.elements]
    made = MODEL.encode([text], codes=True)
    assert catalog.commit(version.id, "t", parsed, pieces, made.vectors, MODEL.fingerprint, codes=made.codes)


def counted(village: Village) -> dict[str, Any]:
    """Return what there is of ``theirs``, to see whether anything has changed."""
    catalog, theirs = village.citewell.store.catalog, village.theirs
    here = catalog.collection(theirs.collection)
    return {
        "documents": [(d.id, d.newest.state) for d in catalog.list_documents(here.id)],
        "answers": [a.id for a in catalog.list_answers(here.id)],
        "feedback": len(catalog.answer(theirs.answer_id).feedback),
        "golden": [g.id for g in catalog.list_golden(here.id)],
        "report": catalog.report(theirs.report_id).id,
        "batch": catalog.batch(theirs.batch_id).files,
    }
