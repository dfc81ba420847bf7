"""A cross-encoder as reranker: a model that reads question and passage together. Owns sentence-transformers' part.

Any model of `sentence_transformers.CrossEncoder` with one output. None is built in: late interaction costs no model
call, and is the default. Knows no index and no catalog.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rag.errors import Misconfigured
from rag.quiet import silence_dependencies
from rag.settings import EmbedderSettings

#: Pairs that are read in one forward pass.
BATCH = 32


class CrossEncoder:
    """Scores pairs with the model in ``folder``, on the first of the embedder's devices. Thread-safe.

    Raises `Misconfigured` for a folder without such a model.
    """

    def __init__(self, folder: str, settings: EmbedderSettings) -> None:
        silence_dependencies(hub=settings.allow_download)
        if not Path(folder).is_dir() and not settings.allow_download:
            raise Misconfigured(
                f"retrieval.reranker is {folder!r}, which is no folder; give a folder that holds a cross-encoder, or "
                "set embedder.allow_download to fetch it from the hub."
            )
        import sentence_transformers

        device = None if settings.device == "auto" else settings.device.split(",")[0].strip()
        try:
            self._model: Any = sentence_transformers.CrossEncoder(
                folder, device=device, local_files_only=not settings.allow_download
            )
        except (OSError, ValueError, RuntimeError) as error:
            raise Misconfigured(f"The cross-encoder {folder!r} can not be loaded: {error}") from error
        if self._model.num_labels != 1:
            raise Misconfigured(
                f"The cross-encoder {folder!r} has {self._model.num_labels} outputs; a reranker has one, the score."
            )
        self.name = Path(folder).name
        self.window = int(self._model.max_seq_length or 512)
        self._reading = threading.Lock()

    def lengths(self, question: str, passages: Sequence[str]) -> list[int]:
        """See `rag.protocols.Reranker`: question, passage and special tokens."""
        if not passages:
            return []
        with self._reading:  # the tokenizer of transformers is not thread-safe
            pairs = self._model.tokenizer([question] * len(passages), list(passages), truncation=False, verbose=False)
        return [len(ids) for ids in pairs["input_ids"]]

    def score(self, question: str, passages: Sequence[str]) -> list[float]:
        """See `rag.protocols.Reranker`."""
        if not passages:
            return []
        pairs = [(question, passage) for passage in passages]
        return [float(score) for score in self._model.predict(pairs, batch_size=BATCH, show_progress_bar=False)]
