"""The benchmark of retrieval: its tables by numbers made by hand, its corpora, and small runs over real parts."""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from eval.bench_peers import INSTALL_LOG, Failed, Figures, not_installed, run_system, side_by_side, table
from eval.bench_retrieval import Ranked, by_metric, by_part, clients_table, main, reciprocal, together
from eval.clients import Load
from eval.folders import Question, read_questions, read_rows
from eval.pools import join, take, write_questions
from eval.ranking import METRICS


def data_set(folder: Path, name: str, rows: int) -> Path:
    """A set of ``rows`` passages, each with a question that names it, compressed as the published ones are."""
    (folder / name).mkdir(parents=True)
    words = "harbour lantern meadow copper thistle falcon granite orchard velvet compass saddle beacon".split()
    passages = [
        {"_id": f"{name}-{n}", "title": name, "text": f"The {words[n]} of {name} is kept in hall {n}."}
        for n in range(rows)
    ]
    questions = [{"_id": f"q-{name}-{n}", "text": f"Where is the {words[n]} of {name}?"} for n in range(rows)]
    for kind, lines in (("corpus", passages), ("queries", questions)):
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (folder / name / f"{kind}.jsonl.gz").write_bytes(gzip.compress(text.encode()))
    judged = "".join(f"q-{name}-{n}\t{name}-{n}\t1\n" for n in range(rows))
    (folder / name / "qrels.tsv").write_text(f"query-id\tcorpus-id\tscore\n{judged}")
    return folder / name


def ranked(name: str, **ndcg: list[float]) -> Ranked:
    return Ranked(name, {part: {metric: np.array(values) for metric in METRICS} for part, values in ndcg.items()})


def test_corpora_are_joined_or_taken_in_turn(tmp_path):
    sets = [data_set(tmp_path, "one", 3), data_set(tmp_path, "two", 2)]
    assert join(sets, tmp_path / "all") == 5
    assert [row["_id"] for row in read_rows(tmp_path / "all", "corpus")] == [
        "one-0",
        "one-1",
        "one-2",
        "two-0",
        "two-1",
    ]
    assert join(sets, tmp_path / "some", 4) == 4
    assert take(sets, tmp_path / "turns", 4) == 4
    assert [row["_id"] for row in read_rows(tmp_path / "turns", "corpus")] == ["one-0", "two-0", "one-1", "two-1"]
    questions = read_questions(sets[1])
    write_questions(tmp_path / "all", questions)
    assert read_questions(tmp_path / "all") == questions


def test_the_product_is_held_against_the_better_part_of_each_set():
    """The gain is of means; over all questions of a pool, each question counts once."""
    same = {"RRF": [0.5] * 4, "fused": [0.5] * 4}
    first = ranked("a", BM25=[0.4] * 4, dense=[0.5] * 4, Citewell=[0.6] * 4, **same)
    second = ranked("b", BM25=[0.8, 0.4], dense=[0.5, 0.5], RRF=[0.5] * 2, fused=[0.5] * 2, Citewell=[0.3, 0.9])
    rows = by_part([first, second, together("both", [first, second])])
    assert rows[1] == [
        "a", "4", "0.400", "0.500", "0.500", "0.500", "0.600", "dense", "+20.0%", "+0.100 to +0.100", "0.1250",
    ]  # fmt: skip
    assert rows[2][6:9] == ["0.600", "BM25", "+0.0%"]
    assert rows[3][:7] == ["both", "6", "0.467", "0.500", "0.500", "0.500", "0.600"]
    assert by_metric([first])[1] == ["a", *["0.600 (0.600-0.600)"] * len(METRICS)]


def test_reciprocal_rank_fusion_by_hand():
    """1/61 + 1/62 for what is first here and second there, 1/63 for what one alone has third."""
    fused = reciprocal({"q": [("a", 9.0), ("b", 8.0), ("c", 7.0)]}, {"q": [("b", 0.9), ("a", 0.8)]})["q"]
    assert fused[0][1] == fused[1][1] == pytest.approx(1 / 61 + 1 / 62)
    assert fused[2] == ("c", pytest.approx(1 / 63))


def test_many_clients_are_held_against_one_round_by_round():
    def load(clients: int, seconds: float, busy: int = 0) -> Load:
        return Load(clients, seconds, (0.01, 0.02, 0.03), {200: 3, 429: busy})

    rows = clients_table([(load(1, 3.0), load(32, 1.0)), (load(1, 1.5), load(32, 0.3, busy=2))])
    assert rows[1] == ["1", "1.5", "1.0, 2.0", "20.0", "29.0", "29.8", "0"]
    assert rows[2] == ["32", "6.5", "3.0, 10.0", "20.0", "29.0", "29.8", "2"]
    assert rows[3][:3] == ["throughput, many against one", "4.00 x", "3.00, 5.00"]


QUESTIONS = [Question("a", "", {"1": 1}), Question("b", "", {"2": 1})]


def figures(name: str, second: str, seconds: float, milliseconds: float, memory: float) -> Figures:
    return Figures(name, 100, seconds, {"a": ["1"], "b": [second]}, [milliseconds] * 2, memory, memory / 2)


def test_systems_are_compared_and_failures_keep_their_row():
    """The last row is the product against the best of the others in each figure, whichever that is."""
    found = [
        figures("ours", "2", 1.0, 5.0, 300),
        figures("exact", "2", 4.0, 20.0, 600),
        figures("quick", "9", 2.0, 10.0, 900),
        Failed("lost", "it is not there"),
    ]
    rows = table(found, QUESTIONS)
    assert rows[1] == ["ours", "1.000", "1.000-1.000", "", "100", "5.0", "5.0", "200", "300", "150"]
    assert rows[3] == ["quick", "0.500", "0.000-1.000", "1.0000", "50", "10.0", "10.0", "100", "900", "450"]
    assert rows[4] == ["lost", "it is not there", *[""] * 8]
    assert rows[5][1:] == ["+0.000", "", "", "2.00 x", "0.50 x", "", "2.00 x", "0.50 x", "0.50 x"]


@pytest.mark.parametrize("kept", [[0, 3], [3, 1]], ids=["no-peer", "no-product"])
def test_nothing_is_compared_with_what_failed(kept):
    found = [figures("ours", "2", 1, 1, 1), figures("peer", "2", 1, 1, 1), None, Failed("lost", "gone")]
    rows = table([found[place] for place in kept], QUESTIONS)
    assert len(rows) == 3


def test_why_a_peer_is_missing_is_told(tmp_path):
    assert not_installed(tmp_path, "txtai") == Failed("txtai", "not installed; run `make bench-peers`")
    (tmp_path / "txtai").mkdir()
    (tmp_path / "txtai" / INSTALL_LOG).write_text("Collecting\nERROR: No matching distribution found for txtai\n")
    assert not_installed(tmp_path, "txtai").reason == "ERROR: No matching distribution found for txtai"


def test_a_peer_that_fails_is_told_with_its_last_words(tmp_path):
    assert run_system(sys.executable, "nobody", tmp_path).reason.endswith("No module named eval.peers.nobody")
    assert "No such file" in run_system(str(tmp_path / "python"), "txtai", tmp_path).reason


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="memory is read from Linux's /proc")
def test_the_product_is_measured_as_a_peer_is(tmp_path):
    """In a process of its own: every question finds its passage, and nothing is missing in its row."""
    data_set(tmp_path, "one", 6)
    corpus = tmp_path / "task"
    join([tmp_path / "one"], corpus)
    questions = read_questions(tmp_path / "one")
    write_questions(corpus, questions)
    (_, row) = side_by_side(corpus, questions, tmp_path / "none", ())
    assert row[:4] == ["Citewell", "1.000", "1.000-1.000", ""]
    assert all(float(cell.replace(",", "")) > 0 for cell in row[4:])


def test_a_small_run_tells_every_table(tmp_path, cache, capsys, monkeypatch):
    """Quality, latency and clients over real parts; the lab log gets what is printed."""
    for name in ("squad", "nq_qed", "clapnq", "hotpotqa"):
        data_set(tmp_path / "sets", name, 6)
    monkeypatch.setenv("CITEWELL_CACHE", str(cache))
    monkeypatch.setenv("CITEWELL_SERVER__PROCESSES", "1")
    log = tmp_path / "LOG.md"
    log.write_text("# Log\n")
    options = ["--data", str(tmp_path / "sets"), "--log", str(log), "--passages", "20", "--asked", "8"]
    main([*options, "--clients", "4", "--repeats", "1", "--only", "quality", "--only", "latency", "--only", "clients"])
    told = capsys.readouterr().out
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in told.splitlines() if line.startswith("|")]
    rows = {row[0]: row[1:] for row in lines if len(row) == 11}
    assert rows["squad"][:1] + rows["squad"][5:6] == ["6", "1.000"]
    assert rows["pool: all questions"][:1] + rows["pool: all questions"][5:6] == ["24", "1.000"]
    assert ["4", "0"] in [[row[0], row[-1]] for row in lines if len(row) == 7]
    for words in ("| whole ", "| embed ", "throughput, many against one", "citewell serve"):
        assert words in told
    assert log.read_text().split() == f"# Log {told}".split()
