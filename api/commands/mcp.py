"""``citewell mcp``: tools for clients of the Model Context Protocol, over standard input and output or loopback HTTP.

Knows where the tools get their answers from; what they are is in ``api.mcp_server``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from api.commands.options import Data, read_settings, read_used_settings
from rag.errors import Misconfigured

if TYPE_CHECKING:
    from api.mcp_server import Tools
    from rag.settings import Settings


def mcp(
    ctx: typer.Context,
    url: Annotated[
        str | None,
        typer.Option(
            "--url",
            metavar="URL",
            help="Ask this running server instead of the data folder; the setting access.key holds its key.",
        ),
    ] = None,
    collection: Annotated[
        list[str] | None,
        typer.Option(
            "--collection", "-c", metavar="NAME", help="Show only this collection; give it again for one more."
        ),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option("--port", metavar="N", min=0, max=65535, help="Serve at http://127.0.0.1:N/mcp instead; 0: any."),
    ] = None,
    data: Data = None,
) -> None:
    """Serve search, ask and fetch-document tools to an MCP client.

    The client starts this command and speaks to it over standard input and output; it ends when the client closes them.
    The tools only read. Models are loaded when one is first called. The log goes to standard error.
    """
    if url is None:
        settings = read_used_settings(ctx, data, log_default="info")
    else:
        settings = read_settings(ctx, data, log_default="info")
    tools = _tools(settings, url, collection or [])
    import asyncio
    import signal

    from api.mcp_server import serve_stdio
    from api.version import product_version

    if port is None:
        # The thread that waits for input can not be interrupted: let Ctrl-C end the process, as SIGTERM does.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        asyncio.run(serve_stdio(tools, product_version()))
    else:
        asyncio.run(_serve_http(tools, product_version(), port))


def _tools(settings: Settings, url: str | None, collections: list[str]) -> Tools:
    """Return the tools; raises `Misconfigured` if the protocol's library is not installed."""
    try:
        from api.mcp_server import Tools
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in {"mcp", "mcp_types"}:
            raise
        raise Misconfigured("The MCP library is not installed; run `pip install 'citewell[mcp]'`.") from error
    from contextlib import nullcontext

    from api.doors import ServerDoor, opened_door

    if url is None:
        return Tools(lambda: opened_door(settings), collections)
    key = settings.access.key
    door = ServerDoor(url, key.get_secret_value() if key else None)
    return Tools(lambda: nullcontext(door), collections)


async def _serve_http(tools: Tools, version: str, port: int) -> None:
    """Serve clients on loopback until told to stop; raises `Conflict` if the port is taken."""
    import uvicorn

    from api.commands.terminal import note
    from api.listening import bound
    from api.mcp_server import http_app

    with bound("127.0.0.1", port) as listener:
        config = uvicorn.Config(http_app(tools, version), log_config=None, access_log=False, ws="none")
        note(f"Serving MCP at http://127.0.0.1:{listener.getsockname()[1]}/mcp")
        try:
            await uvicorn.Server(config).serve(sockets=[listener])
        finally:
            await tools.aclose()
