"""`citewell answers` and `citewell replay`: the log on the command line."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.cli_process import Cli

QUESTION = "When does the ferry leave?"


@pytest.fixture(scope="module")
def ingested(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A collection with one document, and its file. Tests copy both."""
    folder = tmp_path_factory.mktemp("replay")
    (folder / "files").mkdir()
    (folder / "files" / "ferry.txt").write_text("The ferry leaves at noon. It carries cars.")
    Cli(folder / "data", folder)("ingest", "files", "-c", "notes")
    return folder


@pytest.fixture
def cli(ingested: Path, tmp_path: Path) -> Cli:
    """A copy of `ingested`."""
    shutil.copytree(ingested, tmp_path, dirs_exist_ok=True)
    return Cli(tmp_path / "data", tmp_path)


def test_an_answer_is_listed_shown_replayed_and_removed(cli: Cli) -> None:
    """Each by the id that `ask --json` prints; nothing has changed, so that replaying ends with status 0."""
    assert cli("answers", "list").out == "There are no answers in the log.\n"
    answer = cli("ask", QUESTION, "-c", "notes", "--json").json
    listed = cli("answers", "list", "-c", "notes").out
    assert answer["id"] in listed
    assert QUESTION in listed
    assert cli("answers", "list", "--json").json["answers"][0]["id"] == answer["id"]
    shown = cli("answers", "show", answer["id"]).out
    assert QUESTION in shown
    assert "at noon" in shown
    assert "dense" in shown
    assert cli("answers", "show", answer["id"], "--json").json["answer"] == answer
    assert cli("ask", QUESTION, "-c", "notes", "--json").json["cached"] is True
    checks = {check["part"]: check["found"] for check in cli("doctor", "--json").json["checks"]}
    assert checks["answers"] == "2 logged in the last day, 50% of them from the cache"
    assert cli("replay", answer["id"]).out.endswith("The same is said, from the same passages.\n")
    facts = cli("replay", answer["id"], "--json").json
    assert (facts["same"], facts["indexes"], facts["text"]["difference"]) == (True, {}, [])
    assert cli("answers", "delete", answer["id"], "--yes").out == "Removed.\n"
    for command in (("answers", "show"), ("replay",), ("answers", "delete")):
        assert "no answer" in cli(*command, answer["id"], status=2).err


def test_a_changed_document_changes_the_answer_and_the_status(cli: Cli) -> None:
    """Status 1, the lines that differ, and the documents that came and went."""
    answer = cli("ask", QUESTION, "-c", "notes", "--json").json
    (cli.folder / "files" / "ferry.txt").write_text("The ferry leaves at dusk. It carries cars.")
    cli("ingest", "files", "-c", "notes")
    out = cli("replay", answer["id"], status=1).out
    assert "- The ferry leaves at noon." in out
    assert "+ The ferry leaves at dusk." in out
    assert "  + ferry.txt, version 2" in out
    assert "  - ferry.txt, version 1" in out
    assert out.endswith("The answer has changed.\n")
    facts = cli("replay", answer["id"], "--json", status=1).json
    assert facts["indexes"]["notes"]["now"]["commits"] > facts["indexes"]["notes"]["then"]["commits"]
    assert (len(facts["passages"]["gained"]), len(facts["passages"]["lost"])) == (1, 1)
