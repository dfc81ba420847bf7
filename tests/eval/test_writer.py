"""The language model that writes questions for training: what it learns, what it is sure of, that it resumes."""

from __future__ import annotations

import gzip
import json
import math
import random

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from eval.training import writer
from eval.training.agreed import agreed
from eval.training.judge_rows import answer_rows
from eval.training.reader_rows import written_rows
from eval.training.rows import ReaderRow
from eval.training.writer import Lessons, Passage, batches, head_ids, passages_of, stories, written
from rag.errors import BadInput
from rag.span_reader import Reading

TEXT = "The bridge was built by Ann in 1932. It is red."
WHO = ReaderRow("Who built it?", "Bridges", TEXT, (24, 27), True, "squad")
LONG = ReaderRow("How long is it?", "Bridges", TEXT, None, False, "squad")
SEARCHED = ReaderRow("when was it built", "", "It was built ( here ) in 1932 .", (25, 29), True, "nq")
NEAR = ReaderRow("when did it fall", "", "It was built in 1932 .", None, False, "nq-near")


@pytest.fixture(scope="module")
def tokenizer():
    """A token for each byte, and one for what says that nothing answers, as the real one has."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("Ġ", "n"), ("Ġn", "o"), ("Ġno", "n"), ("Ġnon", "e")]
    vocabulary = {token: i for i, token in enumerate([*alphabet, *["".join(merge) for merge in merges]])}
    bytewise = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    bytewise.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bytewise.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=bytewise)


@pytest.fixture
def model():
    """A language model of the kind that is used, small enough to be trained here."""
    torch.manual_seed(2)
    torch.set_num_threads(1)
    shape = LlamaConfig(
        vocab_size=260, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=512, tie_word_embeddings=False,
    )  # fmt: skip
    return LlamaForCausalLM(shape)


def test_what_is_told_is_questions_and_answers(tokenizer):
    """All questions of a passage of squad stand below it; what was asked of another passage is read and not learnt."""
    told = stories([WHO, LONG, SEARCHED, NEAR], tokenizer, random.Random(1))
    learnt = [[i for i, told in zip(story.ids, story.told, strict=True) if told] for story in told]
    found = {(tokenizer.decode(story.ids), tokenizer.decode(own)) for story, own in zip(told, learnt, strict=True)}
    both = {
        f"{first}{second}"
        for first, second in [
            ("Question: Who built it?\nAnswer: Ann\n", "Question: How long is it?\nAnswer: none\n"),
            ("Question: How long is it?\nAnswer: none\n", "Question: Who built it?\nAnswer: Ann\n"),
        ]
    }
    asked = "Search: when was it built\nAnswer: 1932\n"
    assert {text for text, _ in found} - {f"Bridges\n{TEXT}\n{below}" for below in both} == {
        f"\nIt was built (here) in 1932.\n{asked}",
        "\nIt was built in 1932.\nSearch: when did it fall\nAnswer: none\n",
    }
    assert {own for _, own in found} - both == {asked, "Answer: none\n"}
    assert len(told) == writer.PASSES + 2


@pytest.mark.parametrize("seed", range(3))
def test_batches_hold_every_story_once(seed):
    lengths = [random.Random(seed + i).randint(1, 3000) for i in range(120)]
    found = batches(lengths, seed)
    assert sorted(i for batch in found for i in batch) == list(range(120))
    assert all(len(b) == 1 or len(b) * max(lengths[i] for i in b) <= writer.STEP_TOKENS for b in found)
    assert found == batches(lengths, seed) != batches(lengths, seed + 1)


def test_a_stopped_writer_goes_on_as_if_it_had_not_been(model, tokenizer, tmp_path, monkeypatch):
    """The loss falls, and all weights are equal, bit for bit, to those of a training that was never stopped."""
    monkeypatch.setattr(writer, "STEP_TOKENS", 350)
    monkeypatch.setattr(writer, "RATE", 3e-3)
    monkeypatch.setattr(writer, "WARM_UP", 1)
    told = stories([WHO, LONG, SEARCHED, NEAR], tokenizer, random.Random(1)) * 6
    start = {name: weights.clone() for name, weights in model.state_dict().items()}
    whole = Lessons(model, told, tmp_path / "whole", 1)
    losses = [line["loss"] for line in whole.learn()]
    assert whole.steps > 5
    assert losses[-1] < 0.8 * losses[0]
    learnt = {name: weights.clone() for name, weights in model.state_dict().items()}
    for until in (3, None):
        model.load_state_dict(start)
        parts = Lessons(model, told, tmp_path / "parts", 1)
        lines = [*parts.learn(until)]
    assert lines[0]["step"] == 4
    assert all(torch.equal(weights, learnt[name]) for name, weights in model.state_dict().items())


def test_what_a_writer_is_sure_of_is_kept(model, tokenizer, tmp_path, monkeypatch):
    """What counts is the chance that a plain run over the whole text gives an answer.

    The model knows two questions by heart, of one of which it has heard two answers: none is surer than a half.
    """
    monkeypatch.setattr(writer, "STEP_TOKENS", 350)
    monkeypatch.setattr(writer, "RATE", 5e-3)
    monkeypatch.setattr(writer, "WARM_UP", 1)
    monkeypatch.setattr(writer, "NEW", 66)  # two questions, and none is whole after them
    heard = [WHO, ReaderRow(WHO.question, "Bridges", TEXT, (31, 35), True, "squad")]
    told = [story for n in range(300) for story in stories([heard[n % 2], LONG], tokenizer, random.Random(n))]
    [*Lessons(model, told, tmp_path, 1).learn()]

    def asked(sure: float, sure_none: float) -> set[tuple[str, tuple[int, int] | None]]:
        monkeypatch.setattr(writer, "SURE", sure)
        monkeypatch.setattr(writer, "SURE_NONE", sure_none)
        torch.manual_seed(5)
        return {
            (question, answer) for _, question, answer in written(model, tokenizer, [Passage("Bridges", TEXT)] * 12)
        }

    def chance(before: str) -> float:
        head = head_ids("Bridges", TEXT, tokenizer) + tokenizer.encode(f"{before}Question: Who built it?\nAnswer:")
        ids = head + tokenizer.encode(" Ann\n")
        with torch.inference_mode():
            values = torch.log_softmax(model(torch.tensor([ids])).logits[0].float(), dim=-1)
        return math.exp(sum(float(values[place - 1, ids[place]]) for place in range(len(head), len(ids))))

    by_ann, in_1932, nothing = (WHO.question, (24, 27)), (WHO.question, (31, 35)), (LONG.question, None)
    chances = [chance(""), chance("Question: How long is it?\nAnswer: none\n")]
    assert 0.2 < min(chances) <= max(chances) < 0.8
    assert asked(0.1, 0.9) == {by_ann, in_1932, nothing}
    assert by_ann in asked(min(chances) * 0.99, 1.1) <= {by_ann, in_1932}
    assert by_ann not in asked(max(chances) * 1.01, 0.9)


def test_each_passage_is_asked_about_once():
    """In people's spelling, and none that is held from training."""
    rows = [
        ReaderRow("q", "t", f"Ship {i} ( old ) .", None, False, source)
        for i in range(60)
        for source in ("squad", "nq", "nq-near")
    ]
    found = passages_of(rows, random.Random(1))
    assert {p.text for p in found} < {f"Ship {i} (old)." for i in range(60)}
    assert 50 < len(found) == len({p.text for p in found}) < 60


def test_written_questions_are_rows_and_claims(tmp_path):
    """Rows of reader and judge come of a file, without what dev asks or answers by; a damaged file is named."""
    file = tmp_path / "written.jsonl.gz"
    lines = [
        {"question": "Who built the bridge?", "context": "Bridges", "text": TEXT, "answer": [24, 27]},
        {"question": "Who sold the bridge?", "context": "Bridges", "text": TEXT, "answer": None},
        {"question": "Dev?", "context": "", "text": TEXT, "answer": None},
        {"question": "Who?", "context": "", "text": "Of dev.", "answer": None},
    ]
    with gzip.open(file, "wt") as out:
        out.writelines(json.dumps(line) + "\n" for line in lines)
    rows = [*written_rows([file], {"dev", "of dev"})]
    assert [(row.question, row.answer, row.answerable, row.source) for row in rows] == [
        ("Who built the bridge?", (24, 27), True, "written"),
        ("Who sold the bridge?", None, False, "written-none"),
    ]
    claims = {
        (c.claim, c.supported) for seed in range(9) for c in answer_rows(rows, ["Kofi Mensah"], random.Random(seed))
    }
    assert claims == {("Ann built the bridge.", True), ("Kofi Mensah built the bridge.", False)}
    file.write_bytes(b"no gzip")
    with pytest.raises(BadInput, match="not readable"):
        [*written_rows([file], ())]


def test_what_a_reader_says_too_is_kept():
    """An answer that it finds alike and does not doubt, and the silence that it would keep."""
    said = {
        "Who?": Reading((24, 27), 1.0, 0, 0, ()),
        "By whom?": Reading((20, 27), 1.0, 0, 0, ()),
        "When?": Reading((24, 27), 1.0, 0, 0, ()),
        "Who may?": Reading((24, 27), -2.0, 0, 0, ()),
        "Why?": Reading(None, -3.0, 0, 0, ()),
        "How?": Reading(None, 0.5, 0, 0, ()),
        "What?": Reading(None, 0.5, 0, 0, ()),
    }
    own = {"Who?": [24, 27], "By whom?": [24, 27], "When?": [31, 35], "Who may?": [24, 27], "What?": [24, 27]}
    rows = [{"question": q, "context": "", "text": TEXT, "answer": own.get(q)} for q in said]
    found = agreed(lambda asked: [said[one.question] for one in asked], rows)
    assert [row["question"] for row in found] == ["Who?", "By whom?", "Why?"]
