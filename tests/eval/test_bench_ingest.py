"""The benchmark of ingest: its tables by numbers made by hand, its watch over memory, and one small run."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from eval.bench_ingest import Load, main, stages, text_by_size, unexpected
from eval.corpus import Entry
from eval.freshness import Freshness
from eval.processes import PeakMemory, finished, start

MEBIBYTES = 80
needs_proc = pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="memory is read from Linux's /proc")


def load(**found: object) -> Load:
    return Load({"seconds": 10.0, "passages": 40, "files": [], "stages": {}, **found}, 5, [])


def test_the_share_of_a_stage_is_of_the_time_that_is_worked():
    """Idling is no work: it is told as a share of the whole load."""
    table = stages(load(stages={"parse": 3.0, "embed": 9.0, "embed_idle": 0.5}))
    assert table[1:] == [
        ["parse", "3.0", "25.0 %"],
        ["embed", "9.0", "75.0 %"],
        ["embedder idle with work there", "0.5", "5.0 % of the load"],
    ]


def test_rates_are_by_what_became_searchable():
    files = [{"name": "a", "state": "ready"}, {"name": "b", "state": "failed"}, {"name": "c", "state": "ready"}]
    assert load(files=files).rates() == ["0.20", "0.50", "4.00"]


def test_files_that_fare_otherwise_than_their_manifest_says_are_named():
    """A whole file that is refused, a broken one that is read, and one that the report does not know."""
    entries = [
        Entry("good.md", "md", "plain", "m1", "0"),
        Entry("lost.md", "md", "plain", "m2", "1"),
        Entry("gone.md", "md", "plain", "m3", "2"),
        Entry("empty.txt", "txt", "broken", "", "3", error="document_empty"),
        Entry("cut.pdf", "pdf", "broken", "", "4", error="document_damaged"),
    ]
    files = [
        {"name": "good.md", "error_code": None},
        {"name": "lost.md", "error_code": "internal"},
        {"name": "empty.txt", "error_code": "document_empty"},
        {"name": "cut.pdf", "error_code": None},
    ]
    assert unexpected(load(files=files), entries)[1:] == [
        ["lost.md", "ready", "internal"],
        ["gone.md", "ready", "missing"],
        ["cut.pdf", "document_damaged", "ready"],
    ]


def test_a_load_of_text_is_told_beside_the_embedder_alone():
    """Four files of one size; the share is that of the two rates."""
    (_, row) = text_by_size(500, 1, sizes=(150,))
    size, files, passages, seconds, rate, alone, share = (float(figure.replace(",", "")) for figure in row)
    assert (size, files) == (150, 4)
    assert passages >= 1
    assert rate == pytest.approx(passages * files / seconds, rel=0.05, abs=0.06)  # one decimal is shown
    assert share == pytest.approx(rate / alone, abs=0.01)


def test_uploads_that_were_not_found_are_told_and_are_in_no_time():
    found = Freshness(seconds=[float(n) for n in range(20, 0, -1)], missed=2, idle=3, bulk=1234)
    assert found.table()[1] == ["22", "20", "10.50", "20.00", "20.00", "2", "3", "1,234"]
    assert Freshness(missed=1).table()[1] == ["1", "0", "", "", "", "1", "0", "0"]


@needs_proc
def test_the_peak_memory_of_a_child_is_seen_under_the_name_of_its_module(tmp_path):
    """The child holds its memory for two samples; the parent, which only waits, stays small."""
    (tmp_path / "greedy.py").write_text(f"import time\nheld = bytes([1]) * ({MEBIBYTES} << 20)\ntime.sleep(1.5)\n")
    waits = f"import subprocess, sys; subprocess.run([sys.executable, '-m', 'greedy'], cwd={str(tmp_path)!r})"
    with subprocess.Popen([sys.executable, "-c", waits]) as process, PeakMemory(process.pid) as watched:
        process.wait()
    rows = {row[0]: row[1:] for row in watched.table()}
    assert rows["greedy"][0] == "1"
    assert MEBIBYTES <= int(rows["greedy"][1]) < MEBIBYTES + 60
    together = int(rows["all at one time, shared pages counted for each"][1])
    assert together >= int(rows["greedy"][1])


def test_a_command_that_fails_ends_the_benchmark_with_its_words(tmp_path):
    with start("parse", tmp_path / "none.md") as process, pytest.raises(SystemExit, match=r"none\.md"):
        finished(process)


def test_a_small_run_tells_every_figure(tmp_path, capsys, monkeypatch):
    """Corpus and freshness with twelve files, through the real commands; the lab log gets what is printed."""
    for name in ("SERVER__PROCESSES", "INGEST__PARSERS"):  # one of each is enough for so few files
        monkeypatch.setenv(f"CITEWELL_{name}", "1")
    log = tmp_path / "LOG.md"
    log.write_text("# Log\n")
    main(["--count", "12", "--uploads", "1", "--only", "corpus", "--only", "freshness", "--log", str(log)])
    told = capsys.readouterr().out
    row = re.search(r"^\| 12 +\| (\d+) +\| \d+ +\| (\d+) +\|", told, re.MULTILINE)
    assert row is not None
    assert int(row[1]) == 12
    assert int(row[2]) > 20
    for words in ("| parse ", "| embed ", "| citewell ingest ", "| citewell worker ", "uploads during the load"):
        assert words in told
    assert "fared otherwise" not in told
    assert log.read_text().split() == f"# Log {told}".split()
