"""The pages: self-contained HTML with its own scripts and style, served from the package and from nowhere else.

What they show comes from documents and from people, so the policy lets a browser run nothing but the files of the
package, and refuses scripts that make HTML of text.
"""

from __future__ import annotations

import hashlib
from importlib.resources import files
from pathlib import PurePath
from typing import Annotated

from fastapi import APIRouter, Header
from starlette.exceptions import HTTPException
from starlette.responses import Response

router = APIRouter(include_in_schema=False)

#: Pictures are also shown from memory: pages of documents are fetched with a key, which a plain address can not carry.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}

NoneMatch = Annotated[str, Header(alias="If-None-Match")]


@router.get("/")
def index(if_none_match: NoneMatch = "") -> Response:
    """The page to ask, to keep documents, reports and keys."""
    return _page("index.html", if_none_match)


@router.get("/docs")
def docs(if_none_match: NoneMatch = "") -> Response:
    """The page that shows ``/openapi.json`` to people."""
    return _page("docs.html", if_none_match)


@router.get("/pages/{name}")
def asset(name: str, if_none_match: NoneMatch = "") -> Response:
    """A script, style or picture of the pages."""
    if name not in {path.name for path in files("api").joinpath("pages").iterdir()}:
        raise HTTPException(404)
    return _page(name, if_none_match)


def _page(name: str, known: str) -> Response:
    content = files("api").joinpath("pages", name).read_bytes()
    tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    headers = {"Content-Security-Policy": POLICY, "Cache-Control": "no-cache", "ETag": tag}
    if tag in known:
        return Response(status_code=304, headers=headers)
    return Response(content, headers=headers, media_type=TYPES[PurePath(name).suffix])
