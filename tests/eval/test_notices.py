"""Who is told of a report: a webhook by signed calls that are tried again, people by mail, each by a real server."""

from __future__ import annotations

import hashlib
import hmac
import json
import socketserver
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from eval.gates import Gate
from eval.notices import ATTEMPTS, mail, notice_of, notify
from rag.settings import ReportSettings
from tests.eval.reported import asked, findings, run_of
from tests.listening import listening

SECRET = "a-very-secret-key"
RUN = run_of([asked("1", {"correctness": 0.5}, tags=("secret",))])
FOUND = notice_of(findings(RUN, gates=[Gate(metric="correctness", minimum=0.8)]))


@contextmanager
def webhook(*statuses: int) -> Iterator[tuple[str, list[tuple[str, bytes]]]]:
    """Serve a receiver that answers with each status in turn; yields its address, and signature and body of calls."""
    calls: list[tuple[str, bytes]] = []
    left = list(statuses)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            calls.append((self.headers["X-Citewell-Signature"], body))
            self.send_response(left.pop(0))
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    with listening(server):
        yield f"http://127.0.0.1:{server.server_port}/hook", calls


def settings(url: str) -> ReportSettings:
    return ReportSettings(webhook_url=url, webhook_secret=SECRET)


def test_a_call_is_signed_over_its_time_and_body():
    with webhook(204) as (url, calls):
        assert notify(settings(url), FOUND) == []
    [(signed, body)] = calls
    at, _, given = signed.removeprefix("t=").partition(",v1=")
    assert given == hmac.new(SECRET.encode(), f"{at}.".encode() + body, hashlib.sha256).hexdigest()
    told = json.loads(body)
    assert (told["passed"], told["headlines"]["correctness"]["value"]) == (False, 0.5)
    assert "secret" not in body.decode()


def test_a_call_that_failed_is_made_again_after_longer_and_longer_pauses():
    pauses: list[float] = []
    with webhook(503, 429, 200) as (url, calls):
        assert notify(settings(url), FOUND, pauses.append) == []
    assert (len(calls), pauses) == (3, [2.0, 4.0])


def test_a_receiver_that_refuses_is_not_asked_again():
    with webhook(403) as (url, calls):
        assert notify(settings(url), FOUND) == ["The webhook of the report could not be told (status 403)."]
    assert len(calls) == 1


def test_nobody_there_is_said_so_without_the_secret():
    pauses: list[float] = []
    [failure] = notify(settings("http://127.0.0.1:9/hook"), FOUND, pauses.append)
    assert failure == "The webhook of the report could not be told (ConnectError)."
    assert len(pauses) == ATTEMPTS - 1


@contextmanager
def mailbox() -> Iterator[tuple[int, list[str]]]:
    """Serve as much of SMTP (RFC 5321) as one mail needs; yields the port and the lines that were received."""
    lines: list[str] = []

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.wfile.write(b"220 here\r\n")
            data = False
            for raw in self.rfile:
                line = raw.decode().rstrip("\r\n")
                lines.append(line)
                if data and line != ".":
                    continue
                data = line.lower() == "data"
                self.wfile.write(
                    b"354 go on\r\n" if data else b"221 bye\r\n" if line.lower() == "quit" else b"250 ok\r\n"
                )
                if line.lower() == "quit":
                    return

    server = socketserver.TCPServer(("127.0.0.1", 0), Handler)
    with listening(server):
        yield server.server_address[1], lines


def mailed(port: int) -> ReportSettings:
    return ReportSettings(
        mail_to=["owner@example.org"], smtp_host="127.0.0.1", smtp_port=port, smtp_security="none"
    )  # fmt: skip


def test_people_get_a_mail_about_a_report_that_has_not_passed():
    with mailbox() as (port, lines):
        assert notify(mailed(port), FOUND) == []
    assert "rcpt TO:<owner@example.org>" in lines
    assert "Subject: Citewell: the quality report of 2026-11-22 has not passed" in lines
    assert "correctness is 0.5, below the minimum of 0.8." in lines
    assert "secret" not in "".join(lines)


def test_of_a_report_that_has_passed_nobody_gets_a_mail():
    with mailbox() as (port, lines):
        assert notify(mailed(port), notice_of(findings(RUN))) == []
    assert lines == []


def test_a_mail_server_that_is_not_there_is_said_so():
    [failure] = notify(mailed(9), FOUND)
    assert failure == "The mail about the report could not be sent (ConnectionRefusedError)."


def test_a_mail_is_one_that_can_be_sent():
    message = mail(mailed(25), FOUND)
    assert message["To"] == "owner@example.org"
    assert f"citewell report show {FOUND.report_id}" in message.get_content()


@pytest.mark.parametrize(
    "values",
    [{"webhook_url": "http://127.0.0.1/x"}, {"mail_to": ["a@example.org"]}],
    ids=["webhook_without_a_secret", "mail_without_a_server"],
)
def test_settings_that_tell_nobody_are_refused(values):
    with pytest.raises(ValueError, match="is not"):
        ReportSettings(**values)
