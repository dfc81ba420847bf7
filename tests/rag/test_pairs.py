"""Two texts as rows of tokens: what a row is, how windows cover a long text, and what a sentence's tokens say."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag.encoders import built_in_model
from rag.errors import Misconfigured
from rag.near import Near
from rag.pairs import MOST_FIRST, MOST_TOKENS, PairTokenizer, sentence_means, window_starts
from rag.tensors import open_tensors
from tests.cli_process import ROOT


@pytest.fixture(scope="module")
def tokenizer():
    return PairTokenizer(built_in_model() / "tokenizer.json")


def test_a_row_is_both_texts_between_their_marks(tokenizer):
    [[pair]] = tokenizer.windows("Who came?", ["Ann Lee."])
    assert pair.ids[0] == 101
    assert [i for i, id_ in enumerate(pair.ids) if id_ == 102] == [4, 8]
    assert pair.types.tolist() == [0] * 5 + [1] * 4
    assert pair.spans.tolist() == [[-1, -1]] * 5 + [[0, 3], [4, 7], [7, 8], [-1, -1]]
    assert pair.own.tolist() == [False] * 5 + [True] * 3 + [False]


def test_nothing_is_still_a_row(tokenizer):
    [[pair]] = tokenizer.windows("", [""])
    assert pair.ids.tolist() == [101, 102, 102]
    assert not pair.own.any()
    assert tokenizer.windows("Who?", []) == []


@given(tokens=st.integers(0, 3000), room=st.integers(4, 300))
def test_windows_read_everything_and_overlap(tokens, room):
    """Each begins within the one before, the last one reaches the end, and none is empty of news."""
    starts = window_starts(tokens, room)
    ends = [min(start + room, tokens) for start in starts]
    assert starts[0] == 0
    assert ends[-1] == tokens
    assert all(a < b <= a + room for a, b in pairwise(starts))
    assert all(b > a for a, b in pairwise(ends))


@given(words=st.integers(1, 900), first=st.integers(0, 150))
def test_every_token_of_a_long_text_is_in_a_window(tokenizer, words, first):
    text = "ship " * words
    [windows] = tokenizer.windows("boat " * first, [text])
    read = {tuple(span) for pair in windows for span in pair.spans[pair.own].tolist()}
    assert read == {(5 * i, 5 * i + 4) for i in range(words)}
    assert max(len(pair.ids) for pair in windows) <= MOST_TOKENS
    assert all((pair.types == 0).sum() == min(first, MOST_FIRST) + 2 for pair in windows)


def test_the_mean_of_a_sentence_is_over_its_own_tokens(tokenizer):
    text = "It rained. Ann came. "
    [[pair]] = tokenizer.windows("Who?", [text])
    values = np.arange(len(pair.ids), dtype=np.float32)
    assert sentence_means(pair, [(0, 10), (11, 20), (20, 21)], values) == [5.0, 8.0, None]


def test_near_texts_by_hand():
    """A rare word outweighs a common one; equal texts keep their order; without a common word nothing is near."""
    near = Near(["a red ship", "a red boat", "a red whale", "the red whale"])
    assert near.nearest("which whale is red?", 3) == [2, 3, 0]
    assert near.nearest("boat", 3) == [1]
    assert near.nearest("tram", 3) == []
    assert Near([]).nearest("tram", 3) == []


@given(
    texts=st.lists(st.text(alphabet="abc ", max_size=12), max_size=12),
    question=st.text(alphabet="abc ", max_size=8),
    most=st.integers(1, 5),
)
def test_the_nearest_are_the_first_of_all(texts, question, most):
    assert Near(texts).nearest(question, most) == Near(texts).nearest(question, len(texts) + 1)[:most]


def test_tensors_are_read_in_place(tmp_path):
    """As the format says: the length of the header, the header, the numbers."""
    header = json.dumps({
        "__metadata__": {"format": "pt"},
        "words": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
        "flags": {"dtype": "BOOL", "shape": [1], "data_offsets": [24, 25]},
    }).encode()  # fmt: skip
    numbers = np.arange(6, dtype="<f4")
    file = tmp_path / "model.safetensors"
    file.write_bytes(len(header).to_bytes(8, "little") + header + numbers.tobytes() + b"\0")
    found = open_tensors(file)
    assert list(found) == ["words"]
    assert found["words"].tolist() == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize("content", [b"", b"short", b"\xff" * 40, (9).to_bytes(8, "little") + b'{"a": 1}}'])
def test_a_file_that_is_none_of_its_kind_is_named(content, tmp_path):
    file = tmp_path / "model.safetensors"
    file.write_bytes(content)
    with pytest.raises(Misconfigured, match=r"model\.safetensors can not be read as safetensors"):
        open_tensors(file)


FIRST_PASSES = """
import os, sys, threading
sys.setswitchinterval(1e-6)  # so that threads meet where they seldom do
import numpy as np
from rag.graphs import compile_openvino
from rag.pair_model import WEIGHTS
model, _ = compile_openvino(WEIGHTS / "reader.onnx", 2)
together = threading.Barrier(2)
def run():
    request = model.create_infer_request()
    together.wait()
    rows = np.zeros((1, 8), dtype=np.int64)
    request.infer({"words": np.zeros((1, 8, 384), dtype=np.float32), "types": rows, "mask": rows + 1})
    request.get_tensor("row").data.copy()
threads = [threading.Thread(target=run) for _ in range(2)]
for thread in threads: thread.start()
for thread in threads: thread.join()
os._exit(0)
"""


def test_the_first_passes_of_a_process_may_come_at_once():
    """OpenVINO makes tables at its first use; two threads that came to that together waited for each other forever."""
    pytest.importorskip("openvino")
    done = subprocess.run([sys.executable, "-c", FIRST_PASSES], cwd=ROOT, timeout=120, check=False)
    assert done.returncode == 0
