"""Answers made anew: what has changed is told, and what has not is no change."""

from __future__ import annotations

import pytest

from rag.errors import BadInput, NotFound
from rag.settings import GeneratorSettings
from tests.rag.test_answering import Copying, ask, citewell, copying, delete, opened, put  # noqa: F401


def test_an_answer_that_nothing_has_changed_for_is_the_same(citewell, copying):  # noqa: F811
    """Made anew, past the cache, and not logged: the same words from the same passages."""
    answer = ask(citewell)
    found = citewell.replay_once(answer.id)
    assert found.is_same
    assert (found.indexes, found.stages, found.text, found.passages.any) == ({}, {}, (), False)
    assert found.then.id == answer.id
    assert len(copying.prompts) == 2
    assert len(citewell.store.catalog.list_answers()) == 1


def test_a_document_that_is_not_found_changes_the_index_and_not_the_answer(citewell):  # noqa: F811
    answer = ask(citewell, top_k=1)
    put(citewell, {"c.md": "Sails are sewn by hand."})
    found = citewell.replay_once(answer.id)
    assert found.is_same
    [(then, now)] = found.indexes.values()
    assert (now.commits > then.commits, now.last_seq - then.last_seq) == (True, 1)
    assert set(found.stages) >= {"dense"}
    assert (len(found.stages["dense"].gained), found.stages["dense"].lost) == (1, ())


def test_a_better_passage_changes_passages_and_text(citewell):  # noqa: F811
    """Gained and lost passages, the text line by line, and the support then and now."""
    answer = ask(citewell, top_k=1)
    put(citewell, {"d.md": "What is the keel made of? Of iron, the keel is made."})
    found = citewell.replay_once(answer.id)
    assert not found.is_same
    assert found.passages.lost == (answer.passages[0].chunk_id,)
    assert found.passages.gained == (found.now.passages[0].chunk_id,)
    assert [line[0] for line in found.text] == ["-", "+"]
    assert "oak" in found.text[0]
    assert "iron" in found.text[1]


def test_a_plan_is_replayed_as_it_was_asked(citewell):  # noqa: F811
    """Filters and number of passages come from the log, not from the settings."""
    answer = ask(citewell, top_k=1, filters={"document": "b.md"})
    found = citewell.replay_once(answer.id)
    assert [p.document for p in found.now.passages] == ["b.md"]
    delete(citewell, "b.md")
    found = citewell.replay_once(answer.id)
    assert (found.now.abstained, found.is_same, len(found.passages.lost)) == (True, False, 1)


def test_other_settings_and_generators_are_told(citewell, settings):  # noqa: F811
    answer = ask(citewell)
    chosen = settings.model_copy(update={"generator": GeneratorSettings(max_tokens=99)})
    with opened(chosen, Copying(name="another")) as other:
        found = other.replay_once(answer.id)
    assert found.settings == (settings.digest(), chosen.digest())
    assert (found.then.generator, found.now.generator) == ("copying", "another")
    assert found.is_same


def test_what_can_not_be_replayed_says_why(citewell, settings):  # noqa: F811
    """Unknown, redacted, purged, and of a collection that is gone."""
    answer = ask(citewell)
    with pytest.raises(NotFound, match="no answer 'nothing'"):
        citewell.replay_once("nothing")
    with opened(settings, Copying(), redact="question") as redacting:
        hidden = ask(redacting)
    with pytest.raises(BadInput, match="no texts"):
        citewell.replay_once(hidden.id)
    delete(citewell, "a.md")
    citewell.purge(citewell.store.catalog.collection("c"))
    with pytest.raises(BadInput, match="purged"):
        citewell.replay_once(answer.id)
