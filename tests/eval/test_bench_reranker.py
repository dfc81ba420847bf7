"""The benchmark of a reranker head: what joins the product's ranking, and the table side by side."""

from __future__ import annotations

import gzip
import json
import statistics

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from eval.bench_reranker import reranked, side_by_side
from eval.tuning.fitting import COUNTS
from rag.records import Ranking
from tests.rag.passages import passage


@given(
    read=st.lists(st.tuples(st.integers(0, 8), st.integers(-9, 9)), min_size=1, max_size=8),
    rest=st.integers(0, 3),
    count=st.sampled_from([0.0, *COUNTS]),
)
def test_a_reranking_equals_the_plain_formula(read, rest, count):
    """Scores in standard deviations plus the weighed log odds, ties in the old order; what was not read stays last."""
    read.sort(reverse=True)
    passages = [passage("read", i, score=score) for i, (score, _) in enumerate(read)]
    behind = [passage("behind", 100 + i, score=0.0) for i in range(rest)]
    spread = statistics.pstdev(score for score, _ in read) or 1.0
    joined = [score / spread + count * odds for score, odds in read]
    expected = [f"chunk{i}" for i in sorted(range(len(read)), key=lambda i: (-round(joined[i], 9), i))]
    ranking = Ranking((*passages, *behind), {}, {})
    found = reranked(ranking, np.array([odds for _, odds in read]), count)
    assert [one.chunk_id for one in found.passages] == [*expected, *[one.chunk_id for one in behind]]


def test_a_head_that_knows_the_answer_wins(citewell, tmp_path):
    """The table says by how much, for each weight, beside the product's own ranking."""
    corpus = [{"_id": f"p{i}", "title": "", "text": f"Ship number {i} carried guns."} for i in range(6)]
    queries = [{"_id": f"q{i}", "text": "Which ship carried guns?", "answers": [str(i)]} for i in range(6)]
    for name, rows in (("corpus", corpus), ("queries", queries)):
        with gzip.open(tmp_path / f"{name}.jsonl.gz", "wt") as out:
            out.writelines(json.dumps(row) + "\n" for row in rows)
    lines = "".join(f"q{i}\tp5\t1\n" for i in range(6))
    (tmp_path / "qrels.tsv").write_text(f"query-id\tcorpus-id\tscore\n{lines}")
    table = side_by_side(citewell, tmp_path, 3, lambda asked: [50.0 * ("5" in one.text) for one in asked])
    assert [row[0] for row in table] == ["weight of the head", "0", *[f"{count:g}" for count in COUNTS]]
    assert table[-1][1] == "1.000 (1.000-1.000)"
    assert not table[1][1].startswith("1.000")
    assert table[-1][2].startswith("+")
