import os
import socket
import unicodedata
from pathlib import Path

import pytest

from ingest.sources import SourceFile, document_name, find_files


def _write(path: Path, text: str = "x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def _names(files: list[SourceFile]) -> list[str]:
    return [file.name for file in files]


def test_a_file_is_named_by_its_file_name(tmp_path):
    path = _write(tmp_path / "deep" / "report.md")
    assert find_files([path]) == ([SourceFile(path, "report.md")], [])


def test_the_files_of_a_folder_are_named_by_their_path_in_it_in_sorted_order(tmp_path):
    for name in ("b.txt", "a/z.txt", "a/b/c.txt", "A.txt"):
        _write(tmp_path / name)
    files, problems = find_files([tmp_path])
    assert _names(files) == ["A.txt", "a/b/c.txt", "a/z.txt", "b.txt"]
    assert problems == []
    assert all(file.path.is_file() for file in files)


def test_hidden_files_and_folders_are_left_out_but_a_hidden_file_that_is_named_is_taken(tmp_path):
    hidden = _write(tmp_path / ".secret")
    _write(tmp_path / ".git" / "config")
    _write(tmp_path / "seen.txt")
    assert _names(find_files([tmp_path])[0]) == ["seen.txt"]
    assert _names(find_files([hidden])[0]) == [".secret"]


def test_an_empty_folder_means_nothing_and_is_no_problem(tmp_path):
    assert find_files([tmp_path]) == ([], [])


def test_links_in_a_folder_are_reported_and_not_followed(tmp_path):
    outside = _write(tmp_path / "outside" / "secret.txt")
    folder = tmp_path / "folder"
    _write(folder / "a.txt")
    (folder / "file-link").symlink_to(outside)
    (folder / "folder-link").symlink_to(outside.parent)
    (folder / "loop").symlink_to(folder)
    files, problems = find_files([folder])
    assert _names(files) == ["a.txt"]
    assert [problem.path.name for problem in problems] == ["file-link", "folder-link", "loop"]
    assert all("link" in problem.reason for problem in problems)


def test_a_link_that_is_named_itself_is_followed(tmp_path):
    target = _write(tmp_path / "target.txt")
    link = tmp_path / "link.txt"
    link.symlink_to(target)
    assert _names(find_files([link])[0]) == ["link.txt"]


def test_a_missing_path_and_a_broken_link_are_problems_and_the_others_are_still_found(tmp_path):
    good = _write(tmp_path / "good.txt")
    broken = tmp_path / "broken"
    broken.symlink_to(tmp_path / "nowhere")
    files, problems = find_files([tmp_path / "missing.txt", good, broken])
    assert _names(files) == ["good.txt"]
    assert [problem.reason.count("does not exist") for problem in problems] == [1, 1]


def test_two_files_with_one_name_are_a_problem_that_names_both_and_the_cure(tmp_path):
    first, second = _write(tmp_path / "a" / "x.txt"), _write(tmp_path / "b" / "x.txt")
    files, problems = find_files([first, second])
    assert files == [SourceFile(first, "x.txt")]
    assert len(problems) == 1
    assert str(first) in problems[0].reason
    assert str(second) in problems[0].reason
    assert "rename" in problems[0].reason


def test_a_path_that_is_named_twice_is_ingested_once(tmp_path):
    path = _write(tmp_path / "x.txt")
    files, problems = find_files([path, path])
    assert _names(files) == ["x.txt"]
    assert "twice" in problems[0].reason


def test_pipes_and_sockets_are_never_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")  # opening it would block for ever
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s"))
        files, problems = find_files([tmp_path, tmp_path / "pipe", Path("/dev/null")])
    assert files == []
    reasons = [problem.reason for problem in problems]
    assert [("a pipe:" in r, "a socket:" in r, "a device:" in r) for r in reasons] == [
        (True, False, False),
        (False, True, False),
        (True, False, False),
        (False, False, True),
    ]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read_is_a_problem(tmp_path):
    path = _write(tmp_path / "x.txt")
    path.chmod(0)
    assert "permissions" in find_files([path])[1][0].reason


def test_an_unreadable_file_is_a_problem(tmp_path, monkeypatch):
    path = _write(tmp_path / "x.txt")
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert "permissions" in find_files([path])[1][0].reason


def test_a_folder_that_can_not_be_listed_is_a_problem(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "scandir", refuse)
    assert "Permission denied" in find_files([tmp_path])[1][0].reason


def test_a_path_with_a_nul_is_a_problem():
    files, problems = find_files([Path("a\0b")])
    assert files == []
    assert len(problems) == 1


def test_names_are_nfc(tmp_path):
    _write(tmp_path / unicodedata.normalize("NFD", "Größe.txt"))
    assert _names(find_files([tmp_path])[0]) == ["Größe.txt"]


def test_undecodable_and_control_characters_in_a_name_are_made_visible(tmp_path):
    (tmp_path / os.fsdecode(b"caf\xe9.txt")).write_text("x")
    (tmp_path / "a\nb.txt").write_text("x")
    (tmp_path / "evil\u202etxt.exe").write_text("x")
    names = _names(find_files([tmp_path])[0])
    assert names == ["a\\nb.txt", "caf\\xe9.txt", "evil\\u202etxt.exe"]
    assert all(name.isprintable() for name in names)


def test_a_name_is_never_empty():
    assert document_name("") == "unnamed"
