"""The trained models that ship with the package: rows of two texts in, values of tokens and rows out.

The file of a model holds its layers and heads; the word embeddings, which training left as they were, are read in place
from the package of the built-in embedder. Knows graphs by their protocol and rows as `rag.pairs` makes them.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rag.encoders import built_in_model, pack_by_tokens
from rag.errors import Misconfigured
from rag.graphs import Graph, open_graph, require_graph
from rag.pairs import Pair, PairTokenizer
from rag.tensors import open_tensors

#: Where the weights that ship are.
WEIGHTS = Path(__file__).parent / "weights"
#: Most padded tokens of one pass: more are no faster, and each core holds what its pass needs.
PASS_TOKENS = 1024
#: What each model tells: of each token, of each row.
OUTPUTS = {"reader": ("token", "row"), "judge": ("row",)}
Values = npt.NDArray[np.float32]
_NONE: Values = np.zeros((0, 0), dtype=np.float32)


@dataclass(frozen=True, slots=True)
class Read:
    """What the model says of one row (r,), and of each of its tokens (n, t) if it says anything of them."""

    row: Values
    token: Values


@cache
def _word_embeddings(file: Path) -> npt.NDArray[Any]:
    """One map into memory for all models: the file lies in a package, and nobody writes there."""
    words: npt.NDArray[Any] = open_tensors(file)["embeddings.word_embeddings.weight"]
    return words


class TrainedPairs:
    """A model of the package, ``reader`` or ``judge``, in ``folder``. Thread-safe.

    It is loaded by the first that is read: not everyone who opens the product asks it something. ``facts`` is what its
    training left to know beside the weights, from the JSON file of the same name. Raises `Misconfigured` if a file is
    not there.
    """

    def __init__(self, name: str, folder: Path = WEIGHTS, threads: int = 0, backend: str = "auto") -> None:
        file = folder / f"{name}.onnx"
        require_graph(file)
        self._open = partial(open_graph, file, OUTPUTS[name], threads, backend)
        self._opened: Graph | None = None
        self._lock = threading.Lock()
        self.facts = _read_facts(folder / f"{name}.json")
        base = built_in_model()
        self.tokenizer = PairTokenizer(base / "tokenizer.json")
        self._words = _word_embeddings(base / "model.safetensors")

    @property
    def engine(self) -> str:
        """What computes it, for instance ``openvino bf16``."""
        return self._graph.engine

    @property
    def _graph(self) -> Graph:
        with self._lock:
            if self._opened is None:
                self._opened = self._open()
            return self._opened

    def read(self, pairs: Sequence[Pair]) -> list[Read]:
        """Return what the model says of each row."""
        if not pairs:
            return []
        graph = self._graph
        found: list[Read | None] = [None] * len(pairs)

        def run(batch: list[int]) -> None:
            outputs = graph.run(self._inputs([pairs[i] for i in batch]))
            rows, tokens = outputs["row"], outputs.get("token")
            for row, position in enumerate(batch):
                own = _NONE if tokens is None else tokens[row, : len(pairs[position].ids)]
                found[position] = Read(rows[row], own)

        graph.map(run, pack_by_tokens([len(pair.ids) for pair in pairs], PASS_TOKENS))
        return [read for read in found if read is not None]

    def close(self) -> None:
        """Free the model."""
        with self._lock:
            if self._opened is not None:
                self._opened.close()

    def _inputs(self, pairs: Sequence[Pair]) -> dict[str, npt.NDArray[Any]]:
        width = max(len(pair.ids) for pair in pairs)
        ids = np.zeros((len(pairs), width), dtype=np.int64)
        types, mask = np.zeros_like(ids), np.zeros_like(ids)
        for row, pair in enumerate(pairs):
            ids[row, : len(pair.ids)] = pair.ids
            types[row, : len(pair.ids)] = pair.types
            mask[row, : len(pair.ids)] = 1
        return {"words": np.asarray(self._words[ids], dtype=np.float32), "types": types, "mask": mask}


def _read_facts(file: Path) -> dict[str, Any]:
    try:
        facts: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise Misconfigured(f"{file} can not be read; reinstall citewell: {error}") from error
    return facts
