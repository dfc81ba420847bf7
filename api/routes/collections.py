"""Collections: named sets of documents that are searched together."""

from __future__ import annotations

from fastapi import APIRouter

from api.routes.parts import CollectionName, Whole, problems
from api.schemas import CollectionList, CollectionReply, NewCollection

router = APIRouter(prefix="/v1/collections", tags=["collections"])


@router.post("", status_code=201, summary="Create a collection", responses=problems(400, 409, 422))
def create_collection(body: NewCollection, citewell: Whole) -> CollectionReply:
    """Creates an empty collection."""
    return CollectionReply.of(citewell.store.catalog.create_collection(body.name))


@router.get("", summary="List the collections", responses=problems())
def list_collections(citewell: Whole) -> CollectionList:
    """Lists all collections by name, each with the number of documents and passages that are searched now."""
    found = citewell.store.catalog.list_collections()
    return CollectionList(collections=[CollectionReply.of(collection) for collection in found])


@router.get("/{collection}", summary="Show a collection", responses=problems(404, 422))
def show_collection(collection: CollectionName, citewell: Whole) -> CollectionReply:
    """Shows one collection."""
    return CollectionReply.of(citewell.store.catalog.collection(collection))


@router.delete("/{collection}", status_code=204, summary="Delete a collection", responses=problems(404, 422))
def delete_collection(collection: CollectionName, citewell: Whole) -> None:
    """Deletes a collection with all its documents, for good."""
    citewell.store.delete_collection(collection)
