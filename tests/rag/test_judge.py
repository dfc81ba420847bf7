"""The built-in judge: how claims are cut and evidence is chosen, and what the weights that ship say of clear cases."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag.errors import Misconfigured
from rag.graphs import open_graph
from rag.judge import MOST_SENTENCES, PART_WORDS, TrainedJudge, chosen, nearest_spans, parts
from rag.pair_model import TrainedPairs

ARTICLE = "\n".join(f"Ship {i} was built in {1800 + i} and carried {10 * i} guns of {i % 7} kinds." for i in range(60))


def test_a_short_claim_is_one_part_and_an_empty_one_none():
    assert parts("Ann came. Bob left.") == ["Ann came. Bob left."]
    assert parts(" ?! ") == []


@given(st.lists(st.integers(1, 60), min_size=1, max_size=9))
def test_a_long_claim_is_cut_between_sentences(sizes):
    """No word is lost, no sentence is cut, and no part of several sentences is too long."""
    sentences = [" ".join(["word"] * size) + "." for size in sizes]
    claim = " ".join(sentences)
    found = parts(claim)
    assert " ".join(found) == claim
    assert all(len(part.split()) <= PART_WORDS or part in sentences for part in found)


def test_of_long_evidence_the_sentences_of_the_claim_are_read_in_their_order():
    read = chosen("Ship 41 was built in 1841, after ship 40.", ARTICLE).splitlines()
    assert len(read) == MOST_SENTENCES
    assert {read.index(line) for line in read if line.startswith(("Ship 41 ", "Ship 40 "))} == {
        i for i, line in enumerate(read) if line.startswith(("Ship 40 ", "Ship 41 "))
    }
    assert {line.split()[1] for line in read} >= {"40", "41"}
    assert read == sorted(read, key=ARTICLE.index)


def test_short_evidence_is_read_whole():
    assert chosen("Ann came.", "Bob left. Eve slept.") == "Bob left. Eve slept."
    assert nearest_spans("Ann came.", "Bob left. Eve slept.", 1) == [(0, 9)]


@pytest.fixture(scope="module")
def judge():
    opened = TrainedJudge(TrainedPairs("judge"))
    yield opened
    opened.close()


EVIDENCE = (
    "The harbour bridge was opened on 12 March 1987 by Maria Santos. It is 420 metres long and carries six lanes. "
    "Lorries may not use it at night. In 2003 the city of Porto bought it from the railway company."
)


@pytest.mark.parametrize(
    ("true", "false"),
    [
        ("The bridge is 420 metres long.", "The bridge is 870 metres long."),
        ("The bridge was opened in 1987.", "The bridge was opened in 1978."),
        ("Maria Santos opened the bridge.", "John Okafor opened the bridge."),
        ("Lorries may not use the bridge at night.", "Lorries may use the bridge at night."),
        ("The city of Porto bought the bridge in 2003.", "The city of Lisbon bought the bridge in 2003."),
        ("The bridge carries six lanes.", "The ferry carries a hundred horses."),
    ],
)
def test_a_wrong_number_date_name_or_negation_is_less_supported(judge, true, false):
    """By a clear margin, and on the right side of one half."""
    right, wrong = judge.support([(true, EVIDENCE), (false, EVIDENCE)])
    assert right > 0.5 > wrong
    assert right - wrong > 0.2


def test_the_sentence_that_decides_is_named(judge):
    [verdict] = judge.decide([("The bridge is 420 metres long.", EVIDENCE)])
    assert EVIDENCE[verdict.start : verdict.end] == "It is 420 metres long and carries six lanes."


def test_nothing_is_claimed_by_an_empty_sentence_and_nothing_supported_by_no_evidence(judge):
    assert judge.support([("", "x"), ("?!", "x")]) == [0.0, 0.0]
    assert judge.support([("The bridge is long.", ""), ("The bridge is long.", " .")]) == [0.0, 0.0]
    assert judge.support([]) == []


def test_weights_that_are_missing_or_damaged_are_named(tmp_path):
    with pytest.raises(Misconfigured, match=r"judge\.onnx is not there; train the model"):
        TrainedPairs("judge", tmp_path)
    (tmp_path / "judge.onnx").write_bytes(b"no graph")
    for backend in ("openvino", "onnxruntime"):
        pytest.importorskip(backend)
        with pytest.raises(Misconfigured, match=r"judge\.onnx can not be read as a model"):
            open_graph(tmp_path / "judge.onnx", ("row",), backend=backend)
