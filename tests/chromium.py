"""A real headless Chromium: pages are opened in it, and what they say, ask for and get wrong is kept.

The browser is one that the machine has; without one, or without playwright, the tests that need it are skipped. It
resolves no name and reaches no address but this machine's, so that a page that wants more is seen to fail.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome") or ""
OPTIONS = [
    "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--no-first-run", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]  # fmt: skip
#: How long to wait for what is to appear: machines are busy at times.
PATIENCE_MS = 60_000
#: Findings of axe that count: what stands in the way of somebody.
SERIOUS = frozenset({"serious", "critical"})


@dataclass
class Opened:
    """A page in the browser, the lines of its console (errors that nothing caught too), and the hosts it asked."""

    page: Any
    console: list[str] = field(default_factory=list)
    hosts: set[str] = field(default_factory=set)

    def findings(self) -> list[str]:
        """Return what axe finds serious in the page as it is now, each with the elements that have it."""
        from axe_playwright_python.sync_playwright import Axe

        found = Axe().run(self.page).response["violations"]
        return [
            f"{one['id']}: {', '.join(str(node['target']) for node in one['nodes'])}"
            for one in found
            if one["impact"] in SERIOUS
        ]


Open = Callable[..., Opened]


# Not for the whole session: while playwright is started, its event loop counts as running, and no test of the same
# thread could run one of its own.
@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """The browser, started once for all tests of a file."""
    if not CHROMIUM:
        pytest.skip("no Chromium is installed")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    playwright.expect.set_options(timeout=PATIENCE_MS)
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=OPTIONS)
        yield browser
        browser.close()


@pytest.fixture
def open_page(chromium: Any) -> Iterator[Open]:
    """Open an address in a fresh context, with playwright's options of one: size, colours, no network."""
    contexts = []

    def opened(address: str, **options: Any) -> Opened:
        context = chromium.new_context(**options)
        context.set_default_timeout(PATIENCE_MS)
        contexts.append(context)
        seen = Opened(context.new_page())
        seen.page.on("console", lambda message: seen.console.append(f"{message.type}: {message.text}"))
        seen.page.on("pageerror", lambda error: seen.console.append(f"error: {error}"))
        seen.page.on("request", lambda request: seen.hosts.add(urlsplit(request.url).netloc))
        seen.page.goto(address)
        return seen

    yield opened
    for context in contexts:
        context.close()
