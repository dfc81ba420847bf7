"""Evaluations of folders kept beside the reports, and two runs side by side: figures by hand, and what each said."""

from __future__ import annotations

import json

import pytest

from eval.answer_metrics import each, metrics
from eval.answering import evaluate_answers
from eval.comparison import compare_runs
from eval.findings import as_json, findings_of
from eval.history import keep_run, load_run, runs_before
from eval.kept import run_of_answers
from eval.page import as_html
from eval.runs import Source
from rag.assembly import open_citewell
from rag.errors import BadInput
from rag.testing import ScriptedGenerator, WordEmbedder
from tests.cli_process import Cli
from tests.eval.reported import START, asked, run_of
from tests.eval.test_answering import written


def test_two_evaluations_of_a_folder_are_compared_by_their_labels(tmp_path, cache):
    """As users do it: with and without a part of retrieval, kept under labels, shown, listed and put side by side.

    Fourteen questions share no word with their passages: vectors find these, words alone do not.
    """
    pairs = {
        "car": "automobile", "doctor": "physician", "film": "movie", "sofa": "couch", "shop": "store", "ill": "sick",
        "begin": "start", "house": "dwelling", "ocean": "sea", "rock": "stone", "child": "kid", "boat": "vessel",
        "lawyer": "attorney", "coat": "jacket",
    }  # fmt: skip
    corpus = [{"_id": name, "text": f"{words.title()}."} for name, words in pairs.items()]
    queries = [{"_id": f"q-{name}", "text": name} for name in pairs]
    written(tmp_path / "set", corpus, queries, {f"q-{name}": name for name in pairs})
    cli = Cli(tmp_path / "data", tmp_path)
    options = ("eval", "retrieval", "--beir", "set", "--label")
    whole = cli(*options, "all parts", "--json", CACHE=str(cache)).json
    words = cli(*options, "words alone", CACHE=str(cache), RETRIEVAL__PARTS='{"dense": false, "late": false}').out
    first, second = whole["report"], words.splitlines()[-1].removeprefix("Kept as report ").removesuffix(".")
    found = cli("report", "compare", first, second, "--json").json
    rows = {row["metric"]: row for row in found["differences"]}
    assert [one["label"] for one in found["reports"]] == ["all parts", "words alone"]
    assert rows["recall@5"]["first"] == whole["recall@5"]
    assert rows["recall@5"]["second"] == 0
    assert (rows["recall@5"]["source"], rows["recall@5"]["is_sure"]) == ("folder", True)
    assert len(found["differing"]) == 10
    assert found["differing"][0]["id"].startswith("q-")
    text = cli("report", "compare", first, second).out
    assert text.startswith("A: all parts, generator none")
    assert "B: words alone" in text
    shown = cli("report", "show", first).out
    assert shown.startswith(f"Measured: report {first}\n")
    assert "folder questions" in shown
    listed = cli("report", "list").out
    assert listed.index("words alone") < listed.index("all parts")
    assert cli("report", "delete", second).out == f"Removed report {second}.\n"
    assert "words alone" not in cli("report", "list").out


def test_answers_to_a_folder_are_kept_question_by_question(tmp_path, settings, cache):
    """Each question has its share of every figure in which it counts, so that their means are the figures."""
    folder = written(tmp_path / "set")
    chosen = settings.model_copy(update={"cache": cache})
    found = evaluate_answers(chosen, folder)
    run = run_of_answers(chosen, folder, "reader", found, START)
    assert [one.source for one in run.asked] == [Source.FOLDER] * 3
    whole = {name: figure.value for name, figure in metrics(found.answered).items()}
    for name in ("f1", "exact_match", "answer_in_text", "gold_cited_recall", "abstention_recall"):
        values = [values[name] for values in each(found.answered) if name in values]
        assert sum(values) / len(values) == pytest.approx(whole[name]), name
    with open_citewell(settings, embedder=WordEmbedder()) as citewell:
        catalog = citewell.store.catalog
        first, second = (keep_run(catalog, run) for _ in range(2))
        assert load_run(catalog, first).asked == run.asked
        assert [one.id for one in runs_before(catalog, second, 9)] == [first.id]
        told = findings_of(catalog, second)
        assert told.verdict.word == "Measured"
        assert as_json(told)["other_sources"]["folder"]["f1"]["value"] == round(whole["f1"], 4)
        assert "Measured" in as_html(told)
        same = compare_runs(catalog, first.id, second.id)
        assert {row.change.mean for row in same.rows} == {0.0}
        assert (same.differing, same.apart) == ((), 0)


def test_two_runs_stand_side_by_side(settings):
    """On the questions that both asked: their means, how they differ, and what each said where they differ most."""
    with open_citewell(settings, embedder=WordEmbedder(), generator=ScriptedGenerator(["Blue."])) as citewell:
        catalog = citewell.store.catalog
        catalog.create_collection("flags")
        said = citewell.ask_once(citewell.plan("What is the flag?", ["flags"]))
        right = [asked(str(n), {"correctness": 1.0}, answer_id=said.id) for n in range(3)]
        wrong = [asked("0", {"correctness": 0.0}), asked("1", {"correctness": 1.0}), asked("9", {"correctness": 0.0})]
        first, second = (keep_run(catalog, run_of(rows)) for rows in (right, wrong))
        found = compare_runs(catalog, first.id, second.id)
        [row] = found.rows
        assert (row.first, row.second, row.change.mean, row.change.count) == (1.0, 0.5, 0.5, 2)
        assert found.apart == 2
        [one] = found.differing
        assert (one.question, one.first.score, one.second.score) == ("What is the flag?", 1.0, 0.0)
        assert (one.first.said, one.second.said) == (said.text, None)
        assert json.loads(json.dumps(found.as_json()))["differing"][0]["first"]["answer"] == said.text
        alone = keep_run(catalog, run_of([asked("other", {"correctness": 1.0})]))
        with pytest.raises(BadInput, match="no scored question in common"):
            compare_runs(catalog, first.id, alone.id)
