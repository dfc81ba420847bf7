"""`citewell search` and `citewell ask` with what stands around passages: what was ranked is told from what was not."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli_process import Cli

RAILWAY = """# Railway

## History

The harbour railway of Saltmere opened in 1911.

## Tickets

{}

## Luggage

Bicycles travel free of charge on the harbour railway.
"""
TICKET = "A ticket for the harbour railway costs four shells and is valid for one tide."
FILLER = "The conductor writes the hour on every ticket by hand and keeps the stub for the archive of the town."


@pytest.fixture(scope="module")
def cli(tmp_path_factory: pytest.TempPathFactory) -> Cli:
    """A data folder with one document: a heading alone, then a section on tickets that has several chunks."""
    folder = tmp_path_factory.mktemp("surroundings")
    cli = Cli(folder / "data", folder)
    tickets = " ".join([TICKET, *[f"{FILLER} It is rule number {number} of the line." for number in range(1, 20)]])
    Path(folder / "railway.md").write_text(RAILWAY.format(tickets))
    assert cli("ingest", folder / "railway.md", "-c", "lines", "--json").json["added"] == 1
    return cli


def ticket(cli: Cli, *options: str, **settings: str) -> dict:
    """The one passage that was found for a question about tickets."""
    asked = ["search", "What does a ticket cost?", "-c", "lines", "--top-k", "1", "--json"]
    [passage] = cli(*asked, *options, **settings).json["passages"]
    return passage


def test_neighbours_and_sections_are_added_on_request(cli: Cli) -> None:
    """In JSON what was ranked is a passage, and what stands around it is listed in there."""
    near = ticket(cli, "--around", "1")
    assert TICKET in near["text"]
    before, after = near["around"]
    assert "opened in 1911" in before["text"]
    assert after["section"] == near["section"] == ["Railway", "Tickets"]
    whole = ticket(cli, "--section")
    assert {tuple(chunk["section"]) for chunk in whole["around"]} == {("Railway", "Tickets")}
    assert len(whole["around"]) >= 2
    text = cli("documents", "show", "railway.md", "-c", "lines", "--text", "--json").json["text"]
    assert all(text[chunk["start"] : chunk["end"]] == chunk["text"] for chunk in [*near["around"], *whole["around"]])


def test_a_person_sees_what_was_ranked_and_what_merely_stands_around(cli: Cli) -> None:
    """Lines behind a bar were not ranked; they come in the order of the document, with their place where it is new."""
    lines = cli("search", "What does a ticket cost?", "-c", "lines", "--top-k", "1", "--around", "1").out.splitlines()
    barred = [number for number, line in enumerate(lines) if line.startswith("   | ")]
    ranked = " ".join(line.strip() for number, line in enumerate(lines[2:], 2) if number not in barred)
    shown = " ".join(lines[number].removeprefix("   | ") for number in barred)
    assert TICKET in ranked
    assert TICKET not in shown
    assert "opened in 1911" in shown
    assert "opened in 1911" not in ranked
    assert lines[barred[0]] == "   | (Railway > History)"
    [begin] = [number for number, line in enumerate(lines) if "A ticket for the harbour" in line]
    assert barred[0] < begin < barred[-1]
    assert max(map(len, lines)) <= 80


def test_no_chunk_is_shown_twice(cli: Cli) -> None:
    """Each passage is in the list by itself, so it is not shown again around another one."""
    out = " ".join(cli("search", "ticket", "-c", "lines", "--top-k", "2", "--around", "3").out.split())
    for words in (TICKET, "opened in 1911", "Bicycles travel free"):
        assert out.count(words) == 1


def test_the_settings_choose_and_the_command_line_overrides_them(cli: Cli) -> None:
    assert len(ticket(cli, RETRIEVAL__AROUND="1")["around"]) == 2
    assert (
        ticket(cli, "--no-section", "--around", "0", RETRIEVAL__SECTION="true", RETRIEVAL__AROUND="1")["around"] == []
    )


def test_an_answer_is_read_from_the_surroundings_too(cli: Cli) -> None:
    """A heading was found; the sentence under it is quoted from its own section."""
    question = "When did the harbour railway of Saltmere open?"
    asked = ["ask", question, "-c", "lines", "--top-k", "1", "--filter", "kind=title", "--around", "1"]
    lines = cli(*asked, GENERATOR__READER="words").out.splitlines()
    assert lines[0] == "The harbour railway of Saltmere opened in 1911. [1]"
    assert "[1] railway.md, version 1, Railway > History" in lines


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        pytest.param(["--around", "11"], "around is 11; it must be between 0 and 10.", id="around"),
        pytest.param(["--diversity", "1.5"], "diversity is 1.5; it must be between 0 and 1.", id="diversity"),
    ],
)
def test_what_is_out_of_bounds_is_refused_with_a_sentence(cli: Cli, options: list[str], sentence: str) -> None:
    assert sentence in cli("search", "ticket", "-c", "lines", *options, status=2).err


def test_diversity_reaches_the_search(cli: Cli) -> None:
    found = cli("search", "rule of the ticket stub", "-c", "lines", "--diversity", "0.9", "--json").json
    assert "diversity" in found["timings"]
