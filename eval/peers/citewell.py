"""Citewell itself, measured as its peers are: from the text of a question to ranked ids, in a process of its own."""

from __future__ import annotations

from collections.abc import Sequence

from eval.folders import load_corpus
from eval.peers.adapter import Passage, Peer, Place, main
from eval.ranking import CorpusIds
from rag.assembly import open_citewell
from rag.settings import load_settings


def open_peer(place: Place) -> Peer:
    """Open it on an empty data folder. Ingest reads the corpus again and ends when it is safe on disk and sealed."""
    citewell = place.stack.enter_context(open_citewell(load_settings(data=place.scratch / "data")))
    citewell.embedder.encode(["warm"])
    loaded: dict[str, CorpusIds] = {}

    def ingest(_: Sequence[Passage]) -> None:
        collection = load_corpus(citewell, place.folder).name
        loaded[collection] = CorpusIds(citewell, collection)

    def ask(question: str, top: int) -> list[str]:
        ranking = citewell.search(citewell.plan(question, list(loaded), top_k=top))
        return [passage for names in loaded.values() for passage, _ in names.of(ranking)][:top]

    return Peer("Citewell", ingest, ask)


if __name__ == "__main__":
    main(open_peer)
