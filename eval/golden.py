"""Golden sets: questions from an owner's file or from the log of answers, checked against the documents they rest on.

A question is as good as the day on which somebody confirmed it: `check` says which of its documents have another
content by now, no longer say the words that were named, or are gone. Knows the catalog, and no model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval.folders import table_rows
from eval.tuning.questions import passages_of
from rag.catalog import Catalog
from rag.errors import BadInput, Conflict
from rag.golden import Content, GoldenDocument, GoldenQuestion, Proposed, Standing
from rag.records import Collection
from rag.words import WORD

#: Longest question, reference, name of a document and tag, in characters, and most documents and tags of a question.
QUESTION, REFERENCE, NAME, TAG = 4_000, 20_000, 1_000, 100
MOST_DOCUMENTS, MOST_TAGS = 100, 50
COLUMNS = frozenset("question answer documents document text tags answerable".split())
#: What stands between the names, or tags, of one field of CSV.
BETWEEN = ";"

_SENTENCES = {
    Standing.CHANGED: "{name} has another content than the one that was confirmed.",
    Standing.REWORDED: "{name} has no passage in which the words stand that were named.",
    Standing.GONE: "{name} is not in the collection.",
}


@dataclass(frozen=True, slots=True)
class Checked:
    """A golden question, and how each of its documents stands to it now."""

    question: GoldenQuestion
    standings: tuple[Standing, ...]

    @property
    def drift(self) -> tuple[str, ...]:
        """Why somebody should look at it, a sentence each; empty if all is as it was confirmed."""
        documents = zip(self.question.documents, self.standings, strict=True)
        said = [_SENTENCES[found].format(name=one.name) for one, found in documents if found in _SENTENCES]
        lost = self.question.purged_at is not None
        return (*said, *(["Words of it stood in a document that was purged."] if lost else []))

    @property
    def can_be_confirmed(self) -> bool:
        """Whether somebody who has looked at it can say that it holds, without writing it anew."""
        return not {Standing.GONE, Standing.REWORDED} & {*self.standings}


def check(catalog: Catalog, collection: Collection, questions: Sequence[GoldenQuestion]) -> list[Checked]:
    """Return how each of some questions of a collection stands, in their order."""
    live = catalog.live_contents(collection.id, {one.name for found in questions for one in found.documents})
    return [
        Checked(found, tuple(_standing(catalog, collection, one, live) for one in found.documents))
        for found in questions
    ]


def check_all(catalog: Catalog, collection: str | None = None) -> list[Checked]:
    """Return how all questions of a collection, or of every one, stand; raises `NotFound`."""
    there = catalog.list_collections(counted=False)
    if collection is not None:
        there = [catalog.collection(collection, counted=False)]
    return [checked for found in there for checked in check(catalog, found, catalog.list_golden(found.id))]


def confirm(catalog: Catalog, question_id: str) -> GoldenQuestion:
    """Say that a question still holds, with the documents as they are now.

    Raises `NotFound`, and `Conflict` if one of its documents is gone or no longer says the words that were named.
    """
    found = catalog.golden(question_id)
    name = catalog.collection_name(found.collection_id)
    [checked] = check(catalog, catalog.collection(name, counted=False), [found])
    if not checked.can_be_confirmed:
        raise Conflict(f"{' '.join(checked.drift)} Add the question again with what answers it now, or remove it.")
    return catalog.confirm_golden(question_id)


def _standing(
    catalog: Catalog, collection: Collection, document: GoldenDocument, live: Mapping[str, Content]
) -> Standing:
    content = live.get(document.name)
    if content is None or not document.text:
        return document.stands(content)
    return document.stands(content, has_words=bool(passages_of(catalog, collection, document.name, document.text)))


# -- files -------------------------------------------------------------------------------------------------------------


def read_golden(file: Path) -> list[Proposed]:
    """Return the questions of a file of JSON lines or CSV.

    Each has a ``question`` and maybe an ``answer``, the ``documents`` that answer it (names; in JSON also objects with
    ``name`` and ``text``), ``text`` (words of the passage that answers), ``tags``, and ``answerable``, which is false
    where nothing does. In CSV several names or tags have semicolons between them. ``document`` is ``documents``.
    Raises `BadInput`, which names the line, for anything else.
    """
    found: dict[str, tuple[int, Proposed]] = {}
    for number, row in table_rows(file):
        try:
            one = _proposed(row, in_csv=file.suffix.lower() == ".csv")
        except BadInput as error:
            raise BadInput(f"{file}, line {number}: {error.message}") from error
        first, _ = found.setdefault(one.question.casefold(), (number, one))
        if first != number:
            raise BadInput(f"{file}, line {number}: It asks the same as line {first}; leave one of them out.")
    if not found:
        raise BadInput(f"{file} has no questions.")
    return [one for _, one in found.values()]


def _proposed(row: Mapping[str, Any], *, in_csv: bool) -> Proposed:
    given = {key: value for key, value in row.items() if value not in (None, "", [])}
    if None in row:
        raise BadInput("It has more fields than the first line of the file names.")
    if strange := sorted(str(key) for key in given.keys() - COLUMNS):
        raise BadInput(f"{', '.join(strange)[:100]} is not known; the columns are {', '.join(sorted(COLUMNS))}.")
    if "document" in given and "documents" in given:
        raise BadInput("document and documents are the same; leave one of them out.")
    named = _list(given.get("documents", given.get("document", [])), in_csv=in_csv)
    words = _text(given, "text", REFERENCE)
    answerable = given.get("answerable", True)
    if in_csv and isinstance(answerable, str):
        answerable = {"true": True, "false": False}.get(answerable.strip().lower())
    if not isinstance(answerable, bool):
        raise BadInput("answerable is neither true nor false.")
    question = _text(given, "question", QUESTION)
    if question is None:
        raise BadInput("A question is needed.")
    tags = [_checked(tag, "tag", TAG) for tag in _list(given.get("tags", []), in_csv=in_csv)]
    return proposed(
        question, _text(given, "answer", REFERENCE), [_document(one, words) for one in named], tags, answerable
    )


def proposed(
    question: str, answer: str | None, documents: Sequence[GoldenDocument], tags: Sequence[str], answerable: bool
) -> Proposed:
    """Return a question to be added; raises `BadInput` if it asks nothing, contradicts itself or holds too much."""
    question = " ".join(question.split())
    if not WORD.search(question):
        raise BadInput("The question has no words.")
    if not answerable and (answer or documents):
        raise BadInput("A question that nothing answers (answerable is false) has neither an answer nor documents.")
    if len(documents) > MOST_DOCUMENTS or len(tags) > MOST_TAGS:
        raise BadInput(f"A question has {MOST_DOCUMENTS} documents and {MOST_TAGS} tags at most.")
    return Proposed(question, answer, answerable, tuple(dict.fromkeys(documents)), frozenset(tags))


def _list(value: Any, *, in_csv: bool) -> list[Any]:
    if isinstance(value, str):
        parts = value.split(BETWEEN) if in_csv else [value]
        return [part.strip() for part in parts if part.strip()]
    if not isinstance(value, list):
        raise BadInput("documents and tags are lists.")
    return value


def _document(value: Any, words: str | None) -> GoldenDocument:
    if isinstance(value, dict) and value.keys() <= {"name", "text"}:
        name, text = value.get("name"), value.get("text") or words
    else:
        name, text = value, words
    if text is not None and not isinstance(text, str):
        raise BadInput("The text of a document is no text.")
    return GoldenDocument(_checked(name, "name of a document", NAME), text)


def _text(row: Mapping[str, Any], name: str, most: int) -> str | None:
    value = row.get(name)
    return None if value is None else _checked(value, name, most)


def _checked(value: Any, what: str, most: int) -> str:
    if not isinstance(value, str) or not value.strip() or len(value) > most:
        raise BadInput(f"The {what} is no text of 1 to {most:,} characters.")
    return value.strip()


# -- answers of the log ------------------------------------------------------------------------------------------------


def golden_answer(catalog: Catalog, collection: Collection, answer_id: str, tags: Sequence[str] = ()) -> Proposed:
    """Return a question of the log with its answer as the reference: the sentences that are supported by citations.

    Its documents are those of the collection that it cites, with the content that it saw; an abstention becomes a
    question that nothing answers. Raises `NotFound`, and `BadInput` for an answer without texts, of another collection,
    or to a question that means nothing alone.
    """
    logged = catalog.answer(answer_id)
    if logged.texts is None or logged.texts.plan is None:
        raise BadInput("The log has no texts of this answer; add the question with a file.")
    plan, answer = logged.texts.plan, logged.texts.answer
    if [found.id for found in plan.collections] != [collection.id]:
        raise BadInput(f"The answer did not look in {collection.name} alone; add the question with a file.")
    if plan.history or plan.filters:
        raise BadInput("It was asked within a conversation or with filters; add what it means alone with a file.")
    claims = [claim for claim in answer.claims if claim.supported and claim.citations]
    if not answer.abstained and not claims:
        raise BadInput("No sentence of this answer is supported; add the question with a reference of your own.")
    cited = {citation.version_id: citation for claim in claims for citation in claim.citations}
    originals = {version.id: version.sha256 for version in catalog.versions([*cited])}
    documents = tuple(
        GoldenDocument(one.document, None, Content(one.document_id, one.version, originals[key]))
        for key, one in cited.items()
        if key in originals
    )
    reference = " ".join(claim.text for claim in claims) or None
    return Proposed(plan.question, reference, not answer.abstained, documents, frozenset(tags), quoting=bool(claims))
