"""Originals: kept once by content, whole or not at all."""

from __future__ import annotations

import hashlib

import pytest

from rag.errors import DocumentTooLarge, NotFound
from rag.originals import Originals


@pytest.fixture
def originals(tmp_path):
    return Originals(tmp_path / "originals")


def files(originals: Originals) -> list[str]:
    return sorted(path.name for path in originals.folder.rglob("*") if path.is_file())


def test_bytes_come_back_by_their_digest(originals):
    stored = originals.store([b"storm ", b"at sea"], 100)
    assert stored.sha256 == hashlib.sha256(b"storm at sea").hexdigest()
    assert stored.size == 12
    assert originals.path(stored.sha256).read_bytes() == b"storm at sea"


def test_the_same_bytes_are_kept_once(originals):
    assert originals.store([b"x"], 10) == originals.store([b"x"], 10)
    assert len(files(originals)) == 1


def test_too_many_bytes_leave_nothing_behind(originals):
    with pytest.raises(DocumentTooLarge):
        originals.store([b"12345", b"67890", b"1"], 10)
    assert files(originals) == []


def test_a_reader_that_breaks_off_leaves_nothing_behind(originals):
    def broken():
        yield b"half"
        raise ConnectionError("gone")

    with pytest.raises(ConnectionError):
        originals.store(broken(), 100)
    assert files(originals) == []


def test_what_is_not_there_is_named(originals):
    with pytest.raises(NotFound, match="upload it again"):
        originals.path("ab" * 32)
    originals.remove("ab" * 32)
    stored = originals.store([b"x"], 10)
    originals.remove(stored.sha256)
    assert files(originals) == []
