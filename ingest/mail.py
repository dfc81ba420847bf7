"""E-mail: the body, from whom, to whom, when and about what, and the files attached to it. Owns oxmsg.

Each attachment becomes a document of its own, under its file name; an attached message one that ends in ``.eml``.
Left out are what a reader of the message does not see as a file: small pictures that stand in the page, signatures,
the other forms of the same body (a calendar entry, rich text), and all that a web archive holds beside its page.
Knows no format of what is attached.
"""

from __future__ import annotations

import email
import email.policy
import email.utils
import mimetypes
from collections.abc import Iterable, Iterator
from email.message import EmailMessage
from pathlib import Path, PurePosixPath
from typing import Any

from ingest.archive import clean_name
from ingest.detect import decode
from ingest.draft import Draft, meaningful_title
from ingest.partition import read_html, visible_words
from ingest.text import read_text
from rag.errors import EmptyDocument, EncryptedDocument
from rag.records import Kind

_FIELDS = ("From", "To", "Cc", "Date", "Subject")
_SIGNATURES = frozenset(
    {
        "application/pkcs7-signature",
        "application/x-pkcs7-signature",
        "application/pgp-signature",
        "application/pgp-keys",
    }
)
#: A picture in the page that is smaller is a logo or a rule; a larger one may be a screenshot.
_SMALL_PICTURE = 50_000
_BLOCK = 1 << 20
#: Properties of an attachment in an Outlook message, and values of the first [MS-OXCMSG 2.2.2].
_ATTACH_METHOD, _DISPLAY_NAME, _CONTENT_ID = 0x3705, 0x3001, 0x3712
_BY_REFERENCE, _EMBEDDED_MESSAGE = {2, 3, 4, 7}, 5


def read_eml(path: Path, draft: Draft) -> None:
    """Add a message in Internet format (or a web archive) to ``draft``: its header lines, its body, its attachments.

    Raises `EncryptedDocument` and, for a message without body and attachments, `EmptyDocument`.
    """
    data = path.read_bytes()
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):  # saved as UTF-16; the parts inside speak of the encoding before that
        data = decode(data).encode()
    message = email.message_from_bytes(data, policy=email.policy.default)
    if _is_encrypted(message):
        raise EncryptedDocument("The message is encrypted: decrypt it in the mail program and ingest the saved copy.")
    plain, page = message.get_body(preferencelist=("plain",)), message.get_body(preferencelist=("html",))
    rest = [part for part in _leaves(message) if part is not plain and part is not page]
    if message.get_content_type() == "multipart/related":  # a page with its pictures, styles and frames
        rest = [part for part in rest if part.get_content_disposition() == "attachment"]
    more = [part for part in rest if _is_text(part)]
    files = [(_file_name(part), part) for part in rest if not _is_text(part) and _is_file(part)]
    _add_header({field: str(message.get(field) or "") for field in _FIELDS}, [name for name, _ in files], draft)
    _check_body(plain is not None or page is not None or bool(more or files))
    _add_body(_body_text(plain), _body_text(page), draft)
    for part in more:
        (read_html if part.get_content_subtype() == "html" else read_text)(_body_text(part) or "", draft)
    _attach(((name, _content(part)) for name, part in files), draft)


def _is_encrypted(message: Any) -> bool:
    kind = message.get_content_type()
    enveloped = kind.endswith("pkcs7-mime") and message.get_param("smime-type") == "enveloped-data"
    return bool(enveloped or kind == "multipart/encrypted")


def _leaves(message: Any) -> Iterator[Any]:
    """Yield the parts that hold something, without going into attached messages and other forms of the body."""
    if not message.is_multipart() or message.get_content_maintype() == "message":
        yield message
        return
    is_alternative = message.get_content_type() == "multipart/alternative"
    for part in message.iter_parts():
        if not (is_alternative and part.get_content_maintype() == "text"):
            yield from _leaves(part)


def _is_text(part: Any) -> bool:
    """Tell a piece of the body that stands between or after attachments, or a body whose parts can not be told."""
    if part.get_content_type() in {"text/plain", "text/html"}:
        return not part.get_filename() and part.get_content_disposition() != "attachment"
    return bool(part.get_content_maintype() == "multipart")


def _is_file(part: Any) -> bool:
    if part.get_content_type() in _SIGNATURES:
        return False
    in_page = part.get("Content-ID") is not None or part.get_content_disposition() == "inline"
    if in_page and part.get_content_maintype() == "image":
        return len(_content(part) or b"") > _SMALL_PICTURE
    return part.get_content_disposition() is not None or part.get_filename() is not None or _content(part) != b""


def _file_name(part: Any) -> str:
    if part.get_content_maintype() == "message":
        subject = next((str(m.get("Subject") or "") for m in _attached_messages(part)), "")
        name = part.get_filename() or subject.replace("/", "-") or "message"
        return name if name.lower().endswith(".eml") else f"{name}.eml"
    return part.get_filename() or f"attachment{mimetypes.guess_extension(part.get_content_type()) or ''}"


def _attached_messages(part: Any) -> list[EmailMessage]:
    payload = part.get_payload()
    return payload if isinstance(payload, list) else []


def _content(part: Any) -> bytes | None:
    """Return the bytes of an attachment, or None if they can not be told."""
    if part.get_content_maintype() == "message" and (messages := _attached_messages(part)):
        try:
            return b"\n".join(message.as_bytes(policy=email.policy.compat32) for message in messages)
        except (ValueError, LookupError, TypeError, AttributeError):  # headers that can be read but not written
            return None
    payload = part.get_payload(decode=True)
    return payload if isinstance(payload, bytes) else None


def _attach(files: Iterable[tuple[str, bytes | None]], draft: Draft) -> None:
    """Take out attachments: of several with one name the later ones are numbered."""
    taken: set[str] = set()
    for given, content in files:
        name, problem = clean_name(given.replace("\\", "/").rstrip("/").rpartition("/")[2])
        name = _unused(name, taken)
        taken.add(name)
        if draft.depth >= draft.limits.archive_depth:
            draft.refuse_member(
                name,
                f"The message is inside {draft.depth} other documents, and no more than {draft.limits.archive_depth} "
                "are opened one in the other: save the attachment and ingest it, or raise ingest.archive_depth.",
            )
        elif problem is not None:
            draft.refuse_member(name, problem)
        elif content is None:
            draft.refuse_member(name, "The attachment can not be taken out of the message: save it and ingest it.")
        else:
            draft.member(name, (content[at : at + _BLOCK] for at in range(0, len(content), _BLOCK)))


def _unused(name: str, taken: set[str]) -> str:
    path, number, unused = PurePosixPath(name), 1, name
    while unused in taken:
        number += 1
        unused = str(path.with_name(f"{path.stem} ({number}){path.suffix}"))
    return unused


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


def _check_body(found: bool) -> None:
    if not found:
        raise EmptyDocument("The message has no body and no attachments: there is nothing to index.")


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
    """Add a message of Outlook to ``draft``, as `read_eml` does; messages attached to it can not be taken out."""
    from oxmsg import Message

    message: Any = Message.load(str(path))
    files = [_outlook_file(attachment) for attachment in message.attachments if not _is_in_page(attachment)]
    _add_header(_outlook_fields(message), [name for name, _ in files], draft)
    _check_body(bool(message.html_body or message.body or files))
    _add_body(message.body or None, message.html_body or None, draft)
    _attach(files, draft)


def _outlook_fields(message: Any) -> dict[str, str]:
    return {
        "From": message.sender or "",
        "To": ", ".join(_address(recipient) for recipient in message.recipients),
        "Cc": "",
        "Date": email.utils.format_datetime(message.sent_date) if message.sent_date else "",
        "Subject": message.subject or "",
    }


def _outlook_file(attachment: Any) -> tuple[str, bytes | None]:
    """Return the name and the content of an attachment, None for a link to a file and for an attached message.

    oxmsg reads the properties of an attached message at the wrong place (python-oxmsg 0.0.2).
    """
    method = attachment.properties.int_prop_value(_ATTACH_METHOD)
    name = attachment.file_name or attachment.properties.str_prop_value(_DISPLAY_NAME) or "attachment"
    if method == _EMBEDDED_MESSAGE:
        return (name if name.lower().endswith(".msg") else f"{name}.msg"), None
    return name, None if method in _BY_REFERENCE else attachment.file_bytes or b""


def _is_in_page(attachment: Any) -> bool:
    is_picture = (attachment.mime_type or "").startswith("image/")
    return is_picture and bool(attachment.properties.str_prop_value(_CONTENT_ID)) and attachment.size <= _SMALL_PICTURE


def _address(recipient: Any) -> str:
    return email.utils.formataddr((recipient.name or "", recipient.email_address or ""))
