from __future__ import annotations

import pytest

from api.routes.documents import clean_name, content_disposition
from rag.errors import BadInput


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("plain.pdf", "plain.pdf"),
        ("2026/travel-policy.pdf", "2026/travel-policy.pdf"),
        ("Grüße 日本.docx", "Grüße 日本.docx"),
        (".hidden", ".hidden"),
        ("a..b/c...d", "a..b/c...d"),
        ("notes: draft.txt", "notes: draft.txt"),
        ("../../etc/passwd", "passwd"),
        ("a/../../b.txt", "b.txt"),
        ("./b.txt", "b.txt"),
        ("/etc/passwd", "passwd"),
        ("//server/share/x.pdf", "x.pdf"),
        ("a//b.txt", "b.txt"),
        ("C:\\Users\\me\\y.pdf", "y.pdf"),
        ("C:/Users/me/y.pdf", "y.pdf"),
        ("C:y.pdf", "y.pdf"),
        ("folder\\y.pdf", "y.pdf"),
        ("..\\..\\y.pdf", "y.pdf"),
        ("\\\\server\\share\\y.pdf", "y.pdf"),
    ],
)
def test_only_a_clean_relative_path_is_kept_whole(sent, kept):
    """Names are hostile: nothing that leads out of a folder, or names a drive, survives."""
    assert clean_name(sent) == kept


@pytest.mark.parametrize(
    "sent", ["", " ", ".", "..", "../..", "a/", "/", "\\", "C:", "C:\\", "a/..", "x\0.txt", "\ud800.txt"]
)
def test_a_name_without_anything_usable_is_refused(sent):
    """A part without a usable name gets one clear sentence, never a made-up name."""
    with pytest.raises(BadInput, match=r"name.*\.$"):
        clean_name(sent)


@pytest.mark.parametrize(
    "name",
    [
        'a"; filename="b.exe',
        "a\r\nSet-Cookie: x=1",
        "日本.pdf",
        "x\u2028y",
        "\udcff",
        "a\\b",
        "semi;colon",
        "2026/plan.pdf",
        "%41.txt",
    ],
)
def test_the_header_that_names_a_download_can_not_be_broken_out_of(name):
    """Whatever the name holds, the header is plain ASCII, has exactly two file names, and no path."""
    header = content_disposition(name)
    assert header.isascii()
    assert header.isprintable()
    kind, plain, full = header.split("; ")
    assert kind == "attachment"
    assert plain.startswith('filename="')
    assert plain.count('"') == 2
    assert full.startswith("filename*=UTF-8''")
    assert not set('/\\"; ') & set(full.removeprefix("filename*=UTF-8''"))


def test_a_download_keeps_its_name():
    """A name in any script comes back as it was (RFC 8187); the folder stays behind."""
    header = content_disposition("2026/Grüße nach 日本.pdf")
    assert header.endswith("filename*=UTF-8''Gr%C3%BC%C3%9Fe%20nach%20%E6%97%A5%E6%9C%AC.pdf")
