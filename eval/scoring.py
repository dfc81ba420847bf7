"""The scores of one answer that need no model: what was found, what was said, what was cited, against what is known.

Retrieval is counted in documents, each at the first of its chunks: recall@k, the reciprocal rank cut at 10, and nDCG@10
(Järvelin and Kekäläinen, ACM TOIS 20(4), 2002) with gains of 1. What is not known of a question gives no score. Knows
the records of an answer, and nothing of how it came about.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from eval.reading import is_said, word_f1
from eval.runs import Wanted
from rag.answers import Answer
from rag.records import Passage

#: Correctness from which an answer counts as right.
RIGHT = 0.5
#: Share of supported sentences up to which an answer counts as made up.
HALF = 0.5
DEPTHS = (5, 20)
CUT = 10


def retrieval_scores(ranking: Sequence[str], chunks: Mapping[str, frozenset[str]]) -> dict[str, float]:
    """Return the scores of a ranking of chunk ids, best first; ``chunks`` are those of each relevant document.

    A document that has no chunk can not be found and counts as one that was not; none at all gives no scores.
    """
    if not chunks:
        return {}
    ranks = [_rank(ranking, ids) for ids in chunks.values()]
    found = {f"recall@{depth}": sum(rank <= depth for rank in ranks) / len(ranks) for depth in DEPTHS}
    gain = sum(1 / math.log2(rank + 1) for rank in ranks if rank <= CUT)
    best = sum(1 / math.log2(rank + 1) for rank in range(1, min(len(ranks), CUT) + 1))
    first = min(ranks)
    return found | {"ndcg@10": min(1.0, gain / best), "mrr@10": 1 / first if first <= CUT else 0.0}


def _rank(ranking: Sequence[str], ids: frozenset[str]) -> float:
    return next((float(rank) for rank, chunk_id in enumerate(ranking, 1) if chunk_id in ids), math.inf)


def answer_scores(wanted: Wanted, answer: Answer, texts: Mapping[str, str]) -> dict[str, float]:
    """Return what can be said of an answer without a model but the judge that checked it already.

    - ``correctness``: 1 if an accepted answer stands in it, else the F1 of its words with the best one; of silence 1
      where nothing answers the question and else 0.
    - ``abstention``: whether it was silent where that is right, and only there.
    - ``supported``: the share of its checkable sentences that the judge calls supported.
    - ``citation_precision``, ``citation_recall``: the share of the cited documents that are relevant, and of the
      relevant ones that are cited.
    - ``quotes_verbatim``: the share of its citations that stand word for word at their places in ``texts``, the parsed
      texts by version id.
    """
    found: dict[str, float] = {}
    if wanted.answers or not wanted.answerable:
        found["correctness"] = correctness(wanted, answer)
    if wanted.answers or wanted.relevant or not wanted.answerable:
        found["abstention"] = float(answer.abstained is not wanted.answerable)
    checkable = [claim for claim in answer.claims if claim.checkable]
    if checkable and not answer.abstained:
        found["supported"] = sum(claim.supported for claim in checkable) / len(checkable)
    if wanted.relevant:
        found |= _citations(wanted, answer)
    if answer.citations:
        right = [texts.get(c.version_id, "")[c.source_start : c.source_end] == c.quote for c in answer.citations]
        found["quotes_verbatim"] = sum(right) / len(right)
    return found


def correctness(wanted: Wanted, answer: Answer) -> float:
    """Return how right an answer is, see `answer_scores`."""
    if answer.abstained or not wanted.answerable:
        return float(answer.abstained and not wanted.answerable)
    said = " ".join(claim.text for claim in answer.claims) or answer.text
    if is_said(said, wanted.answers):
        return 1.0
    shown = [said, *([answer.short.text] if answer.short else [])]
    return max(word_f1(text, wanted.answers) for text in shown)


def is_wrong(scores: Mapping[str, float]) -> bool | None:
    """Say whether an answer is not the one that is known to be right; None where nothing is known.

    With accepted answers by its correctness; else, where relevant documents are known, by silence and by whether one of
    these is cited.
    """
    if "correctness" in scores:
        return scores["correctness"] < RIGHT
    if "abstention" in scores:
        return not scores["abstention"] or not scores.get("citation_recall", 1.0)
    return None


def is_unsupported(scores: Mapping[str, float]) -> bool:
    """Say whether half of the sentences of an answer, or more, are not supported by what they cite."""
    return scores.get("supported", 1.0) <= HALF


def _citations(wanted: Wanted, answer: Answer) -> dict[str, float]:
    relevant = {found.document for found in wanted.relevant}
    names = {passage.chunk_id: documents_of(passage) for passage in answer.passages}
    cited = {one.document: names.get(one.chunk_id, set()) | {one.document} for one in answer.citations}
    recall = {"citation_recall": len(relevant & set().union(*cited.values())) / len(relevant)}
    if answer.abstained:
        return recall
    right = sum(bool(documents & relevant) for documents in cited.values())
    return {"citation_precision": right / max(1, len(cited)), **recall}


def documents_of(passage: Passage) -> set[str]:
    """Return the names of the document of a passage and of those that say the same."""
    return {passage.document, *(copy.document for copy in passage.also_in)}
