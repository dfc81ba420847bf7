"""The pages: self-contained HTML with its own scripts and style, served from the package and from nowhere else."""

from __future__ import annotations

from importlib.resources import files

from fastapi import APIRouter
from starlette.exceptions import HTTPException
from starlette.responses import Response

router = APIRouter(include_in_schema=False)

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
TYPES = {
    "index.html": "text/html",
    "docs.html": "text/html",
    "index.js": "text/javascript",
    "docs.js": "text/javascript",
    "citewell.css": "text/css",
    "icon.svg": "image/svg+xml",
}


@router.get("/")
def index() -> Response:
    """The page to ask a question."""
    return _page("index.html")


@router.get("/docs")
def docs() -> Response:
    """The page that shows ``/openapi.json`` to people."""
    return _page("docs.html")


@router.get("/pages/{name}")
def asset(name: str) -> Response:
    """A script, style or picture of the pages."""
    if name not in TYPES:
        raise HTTPException(404)
    return _page(name)


def _page(name: str) -> Response:
    content = files("api").joinpath("pages", name).read_bytes()
    headers = {"Content-Security-Policy": POLICY, "Cache-Control": "no-cache"}
    return Response(content, headers=headers, media_type=TYPES[name])
