"""Scores and why there are none: their means, and the files that keep them by content."""

from __future__ import annotations

import json
import math
import os
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.scored import Finding, Score, Scored, ScoreFiles, Unscored
from rag.records import digest

FOUND = Finding("It is late.", "passages", verdict=True, evidence="Late it is.", support=0.9)
NOT_FOUND = Finding("Dogs bark.", "passages", verdict=False, reason="No dog is named.")
KEY = digest("a")


def scored(*results):
    scores = tuple(one for one in results if isinstance(one, Score))
    return Scored("judge", "judge-1", scores, tuple(one for one in results if isinstance(one, Unscored)))


def test_means_are_of_what_was_scored():
    """A failure is counted and listed, lowers no mean, and nowhere is a score that is no number."""
    found = scored(
        Score("1", "faithfulness", 1.0, (FOUND,), tokens=30, seconds=1.5),
        Score("2", "faithfulness", 0.5, (FOUND, NOT_FOUND), cached=True),
        Unscored("3", "faithfulness", "The judge is down.", failed=True),
        Unscored("4", "faithfulness", "Nothing was answered.", failed=False),
        Unscored("4", "context_recall", "Nobody knows.", failed=False),
    )
    assert found.values("faithfulness") == {"1": 1.0, "2": 0.5}
    assert found.figure("faithfulness").value == 0.75
    assert found.supported() == [(1, 1), (1, 2)]
    assert found.failures() == {"faithfulness": 1}
    assert math.isnan(found.figure("context_recall").value)
    shown = found.as_json()
    assert shown["metrics"]["faithfulness"] == {"value": 0.75, "low": 0.5, "high": 1.0, "scored": 2}
    assert shown["metrics"]["context_recall"] == {"value": None, "low": None, "high": None, "scored": 0}
    assert (shown["cached"], shown["tokens"], shown["seconds"]) == (1, 30, 1.5)
    assert [one["failed"] for one in shown["unscored"]] == [True, False, False]
    assert "NaN" not in json.dumps(shown)


@given(value=st.floats(0, 1), texts=st.lists(st.text(), max_size=3), support=st.none() | st.floats(0, 1))
def test_what_is_kept_comes_back(tmp_path_factory, value, texts, support):
    """The score with its reasons, for whichever sample it is asked for; its cost was paid before."""
    files = ScoreFiles(tmp_path_factory.mktemp("scores"))
    findings = tuple(Finding(text, "reference", verdict=True, support=support) for text in texts)
    assert files.find(KEY, "1") is None
    files.keep(KEY, Score("1", "context_recall", value, findings, tokens=5, seconds=2.0))
    assert files.find(KEY, "2") == Score("2", "context_recall", value, findings, cached=True)


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b"\xff", b'{"metric": "x", "value": 1}', b"null"])
def test_a_damaged_file_is_as_good_as_none(tmp_path, damage):
    files = ScoreFiles(tmp_path)
    files.keep(KEY, Score("1", "faithfulness", 1.0, (FOUND,)))
    [file] = tmp_path.rglob("*.json")
    file.write_bytes(damage)
    assert files.find(KEY, "1") is None
    files.keep(KEY, Score("1", "faithfulness", 1.0, (FOUND,)))
    assert files.find(KEY, "1") is not None


def test_what_nobody_needs_is_forgotten_and_what_was_used_is_not(tmp_path):
    """Use counts, not age: a score that a report took yesterday stays."""
    files, keys = ScoreFiles(tmp_path), [digest(name) for name in "abc"]
    for key in keys:
        files.keep(key, Score("1", "faithfulness", 1.0, ()))
    old = time.time() - 40 * 86_400
    for file in tmp_path.rglob("*.json"):
        os.utime(file, (old, old))
    assert files.find(keys[1], "1") is not None
    assert files.forget(30) == 2
    assert [files.find(key, "1") is not None for key in keys] == [False, True, False]
    assert files.forget(30) == 0


def test_a_purge_and_the_end_of_a_collection_remove_what_quotes_documents(citewell):
    """Scores do not say which documents they quote, so that all of them go."""
    files, folder = ScoreFiles(citewell.store.scores_folder), citewell.store.scores_folder
    collection = citewell.store.catalog.create_collection("c")
    files.keep(KEY, Score("1", "faithfulness", 1.0, (FOUND,)))
    citewell.purge(collection)
    assert not folder.exists()
    files.keep(KEY, Score("1", "faithfulness", 1.0, (FOUND,)))
    citewell.store.delete_collection("c")
    assert not folder.exists()
