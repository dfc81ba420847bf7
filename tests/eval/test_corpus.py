"""The generated corpus: the same files for the same seed, each read by the product as its manifest says."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import pytest

from eval.corpus import BROKEN_FILES, FORMATS, MOST_BROKEN, Entry, generate, mark_sentence, write_manifest
from eval.formats import WRITERS
from ingest.parse import parse
from rag.errors import DocumentRejected
from rag.settings import IngestSettings

LIMITS = IngestSettings()
WORD = re.compile(r"\w+")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def text_of(folder: Path, entry: Entry) -> str:
    return parse(folder / entry.name, entry.name, LIMITS).text


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Entry]]:
    folder = tmp_path_factory.mktemp("corpus")
    return folder, generate(folder, 400, seed=11)


def test_the_manifest_names_every_file_and_no_other(corpus):
    folder, entries = corpus
    assert len(entries) == 400
    assert sorted(contents(folder)) == sorted(entry.name for entry in entries)
    assert {entry.format for entry in entries if entry.kind != "broken"} == set(FORMATS) == set(WRITERS)
    assert all(entry.name.endswith(f".{entry.format}") for entry in entries)


def test_the_same_seed_writes_the_same_bytes_and_another_seed_others(tmp_path):
    """Also a second time in one process, when the office packages have been made already."""
    made = [generate(tmp_path / name, 120, seed) for name, seed in (("a", 3), ("b", 3), ("c", 4))]
    assert made[0] == made[1]
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert not {e.sha256 for e in made[0] if e.kind == "plain"} & {e.sha256 for e in made[2]}


def test_every_mark_stands_in_one_file_alone_but_for_copies(corpus):
    """Near copies have a mark of their own; copies share the mark and the bytes of the file that they name."""
    folder, entries = corpus
    named = {entry.name: entry for entry in entries}
    marks = Counter(entry.mark for entry in entries if entry.kind in {"plain", "near_copy"})
    assert set(marks.values()) == {1}
    copies = [entry for entry in entries if entry.kind == "copy"]
    assert copies
    for copy in copies:
        original = named[str(copy.copy_of)]
        assert (copy.mark, copy.sha256) == (original.mark, original.sha256)
        assert (folder / copy.name).read_bytes() == (folder / original.name).read_bytes()


def test_a_near_copy_differs_in_one_word(corpus):
    folder, entries = corpus
    named = {entry.name: entry for entry in entries}
    near = next(entry for entry in entries if entry.kind == "near_copy")
    words, first = (WORD.findall(text_of(folder, entry)) for entry in (near, named[str(near.copy_of)]))
    assert [pair for pair in zip(words, first, strict=True) if pair[0] != pair[1]] == [
        (near.mark, named[str(near.copy_of)].mark)
    ]


@pytest.mark.parametrize("form", FORMATS)
def test_the_mark_is_read_from_a_file_of_each_format(corpus, form):
    """The sentence of the mark is found, once, whatever lines and pages the format has."""
    folder, entries = corpus
    entry = next(entry for entry in entries if entry.format == form and entry.kind == "plain")
    text = " ".join(text_of(folder, entry).split())
    assert text.count(mark_sentence(entry.mark)) == 1
    assert len(WORD.findall(text)) > 100


@pytest.mark.parametrize("fault", sorted(BROKEN_FILES))
def test_a_broken_file_is_refused_with_the_error_that_the_manifest_names(corpus, fault):
    folder, entries = corpus
    broken = next(entry for entry in entries if entry.kind == "broken" and fault in entry.name)
    with pytest.raises(DocumentRejected) as refused:
        parse(folder / broken.name, broken.name, LIMITS)
    assert refused.value.code == broken.error


def test_formats_and_oddities_can_be_chosen(tmp_path):
    entries = generate(tmp_path, 130, 5, formats=["md", "csv"], oddities=False)
    assert {(entry.format, entry.kind) for entry in entries} == {("md", "plain"), ("csv", "plain")}
    assert len(BROKEN_FILES) <= MOST_BROKEN


def test_one_file_in_a_hundred_is_long(tmp_path):
    """The tail is heavy: a few files have twenty times the words of most others."""
    generate(tmp_path, 600, 5, formats=["txt"], oddities=False)
    words = sorted(len(data.split()) for data in contents(tmp_path).values())
    assert 150 <= words[len(words) // 2] <= 400
    assert words[int(0.97 * len(words))] < 1200
    assert words[-1] > 3000


def test_the_manifest_is_written_as_json_lines(tmp_path, corpus):
    write_manifest(corpus[1], tmp_path / "manifest.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "manifest.jsonl").read_text().splitlines()]
    assert [Entry(**row) for row in rows] == corpus[1]
