"""Embeddings: texts to vectors by the embedder that searches use, in OpenAI's and NIM's shapes.

The work is done in a thread, for all who ask at the time together; when a client leaves, it leaves their line.
"""

from __future__ import annotations

import asyncio
import base64

import numpy as np
from fastapi import APIRouter, Request
from starlette.responses import Response

from api.leaving import unless_gone
from api.model_names import embedder_role
from api.openai_schemas import EmbeddingList, EmbeddingReply, EmbeddingRequest, EmbeddingUsage, OpenAIProblemReply
from api.routes.parts import Whole, problems
from rag.encodings import Embedded
from rag.errors import BadInput
from rag.protocols import Vectors

router = APIRouter(prefix="/v1", tags=["OpenAI-compatible"])


@router.post(
    "/embeddings",
    summary="Embed texts",
    response_model=EmbeddingList,
    responses=problems(400, 404, 422, 429, 500, 503, model=OpenAIProblemReply),
)
async def embed(body: EmbeddingRequest, request: Request, citewell: Whole) -> Response:
    """Returns a vector of length 1 for each text. Usage counts the tokens of the model that were read."""
    role = embedder_role(citewell, body.model, body.input_type)
    dimension = citewell.embedder.dimension
    if body.dimensions not in {None, dimension}:
        raise BadInput(
            f"dimensions is {body.dimensions}, and the model's vectors have {dimension}, which are not shortened; "
            "leave it out.",
            param="dimensions",
        )
    found = citewell.encodings.embed(body.input, role, body.truncate, lambda embedded: _written(body, embedded))
    written = await unless_gone(request.receive, asyncio.wrap_future(found))
    return Response(written, headers={"Content-Type": "application/json"})


def _written(body: EmbeddingRequest, embedded: Embedded) -> bytes:
    """Write the reply down in the thread that has embedded, since a long one takes its time."""
    in_base64 = body.encoding_format == "base64"
    vectors = [_in_base64(row) if in_base64 else row.tolist() for row in embedded.vectors]
    data = [EmbeddingReply.model_construct(index=place, embedding=vector) for place, vector in enumerate(vectors)]
    usage = EmbeddingUsage(prompt_tokens=embedded.tokens, total_tokens=embedded.tokens)
    return EmbeddingList.model_construct(data=data, model=body.model, usage=usage).model_dump_json().encode()


def _in_base64(vector: Vectors) -> str:
    return base64.b64encode(vector.astype(np.dtype("<f4")).tobytes()).decode("ascii")
