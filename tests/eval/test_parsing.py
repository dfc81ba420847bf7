"""Quality of parsing by hand-counted numbers, on a small folder with a manifest, through the real command line."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.parsing import Reading, Sample, by_format, fault, faults, measure, read, score, truth_words, word_recall
from rag.errors import BadInput

COLUMNS = "file format ground_truth must_contain expected".split()
REJECT = "reject with a clear error (encrypted), no crash"


def sample(expected: str = "parse", *must_contain: str, truth: Path | None = None) -> Sample:
    return Sample(Path("a.md"), "md", truth, must_contain, expected)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four files: one as it should be, one whose truth says more, one that is empty, one that is unexpectedly so."""
    folder = tmp_path_factory.mktemp("documents")
    (folder / "ground_truth").mkdir()
    files = {
        "leave.md": "# Leave\n\nEveryone has **30 days** of leave.\n",
        "prices.csv": "item,price\npump,12\nvalve,7\n",
        "empty.txt": "",
        "lost.txt": " \n",
        "ground_truth/leave.md.md": "# Leave\n\n<!-- image -->\nEveryone has [30 days](leave.html) of leave.\n",
        "ground_truth/prices.csv.csv": 'item,price\npump,12\nvalve,"7 euros, net"\n',
    }
    for name, text in files.items():
        (folder / name).write_text(text)
    rows = [
        ["leave.md", "md", "ground_truth/leave.md.md", "EVERYONE has || # Leave || 40 days", "parse"],
        ["prices.csv", "csv", "ground_truth/prices.csv.csv", "", "parse"],
        ["empty.txt", "txt", "", "", "reject or skip as empty, no crash"],
        ["lost.txt", "txt", "", "here", "parse"],
    ]
    with (folder / "manifest.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([COLUMNS, *rows])
    return folder


def test_a_folder_is_scored_through_the_command_line(folder):
    """Recall by hand: all six words of leave.md; of prices.csv's eight, `euros` and `net` are not in the file."""
    scores = measure(folder)
    assert [s.recall for s in scores] == [1.0, 6 / 8, None, None]
    assert [s.reading.status for s in scores] == [0, 0, 2, 2]
    assert scores[0].found == (True, False, False)
    assert scores[0].in_words == (True, True, False)
    assert scores[1].missing == ("euros", "net")
    table = by_format(scores)
    assert table[1] == ["txt", "2", "0", "1", "0", "", "", "0/1", "0/1"]
    assert table[-1] == ["all", "4", "2", "3", "2", "0.875", "0.750", "1/4", "2/4"]
    told = {row[0]: row[1:] for row in faults(scores)[1:]}
    assert told["leave.md"] == ["1.000", "not found: '# Leave' (in words only), '40 days'"]
    assert told["prices.csv"] == ["0.750", "missing words: euros, net"]
    assert told["lost.txt"] == ["", f"refused: {scores[3].reading.said}"]
    assert set(told) == {"leave.md", "prices.csv", "lost.txt"}


def test_a_file_that_is_not_there_is_no_crash(tmp_path):
    reading = read(tmp_path / "none.md")
    assert (reading.status, reading.text) == (2, "")
    assert reading.said.endswith(".")


@pytest.mark.parametrize(
    ("expected", "reading", "wrong"),
    [
        pytest.param("parse", Reading(0, "x"), None, id="read"),
        pytest.param(REJECT, Reading(2, "", "It has a password."), None, id="refused"),
        pytest.param(REJECT, Reading(0, "x"), f"read, but expected: {REJECT}", id="read:encrypted"),
        pytest.param("parse, or reject as unsupported", Reading(2, "", "No."), None, id="refused:allowed"),
        pytest.param("needs OCR", Reading(2, "", "No OCR."), "refused: No OCR.", id="refused:scan"),
        pytest.param(REJECT, Reading(2, "", "One.\nTwo."), "refused with more than a sentence", id="two_lines"),
        pytest.param(REJECT, Reading(70, "", "A fault."), "exit status 70: A fault.", id="crash"),
    ],
)
def test_what_is_expected_of_a_file_decides_what_is_wrong(expected, reading, wrong):
    assert fault(score(sample(expected), reading)) == wrong


def test_strings_are_compared_without_regard_to_case_space_and_compatibility_forms():
    found = score(sample("parse", "Ofﬁce  hours", "９ to\n5"), Reading(0, "OFFICE hours: 9 to 5")).found
    assert found == (True, True)


def test_the_words_of_markdown_leave_out_comments_tags_and_targets(tmp_path):
    truth = tmp_path / "a.md"
    truth.write_text('<!-- image --> A [b_c](http://x.y/z_(w) "t") <br/> &amp; ![D](d.png)\n\n| É | - |\n')
    assert truth_words(truth) == ["a", "b", "c", "d", "é"]


@given(st.lists(st.sampled_from("abc")), st.lists(st.sampled_from("abc")))
def test_recall_is_what_can_be_taken_word_by_word(truth, parsed):
    """The plain twin: strike each word of the truth out of the parse, and count how often that is possible."""
    left, hits = list(parsed), 0
    for word in truth:
        if word in left:
            left.remove(word)
            hits += 1
    assert word_recall(truth, parsed) == (hits / len(truth) if truth else 1.0)


def test_a_folder_without_a_manifest_is_refused(tmp_path):
    with pytest.raises(BadInput, match=r"manifest\.csv"):
        measure(tmp_path)
