"""The real language model as the writer of training questions: what its file holds can be read, and can learn."""

from __future__ import annotations

import random

import pytest
import torch

from eval.training.rows import ReaderRow
from eval.training.writer import Lessons, Story, load_writer, stories
from tests.llm.conftest import model_file

pytestmark = pytest.mark.llm

TEXT = "The harbour bridge was opened in 1932 by the mayor of Porto. It is 420 metres long and carries two railways."


def test_the_real_model_reads_and_learns(tmp_path):
    """It finds a story likelier than its tokens in another order, and after one step of learning likelier still."""
    torch.manual_seed(1)
    model, tokenizer = load_writer(model_file())
    asked = [("Who opened the harbour bridge?", (41, 59)), ("How wide is the bridge?", None)]
    rows = [ReaderRow(question, "Bridges", TEXT, answer, answer is not None, "squad") for question, answer in asked]
    told = stories(rows, tokenizer, random.Random(1))[:1]
    lessons = Lessons(model, told, tmp_path, 1)
    mixed = Story(random.Random(1).sample(told[0].ids, len(told[0].ids)), told[0].told)
    with torch.inference_mode():
        before, disorder = float(lessons.loss(told)), float(lessons.loss([mixed]))
    assert before < 5 < disorder
    assert [line["step"] for line in lessons.learn()] == [1]
    with torch.inference_mode():
        assert float(lessons.loss(told)) < before
