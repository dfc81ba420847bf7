"""The benchmark of citing and judging: the same words in both ways, and a table of what they took."""

from __future__ import annotations

from eval.bench_grounding import INVENTED, PLAIN, SENTENCES, Paced, side_by_side, written
from ingest.worker import Worker, accept_file
from rag.assembly import open_citewell
from rag.claims import ClaimParser
from rag.grounding import LexicalJudge
from rag.records import Delta, Prompt
from tests.rag.passages import passage

PROMPT = Prompt("?", tuple(passage(f"Hotel {n} costs {n} euros. It has {n} rooms.", n) for n in range(1, 9)), (), 0)


def test_an_answer_is_made_of_the_passages_and_of_one_that_is_not():
    """Some sentences name their passage and some do not."""
    parser = ClaimParser(8)
    parser.feed(Delta(written(PROMPT)))
    parser.finish()
    claims = parser.claims()
    assert [claim.passages for claim in claims] == [(), (1,), (2,), (), (3,), (3,), ()]
    assert (len(claims), claims[-1].text) == (SENTENCES + 1, INVENTED)


def test_each_way_gets_a_row(settings, embedder, sample_files):
    """Whatever it took: the generator alone first, which the others are held against."""
    generator = Paced(pace=2000)
    with open_citewell(settings, embedder=embedder, generator=generator, judge=LexicalJudge()) as citewell:
        collection = citewell.store.catalog.create_collection("demo")
        for path in sample_files[:2]:
            accept_file(citewell.store, collection, path.name, path)
        Worker(citewell).drain()
        table = side_by_side(citewell, [citewell.plan("What is the hotel limit?", ["demo"], parts=PLAIN)])
    assert [row[0] for row in table[1:]] == ["generator alone", "report", "filter", "strict"]
    assert [row[4][-1:] for row in table[1:]] == ["", "%", "%", "%"]
