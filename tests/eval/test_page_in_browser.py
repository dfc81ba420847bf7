"""The page in a real browser: nothing is asked of any host, the console stays silent, and nobody is shut out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from eval.page import as_html
from eval.runs import Request
from tests.chromium import Open, Opened
from tests.eval.reported import asked, findings, run_of
from tests.listening import listening

#: A4 between its margins, at 96 dots per inch.
PAPER = {"width": 718, "height": 1000}
SIZES = {"desktop": {"width": 1280, "height": 800}, "phone": {"width": 390, "height": 780}}


@pytest.fixture
def shown(open_page: Open, tmp_path: Path):
    """Opens a page that lies in a file."""

    def _shown(page: str, **options: object) -> Opened:
        (tmp_path / "page.html").write_text(page)
        return open_page((tmp_path / "page.html").as_uri(), **options)

    return _shown


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

    opened = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    with listening(opened):
        yield f"http://127.0.0.1:{opened.server_port}", paths


def test_hostile_texts_reach_nobody_and_run_nothing(shown):
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
        seen = shown(as_html(findings(run, questions={"1": hostile}), address))
        assert "Where it goes wrong" in seen.page.content()
        assert seen.console == []
        assert seen.hosts == {""}  # the file itself
        assert paths == []

        seen = shown(f"<!doctype html><title>x</title>{hostile}")
        assert "error: 1" in seen.console
        assert sorted(paths) == ["/a.png", "/b.css"]


@pytest.mark.parametrize("size", SIZES)
def test_nothing_serious_stands_in_anybodys_way(shown, size):
    """axe finds nothing; on a phone and on paper nothing is wider than what it stands on."""
    scores = {"correctness": 0.5, "recall@8": 1.0, "faithfulness": 0.9}
    run = run_of([asked(str(number), scores, failed=number % 2 == 0, tags=("travel",)) for number in range(6)])
    questions = {str(number): f"What is the limit of number {number}?" for number in range(6)}
    seen = shown(as_html(findings(run, questions=questions), "/v1/answers"), viewport=SIZES[size])
    assert seen.findings() == []
    wide = "() => document.documentElement.scrollWidth <= innerWidth"
    assert seen.page.evaluate(wide)
    seen.page.set_viewport_size(PAPER)
    seen.page.emulate_media(media="print")
    assert seen.page.evaluate(wide)
