"""The order of what reaches the disk: nothing is named in the catalog before the file that it names is flushed.

A power cut can not be made here. What is checked is what a file system asks of a program: contents are flushed, then
the folder entries, and only then the commit, which SQLite flushes itself (``synchronous=FULL``).
"""

from __future__ import annotations

import pytest

from tests.faults.points import opened
from tests.faults.test_stages import CASES, archive, begin, points_of, zygote  # noqa: F401


def first(points, start, *words):
    """Return the number of the first point from ``start`` on that begins so and holds these words."""
    for number, point in enumerate(points[start:], start):
        if point.startswith(words[0]) and all(word in point for word in words):
            return number
    raise AssertionError(words)


def test_an_upload_is_on_the_disk_before_it_is_acknowledged(zygote, tmp_path):  # noqa: F811
    """Content flushed, renamed, both folders flushed, and then the row."""
    old, new, acts, content = CASES["accept"]
    data, file = tmp_path / "data", tmp_path / "content"
    file.write_bytes(content)
    begin(data, old, new, acts)
    points = points_of(zygote, "accept", data, file, tmp_path)
    flushed = first(points, 0, "fsync", "incoming-")
    renamed = first(points, flushed, "os.rename", "incoming-")
    placed = first(points, renamed, "fsync", "/originals/")
    named = first(points, placed + 1, "fsync", "/originals")
    row = first(points, named, "sql INSERT INTO versions")
    first(points, row, "commit")
    assert not [point for point in points[:named] if "INSERT INTO versions" in point]


def test_what_is_inside_an_archive_is_on_the_disk_before_its_rows(zygote, tmp_path):  # noqa: F811
    """Each member's original is flushed and placed before the transaction that makes documents of them."""
    data = tmp_path / "data"
    begin(data, archive("oldmark"), archive("newmark"), ())
    points = points_of(zygote, "work", data, tmp_path / "none", tmp_path)
    row = first(points, 0, "sql INSERT INTO versions")
    renames = [n for n, point in enumerate(points[:row]) if point.startswith("os.rename") and "incoming-" in point]
    assert len(renames) == 2
    for number in renames:
        placed = first(points, number, "fsync", "/originals/")
        assert first(points, placed + 1, "fsync", "/originals") < row


def test_a_sealed_part_is_on_the_disk_before_it_is_in_force(zygote, tmp_path):  # noqa: F811
    """All its files, the manifest, its folder; renamed; the folder above; and then the row."""
    old, new, acts, _ = CASES["seal"]
    data = tmp_path / "data"
    begin(data, old, new, acts)
    points = points_of(zygote, "seal", data, tmp_path / "none", tmp_path)
    for kind in ("dense", "lexical"):
        content = first(points, 0, "fsync", f".making-{kind}", "seqs.npy")
        manifest = first(points, content, "fsync", f".making-{kind}", "manifest.json")
        renamed = first(points, manifest, "os.rename", f".making-{kind}")
        assert [p for p in points[manifest + 1 : renamed] if p.startswith("fsync") and f".making-{kind}" in p]
        above = first(points, renamed, "fsync", "/indexes/")
        first(points, above, "sql INSERT INTO seals")


@pytest.mark.parametrize(("pragma", "value"), [("synchronous", 2), ("journal_mode", "wal"), ("foreign_keys", 1)])
def test_sqlite_flushes_each_commit(citewell, tmp_path, pragma, value):
    """Every connection, not only the first: readers and writers side by side."""
    del citewell
    with opened(tmp_path / "other") as other:
        database = other.store.catalog._database
        with database.read() as one, database.read() as two:
            assert [c.exec_driver_sql(f"PRAGMA {pragma}").scalar() for c in (one, two)] == [value] * 2
