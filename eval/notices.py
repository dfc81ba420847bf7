"""Who is told of a report: a webhook, signed and tried again, and people by mail where a report has not passed.

What is told holds verdict and figures, and no text of a question or a document. The signature is an HMAC with SHA-256
of the time and the body, in hexadecimal, under the secret of the settings:

    X-Citewell-Signature: t=1700000000,v1=<hmac of "1700000000." and the body>

Knows findings, and nothing of when a report runs.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import smtplib
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from email.message import EmailMessage

import httpx

from eval.figures import Figure
from eval.findings import Findings
from rag.errors import Unavailable
from rag.reported import Reported
from rag.settings import ReportSettings

#: How often a call is tried, and seconds before the second try, doubled for each one after it.
ATTEMPTS, PAUSE = 4, 2.0
TIMEOUT = 20.0


@dataclass(frozen=True, slots=True)
class Notice:
    """What is told of a report: whether it has passed, why it has not, and its scores, if it came to its end."""

    report_id: str
    ended_at: datetime
    passed: bool
    reasons: tuple[str, ...]
    headlines: Mapping[str, Figure] = field(default_factory=dict)
    causes: Mapping[str, int] = field(default_factory=dict)

    def as_json(self) -> dict[str, object]:
        """Return what a webhook is told."""
        return {
            "event": "report",
            "report_id": self.report_id,
            "ended_at": self.ended_at.isoformat(),
            "passed": self.passed,
            "reasons": list(self.reasons),
            "headlines": {name: figure.as_json() for name, figure in self.headlines.items()},
            "causes": dict(self.causes),
        }


def notice_of(found: Findings) -> Notice:
    """Return what is told of a report that came to its end."""
    causes = {cause.value: count for cause, count in found.causes.items()}
    verdict = found.verdict
    return Notice(found.run.id, found.run.ended_at, verdict.passed, verdict.reasons, found.headlines, causes)


def notice_of_failure(reported: Reported) -> Notice:
    """Return what is told of a report that could not be made: it has not passed either."""
    reason = f"The report could not be made. {reported.error or ''}".strip()
    return Notice(reported.id, reported.ended_at or reported.created_at, passed=False, reasons=(reason,))


def notify(settings: ReportSettings, notice: Notice, rest: Callable[[float], object] = time.sleep) -> list[str]:
    """Tell everybody that the settings name; return a sentence for each who could not be told."""
    failures = []
    for tell in (_tell_webhook, _tell_people):
        try:
            tell(settings, notice, rest)
        except Unavailable as error:
            failures.append(error.message)
    return failures


def signature(secret: str, body: bytes, at: int) -> str:
    """Return the header by which the receiver of a call knows who made it, and when."""
    return f"t={at},v1={hmac.new(secret.encode(), f'{at}.'.encode() + body, hashlib.sha256).hexdigest()}"


def _tell_webhook(settings: ReportSettings, notice: Notice, rest: Callable[[float], object]) -> None:
    if not (settings.webhook_url and settings.webhook_secret):
        return
    body = json.dumps(notice.as_json()).encode()
    reason = ""
    for attempt in range(ATTEMPTS):
        if attempt:
            rest(PAUSE * 2 ** (attempt - 1))
        signed = signature(settings.webhook_secret.get_secret_value(), body, int(time.time()))
        headers = {"Content-Type": "application/json", "User-Agent": "citewell", "X-Citewell-Signature": signed}
        try:
            with httpx.Client(timeout=TIMEOUT, trust_env=False) as client:
                status = client.post(settings.webhook_url, content=body, headers=headers).status_code
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            reason = type(error).__name__
            continue
        if status < 300:
            return
        reason = f"status {status}"
        if status < 500 and status != 429:  # it will not think otherwise the next time
            break
    raise Unavailable(f"The webhook of the report could not be told ({reason}).")


def _tell_people(settings: ReportSettings, notice: Notice, _: Callable[[float], object]) -> None:
    if not (settings.mail_to and settings.smtp_host) or notice.passed:
        return
    context = ssl.create_default_context()
    try:
        if settings.smtp_security == "tls":
            with smtplib.SMTP_SSL(settings.smtp_host, settings.smtp_port, timeout=TIMEOUT, context=context) as server:
                _send(server, settings, notice)
            return
        with smtplib.SMTP(settings.smtp_host, settings.smtp_port, timeout=TIMEOUT) as server:
            if settings.smtp_security == "starttls":
                server.starttls(context=context)
            _send(server, settings, notice)
    except (OSError, smtplib.SMTPException) as error:
        raise Unavailable(f"The mail about the report could not be sent ({type(error).__name__}).") from error


def _send(server: smtplib.SMTP, settings: ReportSettings, notice: Notice) -> None:
    if settings.smtp_user and settings.smtp_password:
        server.login(settings.smtp_user, settings.smtp_password.get_secret_value())
    server.send_message(mail(settings, notice))


def mail(settings: ReportSettings, notice: Notice) -> EmailMessage:
    """Return the mail about a report that has not passed."""
    message = EmailMessage()
    message["Subject"] = f"Citewell: the quality report of {notice.ended_at:%Y-%m-%d} has not passed"
    message["From"], message["To"] = settings.mail_from, ", ".join(settings.mail_to)
    scores = [
        f"{name:<20} {figure.value:.3f} ({figure.low:.3f} to {figure.high:.3f})"
        for name, figure in notice.headlines.items()
    ]
    shown = f"All of it: citewell report show {notice.report_id}"
    lines = ["The quality report has not passed:", "", *notice.reasons, "", *scores, "", shown, ""]
    message.set_content("\n".join(lines))
    return message
