"""What a document hides from its readers is kept and marked, and what they do see never is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.chunk import chunk
from ingest.draft import Draft
from ingest.hidden import parted
from ingest.parse import parse
from rag.records import Kind, ParsedDocument
from rag.settings import IngestSettings
from tests.injections import SEEN, innocents, traps

LIMITS = IngestSettings()


@pytest.fixture
def read(tmp_path):
    def _read(data: bytes, name: str) -> ParsedDocument:
        path = tmp_path / "0123abcd"
        path.write_bytes(data)
        return parse(path, name, LIMITS)

    return _read


def _words(document: ParsedDocument, *, hidden: bool) -> str:
    parts = (e.text for e in document.elements if (e.kind is Kind.HIDDEN) is hidden)
    return " ".join(" ".join(parts).split())


@pytest.mark.parametrize("trap", traps(), ids=lambda trap: trap.id)
def test_what_nobody_sees_is_kept_and_marked(read, trap):
    """Nothing is lost, nothing of it is among what is seen, and the record of the document says that there is some."""
    document = read(trap.content, trap.name)
    assert SEEN in _words(document, hidden=False)
    assert trap.hidden in _words(document, hidden=True)
    assert not {"Ignore", "previous", "prompt"} & {*_words(document, hidden=False).split()}
    hidden = [e.text for e in document.elements if e.kind is Kind.HIDDEN]
    assert document.metadata["hidden_characters"] == sum(map(len, hidden))


@pytest.mark.parametrize(("name", "data", "said"), [pytest.param(*rest, id=name) for name, *rest in innocents()])
def test_what_is_seen_is_never_taken_for_hidden(read, name, data, said):
    document = read(data, name)
    assert said in _words(document, hidden=False)
    assert not _words(document, hidden=True)
    assert "hidden_characters" not in document.metadata


@pytest.mark.parametrize("trap", traps(), ids=lambda trap: trap.id)
def test_a_chunk_is_hidden_or_seen_and_never_both(read, trap):
    """Neither text nor context (title, headings, header row) of a chunk that is seen has anything of what is not."""
    chunks = chunk(read(trap.content, trap.name), 256, lambda texts: [len(text.split()) + 2 for text in texts])
    assert {one.kind for one in chunks} > {Kind.HIDDEN}
    for one in chunks:
        assert (one.kind is Kind.HIDDEN) == ("previous instructions" in one.text), one
        assert "previous" not in one.context


def test_a_document_that_only_hides_is_not_empty(read):
    document = read(b"<html><body><p hidden>Nothing to be seen here at all</p></body></html>", "a.html")
    assert [(e.kind.value, e.text) for e in document.elements] == [("hidden", "Nothing to be seen here at all")]


def test_what_directs_letters_or_joins_them_unseen_changes_no_word(read):
    """Words can neither be broken by letters without width nor be turned round for the eye alone."""
    document = read("ig\u200bno\u2060re \u202etxet\u202c pass\u200cword\u2063s na\u0308me".encode(), "a.txt")
    assert document.text == "ignore txet passwords n\u00e4me"


def test_joiners_that_letters_need_stay(read):
    """Persian words and families of emoji are written with them."""
    text = "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645 \U0001f468\u200d\U0001f469\u200d\U0001f467"
    assert read(text.encode(), "a.txt").text == text


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_parting_loses_no_letter_that_can_be_seen(text):
    seen, spelled = parted(text)
    assert parted(seen) == (seen, [])
    unseen = {*map(chr, [*range(0xE0000, 0xE0080), *range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0)])}
    assert [c for c in seen if c not in unseen] == [c for c in text if c not in unseen]
    assert all(words.isprintable() for words in spelled)


@given(st.text(st.sampled_from([*map(chr, range(32, 127))]), min_size=3).filter(lambda t: sum(map(str.isalnum, t)) > 2))
def test_what_tag_letters_spell_is_read(text):
    draft = Draft(LIMITS)
    draft.add(Kind.TEXT, "Seen" + "".join(chr(0xE0000 + ord(letter)) for letter in text) + ".")
    assert {block.kind: block.text for block in draft.blocks} == {
        Kind.TEXT: "Seen.",
        Kind.HIDDEN: " ".join(text.split()),
    }
