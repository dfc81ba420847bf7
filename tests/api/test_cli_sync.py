"""`citewell sync`: a collection that mirrors a folder, as a user of the command line sees it."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import pytest

from ingest.mirror import compare, mark_of
from tests.cli_process import SECONDS, Cli


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    """A folder with three files in two levels, and no collection yet."""
    folder = tmp_path / "docs"
    write(folder, "cat.txt", "The cat of the house is grey.\n")
    write(folder, "dogs/old.txt", "The old dog sleeps all day.\n")
    write(folder, "dogs/young.txt", "The young dog runs all day.\n")
    return Cli(tmp_path / "data", tmp_path)


def documents(cli: Cli) -> dict[str, tuple[str, int]]:
    """State and version of every document by name."""
    found = cli("documents", "list", "-c", "docs", "--json").json["documents"]
    return {document["name"]: (document["newest"]["state"], document["newest"]["number"]) for document in found}


def counts(report: dict[str, Any]) -> dict[str, int]:
    names = ("added", "replaced", "unchanged", "failed", "deleted")
    return {name: report[name] for name in names if report.get(name)}


def test_a_collection_becomes_and_stays_what_the_folder_is(cli: Cli) -> None:
    """Added, unread while unchanged, replaced, deleted only when asked for; what is not of the folder goes too."""
    first = cli("sync", "docs", "-c", "docs", "--metadata", '{"tags": ["pets"]}', "--json").json
    assert (first["created"], counts(first)) == (True, {"added": 3})
    assert {file["path"] for file in first["files"]} == {"docs/cat.txt", "docs/dogs/old.txt", "docs/dogs/young.txt"}
    again = cli("sync", "docs", "-c", "docs", "--delete", "--json").json
    assert (counts(again), again["batch"], again["files"]) == ({"unchanged": 3}, None, [])

    write(cli.folder / "docs", "cat.txt", "The cat of the house is black.\n")
    (cli.folder / "docs" / "dogs" / "old.txt").unlink()
    other = write(cli.folder, "elsewhere.txt", "The bird sings.\n")
    cli("ingest", other, "-c", "docs")
    kept = cli("sync", "docs", "-c", "docs", "--json").json
    assert counts(kept) == {"replaced": 1, "unchanged": 1}
    assert set(documents(cli)) == {"cat.txt", "dogs/old.txt", "dogs/young.txt", "elsewhere.txt"}

    planned = cli("sync", "docs", "-c", "docs", "--delete", "--dry-run", "--json").json
    assert (planned["delete"], planned["unchanged"]) == (["dogs/old.txt", "elsewhere.txt"], 2)
    assert len(documents(cli)) == 4
    text = cli("sync", "docs", "-c", "docs", "--delete").out
    assert "deleted dogs/old.txt\ndeleted elsewhere.txt\n" in text
    assert documents(cli) == {"cat.txt": ("ready", 2), "dogs/young.txt": ("ready", 1)}
    [passage] = cli("search", "cat", "-c", "docs", "--json", "--filter", "document=cat.txt").json["passages"]
    assert passage["text"] == "The cat of the house is black."
    assert cli("search", "dog", "-c", "docs", "--json", "--filter", "tags=pets").json["passages"]


def test_an_unchanged_file_is_not_opened_and_a_touched_one_changes_nothing(cli: Cli) -> None:
    """Size and time decide whether a file is read, its content whether it is new."""
    cli("sync", "docs", "-c", "docs", "--no-wait")
    path = cli.folder / "docs" / "cat.txt"
    before = path.stat()
    path.write_text("The cat of the house is blue.\n")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # only a reader could tell
    assert counts(cli("sync", "docs", "-c", "docs", "--no-wait", "--json").json) == {"unchanged": 3}
    os.utime(path)
    touched = cli("sync", "docs", "-c", "docs", "--no-wait", "--json").json
    assert counts(touched) == {"replaced": 1, "unchanged": 2}
    os.utime(path)
    assert touched["waiting"] == 1


def test_nothing_is_deleted_for_want_of_a_look(cli: Cli) -> None:
    """A folder that is missing or empty, a file that became a link: documents stay; --yes empties on purpose."""
    cli("sync", "docs", "-c", "docs", "--no-wait")
    (cli.folder / "docs" / "cat.txt").unlink()
    (cli.folder / "docs" / "cat.txt").symlink_to("dogs/old.txt")
    (cli.folder / "docs" / "dogs").rename(cli.folder / "dogs")
    (cli.folder / "docs" / "dogs").symlink_to(cli.folder / "dogs")
    linked = cli("sync", "docs", "-c", "docs", "--delete", "--json", status=1).json
    assert (counts(linked), len(linked["files"])) == ({"failed": 2}, 2)
    assert len(documents(cli)) == 3
    (cli.folder / "docs").rename(cli.folder / "moved")
    assert "There is no folder docs." in cli("sync", "docs", "-c", "docs", "--delete", "--yes", status=2).err
    (cli.folder / "docs").mkdir()
    assert "add --yes if that is meant" in cli("sync", "docs", "-c", "docs", "--delete", status=2).err
    assert len(documents(cli)) == 3
    assert counts(cli("sync", "docs", "-c", "docs", "--delete", "--yes", "--json").json) == {"deleted": 3}
    assert documents(cli) == {}


def test_what_can_not_be_looked_at_is_not_gone(tmp_path: Path) -> None:
    """A link in the place of a file or a folder keeps all the documents that stood there."""
    kept = write(tmp_path / "docs", "a/kept.txt", "x")
    (tmp_path / "docs" / "b").symlink_to(tmp_path)
    known = dict.fromkeys(["a/kept.txt", "a/gone.txt", "b", "b/inside/deep.txt", "bb.txt"], "old")
    difference = compare(tmp_path / "docs", {**known, "a/kept.txt": mark_of(kept)})
    assert difference.gone == ["a/gone.txt", "bb.txt"]
    assert (difference.changed, difference.unchanged) == ([], 1)
    assert [problem.path.name for problem in difference.problems] == ["b"]


def test_the_members_of_an_archive_go_with_their_archive(cli: Cli) -> None:
    """They have no file of their own, and are not deleted while the archive is there."""
    import zipfile

    archive = cli.folder / "docs" / "pets.zip"
    with zipfile.ZipFile(archive, "w") as writer:
        writer.writestr("fish.txt", "The fish is silent.")
    assert cli("sync", "docs", "-c", "docs", "--delete", "--json").json["added"] == 5
    cli("sync", "docs", "-c", "docs", "--delete")
    assert "pets.zip/fish.txt" in documents(cli)
    archive.unlink()
    cli("sync", "docs", "-c", "docs", "--delete")
    assert set(documents(cli)) == {"cat.txt", "dogs/old.txt", "dogs/young.txt"}


def test_the_data_folder_is_not_mirrored(cli: Cli) -> None:
    """Its originals would be new files for ever."""
    assert "lies in the folder to mirror" in cli("sync", ".", "-c", "docs", status=2).err


def rounds_until(stream: IO[str], done: Callable[[list[dict[str, Any]]], bool]) -> list[dict[str, Any]]:
    """Read what each round has done, one line each, until it is enough."""
    rounds: list[dict[str, Any]] = []
    while not done(rounds):
        line = stream.readline()
        assert line, "the command ended before the signal"
        rounds.append(json.loads(line))
    return rounds


def added(rounds: list[dict[str, Any]]) -> int:
    return sum(done["added"] for done in rounds)


def deleted(rounds: list[dict[str, Any]]) -> list[str]:
    return [name for done in rounds for name in done["deleted_documents"]]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_changes_are_followed_until_a_signal_comes(cli: Cli, number: int) -> None:
    """New, changed and deleted files become so in the collection by themselves; the end is orderly."""
    with cli.start("sync", "docs", "-c", "docs", "--delete", "--watch", "--json") as following:
        assert following.stdout is not None
        rounds_until(following.stdout, lambda rounds: added(rounds) == 3)
        write(cli.folder / "docs", "birds/new.txt", "The bird sings.\n")
        (cli.folder / "docs" / "cat.txt").unlink()
        rounds_until(following.stdout, lambda rounds: (added(rounds), deleted(rounds)) == (1, ["cat.txt"]))
        following.send_signal(number)
        out, err = following.communicate(timeout=SECONDS)
    assert (following.returncode, out) == (130, "")
    assert err.splitlines()[-1] == "citewell: Stopped following; nothing was left half done."
    assert set(documents(cli)) == {"birds/new.txt", "dogs/old.txt", "dogs/young.txt"}
    assert counts(cli("sync", "docs", "-c", "docs", "--delete", "--json").json) == {"unchanged": 3}
