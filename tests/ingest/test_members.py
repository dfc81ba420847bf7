"""Files inside files: each becomes a document that belongs to the outer one, comes with its batch and goes with it."""

from __future__ import annotations

import email.message
import email.policy
import io
import zipfile
from collections.abc import Iterator

import pytest

from ingest.worker import Worker, accept
from rag.assembly import Citewell, open_citewell
from rag.records import Collection, State
from rag.settings import Settings
from tests.ingest.test_resume import CountingEmbedder, parts, quick
from tests.reading import reading_worker


@pytest.fixture
def embedder() -> CountingEmbedder:
    return CountingEmbedder()


def limited(settings: Settings, **limits: int) -> Settings:
    return settings.model_copy(update={"ingest": settings.ingest.model_copy(update=limits)})


@pytest.fixture
def words(settings: Settings, embedder: CountingEmbedder) -> Iterator[Citewell]:
    with open_citewell(quick(settings), embedder=embedder) as opened:
        yield opened


@pytest.fixture
def collection(words: Citewell) -> Collection:
    return words.store.catalog.create_collection("c")


@pytest.fixture
def worker(words: Citewell) -> Worker:
    return reading_worker(words)


def zipped(**files: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return stream.getvalue()


def take_in(citewell: Citewell, worker: Worker, collection: Collection, name: str, content: bytes) -> str:
    """Take in one file as a batch of its own and read the batch; return its id."""
    batch = citewell.store.catalog.open_batch(collection.id)
    accept(citewell.store, collection, name, io.BytesIO(content), batch=batch)
    worker.drain(batch)
    return batch


def documents(citewell: Citewell, collection: Collection) -> dict[str, tuple[State, int]]:
    found = citewell.store.catalog.list_documents(collection.id)
    return {d.name: (d.newest.state, d.newest.number) for d in found}


def parents(citewell: Citewell, collection: Collection) -> dict[str, str | None]:
    found = citewell.store.catalog.list_documents(collection.id)
    names = {d.id: d.name for d in found}
    return {d.name: names[d.parent_id] if d.parent_id else None for d in found}


READY = (State.READY, 1)


def test_an_archive_through_its_life(words, worker, collection, embedder):
    """Taken in, replaced by a version that lacks one file, and deleted: its files, and theirs, follow."""
    catalog = words.store.catalog
    x, y, z = b"Storm at sea.", b"Tide in the harbour.", b"Buoy at anchor."
    inner = zipped(**{"z.txt": z})
    batch = take_in(
        words, worker, collection, "a.zip", zipped(**{"x.txt": x, "sub/y.txt": y, "i.zip": inner, "../e.txt": x})
    )
    names = ["a.zip", "a.zip/i.zip", "a.zip/i.zip/z.txt", "a.zip/sub/y.txt", "a.zip/x.txt"]
    assert documents(words, collection) == dict.fromkeys(names, READY)
    assert parents(words, collection) == {
        "a.zip": None, "a.zip/i.zip": "a.zip", "a.zip/i.zip/z.txt": "a.zip/i.zip", "a.zip/sub/y.txt": "a.zip",
        "a.zip/x.txt": "a.zip",
    }  # fmt: skip
    report = catalog.batch(batch)
    assert (dict(report.states), report.ended_at is not None) == ({State.READY: 5, "refused": 1}, True)
    (refused,) = [file for file in catalog.batch_files(batch) if file.outcome == "refused"]
    assert (refused.name, refused.error_code, bool(refused.error)) == ("a.zip/__/e.txt", "member_refused", True)
    assert sum("Storm" in text for text in embedder.taken()) == 1

    take_in(words, worker, collection, "a.zip", zipped(**{"sub/y.txt": y, "i.zip": inner, "new.txt": b"Ebb."}))
    assert documents(words, collection) == {
        "a.zip": (State.READY, 2), "a.zip/i.zip": READY, "a.zip/i.zip/z.txt": READY, "a.zip/sub/y.txt": READY,
        "a.zip/new.txt": READY,
    }  # fmt: skip
    assert not [text for text in embedder.taken() if "Tide" in text or "Buoy" in text]
    assert words.search(words.plan("Storm sea", ["c"])).passages[0].document != "a.zip/x.txt"

    catalog.delete_document(catalog.find_document(collection.id, "a.zip").id)
    assert documents(words, collection) == {}
    assert words.search(words.plan("Tide Buoy Ebb", ["c"])).passages == ()
    words.purge(collection)
    assert words.store.originals.list() == []

    take_in(words, worker, collection, "b.zip", zipped(**{"x.txt": x}))
    assert documents(words, collection) == {"b.zip": READY, "b.zip/x.txt": READY}


def test_a_file_in_two_archives_is_parsed_and_embedded_once(words, worker, collection, embedder):
    same = parts(6)
    take_in(words, worker, collection, "a.zip", zipped(**{"same.md": same, "a.txt": b"Storm."}))
    first = [text for text in embedder.taken() if "number" in text]
    take_in(words, worker, collection, "b.zip", zipped(**{"other name.md": same, "b.txt": b"Tide."}))
    assert len(first) == 6
    assert not [text for text in embedder.taken() if "number" in text]
    assert documents(words, collection)["b.zip/other name.md"] == READY
    found = words.store.catalog.find_document(collection.id, "b.zip/other name.md")
    assert found.newest.parse_id == words.store.catalog.find_document(collection.id, "a.zip/same.md").newest.parse_id


def test_a_message_brings_what_is_attached(words, worker, collection):
    message = email.message.EmailMessage(policy=email.policy.default)
    message["From"], message["To"], message["Subject"] = "a@example.org", "b@example.org", "The buoy"
    message.set_content("The report on the buoy is attached.")
    message.add_attachment(
        b"The buoy has drifted to the north.", maintype="text", subtype="plain", filename="report.txt"
    )
    batch = take_in(words, worker, collection, "mail.eml", message.as_bytes())
    assert documents(words, collection) == {"mail.eml": READY, "mail.eml/report.txt": READY}
    assert parents(words, collection)["mail.eml/report.txt"] == "mail.eml"
    assert dict(words.store.catalog.batch(batch).states) == {State.READY: 2}
    assert words.search(words.plan("drifted north", ["c"])).passages[0].document == "mail.eml/report.txt"


def test_an_archive_that_is_too_deep_fails_alone(settings, embedder):
    """With depth 2 an archive in an archive is opened, and one in that is not: it says so, and the others are read."""
    innermost = zipped(**{"deep.txt": b"Storm."})
    inner = zipped(**{"third.zip": innermost, "tide.txt": b"Tide."})
    with (
        open_citewell(limited(quick(settings), archive_depth=2), embedder=embedder) as citewell,
        Worker(citewell) as worker,
    ):
        collection = citewell.store.catalog.create_collection("c")
        batch = take_in(citewell, worker, collection, "a.zip", zipped(**{"second.zip": inner, "ebb.txt": b"Ebb."}))
        found = documents(citewell, collection)
        too_deep = "a.zip/second.zip/third.zip"
        assert found.pop(too_deep) == (State.FAILED, 1)
        assert set(found.values()) == {READY}
        assert set(found) == {"a.zip", "a.zip/ebb.txt", "a.zip/second.zip", "a.zip/second.zip/tide.txt"}
        error = citewell.store.catalog.find_document(collection.id, too_deep).newest.error
        assert "archive_depth" in str(error)
        assert dict(citewell.store.catalog.batch(batch).states) == {State.READY: 4, State.FAILED: 1}


def test_the_limit_of_files_holds_for_the_outermost_archive(settings, embedder):
    """Five in one archive are refused as a whole; four with two more inside one of them end that one alone."""
    with (
        open_citewell(limited(quick(settings), archive_members=4), embedder=embedder) as citewell,
        Worker(citewell) as worker,
    ):
        catalog = citewell.store.catalog
        collection = catalog.create_collection("c")
        files = {f"{n}.txt": f"Storm {n}.".encode() for n in range(5)}
        take_in(citewell, worker, collection, "five.zip", zipped(**files))
        assert documents(citewell, collection) == {"five.zip": (State.FAILED, 1)}
        inner = zipped(**{"y.txt": b"Tide y.", "z.txt": b"Tide z."})
        three = {name: files[name] for name in ("0.txt", "1.txt", "2.txt")}
        take_in(citewell, worker, collection, "four.zip", zipped(**three, **{"i.zip": inner}))
        found = documents(citewell, collection)
        assert found == {
            "five.zip": (State.FAILED, 1), "four.zip": READY, "four.zip/0.txt": READY, "four.zip/1.txt": READY,
            "four.zip/2.txt": READY, "four.zip/i.zip": (State.FAILED, 1),
        }  # fmt: skip
        for name in ("five.zip", "four.zip/i.zip"):
            newest = catalog.find_document(collection.id, name).newest
            assert (newest.error_code, newest.attempts) == ("document_too_large", 1)
            assert "archive_members" in str(newest.error)
