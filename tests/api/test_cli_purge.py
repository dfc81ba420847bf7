"""`citewell purge`: what it removes, what it says, and whom it asks."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.cli_process import Cli

SECRET = "The password of the lighthouse is halibut seven."


@pytest.fixture(scope="module")
def ingested(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A collection with a document that was replaced once, and another. Tests copy it."""
    home = tmp_path_factory.mktemp("ingested")
    folder = home / "files"
    folder.mkdir()
    (folder / "secret.txt").write_text(SECRET)
    (folder / "other.txt").write_text("The ferry leaves at noon.")
    cli = Cli(home / "data", home)
    cli("ingest", "files", "-c", "notes")
    (folder / "secret.txt").write_text("Nothing to see here.")
    cli("ingest", "files/secret.txt", "-c", "notes")
    return home


@pytest.fixture
def cli(ingested: Path, tmp_path: Path) -> Cli:
    """A copy of the data folder of `ingested`."""
    shutil.copytree(ingested / "data", tmp_path / "data")
    return Cli(tmp_path / "data", tmp_path)


def remains(cli: Cli, text: str) -> list[str]:
    """The files of the data folder that hold a text, indexes, originals and the database with its log included."""
    return [path.name for path in cli.data.rglob("*") if path.is_file() and text.encode() in path.read_bytes()]


def test_what_was_replaced_is_removed_to_the_last_byte(cli: Cli) -> None:
    """It says how much it removed; the text is on the disk no more, and the rest is found as before."""
    assert remains(cli, "halibut seven")
    removed = cli("purge", "-c", "notes", "--json").json
    assert removed == {
        "collection": "notes", "documents": 0, "versions": 1, "passages": 1, "texts": 1, "vectors": 1, "parses": 1,
        "files": 1, "bytes": len(SECRET),
    }  # fmt: skip
    assert remains(cli, "halibut seven") == []
    found = cli("search", "ferry", "-c", "notes", "--json").json["passages"]
    assert {passage["document"] for passage in found} == {"other.txt", "secret.txt"}
    assert cli("purge", "-c", "notes", "--json").json["versions"] == 0


def test_documents_are_purged_by_name(cli: Cli) -> None:
    """They are deleted first; one that was deleted before is found by its name; one that never was is an error."""
    cli("documents", "delete", "other.txt", "-c", "notes")
    out = cli("purge", "secret.txt", "other.txt", "-c", "notes", "--yes").out
    assert out.startswith("Removed for good: 2 documents, 3 versions, 3 passages, 3 vectors, 3 originals of ")
    assert cli("documents", "list", "-c", "notes").out == "There are no documents.\n"
    assert "nothing of 'other.txt'" in cli("purge", "other.txt", "-c", "notes", status=2).err


def test_on_a_terminal_purging_is_asked_for(cli: Cli) -> None:
    asked = cli.answered("n", "purge", "other.txt", "-c", "notes")
    assert (asked.status, asked.out) == (1, "Nothing was removed.\n")
    assert "Delete other.txt from notes and remove it for good?" in asked.err
    assert "other.txt" in cli("documents", "list", "-c", "notes").out
