"""Golden questions: added, listed, checked against the documents, confirmed, removed."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, Path, Query

from api.golden_schemas import AddedList, AddedReply, CheckReply, GoldenList, GoldenReply, NewGolden
from api.routes.parts import Whole, problems
from eval.golden import check, check_all, confirm, golden_answer
from rag.assembly import Citewell
from rag.errors import BadInput
from rag.golden import GoldenQuestion

router = APIRouter(prefix="/v1/golden", tags=["golden"])

GoldenId = Annotated[str, Path(description="Id of the question.", examples=["3f1d0c9e8b7a46529c3d2e1f0a9b8c7d"])]


@router.post("", status_code=201, summary="Add golden questions", responses=problems(400, 404, 422, 503))
def add_golden(body: NewGolden, citewell: Whole) -> AddedList:
    """Adds questions to the golden set of a collection, all or none, each in place of one with the same words.

    Its documents are confirmed as they are searched now; one that is not in the collection is taken, and said to be
    gone.
    """
    if not body.questions and not body.answers:
        raise BadInput("Neither questions nor answers are there to be added.")
    catalog = citewell.store.catalog
    collection = catalog.collection(body.collection, counted=False)
    wanted = [one.proposed for one in body.questions]
    wanted += [golden_answer(catalog, collection, answer_id) for answer_id in body.answers]
    added = catalog.add_golden(collection.id, [replace(one, tags=one.tags | {*body.tags}) for one in wanted])
    checked = check(catalog, collection, [found for _, found in added])
    outcomes = (outcome for outcome, _ in added)
    return AddedList(questions=[AddedReply.added(*pair) for pair in zip(outcomes, checked, strict=True)])


@router.get("", summary="List golden questions", responses=problems(404, 422, 503))
def list_golden(
    citewell: Whole,
    collection: Annotated[str | None, Query(description="Only those about this collection.")] = None,
    tag: Annotated[str | None, Query(description="Only those with this tag.")] = None,
    limit: Annotated[int, Query(ge=1, le=1000, description="Most questions on a page.")] = 100,
    after: Annotated[str | None, Query(description="The `next` of the page before.")] = None,
) -> GoldenList:
    """Lists golden questions by collection, in the order in which they came."""
    catalog = citewell.store.catalog
    here = None if collection is None else catalog.collection(collection, counted=False).id
    found = catalog.list_golden(here, tag=tag, after=after, limit=limit + 1)
    more = found[limit - 1].id if len(found) > limit else None
    return GoldenList(questions=[GoldenReply.of(question) for question in found[:limit]], next=more)


@router.get("/check", summary="Find golden questions that have drifted", responses=problems(404, 422, 503))
def check_golden(
    citewell: Whole, collection: Annotated[str | None, Query(description="Only those about this collection.")] = None
) -> CheckReply:
    """Says which questions somebody should look at again: a document that answers has another content than the one that
    was confirmed, no longer says the words that were named, or is gone.
    """
    checked = check_all(citewell.store.catalog, collection)
    drifted = [GoldenReply.of(one.question, one) for one in checked if one.drift]
    return CheckReply(checked=len(checked), drifted=drifted)


@router.get("/{question_id}", summary="Show a golden question", responses=problems(404, 422, 503))
def show_golden(question_id: GoldenId, citewell: Whole) -> GoldenReply:
    """Shows a golden question, and how each of its documents stands to it now."""
    return _checked(citewell, citewell.store.catalog.golden(question_id))


@router.post("/{question_id}/confirm", summary="Confirm a golden question", responses=problems(404, 409, 422, 503))
def confirm_golden(question_id: GoldenId, citewell: Whole) -> GoldenReply:
    """Says that a question still holds with the documents as they are now."""
    return _checked(citewell, confirm(citewell.store.catalog, question_id))


@router.delete("/{question_id}", status_code=204, summary="Remove a golden question", responses=problems(404, 422, 503))
def remove_golden(question_id: GoldenId, citewell: Whole) -> None:
    """Removes a golden question for good."""
    citewell.store.catalog.remove_golden(question_id)


def _checked(citewell: Citewell, found: GoldenQuestion) -> GoldenReply:
    catalog = citewell.store.catalog
    collection = catalog.collection(catalog.collection_name(found.collection_id), counted=False)
    [checked] = check(catalog, collection, [found])
    return GoldenReply.of(found, checked)
