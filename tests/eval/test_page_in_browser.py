"""The page in a real browser: nothing is asked of any host, and the console stays silent."""

from __future__ import annotations

import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from eval.page import as_html
from eval.runs import Request
from tests.eval.reported import asked, findings, run_of

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome") or ""
OPTIONS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--no-first-run", "--enable-logging=stderr", "--dump-dom",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]  # fmt: skip

pytestmark = pytest.mark.skipif(not CHROMIUM, reason="no Chromium is installed")


def shown(page: str, tmp_path: Path) -> tuple[str, list[str]]:
    """Return what the browser makes of a page, and what is written to its console."""
    (tmp_path / "page.html").write_text(page)
    profile = f"--user-data-dir={tmp_path / 'profile'}"
    done = subprocess.run(
        [CHROMIUM, *OPTIONS, profile, (tmp_path / "page.html").as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


@contextmanager
def server() -> Iterator[tuple[str, list[str]]]:
    """Serve nothing; yields the address and the paths that were asked for."""
    paths: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            paths.append(self.path)
            self.send_error(404)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as opened:
        thread = threading.Thread(target=opened.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"http://127.0.0.1:{opened.server_port}", paths
        finally:
            opened.shutdown()
            thread.join()


def test_hostile_texts_reach_nobody_and_run_nothing(tmp_path):
    """The texts try to load from a server, which nobody calls; put into a page as they are, they do reach it."""
    with server() as (address, paths):
        hostile = (
            f"<img src={address}/a.png><link rel=stylesheet href={address}/b.css><script>console.error(1)</script>"
        )
        run = run_of(
            [asked("1", {"correctness": 0.0}, failed=True, tags=(hostile,), error=hostile)],
            request=Request(label=hostile),
            left_out=(hostile,),
        )
        page = as_html(findings(run, questions={"1": hostile}), address)
        dom, console = shown(page, tmp_path)
        assert "Where it goes wrong" in dom
        assert console == []
        assert paths == []

        _, console = shown(f"<!doctype html><title>x</title>{hostile}", tmp_path)
        assert any('"1"' in line for line in console)
        assert sorted(paths) == ["/a.png", "/b.css"]
