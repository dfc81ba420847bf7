"""``citewell eval retrieval`` as users run it: its numbers by hand, on a small folder in BEIR layout."""

from __future__ import annotations

import json

import pytest

from tests.cli_process import Cli

CORPUS = {
    "tide": "The tide was high at noon and low at six.",
    "storm": "A storm came from the north and broke two masts.",
    "bread": "The baker sells rye bread on Fridays.",
    "whale": "A blue whale eats four tons of krill a day.",
    "clock": "The tower clock has been slow since spring.",
}
#: The third question is judged wrongly on purpose: what it asks for stands in another passage.
QUERIES = {"q1": "when was the tide high", "q2": "what does a blue whale eat", "q3": "who sells rye bread"}
JUDGED = {"q1": "tide", "q2": "whale", "q3": "nowhere"}
METRICS = ["ndcg@10", "recall@5", "recall@20", "recall@100", "mrr@10"]


@pytest.fixture
def cli(tmp_path):
    """A command in a folder with a data set."""
    (tmp_path / "set").mkdir()
    for name, rows in (("corpus", CORPUS), ("queries", QUERIES)):
        lines = [json.dumps({"_id": key, "text": text}) for key, text in rows.items()]
        (tmp_path / "set" / f"{name}.jsonl").write_text("\n".join(lines))
    judged = [f"{query}\t{passage}\t1" for query, passage in JUDGED.items()]
    (tmp_path / "set" / "qrels.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *judged]))
    return Cli(tmp_path / "data", tmp_path)


def test_one_json_object_with_a_metric_under_each_old_key(cli, cache, tmp_path):
    """Two questions of three are right at once, one can not be: every metric is 2/3, between 0 and 1."""
    found = cli("eval", "retrieval", "--beir", "set", "--run", "set.trec", "--json", CACHE=str(cache)).json
    assert [found[name] for name in METRICS] == [0.6667] * 5
    assert found["queries"] == 3
    assert set(found) == {*METRICS, "queries", "queries_per_second", "intervals", "latency_ms", "stages"}
    assert found["intervals"] == {name: [0.0, 1.0] for name in METRICS}
    assert list(found["latency_ms"]) == ["p50", "p95", "p99"]
    best = [line.split() for line in (tmp_path / "set.trec").read_text().splitlines()]
    assert [(query, passage) for query, _, passage, rank, _, _ in best if rank == "1"] == [
        ("q1", "tide"), ("q2", "whale"), ("q3", "bread"),
    ]  # fmt: skip
    assert not (tmp_path / "data").exists()


def test_an_ablation_as_text_and_as_json(cli, cache, tmp_path):
    """The product, each step to it, and p values: of three questions that differ nowhere, every one is 1."""
    options = ("eval", "retrieval", "--beir", "set", "--ablate")
    ended = cli(*options, "--run", "runs", "--json", CACHE=str(cache))
    rows = {row["name"]: row for row in ended.json["configurations"]}
    assert list(rows)[:5] == ["default", "lexical", "dense", "fused", "late"]
    assert {row["ndcg@10"] for row in rows.values()} == {0.6667}
    assert {rows[name]["against_default"]["ndcg@10"]["p_value"] for name in ("lexical", "dense", "fused")} == {1.0}
    assert {file.stem for file in (tmp_path / "runs").iterdir()} == set(rows)
    text = cli(*options, "--limit", "2", CACHE=str(cache)).out
    lines = [line.split() for line in text.splitlines()]
    assert ["ndcg@10", "1.0000", "1.0000", "to", "1.0000"] in lines
    assert ["2", "questions"] in lines
    assert [line[:2] for line in lines if line[:1] == ["dense"]][-1] == ["dense", "1.0000"]


def test_a_run_for_many_configurations_needs_a_folder(cli, tmp_path):
    (tmp_path / "taken").touch()
    ended = cli("eval", "retrieval", "--beir", "set", "--ablate", "--run", "taken", status=2)
    assert "taken can not be written as a folder" in ended.err
    assert (tmp_path / "taken").read_bytes() == b""
