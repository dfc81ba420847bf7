"""Corpora as collections: the rows of one report are one document that a filter finds."""

from __future__ import annotations

import json

import pytest

from eval.folders import load_reports, read_rows
from rag.assembly import open_citewell
from rag.errors import BadInput
from rag.records import Kind
from rag.testing import WordEmbedder

CORPUS = [
    {"_id": "a1", "text": "| | 2019\nSales| 12", "kind": "table", "context_id": "a"},
    {"_id": "a2", "text": "Sales are in millions of euros.", "kind": "paragraph", "context_id": "a"},
    {"_id": "b1", "text": "Sales of the other firm are in dollars.", "kind": "paragraph", "context_id": "b"},
    {"_id": "c1", "title": "Alone", "text": "Sales belong to no report."},
]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "corpus.jsonl").write_text("\n".join(map(json.dumps, CORPUS)))
    return tmp_path


def test_a_report_is_a_document_that_a_filter_finds(folder, settings):
    """Its tables are tables; the row without a report stands alone; what is loaded is not loaded again."""
    told = []
    with open_citewell(settings, embedder=WordEmbedder()) as citewell:
        collection = load_reports(citewell, folder, lambda done, of: told.append((done, of)))
        assert (collection.documents, collection.passages) == (3, 4)
        assert told == [(1, 3), (2, 3), (3, 3)]
        assert load_reports(citewell, folder, lambda done, of: told.append((done, of))).id == collection.id
        assert len(told) == 3

        def found(filters):
            ranking = citewell.search(citewell.plan("Which sales?", [collection.name], filters))
            return {passage.section[0]: passage.kind for passage in ranking.passages}

        assert found({"context_id": "a"}) == {"a1": Kind.TABLE, "a2": Kind.TEXT}
        assert found({"context_id": "b"}) == {"b1": Kind.TEXT}
        assert found({"not": {"context_id": {"exists": True}}}) == {"c1": Kind.TEXT}
        assert set(found({})) == {"a1", "a2", "b1", "c1"}


def test_a_row_without_an_id_is_refused_with_its_line(folder):
    (folder / "corpus.jsonl").write_text('{"_id": "a", "text": "x"}\n{"text": "y"}\n')
    with pytest.raises(BadInput, match=r"corpus\.jsonl, line 2, has no _id; give a folder in BEIR layout\.$"):
        list(read_rows(folder, "corpus"))
