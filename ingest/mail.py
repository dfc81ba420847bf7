"""E-mail: the body, and from whom, to whom, when and about what. Owns oxmsg.

Attachments are not read, only named in the metadata: each is a document of its own, and is ingested as one.
"""

from __future__ import annotations

import email
import email.policy
import email.utils
from pathlib import Path
from typing import Any

from ingest.detect import decode
from ingest.draft import Draft, meaningful_title
from ingest.partition import read_html, visible_words
from ingest.text import read_text
from rag.errors import EmptyDocument, EncryptedDocument
from rag.records import Kind

_FIELDS = ("From", "To", "Cc", "Date", "Subject")


def read_eml(path: Path, draft: Draft) -> None:
    """Add a message in Internet format (or a web archive) to ``draft``: its header lines, then its body.

    Raises `EncryptedDocument` and, for a message of attachments only, `EmptyDocument`.
    """
    data = path.read_bytes()
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):  # saved as UTF-16; the parts inside speak of the encoding before that
        data = decode(data).encode()
    message = email.message_from_bytes(data, policy=email.policy.default)
    if message.get_content_type() == "multipart/encrypted":
        raise EncryptedDocument("The message is encrypted: decrypt it in the mail program and ingest the saved copy.")
    attachments = [part.get_filename() or part.get_content_type() for part in message.iter_attachments()]
    _add_header({field: str(message.get(field) or "") for field in _FIELDS}, attachments, draft)
    plain, page = message.get_body(preferencelist=("plain",)), message.get_body(preferencelist=("html",))
    _check_body(plain is not None or page is not None, attachments)
    _add_body(_body_text(plain), _body_text(page), draft)


def _add_body(plain: str | None, page: str | None, draft: Draft) -> None:
    """Add the plain body, in which nothing is laid out with tables, unless it is only a stub beside the page."""
    if page is None or (plain is not None and len(plain.split()) > 0.2 * len(visible_words(page))):
        read_text(plain or "", draft)
    else:
        read_html(page, draft)


def _body_text(part: Any) -> str | None:
    """Return the text of a part, also where it names an encoding that there is none of."""
    if part is None:
        return None
    payload = part.get_payload(decode=True)
    return decode(payload, part.get_content_charset()) if isinstance(payload, bytes) else ""


def _check_body(found: bool, attachments: list[str]) -> None:
    if found:
        return
    if attachments:
        raise EmptyDocument(
            f"The message has no text of its own, only attachments ({len(attachments)}): save these and ingest them."
        )
    raise EmptyDocument("The message has no body: there is nothing to index.")


def _add_header(fields: dict[str, str], attachments: list[str], draft: Draft) -> None:
    draft.title = meaningful_title(fields["Subject"])
    draft.note(
        **{"from": fields["From"], "to": fields["To"], "cc": fields["Cc"], "subject": fields["Subject"]},
        date=_iso_date(fields["Date"]),
        attachments=attachments,
    )
    draft.add(Kind.HEADER, "\n".join(f"{name}: {' '.join(value.split())}" for name, value in fields.items() if value))


def _iso_date(value: str) -> str:
    try:
        return email.utils.parsedate_to_datetime(value).isoformat()
    except (ValueError, TypeError):
        return value


def read_msg(path: Path, draft: Draft) -> None:
    """Add a message of Outlook to ``draft``, as `read_eml` does."""
    from oxmsg import Message

    message: Any = Message.load(str(path))
    attachments = [attachment.file_name or "attachment" for attachment in message.attachments]
    fields = {
        "From": message.sender or "",
        "To": ", ".join(_address(recipient) for recipient in message.recipients),
        "Cc": "",
        "Date": email.utils.format_datetime(message.sent_date) if message.sent_date else "",
        "Subject": message.subject or "",
    }
    _add_header(fields, attachments, draft)
    _check_body(bool(message.html_body or message.body), attachments)
    _add_body(message.body or None, message.html_body or None, draft)


def _address(recipient: Any) -> str:
    return email.utils.formataddr((recipient.name or "", recipient.email_address or ""))
