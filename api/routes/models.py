"""Models: what can be named as ``model`` under the addresses of OpenAI's and NIM's APIs."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path

from api.model_names import find_model, list_models
from api.openai_schemas import ModelList, ModelReply, OpenAIProblemReply
from api.routes.parts import Whole, problems

router = APIRouter(prefix="/v1/models", tags=["OpenAI-compatible"])
ModelName = Annotated[str, Path(description="Name of the model.", examples=["citewell/handbook"])]


@router.get("", summary="List the models", responses=problems(model=OpenAIProblemReply))
def show_models(citewell: Whole) -> ModelList:
    """Lists the embedder, what ranks, and every collection as the model that answers from it."""
    return ModelList(data=[ModelReply.of(model) for model in list_models(citewell)])


@router.get("/{model:path}", summary="Show a model", responses=problems(404, 422, model=OpenAIProblemReply))
def show_model(model: ModelName, citewell: Whole) -> ModelReply:
    """Shows one model, also those that are not listed.

    These are several collections (`citewell/handbook,reports`) and the embedder with `-query` or `-passage`.
    """
    return ModelReply.of(find_model(citewell, model))
