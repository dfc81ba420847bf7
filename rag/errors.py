"""Every error that Citewell raises on purpose, each explained where it is declared.

The class docstring is the default message; keyword attributes carry the facts.
This module knows no HTTP status, no exit status and no log: the doors translate.
"""

from __future__ import annotations


class CitewellError(Exception):
    """Citewell could not do what was asked."""

    #: Stable machine-readable name of the kind, shown to REST clients.
    code = "error"
    #: Whether the same thing may go well at another time.
    transient = False

    def __init__(self, message: str | None = None, **facts: object) -> None:
        self.message = message or " ".join((type(self).__doc__ or "").split())
        self.facts = facts
        super().__init__(self.message)


class BadInput(CitewellError):
    """The request is not valid."""

    code = "bad_input"


class NotFound(CitewellError):
    """There is no such thing here."""

    code = "not_found"


class Conflict(CitewellError):
    """Something with that name exists already, or is in use by another process."""

    code = "conflict"


class Unauthorized(CitewellError):
    """A valid API key is needed: send it as `Authorization: Bearer cw_...`."""

    code = "unauthorized"


class Forbidden(CitewellError):
    """This key may not do that."""

    code = "forbidden"


class QuotaExceeded(CitewellError):
    """The upload would go beyond a quota; delete documents, or ask for a larger one."""

    code = "quota_exceeded"


class Misconfigured(CitewellError):
    """A setting is wrong or a part that it asks for is not installed."""

    code = "misconfigured"


class Unavailable(CitewellError):
    """A part of the service does not answer at present; try again later."""

    code = "unavailable"
    transient = True


class Busy(Unavailable):
    """As much is being asked as can be answered; try again in a moment."""

    code = "busy"


class RateLimited(Busy):
    """This key asks for more than it may; come again later."""

    code = "rate_limited"


class GeneratorFailed(Unavailable):
    """The generator is down, too slow, or answered something that is not a completion."""

    code = "generator_failed"


class GeneratorDown(GeneratorFailed):
    """The generator can not be reached, is too slow or broke down: another question would fare no better."""


class GuardrailsFailed(Unavailable):
    """The guardrails could not check a question or an answer."""

    code = "guardrails_failed"


class IndexDamaged(CitewellError):
    """A sealed index part is missing, damaged, or was made by another version or embedder."""

    code = "index_damaged"


class DocumentRejected(CitewellError):
    """The document can not be read."""

    code = "document_rejected"


class EmptyDocument(DocumentRejected):
    """The document holds no text; if it is a scan or a picture it needs OCR, otherwise there is nothing to index."""

    code = "document_empty"


class EncryptedDocument(DocumentRejected):
    """The document is protected by a password; remove the password and ingest it again."""

    code = "document_encrypted"


class UnsupportedDocument(DocumentRejected):
    """The document is of a type that Citewell does not read; convert it to PDF, DOCX, HTML, Markdown or text."""

    code = "document_unsupported"


class DamagedDocument(DocumentRejected):
    """The document is damaged or is not what its content claims to be; open it in its own program and save it anew."""

    code = "document_damaged"


class ParserStopped(DamagedDocument):
    """Reading the document crashed the parser; open it in its own program and save it anew."""

    code = "parser_stopped"
    transient = True


class DocumentTooLarge(DocumentRejected):
    """The document is larger than the limits in the settings allow; split it or raise the limit."""

    code = "document_too_large"


class DocumentTooSlow(DocumentTooLarge):
    """Reading the document took too long; split it or raise the limit."""

    code = "document_too_slow"
    transient = True
