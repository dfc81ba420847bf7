"""The benchmark of answers: its tables, and which generators answer."""

from __future__ import annotations

import pytest

from eval.bench_answers import COLUMNS, generators, main
from rag.settings import load_settings
from tests.eval.test_answering import written


def test_tables_of_a_set(tmp_path, cache, monkeypatch, capsys):
    """A row for the set in every table that has something to say of it, and all of it in the log."""
    monkeypatch.setenv("CITEWELL_CACHE", str(cache))
    written(tmp_path / "squad")
    log = tmp_path / "LOG.md"
    log.touch()
    main(["--data", str(tmp_path), "--log", str(log)])
    printed = capsys.readouterr().out
    assert log.read_text().strip() == printed.strip()
    assert printed.startswith("## Benchmark of answers of ")
    told = [line.split(" | ") for line in printed.splitlines() if line.startswith("| squad")]
    assert [[cell.strip("| ") for cell in row[:4]] for row in told[:3]] == [["squad", "reader", "3", "1"]] * 3
    assert [cell.strip("| ") for cell in told[2][4:]] == ["1.000 (1.000-1.000)"] * 2
    titles = [line.removeprefix("### ") for line in printed.splitlines() if line.startswith("### ")]
    assert titles == [title for title in COLUMNS if not title.startswith("Long")] + [
        "Seconds of one question after another"
    ]


def test_a_folder_without_a_set_is_said_to_be_one(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["--data", str(tmp_path)])
    assert f"{tmp_path} has none of squad, nq_qed, clapnq, tatqa." in capsys.readouterr().err


def test_a_language_model_is_measured_beside_the_built_in_reader():
    """If the settings choose one; the reader always."""
    alone = load_settings()
    assert [settings.generator.kind for settings in generators(alone)] == ["reader"]
    url = {"kind": "openai", "base_url": "http://127.0.0.1:1/v1"}
    both = generators(alone.model_copy(update={"generator": alone.generator.model_copy(update=url)}))
    assert [settings.generator.kind for settings in both] == ["reader", "openai"]
