"""The application is a value: `create_app` makes it from a running whole, and nothing happens at import.

Puts routes, error shape and guard together, and decides nothing else: what an error means is in ``api.problems``, who
is turned away in ``api.guard``.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from typing import TYPE_CHECKING

from fastapi import Depends, FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from api.access import Gatekeeper, admit
from api.guard import Doorkeeper, Envelope, Places
from api.keyring import Keyring
from api.limits import FOLDER, Meter
from api.page_pictures import PagePictures
from api.problems import on_citewell_error, on_http_error, on_invalid_request
from api.resuming import end_all
from api.routes import (
    answers,
    ask,
    batches,
    chat,
    collections,
    documents,
    embeddings,
    golden,
    health,
    keys,
    metrics,
    models,
    pages,
    pictures,
    ranking,
    reports,
    search,
    vector_stores,
)
from api.version import product_version
from rag.assembly import Citewell
from rag.errors import CitewellError, Misconfigured
from rag.settings import AccessSettings

if TYPE_CHECKING:
    from api.oidc import Issuer

#: All files of one upload together may have so many times the bytes of the largest file that is taken.
FILES_WORTH = 4
DESCRIPTION = """Answers questions over your own documents. Every sentence of an answer carries citations that were
checked: the quote stands, word for word, at its place in the source.

Create a collection, upload files to it, wait until they are `ready`, and ask. Every error has one shape,
`{"error": {"code", "message", "details"}}`, and every response an `X-Request-Id` that is in the log.

Clients of OpenAI's API, and of NVIDIA NIM's for embeddings and rankings, work with the base URL of this server with
`/v1` behind it, and a key of this server as their API key (any, as long as there are none); a collection is the model
`citewell/COLLECTION`. Errors have a `type` and a `param` there besides.

Once there is a key, every request needs one: `Authorization: Bearer cw_...`, or `X-API-Key`. What a key does not see is
answered as what does not exist."""


def create_app(citewell: Citewell) -> FastAPI:
    """Return the REST API over ``citewell``. When its event loop ends, the generator's connections are closed with it.

    The caller opens and closes the whole; documents are read by a worker that the caller runs beside it.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        with closing(Meter(settings.access, settings.data / FOLDER)) as app.state.meter:
            yield
        await end_all(app.state.tellings)
        await citewell.generator.aclose()
        await asyncio.to_thread(app.state.pictures.close)
        await keyring.aclose()

    settings = citewell.store.settings
    issuer = _open_issuer(settings.access)
    keyring = Keyring(citewell.store.catalog, closed=issuer is not None)
    app = FastAPI(
        title="Citewell",
        version=product_version(),
        description=DESCRIPTION,
        docs_url=None,  # the framework's pages load scripts from other hosts; ours are in api/pages
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
        dependencies=[Depends(admit)],
        generate_unique_id_function=lambda route: route.name,
        telemetry={
            "auto_configure": False,
            "tracing": False,
            "metrics": False,
            "logs": False,
            "operation_spans": False,
        },
    )
    app.state.citewell = citewell
    app.state.keyring = keyring
    app.state.stopping = threading.Event()  # set when the server is told to stop: streams without an end then end
    app.state.answers = Places(settings.server.max_answers)
    app.state.drawings = Places(pictures.MOST_AT_ONCE)
    app.state.pictures = PagePictures(settings)
    app.state.tellings = set()  # the tasks of answers that go on without their client
    app.add_exception_handler(CitewellError, on_citewell_error)  # type: ignore[arg-type]
    app.add_exception_handler(HTTPException, on_http_error)  # type: ignore[arg-type]
    app.add_exception_handler(RequestValidationError, on_invalid_request)  # type: ignore[arg-type]
    for routes in (health, collections, documents, pictures, batches, search, ask, answers, golden, reports, pages):
        app.include_router(routes.router)
    for routes in (chat, models, embeddings, ranking, vector_stores, metrics, keys):
        app.include_router(routes.router)
    app.add_middleware(Gatekeeper, keyring=keyring, issuer=issuer, settings=settings)
    if settings.access.origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.access.origins,
            allow_methods=["GET", "POST", "PUT", "DELETE"],
            allow_headers=["Authorization", "X-API-Key", "X-Request-Id", "Last-Event-ID", "Citewell-Metadata"],
            expose_headers=["X-Request-Id", "Retry-After"],
        )
    app.add_middleware(
        Doorkeeper,
        upload_bytes=FILES_WORTH * settings.ingest.max_file_bytes,
        keyring=keyring,
        access=settings.access,
    )
    app.add_middleware(Envelope, telemetry=citewell.telemetry)  # added last, so that it is outermost
    return app


def _open_issuer(settings: AccessSettings) -> Issuer | None:
    """Return the issuer of tokens that the settings name; raises `Misconfigured` if its library is not installed."""
    if settings.oidc_issuer is None:
        return None
    try:
        from api.oidc import Issuer
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in {"jwt", "cryptography"}:
            raise
        raise Misconfigured("access.oidc_issuer needs PyJWT; run `pip install 'citewell[oidc]'`.") from error
    return Issuer(settings)
