"""Documents in, cited answers out, as a user of the command line does it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from tests.cli_process import SECONDS, Cli

SAMPLES = Path(__file__).parents[2] / "ingest" / "samples"
HOTEL = "The hotel limit for domestic travel is 145 euros per night from 1 January 2026."
OLD_HOTEL = "The hotel limit for domestic travel is 120 euros per night"
QUESTION = "What is the hotel limit for domestic travel?"


@pytest.fixture(scope="module")
def cli(tmp_path_factory: pytest.TempPathFactory) -> Cli:
    """A data folder with two collections: `policies`, whose travel policy was replaced once, and `notes`."""
    folder = tmp_path_factory.mktemp("journey")
    cli = Cli(folder / "data", folder)
    first = cli("ingest", SAMPLES / "2025" / "travel-policy.pdf", "-c", "policies", "--json").json
    assert (first["created"], first["added"], first["replaced"], first["failed"]) == (True, 1, 0, 0)
    metadata = json.dumps({"year": 2026, "reviewed": True, "owner": "People team"})
    second = cli(
        "ingest", SAMPLES / "2026", SAMPLES / "products", "-c", "policies", "--metadata", metadata, "--json"
    ).json
    assert (second["created"], second["added"], second["replaced"], second["failed"]) == (False, 3, 1, 0)
    notes = folder / "notes"
    notes.mkdir()
    (notes / "good.txt").write_text("The harbour light of Saltmere burns from dusk to dawn, \x1b[31mred\x1b[0m.\n")
    (notes / "red\x1b[31m.txt").write_text("The tide table of Korrvik is printed every spring.\n")
    (notes / "empty.pdf").write_bytes(b"")
    return cli


def test_an_answer_names_the_words_that_support_it(cli: Cli) -> None:
    """The answer in force is given, and its quote stands where the citation says."""
    answer = cli("ask", QUESTION, "--collection", "policies", "--json").json
    assert answer["text"].startswith(f"{HOTEL} [1]")
    assert (answer["abstained"], answer["generator"], answer["notice"]) == (False, "reader", None)
    citation = answer["citations"][0]
    assert (citation["document"], citation["version"], citation["page"]) == ("travel-policy.pdf", 2, 2)
    assert citation["section"][-1] == "3. Accommodation"
    assert citation["quote"] == HOTEL
    assert answer["text"][citation["answer_start"] : citation["answer_end"]] == HOTEL
    assert answer["claims"][0]["citations"] == [0]
    assert answer["claims"][0]["support"] == citation["score"] == 1.0
    shown = cli("documents", "show", "travel-policy.pdf", "-c", "policies", "--text", "--json").json
    assert shown["text"][citation["source_start"] : citation["source_end"]] == HOTEL
    assert shown["live_version"]["id"] == citation["version_id"]
    assert shown["newest"]["number"] == shown["live_version"]["number"] == 2

    lines = cli("ask", QUESTION, "-c", "policies").out.splitlines()
    assert " ".join(lines[: lines.index("")]) == answer["text"]
    assert "Sources" in lines
    assert any(line.startswith("[1] travel-policy.pdf, version 2, page 2, ") for line in lines)
    assert "    support 1.00" in lines
    assert f'"{HOTEL}"' in " ".join(line.strip() for line in lines)
    assert max(map(len, lines)) <= 80


def test_what_is_bold_on_a_terminal_is_plain_in_a_file(cli: Cli) -> None:
    out = cli("ask", QUESTION, "-c", "policies").out
    assert " ".join(out.split()).startswith(f"{HOTEL} [1]")
    assert "\x1b" not in out


def test_an_unanswerable_question_is_admitted(cli: Cli) -> None:
    answer = cli("ask", "Does the company pay for a gym membership?", "-c", "policies", "--json").json
    assert (answer["text"], answer["abstained"]) == ("The documents do not say.", True)
    assert answer["claims"] == answer["citations"] == []


def test_search_gives_the_version_in_force_best_first(cli: Cli) -> None:
    found = cli("search", "hotel limit domestic travel", "-c", "policies", "--top-k", "500", "--json").json
    scores = [passage["score"] for passage in found["passages"]]
    assert scores == sorted(scores, reverse=True)
    assert HOTEL in found["passages"][0]["text"]
    assert {p["version"] for p in found["passages"] if p["document"] == "travel-policy.pdf"} == {2}
    assert not any(OLD_HOTEL in passage["text"] for passage in found["passages"])
    listed = cli("collections", "list", "--json").json["collections"]
    total = next(c["passages"] for c in listed if c["name"] == "policies")
    assert len(found["passages"]) == len({passage["chunk_id"] for passage in found["passages"]}) == total

    lines = cli("search", "hotel limit", "-c", "policies", "--top-k", "1").out.splitlines()
    assert lines[0].startswith("1. travel-policy.pdf, version 2, page ")


@pytest.mark.parametrize(
    ("filters", "documents"),
    [
        pytest.param(["year=2026", "reviewed=true", "owner=People team"], 4, id="metadata"),
        pytest.param(["document=price-list.csv"], 1, id="name"),
        pytest.param(['{"not": {"document": {"prefix": "price"}}}', "reviewed=true"], 3, id="json"),
    ],
)
def test_filters_say_which_documents_count(cli: Cli, filters: list[str], documents: int) -> None:
    given = [part for condition in filters for part in ("--filter", condition)]
    found = cli("search", "policy", "-c", "policies", "--top-k", "500", "--json", *given).json["passages"]
    assert len({passage["document"] for passage in found}) == documents


def test_documents_and_collections_are_listed_shown_and_deleted(cli: Cli) -> None:
    """The whole life of a collection with a good, a hostile and an unreadable file."""
    ingest = cli("ingest", "notes", "-c", "notes", status=1)
    assert "Created the collection notes." in ingest.err
    assert json.loads(ingest.err.splitlines()[-1])["ended"] == 3
    counts = dict(line.split() for line in ingest.out.splitlines() if len(line.split()) == 2 and line.startswith("  "))
    assert counts == {"added": "2", "replaced": "0", "unchanged": "0", "retried": "0", "failed": "1"}
    assert "empty.pdf\n    The file is empty: there is nothing to index.\n" in ingest.out

    listed = cli("documents", "list", "-c", "notes").out.splitlines()
    assert [line.split(None, 3) for line in listed] == [
        ["STATE", "VERSION", "PASSAGES", "DOCUMENT"],
        ["failed", "1", "0", "empty.pdf"],
        ["ready", "1", "1", "good.txt"],
        ["ready", "1", "1", "red\\x1b[31m.txt"],
    ]
    failed = cli("documents", "list", "-c", "notes", "--state", "failed", "--json").json["documents"]
    assert [document["name"] for document in failed] == ["empty.pdf"]
    assert failed[0]["newest"]["error_code"] == "document_empty"
    shown = cli("documents", "show", "empty.pdf", "-c", "notes").out
    assert "error     The file is empty: there is nothing to index.\n" in shown
    elements = cli("documents", "show", "good.txt", "-c", "notes", "--elements").out
    assert "The harbour light of Saltmere burns from dusk to dawn" in elements

    both = cli("ask", QUESTION, "-c", "notes", "-c", "policies", "--json").json
    assert both["citations"][0]["quote"] == HOTEL
    cli("documents", "delete", "good.txt", "-c", "notes")
    cli("documents", "show", "good.txt", "-c", "notes", status=2)
    [notes, _] = cli("collections", "list", "--json").json["collections"]
    assert (notes["name"], notes["documents"], notes["passages"]) == ("notes", 1, 1)
    deleted = cli("collections", "delete", "notes", "--yes")
    assert deleted.out == "Deleted the collection notes with 1 document.\n"
    assert [line.split()[-1] for line in cli("collections", "list").out.splitlines()] == ["COLLECTION", "policies"]


def test_the_same_again_changes_nothing_and_a_failure_is_tried_again(cli: Cli) -> None:
    paths = [SAMPLES / "2026", cli.folder / "notes" / "empty.pdf", cli.folder / "missing.pdf"]
    cli("collections", "create", "again")
    first = cli("ingest", *paths, "-c", "again", "--json", status=1).json
    assert (first["added"], first["failed"]) == (1, 2)
    (cli.folder / "notes" / "empty.pdf").write_text("It is no PDF, and no longer empty.\n")
    second = cli("ingest", *paths[:2], "-c", "again", "--json").json
    assert (second["unchanged"], second["replaced"], second["failed"], second["created"]) == (1, 1, 0, False)
    assert second["passages"] == next(file["passages"] for file in second["files"] if file["name"] == "empty.pdf")


def test_failures_are_tried_again_by_hand(cli: Cli) -> None:
    """By name or all of them; what has not failed is left alone, with a sentence."""
    cli("collections", "create", "retried")
    assert cli("documents", "retry", "-c", "retried").out == "No document has failed.\n"
    (cli.folder / "notes" / "blank.txt").write_text("")
    cli("ingest", cli.folder / "notes" / "blank.txt", cli.folder / "notes" / "good.txt", "-c", "retried", status=1)
    assert "is ready; only what has failed" in cli("documents", "retry", "good.txt", "-c", "retried", status=2).err
    assert cli("documents", "retry", "-c", "retried").out == "Queued 1 document anew.\n"
    assert cli("documents", "show", "blank.txt", "-c", "retried", "--json").json["newest"]["state"] == "queued"


def test_parse_shows_the_elements_and_opens_no_data_folder(cli: Cli) -> None:
    elsewhere = replace(cli, data=cli.folder / "nowhere")
    found = elsewhere("parse", SAMPLES / "2026" / "travel-policy.pdf", "--json").json
    assert (found["media_type"], found["pages"]) == ("application/pdf", 3)
    assert set(found) >= {"media_type", "title", "pages", "metadata", "elements"}
    assert all(set(element) == {"kind", "text", "page", "section"} for element in found["elements"])
    [element] = [element for element in found["elements"] if HOTEL in element["text"]]
    assert (element["kind"], element["page"], element["section"][-1]) == ("text", 2, "3. Accommodation")
    lines = elsewhere("parse", SAMPLES / "handbook" / "onboarding.md").out.splitlines()
    assert lines[0].startswith("text/markdown, ")
    assert "The probation period at Tidewater Instruments is six months." in " ".join(lines)
    assert not elsewhere.data.exists()


def test_doctor_finds_what_is_missing_and_names_the_cure(cli: Cli) -> None:
    healthy = cli("doctor", "--json").json
    assert healthy["ok"] is True
    found = {check["part"]: check for check in healthy["checks"]}
    assert "vectors as they should be" in found["embedder"]["found"]
    assert found["catalog"]["ok"] is True
    assert cli("doctor").out.endswith("Everything that the settings ask for works.\n")

    night = {"REPORT__SCHEDULE": "30 2 * * *", "REPORT__TIMEZONE": "Europe/Berlin"}
    planned = {check["part"]: check for check in cli("doctor", "--json", **night).json["checks"]}
    assert planned["report"]["found"].startswith("'30 2 * * *' in Europe/Berlin, next at 20")
    wrong = {"REPORT__SCHEDULE": "at night", "REPORT__GATES": "none.toml"}
    checks = {check["part"]: check for check in cli("doctor", "--json", status=1, **wrong).json["checks"]}
    assert "has not the five fields of cron" in checks["report"]["found"]
    assert "none.toml can not be read" in checks["gates"]["found"]

    unreachable = {"GENERATOR__KIND": "openai", "GENERATOR__BASE_URL": "http://127.0.0.1:9/v1"}
    broken = cli("doctor", "--json", status=1, EMBEDDER__MODEL="/no/such/folder", **unreachable).json
    problems = {check["part"]: check for check in broken["checks"] if check["ok"] is False}
    assert set(problems) == {"embedder", "generator"}
    assert "/no/such/folder" in problems["embedder"]["found"]
    assert "127.0.0.1:9" in problems["generator"]["found"]
    assert all(problem["cure"] for problem in problems.values())
    assert "1 problem found." in cli("doctor", status=1, SERVER__PORT="many").out


def test_the_demo_ends_with_the_line_that_starts_the_server(cli: Cli) -> None:
    """The line is run as it stands, from another folder and without the environment of this test."""
    data = cli.folder / "demo folder"
    lines = cli("demo", "--data", data).out.splitlines()
    assert "  replaced travel-policy.pdf (version 2, " in "\n".join(lines)
    text = " ".join(lines)
    assert HOTEL in text
    assert "water has entered the electronics housing" in text
    assert lines[-4] == "The documents do not say."
    assert f"'{data}'" in lines[-1]
    again = cli("demo", "--data", data).out
    assert again.count("  unchanged ") == 9

    kept = {name: os.environ[name] for name in ("PATH", "HOME", "CITEWELL_CACHE") if name in os.environ}
    shell = ["sh", "-c", f"{lines[-1]} --port 0"]
    with subprocess.Popen(
        shell, cwd="/", env=kept, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as server:
        assert server.stdout is not None
        assert server.stdout.readline().startswith("Citewell serves at http://127.0.0.1:")
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(SECONDS)


def test_on_a_terminal_deleting_is_asked_for(cli: Cli) -> None:
    asked = cli.answered("n", "collections", "delete", "policies")
    assert (asked.status, asked.out) == (1, "Nothing was deleted.\n")
    assert "Delete the collection policies with 4 documents for good?" in asked.err
    assert "policies" in cli("collections", "list").out
