"""What structure each format keeps, and that hostile content of each ends in a clear state of that one document."""

import email.policy
import io
import json
import os
import textwrap
import time
import zipfile
from email.message import EmailMessage
from pathlib import Path

import docx
import openpyxl
import pptx
import pytest

from ingest.draft import Draft
from ingest.parse import parse
from rag.errors import DocumentRejected, DocumentTooLarge, EmptyDocument, EncryptedDocument, UnsupportedDocument
from rag.records import ParsedDocument
from rag.settings import IngestSettings

LIMITS = IngestSettings()


@pytest.fixture
def read(tmp_path):
    """Store data as the originals are stored, without an extension, and parse it under ``name``."""

    def _read(data: bytes | str, name: str, depth: int = 0) -> ParsedDocument:
        path, spool = tmp_path / "0123abcd", tmp_path / "spool"
        path.write_bytes(data.encode() if isinstance(data, str) else data)
        spool.mkdir(exist_ok=True)
        document = parse(path, name, LIMITS, Draft(LIMITS, depth=depth, spool=spool))
        assert all(document.text[e.start : e.end] == e.text for e in document.elements)
        return document

    return _read


def _told(document: ParsedDocument) -> list[tuple[str, tuple[str, ...], str]]:
    return [(element.kind.value, element.section, element.text) for element in document.elements]


def _zip(members: dict[str, str | bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def _saved(document) -> bytes:
    file = io.BytesIO()
    document.save(file)
    return file.getvalue()


def _opendocument(kind: str, body: str, meta: str = "") -> bytes:
    names = " ".join(
        f'xmlns:{short}="urn:oasis:names:tc:opendocument:xmlns:{full}:1.0"'
        for short, full in (
            ("office", "office"),
            ("text", "text"),
            ("table", "table"),
            ("draw", "drawing"),
            ("presentation", "presentation"),
            ("meta", "meta"),
        )
    )
    return _zip(
        {
            "mimetype": f"application/vnd.oasis.opendocument.{kind}",
            "META-INF/manifest.xml": "<manifest/>",
            "content.xml": f"<office:document-content {names}><office:body>{body}</office:body>"
            "</office:document-content>",
            "meta.xml": f'<office:document-meta {names} xmlns:dc="http://purl.org/dc/elements/1.1/">{meta}'
            "</office:document-meta>",
        }
    )


# ------------------------------------------------------------------------------------------------------ JSON and XML


def test_json_keys_are_sections_and_lists_of_objects_tables(read):
    document = read(
        """{"name": "Plant", "tags": ["a", "b"], "site": {"city": "Rom", "at": [[1, 2], [3, 4]]},
        "pumps": [{"id": "P1", "flow": {"max": 3}}, {"id": "P2", "flow": {"max": 5}}],
        "people": [{"name": "Ada", "jobs": [{"year": 1}, {"year": 2}]}, "nobody"]}""",
        "plant.json",
    )
    assert _told(document) == [
        ("text", (), "name: Plant\ntags: a, b"),
        ("text", ("site",), "city: Rom"),
        ("text", ("site", "at"), "[[1, 2], [3, 4]]"),
        ("table", ("pumps",), "id | flow.max\nP1 | 3\nP2 | 5"),
        ("text", ("people", "Ada"), "name: Ada"),
        ("table", ("people", "Ada", "jobs"), "year\n1\n2"),
        ("list_item", ("people",), "nobody"),
    ]


def test_json_strings_that_are_texts_keep_their_paragraphs(read):
    text = "First paragraph of many words.\n\nSecond paragraph. " + "More words. " * 20
    document = read(json.dumps({"title": "Post", "body": text}), "post.json")
    assert _told(document) == [
        ("text", (), "title: Post"),
        ("text", ("body",), "First paragraph of many words."),
        ("text", ("body",), text.partition("\n\n")[2].strip()),
    ]


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.ndjson", "rows", "rows.txt", "rows.json"])
def test_json_lines_are_records_of_one_table_whatever_they_are_called(read, name):
    document = read('{"a": 1, "b": "x"}\n\n{"a": 2, "b": "y"}\n', name)
    assert _told(document) == [("table", (), "a | b\n1 | x\n2 | y")]
    assert document.media_type == "application/jsonl"


def test_json_lines_of_long_records_are_a_block_each(read):
    lines = [f'{{"title": "Post {n}", "body": "{"Many words here. " * 80}"}}' for n in (1, 2)]
    assert [(kind, section) for kind, section, _ in _told(read("\n".join(lines), "posts.jsonl"))] == [
        ("text", ("Post 1",)),
        ("text", ("Post 1", "body")),
        ("text", ("Post 2",)),
        ("text", ("Post 2", "body")),
    ]


def test_json_that_is_nested_without_end_is_read(read):
    deep = '{"a":' * 300 + '"deep words"' + "}" * 300
    assert "deep words" in read(deep, "deep.json").text


def test_xml_records_are_a_table_and_elements_around_others_sections(read):
    document = read(
        """<?xml version="1.0"?><book><title>My book</title>
        <chapter id="c1"><title>One</title><para>First <i>text</i>.</para><para>Second.</para></chapter>
        <prices><price item="a"><sum>1</sum><unit>EUR</unit></price><price item="b"><sum>2</sum></price></prices>
        </book>""",
        "book.xml",
    )
    assert _told(document) == [
        ("text", (), "title: My book"),
        ("text", ("chapter: One",), "id c1\ntitle: One"),
        ("text", ("chapter: One",), "First text."),
        ("text", ("chapter: One",), "Second."),
        ("table", ("prices",), "item | sum | unit\na | 1 | EUR\nb | 2"),
    ]
    assert document.title == "My book"


# ------------------------------------------------------------------------------------------------- marked up text


def test_rst_headings_lists_code_tables_and_what_only_sphinx_knows(read):
    document = read(
        textwrap.dedent(
            """\
            =====
            Guide
            =====

            :Author: Ada
            :Keywords: pumps, valves

            Read :class:`Foo` and ``bar`` and `this <http://example.com>`_.

            Setup
            -----

            1. one
            2. two

            .. note:: Careful.

            .. versionadded:: 3.2
               The :func:`baz` function.

            .. code-block:: python
               :linenos:

               def f():
                   return 1

            Example::

                $ ls

            +-----+-----+
            | A   | B   |
            +=====+=====+
            | c   | d   |
            |     +-----+
            |     | e   |
            +-----+-----+

            .. image:: http://example.com/x.png
               :alt: A pump in red
            """
        ),
        "guide.rst",
    )
    assert _told(document) == [
        ("title", (), "Guide"),
        ("text", ("Guide",), "Author: Ada\nKeywords: pumps, valves"),
        ("text", ("Guide",), "Read Foo and bar and this."),
        ("title", ("Guide",), "Setup"),
        ("list_item", ("Guide", "Setup"), "1. one"),
        ("list_item", ("Guide", "Setup"), "2. two"),
        ("text", ("Guide", "Setup"), "Careful."),
        ("text", ("Guide", "Setup"), "3.2"),
        ("text", ("Guide", "Setup"), "The baz function."),
        ("code", ("Guide", "Setup"), "def f():\n    return 1"),
        ("text", ("Guide", "Setup"), "Example:"),
        ("code", ("Guide", "Setup"), "$ ls"),
        ("table", ("Guide", "Setup"), "A | B\nc | d\nc | e"),
        ("caption", ("Guide", "Setup"), "A pump in red"),
    ]
    assert document.metadata == {"author": "Ada", "keywords": ["pumps", "valves"]}


@pytest.mark.parametrize(
    "directive",
    [
        ".. include:: {}",
        ".. literalinclude:: {}",
        ".. raw:: html\n   :file: {}",
        ".. csv-table::\n   :file: {}",
        ".. csv-table::\n   :url: file://{}",
        ".. code::\n   :include: {}",
    ],
)
def test_rst_that_asks_for_other_files_gets_none(read, tmp_path, directive):
    secret = tmp_path / "secret.txt"
    secret.write_text("top secret words")
    assert "top secret" not in read(f"Words.\n\n{directive.format(secret)}\n", "a.rst").text


def test_rst_of_nonsense_is_still_text(read):
    assert "deep" in read("".join(" " * n + f"- {n}\n\n" for n in range(300)) + " " * 300 + "deep\n", "a.rst").text
    assert "words" in read("`*|" * 5000 + " words\n", "a.rst").text


@pytest.mark.parametrize(
    "front",
    [
        "---\ntitle: Guide\nauthors: [Ada, 'Bob']\ndate: 2026-01-02\ntags:\n  - pumps\n  - valves\ndraft: true\n---\n",
        '+++\ntitle = "Guide"\nauthors = ["Ada", "Bob"]\ndate = 2026-01-02\ntags = ["pumps", "valves"]\n+++\n',
    ],
    ids=["yaml", "toml"],
)
def test_front_matter_of_markdown_is_metadata(read, front):
    document = read(f"{front}\n# Setup\n\nWords.\n", "guide.md")
    assert document.title == "Guide"
    assert document.metadata == {"author": "Ada, Bob", "created": "2026-01-02", "keywords": ["pumps", "valves"]}
    assert [text for _, _, text in _told(document)] == ["Setup", "Words."]


# ------------------------------------------------------------------------------------------------------ source code


def test_python_definitions_are_elements_and_sections(read):
    methods = "".join(f"\n    def m{n}(self):\n" + "        pass\n" * 20 for n in range(4))
    source = f'''"""Doc."""
import os

X = 1

# Adds.
@cached
def add(a, b):

    return a + b


class Long:
    """Many lines."""
{methods}

if X:
    print(X)
'''
    document = read(source, "calc.py")
    found = [(section, text.split("\n")[0]) for _, section, text in _told(document)]
    assert found == [
        ((), '"""Doc."""'),
        (("add",), "# Adds."),
        (("Long",), "class Long:"),
        (("Long", "m0"), "def m0(self):"),
        (("Long", "m1"), "def m1(self):"),
        (("Long", "m2"), "def m2(self):"),
        (("Long", "m3"), "def m3(self):"),
        ((), "if X:"),
    ]
    assert document.elements[1].text == "# Adds.\n@cached\ndef add(a, b):\n\n    return a + b"
    assert (document.media_type, document.metadata) == ("text/x-source-code", {"code_language": "python"})
    assert document.text.split() == source.split()


def test_other_languages_are_cut_where_a_line_begins_at_the_margin(read):
    source = """package main

import "fmt"

// Add adds.
func Add(a int, b int) int {

	return a + b
}

type T struct {
	x int
}

int main(void)
{
  return 0;
}
"""
    document = read(source, "main.go")
    assert [(section, text.split("\n")[0]) for _, section, text in _told(document)] == [
        ((), "package main"),
        (("Add",), "// Add adds."),
        (("T",), "type T struct {"),
        (("main",), "int main(void)"),
    ]
    assert document.text.split() == source.split()


@pytest.mark.parametrize(
    ("name", "text", "language"),
    [
        ("values.yaml", "name: x\ndate: 2026\nfrom: y\n\na: 1\n", "yaml"),
        ("Makefile", "all:\n\techo hello\n", "makefile"),
        ("Dockerfile.dev", "FROM debian\nRUN true\n", "dockerfile"),
        ("broken.py", "def f(:\n  pass\n", "python"),
        ("deep.py", "(" * 5000 + ")" * 5000, "python"),
        ("deeper.py", "-" * 100_000 + "1", "python"),
        ("q.SQL", "SELECT 1;\n", "sql"),
    ],
)
def test_source_code_is_known_by_its_name(read, name, text, language):
    document = read(text, name)
    assert document.metadata == {"code_language": language}
    assert document.text.split() == text.split()


def test_notebooks_are_their_words_their_code_and_what_it_printed(read):
    cells = [
        {"cell_type": "markdown", "source": ["# Sales\n", "\n", "We *add*."]},
        {"cell_type": "code", "source": "print(1 + 1)", "outputs": [{"name": "stdout", "text": ["2\n"]}]},
        {"cell_type": "code", "source": ["x"], "outputs": [{"data": {"text/plain": "42", "image/png": "iVBORw0KGgo"}}]},
        {"cell_type": "raw", "source": []},
        "no cell",
    ]
    document = read(json.dumps({"cells": cells, "nbformat": 4}), "sales.ipynb")
    assert _told(document) == [
        ("title", (), "Sales"),
        ("text", ("Sales",), "We add."),
        ("code", ("Sales",), "print(1 + 1)"),
        ("code", ("Sales",), "2"),
        ("code", ("Sales",), "x"),
        ("code", ("Sales",), "42"),
    ]
    assert read("no json at all", "sales.ipynb").text == "no json at all"


def test_words_about_code_are_no_code(read):
    assert read("The words `def` and `class` begin definitions.\n", "notes.txt").media_type == "text/plain"
    assert read("import os\n\ndef f():\n    return os\n" * 20, "notes.md").media_type == "text/markdown"
    assert read("Title: x\nDate: 2026\n\n# Heading\n", "notes.md").media_type == "text/markdown"


# ------------------------------------------------------------------------------------------------- office documents


def test_odp_slides_are_pages_and_keep_titles_lists_tables_and_notes(read):
    def frame(kind: str, inner: str) -> str:
        return f'<draw:frame presentation:class="{kind}"><draw:text-box>{inner}</draw:text-box></draw:frame>'

    row = "<table:table-row><table:table-cell{}><text:p>{}</text:p></table:table-cell>{}</table:table-row>"
    cell = "<table:table-cell><text:p>{}</text:p></table:table-cell>"
    slides = (
        "<draw:page>"
        + frame(
            "outline", "<text:list><text:list-item><text:p>Sales<text:s/>grew</text:p></text:list-item></text:list>"
        )
        + frame("title", "<text:p>Results</text:p>")
        + f"<presentation:notes>{frame('notes', '<text:p>Say it slowly.</text:p>')}</presentation:notes></draw:page>"
        + "<draw:page><draw:custom-shape><text:p>In a shape<text:line-break/>of two lines</text:p></draw:custom-shape>"
        + "<draw:frame><table:table>"
        + row.format("", "Year", cell.format("Sum"))
        + row.format(' table:number-rows-spanned="2"', "2025", cell.format("7"))
        + "<table:table-row><table:covered-table-cell/>"
        + cell.format("8")
        + "</table:table-row></table:table></draw:frame></draw:page>"
    )
    meta = "<dc:title>Deck of Ada</dc:title><meta:keyword>sales</meta:keyword><meta:keyword>2025</meta:keyword>"
    document = read(
        _opendocument("presentation", f"<office:presentation>{slides}</office:presentation>", meta), "a.odp"
    )
    assert [(e.kind.value, e.page, e.section, e.text) for e in document.elements] == [
        ("title", 1, (), "Results"),
        ("list_item", 1, ("Results",), "Sales grew"),
        ("text", 1, ("Results",), "Say it slowly."),
        ("text", 2, (), "In a shape\nof two lines"),
        ("table", 2, (), "Year | Sum\n2025 | 7\n2025 | 8"),
    ]
    assert (document.title, document.pages) == ("Deck of Ada", 2)
    assert document.metadata == {"keywords": ["sales", "2025"]}


def test_odp_of_pictures_only_says_that_it_needs_ocr(read):
    with pytest.raises(EmptyDocument, match="OCR"):
        read(_opendocument("presentation", "<office:presentation><draw:page/></office:presentation>"), "a.odp")


def test_cells_that_span_rows_are_repeated_in_each_sheet_and_slide(read):
    book = openpyxl.Workbook()
    for row in (["Prices of 2026", None, None], ["Group", "Item", "Sum"], ["Pumps", "A", 1], [None, "B", 2]):
        book.active.append(row)
    book.active.merge_cells("A1:C1")
    book.active.merge_cells("A3:A4")
    assert _told(read(_saved(book), "a.xlsx")) == [
        ("text", ("Sheet",), "Prices of 2026"),
        ("table", ("Sheet",), "Group | Item | Sum\nPumps | A | 1\nPumps | B | 2"),
    ]
    spanned = (
        "<table:table table:name='S'><table:table-row><table:table-cell table:number-rows-spanned='2'><text:p>Pumps"
        "</text:p></table:table-cell><table:table-cell><text:p>A</text:p></table:table-cell></table:table-row>"
        "<table:table-row><table:covered-table-cell/><table:table-cell><text:p>B</text:p></table:table-cell>"
        "</table:table-row><table:table-row table:number-rows-repeated='2'><table:table-cell><text:p>x</text:p>"
        "</table:table-cell><table:table-cell><text:p>y</text:p></table:table-cell></table:table-row></table:table>"
    )
    assert read(_opendocument("spreadsheet", spanned), "a.ods").text == "Pumps | A\nPumps | B\nx | y\nx | y"
    deck = pptx.Presentation()
    table = deck.slides.add_slide(deck.slide_layouts[6]).shapes.add_table(2, 2, 0, 0, 1_000_000, 1_000_000).table
    for (row, column), text in {(0, 0): "Pumps", (0, 1): "A", (1, 1): "B"}.items():
        table.cell(row, column).text = text
    table.cell(0, 0).merge(table.cell(1, 0))
    assert read(_saved(deck), "a.pptx").text == "Pumps | A\nPumps | B"


def test_a_title_row_above_the_header_of_a_table_is_text_before_it(read):
    """The first line of a table is its header row, which each group of rows is given."""
    rows = "<tr><th colspan=2>Prices</th></tr><tr><th>Item</th><th>Sum</th></tr><tr><td>A</td><td>1</td></tr>"
    assert _told(read(f"<html><body><table>{rows}</table></body></html>", "a.html")) == [
        ("text", (), "Prices"),
        ("table", (), "Item | Sum\nA | 1"),
    ]
    document = docx.Document()
    table = document.add_table(rows=3, cols=2)
    for row, texts in zip(table.rows, [("Prices", ""), ("Item", "Sum"), ("A", "1")], strict=True):
        for cell, text in zip(row.cells, texts, strict=True):
            cell.text = text
    table.cell(0, 0).merge(table.cell(0, 1))
    assert [text for _, _, text in _told(read(_saved(document), "a.docx"))] == ["Prices", "Item | Sum\nA | 1"]
    assert read("Prices;\nItem;Sum\nA;1\nB;2\n", "a.csv").elements[-1].text == "Item | Sum\nA | 1\nB | 2"


def test_control_characters_in_a_page_do_not_make_it_damaged(read):
    page = "<html><body><table><tr><td>a\x0b&#11;b</td><td>c\x1b</td></tr></table><img alt='one &#1; two three'></body>"
    assert [text for _, _, text in _told(read(page, "a.html"))] == ["ab | c", "one two three"]


def test_keywords_of_office_documents_pages_and_books_are_metadata(read):
    document = docx.Document()
    document.add_paragraph("Words.")
    document.core_properties.keywords = "pumps; valves, seals"
    assert read(_saved(document), "a.docx").metadata["keywords"] == ["pumps", "valves", "seals"]
    page = '<html><head><meta name="keywords" content="pumps, valves"></head><body><p>Words.</p></body></html>'
    assert read(page, "a.html").metadata["keywords"] == ["pumps", "valves"]
    assert read(_book("<p>Words.</p>"), "a.epub").metadata == {
        "author": "Ada, Bob",
        "subject": "pumps",
        "keywords": ["pumps", "valves"],
    }


def _book(body: str, head: str = "") -> bytes:
    return _zip(
        {
            "mimetype": "application/epub+zip",
            "META-INF/container.xml": '<container><rootfiles><rootfile full-path="b.opf"/></rootfiles></container>',
            "b.opf": f'{head}<package xmlns:dc="http://purl.org/dc/elements/1.1/"><metadata><dc:creator>Ada</dc:creator>'
            "<dc:creator>Bob</dc:creator><dc:subject>pumps</dc:subject><dc:subject>valves</dc:subject></metadata>"
            '<manifest><item id="one" href="a.xhtml" media-type="application/xhtml+xml"/></manifest>'
            '<spine><itemref idref="one"/></spine></package>',
            "a.xhtml": f"<html><body>{body}</body></html>",
        }
    )


def test_a_program_that_libreoffice_leaves_behind_is_ended(read, tmp_path, monkeypatch):
    """The whole group of processes ends with the conversion, not only the script that started it."""
    program = tmp_path / "bin" / "soffice"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\nsleep 600 &\necho $! > {tmp_path}/left\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    with pytest.raises(UnsupportedDocument, match="save it as DOCX"):
        read(b"{\\rtf1 Hello\\par}", "a.rtf")
    left = Path("/proc", (tmp_path / "left").read_text().strip(), "stat")
    for _ in range(100):
        if not left.exists() or left.read_text().rpartition(")")[2].split()[0] == "Z":
            return
        time.sleep(0.05)
    pytest.fail("it is still running")


# ------------------------------------------------------------------------------------------------------------ e-mail


def _mail(**fields: str) -> EmailMessage:
    message = EmailMessage()
    for name, value in {"From": "ada@example.org", "Subject": "Plan", **fields}.items():
        message[name] = value
    message.set_content("See the files.\n")
    return message


def _members(document: ParsedDocument, spool: Path) -> dict[str, bytes]:
    return {m.name: (spool / str(n)).read_bytes() for n, m in enumerate(document.members) if m.error is None}


def test_attachments_are_members_and_what_is_no_file_is_left_out(read, tmp_path):
    message = _mail()
    page = '<html><body><p>See the files.</p><img src="cid:logo"></body></html>'
    message.add_alternative(page, subtype="html")
    message.get_payload()[1].add_related(b"\x89PNG" * 10, "image", "png", cid="<logo>", filename="logo.png")
    message.get_payload()[1].add_related(b"\x89PNG" * 20_000, "image", "png", cid="<shot>", filename="screen.png")
    message.add_attachment(b"id;sum\n1;2\n", maintype="text", subtype="csv", filename="größe.csv")
    message.add_attachment(b"second", maintype="text", subtype="csv", filename="größe.csv")
    message.add_attachment(b"%PDF-1.4", maintype="application", subtype="pdf", filename="../../C:\\evil/plan.pdf")
    message.add_attachment(b"sig", maintype="application", subtype="pkcs7-signature", filename="smime.p7s")
    document = read(message.as_bytes(), "mail.eml")
    assert _members(document, tmp_path / "spool") == {
        "screen.png": b"\x89PNG" * 20_000,
        "größe.csv": b"id;sum\n1;2\n",
        "größe (2).csv": b"second",
        "plan.pdf": b"%PDF-1.4",
    }
    assert [e.text for e in document.elements] == ["From: ada@example.org\nSubject: Plan", "See the files."]


def test_attached_messages_are_members_that_can_be_read_again(read, tmp_path):
    inner = _mail(Subject="Old / plan")
    inner.add_attachment(b"deep", maintype="application", subtype="octet-stream", filename="deep.bin")
    message = _mail()
    message.add_attachment(inner)
    document = read(message.as_bytes(), "mail.eml")
    (name, data) = next(iter(_members(document, tmp_path / "spool").items()))
    assert name == "Old - plan.eml"
    again = read(data, name)
    assert (again.title, [m.name for m in again.members]) == ("Old / plan", ["deep.bin"])
    assert "See the files." in again.text


def test_text_between_attachments_is_part_of_the_body(read):
    message = _mail()
    message.add_attachment(b"%PDF-1.4", maintype="application", subtype="pdf", filename="a.pdf")
    more = EmailMessage(policy=email.policy.default)
    more.set_content("And one more thing.\n")
    message.attach(more)
    document = read(message.as_bytes(), "mail.eml")
    assert [e.text for e in document.elements][1:] == ["See the files.", "And one more thing."]
    assert [m.name for m in document.members] == ["a.pdf"]


def test_attachments_of_a_message_that_is_nested_too_deep_are_refused_and_its_text_stays(read):
    message = _mail()
    message.add_attachment(b"x", maintype="application", subtype="pdf", filename="a.pdf")
    document = read(message.as_bytes(), "mail.eml", depth=3)
    assert "See the files." in document.text
    assert [(m.name, m.sha256) for m in document.members] == [("a.pdf", "")]
    assert "ingest.archive_depth" in (document.members[0].error or "")


def test_of_a_web_archive_only_the_page_is_read(read):
    page = EmailMessage()
    page["From"], page["Subject"] = "<Saved by a browser>", "Page"
    page.set_content("<html><body><h1>News</h1><p>Words.</p></body></html>", subtype="html")
    page.add_related(b"body {}", "text", "css")
    page.add_related("<html><body>frame</body></html>", subtype="html")
    document = read(page.as_bytes(), "page.mht")
    assert [e.text for e in document.elements][1:] == ["News", "Words."]
    assert document.members == ()


def test_encrypted_messages_say_so(read):
    message = EmailMessage()
    message["From"], message["Subject"] = "ada@example.org", "Secret"
    message.set_content(b"x", "application", "pkcs7-mime", params={"smime-type": "enveloped-data"})
    with pytest.raises(EncryptedDocument, match="decrypt it"):
        read(message.as_bytes(), "mail.eml")


# ------------------------------------------------------------------------------------------------- hostile content

_LEVELS = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
_LAUGHS = f'<!DOCTYPE a [<!ENTITY l0 "hahaha">{_LEVELS}<!ENTITY x "&l9;">]>'


def _replaced(data: bytes, part: str, doctype: str, old: str) -> bytes:
    """Put a document type before a part of a container, and the entity x where ``old`` is."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    text = members[part].decode()
    declaration, _, rest = text.rpartition("?>")
    head = f"{declaration}?>" if declaration else ""
    assert old in rest
    members[part] = f"{head}{doctype}{rest.replace(old, '&x;')}".encode()
    return _zip(members)


def _word() -> bytes:
    document = docx.Document()
    document.add_paragraph("HERE")
    document.core_properties.title = "THERE"
    return _saved(document)


def _slides() -> bytes:
    deck = pptx.Presentation()
    deck.slides.add_slide(deck.slide_layouts[5]).shapes.title.text = "HERE"
    return _saved(deck)


def _book_of_cells() -> bytes:
    book = openpyxl.Workbook()
    book.active.append(["HERE", "b"])
    return _saved(book)


_TEXT = "<office:text><text:p>HERE</text:p></office:text>"
_CELLS = "<table:table><table:table-row><table:table-cell><text:p>HERE</text:p></table:table-cell></table:table-row>"
_HOSTS = {
    "a.xml": lambda doctype: f'<?xml version="1.0"?>{doctype}<a>&x;</a>'.encode(),
    "a.xml in utf-16": lambda doctype: f'<?xml version="1.0" encoding="utf-16"?>{doctype}<a>&x;</a>'.encode("utf-16"),
    "a.svg": lambda doctype: f'<?xml version="1.0"?>{doctype}<svg><text>&x;</text></svg>'.encode(),
    "a.xhtml": lambda doctype: f'<?xml version="1.0"?>{doctype}<html><body><p>&x;</p></body></html>'.encode(),
    "document.docx": lambda doctype: _replaced(_word(), "word/document.xml", doctype, "HERE"),
    "properties.docx": lambda doctype: _replaced(_word(), "docProps/core.xml", doctype, "THERE"),
    "types.docx": lambda doctype: _replaced(_word(), "[Content_Types].xml", doctype, "application/xml"),
    "a.pptx": lambda doctype: _replaced(_slides(), "ppt/slides/slide1.xml", doctype, "HERE"),
    "sheet.xlsx": lambda doctype: _replaced(_book_of_cells(), "xl/worksheets/sheet1.xml", doctype, "HERE"),
    "workbook.xlsx": lambda doctype: _replaced(_book_of_cells(), "xl/workbook.xml", doctype, "Sheet"),
    "a.odt": lambda doctype: _replaced(_opendocument("text", _TEXT), "content.xml", doctype, "HERE"),
    "a.ods": lambda doctype: _replaced(
        _opendocument("spreadsheet", f"{_CELLS}</table:table>"), "content.xml", doctype, "HERE"
    ),
    "a.odp": lambda doctype: _replaced(
        _opendocument("presentation", "<draw:page><text:p>HERE</text:p></draw:page>"), "content.xml", doctype, "HERE"
    ),
    "package.epub": lambda doctype: _book("<p>&x;</p>", head=doctype),
    "page.epub": lambda doctype: _replaced(_book("<p>HERE</p>"), "a.xhtml", doctype, "HERE"),
}


@pytest.mark.parametrize("host", _HOSTS)
@pytest.mark.parametrize("attack", ["laughs", "external", "parameter"])
def test_entities_are_expanded_in_no_format(read, tmp_path, host, attack):
    """Neither a billion laughs nor a file of this machine gets into a document; it is read without, or refused."""
    secret = tmp_path / "secret.txt"
    secret.write_text("top secret words")
    doctype = {
        "laughs": _LAUGHS,
        "external": f'<!DOCTYPE a [<!ENTITY x SYSTEM "{secret.as_uri()}">]>',
        "parameter": f'<!DOCTYPE a [<!ENTITY % p SYSTEM "{secret.as_uri()}"> %p; <!ENTITY x "y">]>',
    }[attack]
    try:
        document = read(_HOSTS[host](doctype), host)
    except DocumentRejected as error:
        said = f"{error} {error.facts}"
    else:
        said = f"{document.text} {document.title} {document.metadata}"
    assert "secret words" not in said
    assert said.count("hahaha") < 50


def test_a_bomb_in_the_file_that_names_the_type_is_not_unpacked(read):
    """The type of a container is read from a member that may say anything."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        with archive.open("mimetype", "w") as member:
            member.write(b"application/vnd.oasis.opendocument.text")
            for _ in range(100):
                member.write(bytes(1_000_000))
        archive.writestr("content.xml", "<a/>")
    with pytest.raises(DocumentTooLarge, match=r"ingest\.archive_ratio"):
        read(file.getvalue(), "a.odt")


def test_a_bomb_in_a_picture_of_an_office_document_is_not_unpacked(read):
    """The libraries that read Office documents unpack every part of them."""
    with zipfile.ZipFile(io.BytesIO(_word())) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with pytest.raises(DocumentTooLarge, match=r"ingest\.archive_ratio"):
        read(_zip({**members, "word/media/image1.png": bytes(50_000_000)}), "a.docx")
