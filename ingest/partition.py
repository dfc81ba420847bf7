"""HTML and what becomes HTML, DOCX and PPTX. Owns unstructured.

unstructured 0.27 is imported when the first such document comes, with its telemetry off and its model download
replaced. Two things are prepared before it sees a document, because it would lose them: text that it skips (text boxes,
content controls, tracked insertions, forms, folded details) is put where it looks, and merged cells are spread out.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from lxml import etree, html  # type: ignore[import-untyped]

from ingest import hidden_docx, hidden_html, hidden_slides
from ingest.draft import Draft, meaningful_title, one_line, table_text
from ingest.properties import note_properties, split_keywords
from ingest.text import read_text
from rag.errors import DamagedDocument, EmptyDocument
from rag.quiet import silence_dependencies
from rag.records import Kind

_XML_DECLARATION = re.compile(r"^\s*<\?xml[^>]*\?>")
_FRONT_MATTER = re.compile(r"\A(---|\+\+\+)[ \t]*\n(.*?)\n(?:\1|\.\.\.)[ \t]*(?:\n|\Z)", re.DOTALL)
_FRONT_FIELD = re.compile(r"^(\w+)[ \t]*[:=][ \t]*(.*(?:\n[ \t]*-[ \t].*)*)$", re.MULTILINE)
_FRONT_LIST = re.compile(r"\n[ \t]*-[ \t]+")
_MAX_SPAN = 1000
_MAX_CELLS = 200_000
_MAX_BRACKETS = 1000
_MAX_DEPTH = 200
_LONG_PREFORMATTED = 4000
_VERBS = re.compile(
    r"(?i)(is|are|was|were|be|has|have|had|do|does|did|can|will|would|shall|should|may|must|\w+(ed|ing|es))"
)


@lru_cache(maxsize=1)
def _prepare_unstructured() -> None:
    """Import unstructured so that it neither reports its use nor downloads a model (reproduced with 0.27.32).

    At the first text that it classifies it would fetch en_core_web_sm from GitHub and install it, and fails without a
    network. All it wants of that model are words, sentences and whether there is a verb, to tell narrative from other
    text, which we do not use. A blank pipeline gives it the three. The replaced names are private to unstructured:
    its version is pinned, and a test sees that no connection is tried.
    """
    silence_dependencies()
    from unstructured.nlp import tokenize

    tokenize._load_spacy_model = _blank_pipeline  # noqa: SLF001
    tokenize._get_nlp.cache_clear()  # noqa: SLF001


def _blank_pipeline() -> Any:
    import spacy

    spacy.Language.component("citewell_verbs", func=_tag_verbs)
    pipeline = spacy.blank("en")
    pipeline.add_pipe("sentencizer")
    pipeline.add_pipe("citewell_verbs")
    return pipeline


def _tag_verbs(doc: Any) -> Any:
    for token in doc:
        token.tag_ = "VB" if _VERBS.fullmatch(token.text) else "NN"
    return doc


def _is_narrative(_: str) -> bool:
    """Stand in for the classifier of unstructured, which takes half its time to tell two kinds that are one to us."""
    return False


def read_html(text: str, draft: Draft) -> None:
    """Add what a reader of the page sees to ``draft``, with its headings, lists, tables and preformatted text.

    What is on the page and not seen follows, marked as hidden.
    """
    root = _html_tree(text)
    if root is None:
        return
    _note_html_head(root, draft)
    hidden = [*hidden_html.take_hidden(root), *hidden_html.comments(text)]
    _prepare_html(root)
    if _is_deeper(root, _MAX_DEPTH):  # the parser of unstructured would leave out what is deeper, and not say so
        read_text("\n\n".join(root.itertext()), draft)
    else:
        _add_page(root, draft)
    for words in hidden:
        draft.hide(words)


def _add_page(root: Any, draft: Draft) -> None:
    _prepare_unstructured()
    from unstructured.partition.html import parser, partition_html

    parser.is_possible_narrative_text = _is_narrative
    text = html.tostring(root, encoding="unicode")
    _add_elements(partition_html(text=text, languages=[""]), draft, page=lambda _: None)


def _is_deeper(root: Any, limit: int) -> bool:
    depth = 0
    for event, _ in etree.iterwalk(root, events=("start", "end")):
        depth += 1 if event == "start" else -1
        if depth > limit:
            return True
    return False


def visible_words(text: str) -> list[str]:
    """Return the words that a reader of an HTML page sees."""
    root = _html_tree(text)
    if root is None:
        return []
    etree.strip_elements(root, "script", "style", "head", with_tail=False)
    return list(root.text_content().split())


def _html_tree(text: str) -> Any:
    text = _XML_DECLARATION.sub("", text).replace("\0", "")
    parser = html.HTMLParser(remove_comments=True, remove_pis=True, huge_tree=True, no_network=True)
    try:
        root = html.document_fromstring(text, parser=parser)
    except etree.ParserError:  # lxml's word for "nothing in it"
        return None
    if any("depth" in entry.message for entry in parser.error_log):  # what is deeper was left out
        raise DamagedDocument("The page nests its elements thousands deep: save it as text and ingest that.")
    return root


def _note_html_head(root: Any, draft: Draft) -> None:
    meta = {
        (tag.get("name") or tag.get("property") or "").lower(): tag.get("content")
        for tag in root.iter("meta")
        if tag.get("content")
    }
    title = next((tag.text_content() for tag in root.iter("title")), None)
    draft.title = draft.title or meaningful_title(title) or meaningful_title(meta.get("og:title"))
    if not draft.blocks:
        draft.note(
            author=meta.get("author"),
            created=meta.get("article:published_time") or meta.get("date"),
            modified=meta.get("article:modified_time"),
            subject=meta.get("description"),
            keywords=split_keywords(meta.get("keywords")),
        )


def _prepare_html(root: Any) -> None:
    """Drop what is no text, open what unstructured would skip, and make tables of data plain."""
    for node in list(root.iter("script", "style")):
        node.drop_tree()
    for node in list(root.iter("form", "details", "summary", "figure", "figcaption", "fieldset", "legend")):
        node.tag = "div"
    for node in list(root.iter("label")):
        node.tag = "span"
    for node in list(root.iter("img")):
        alt = one_line(node.get("alt") or "")
        node.tag, node.text = "span", f" {alt} " if alt.count(" ") > 1 else None  # words, not "logo" or "icon"
    for table in list(root.iter("table")):
        if _is_layout(table):
            _open_layout(table)
    for table in list(root.iter("table")):
        _flatten_table(table)


def _is_layout(table: Any) -> bool:
    """Tell a table that only places things: it holds tables or headings, or has a single column."""
    if table.get("role") == "presentation" or next(table.iterdescendants("table", "h1", "h2", "h3"), None) is not None:
        return True
    return max((len(row.xpath("./td|./th")) for row in table.iter("tr")), default=0) < 2


def _open_layout(table: Any) -> None:
    table.tag = "div"
    for part in table.xpath("./*|./tbody/*|./thead/*|./tfoot/*|./tr/*|./*/tr/*"):
        if part.tag in {"tbody", "thead", "tfoot", "tr", "td", "th", "caption"}:
            part.tag = "div"


def _flatten_table(table: Any) -> None:
    """Rewrite a table as rows of plain cells, with spans spread out, and its caption as a paragraph before it."""
    titles = _taken_title_rows(table)
    for caption in table.xpath("./caption"):
        caption.drop_tree()
        caption.tag = "p"
        table.addprevious(caption)
    for title in titles:
        paragraph = etree.Element("p")
        paragraph.text = title
        table.addprevious(paragraph)
    tail = table.tail
    rows = spread_rows(table)
    table.clear()
    table.tail = tail
    for row in rows:
        tr = etree.SubElement(table, "tr")
        for cell in row:
            etree.SubElement(tr, "td").text = cell


def _taken_title_rows(table: Any) -> list[str]:
    """Take away the rows above the header in which one cell spans the columns, and return their text."""
    titles: list[str] = []
    for row in table.xpath("./tr|./thead/tr|./tbody/tr"):
        cells = row.xpath("./td|./th")
        if len(cells) > 1 or any(_span(cell, "colspan") < 2 for cell in cells):
            break
        titles.extend(map(_cell_text, cells))
        row.drop_tree()
    return titles


def spread_rows(table: Any) -> list[list[str]]:
    """Return the cells of an HTML table as text, row by row.

    A cell that spans rows is repeated in each and one that spans columns is followed by empty ones, so that every row
    can be read alone and columns stay under their headers.
    """
    rows: list[list[str]] = []
    down: dict[int, tuple[int, str]] = {}  # column -> rows still to come, text
    left = _MAX_CELLS
    for tr in table.xpath("./tr|./thead/tr|./tbody/tr|./tfoot/tr"):
        row: list[str] = []
        for cell in tr.xpath("./td|./th"):
            _repeat_from_above(row, down)
            across, more = (_span(cell, "colspan"), _span(cell, "rowspan") - 1) if left > 0 else (1, 0)
            for shown in [_cell_text(cell), *[""] * (across - 1)]:
                if more:
                    down[len(row)] = (more, shown)
                row.append(shown)
            left -= across
        _repeat_from_above(row, down)
        rows.append(row)
        left -= len(row)
        if left <= 0:  # a few bytes can ask for any number of cells
            down.clear()
    return rows


def _repeat_from_above(row: list[str], down: dict[int, tuple[int, str]]) -> None:
    while len(row) in down:
        more, text = down.pop(len(row))
        if more > 1:
            down[len(row)] = (more - 1, text)
        row.append(text)


def _span(cell: Any, name: str) -> int:
    value = (cell.get(name) or "1").strip()
    return max(1, min(int(value), _MAX_SPAN)) if value.isascii() and value.isdigit() and len(value) < 9 else 1


def _cell_text(cell: Any) -> str:
    for node in cell.iter("br", "p", "div", "li"):  # where a reader sees a new line there is a space at least
        if node is not cell:
            node.tail = f" {node.tail or ''}"
            node.text = f" {node.text or ''}"
    return one_line("".join(cell.itertext()))  # also without controls, which lxml does not take back


def read_markdown(text: str, draft: Draft) -> None:
    """Add Markdown (CommonMark, and the tables of GitHub) to ``draft``; front matter becomes metadata."""
    from markdown_it import MarkdownIt

    if front := _FRONT_MATTER.match(text.replace("\r\n", "\n")):
        text = text.replace("\r\n", "\n")[front.end() :]
        _note_front_matter(front.group(2), draft)
    if any(paragraph.count("[") > _MAX_BRACKETS for paragraph in text.split("\n\n")):
        read_text(text, draft)  # Markdown takes time by the square of the brackets in a paragraph, which is none here
        return
    read_html(MarkdownIt("commonmark", {"maxNesting": 100}).enable(["table", "strikethrough"]).render(text), draft)


def _note_front_matter(front: str, draft: Draft) -> None:
    """Note the fields of front matter (YAML or TOML) that say who, when and about what."""
    fields = {name.lower(): _front_values(value) for name, value in _FRONT_FIELD.findall(front)}

    def said(*names: str) -> list[str]:
        return next((fields[name] for name in names if fields.get(name)), [])

    draft.title = meaningful_title(", ".join(said("title")))
    draft.note(
        author=", ".join(said("author", "authors")),
        created=", ".join(said("date", "created")),
        modified=", ".join(said("updated", "lastmod", "modified")),
        subject=", ".join(said("subject", "description")),
        keywords=list(dict.fromkeys([*said("tags"), *said("keywords"), *said("categories")])),
    )


def _front_values(value: str) -> list[str]:
    """Return the one value of a field, or those of a list in brackets or on lines with dashes."""
    if value.startswith("[") and value.rstrip().endswith("]"):
        pieces = value.strip()[1:-1].split(",")
    else:
        pieces = _FRONT_LIST.split(value)
    return [word for piece in pieces if (word := piece.strip().strip("\"'"))]


def _add_elements(elements: Iterable[Any], draft: Draft, page: Callable[[Any], int | None]) -> None:
    for element in elements:
        number, level = page(element), (element.metadata.category_depth or 0) + 1
        match element.category:
            case "Title":
                draft.heading(level, element.text, number)
            case "Table":
                _add_table(element, draft, number)
            case "CodeSnippet" if len(element.text) > _LONG_PREFORMATTED:  # a whole text file inside <pre>
                read_text(element.text, draft)
            case category:
                draft.add(_KINDS.get(category, Kind.TEXT), element.text, number)


_KINDS = {
    "ListItem": Kind.LIST_ITEM,
    "CodeSnippet": Kind.CODE,
    "Header": Kind.HEADER,
    "Footer": Kind.FOOTER,
    "FigureCaption": Kind.CAPTION,
    "Image": Kind.CAPTION,
}


def _add_table(element: Any, draft: Draft, page: int | None) -> None:
    source = element.metadata.text_as_html
    if not source:  # a grid of millions of cells in a few bytes: unstructured gives its text alone
        draft.add(Kind.TABLE, str(element.text), page)
        return
    table = html.fragment_fromstring(source)
    for title in _taken_title_rows(table):
        draft.add(Kind.TEXT, title, page)
    draft.add(Kind.TABLE, table_text(spread_rows(table)), page)


def read_docx(path: Path, draft: Draft) -> None:
    """Add a Word document to ``draft``. Pages are not told: only the program that prints it knows them."""
    _prepare_unstructured()
    import docx
    import unstructured.partition.docx as unstructured_docx

    unstructured_docx.is_possible_narrative_text = _is_narrative
    note_properties(path, draft)
    document = docx.Document(io.BytesIO(path.read_bytes()))
    hidden = hidden_docx.take_hidden(document)
    _open_wrappers(document.element.body)
    prepared = io.BytesIO()
    document.save(prepared)
    prepared.seek(0)
    _add_elements(unstructured_docx.partition_docx(file=prepared, languages=[""]), draft, page=lambda _: None)
    for words in hidden:
        draft.hide(words)


_W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_MC = "{http://schemas.openxmlformats.org/markup-compatibility/2006}"


def _open_wrappers(body: Any) -> None:
    """Make the text that unstructured passes over part of the body: it reads only plain paragraphs and runs."""
    for name in (f"{_MC}Fallback", f"{_W}moveFrom", f"{_W}lastRenderedPageBreak"):  # said twice; moved; cuts sentences
        for node in list(body.iter(name)):
            node.getparent().remove(node)
    for box in list(body.iter(f"{_W}txbxContent")):
        _lift_text_box(box)
    for node in list(body.iter(f"{_W}ins", f"{_W}moveTo", f"{_W}smartTag", f"{_W}fldSimple", f"{_W}sdt")):
        content = node.find(f"{_W}sdtContent") if node.tag == f"{_W}sdt" else node
        _replace(node, [] if content is None else list(content))


def _lift_text_box(box: Any) -> None:
    """Put the paragraphs of a text box after the paragraph of the body that it is anchored in."""
    anchor = box
    while anchor.getparent() is not None and anchor.getparent().tag not in {f"{_W}body", f"{_W}tc", f"{_W}sdtContent"}:
        anchor = anchor.getparent()
    for paragraph in reversed(list(box)):
        anchor.addnext(paragraph)


def _replace(node: Any, children: Sequence[Any]) -> None:
    parent = node.getparent()
    if parent is None:
        return
    position = parent.index(node)
    parent.remove(node)
    for offset, child in enumerate(children):
        parent.insert(position + offset, child)


def read_pptx(path: Path, draft: Draft) -> None:
    """Add the slides of a presentation to ``draft``: the slide's title is the section, its number the page.

    Speaker notes are kept. Raises `EmptyDocument` for a presentation without any text.
    """
    _prepare_unstructured()
    from unstructured.partition.pptx import partition_pptx

    note_properties(path, draft)
    slides: list[list[Any]] = [[]]
    prepared, hidden = _prepared_slides(path)
    for element in partition_pptx(file=prepared, include_slide_notes=True, languages=[""]):
        if element.category == "PageBreak":
            slides.append([])
        else:
            slides[-1].append(element)
    draft.pages = len(slides)
    for number, found in enumerate(slides, start=1):
        _add_slide(number, found, draft)
    for number, words in hidden:
        draft.hide(words, number)
    if draft.pages and not draft.blocks:
        raise EmptyDocument(
            f"The presentation has {draft.pages} slides but no text: its slides are pictures. "
            "Save it as PDF and ingest that, so that OCR can read them."
        )


def _prepared_slides(path: Path) -> tuple[io.BytesIO, list[tuple[int, str]]]:
    """Return a presentation without what its reader does not see, and that, with the numbers of the slides.

    A cell that spans rows says its text in each: unstructured leaves them empty.
    """
    import pptx

    data = path.read_bytes()
    presentation = pptx.Presentation(io.BytesIO(data))
    tables = [shape.table for slide in presentation.slides for shape in slide.shapes if shape.has_table]
    hidden = hidden_slides.take_hidden(presentation)
    if sum(map(_fill_merged_cells, tables)) == 0 and not hidden:
        return io.BytesIO(data), []
    filled = io.BytesIO()
    presentation.save(filled)
    filled.seek(0)
    return filled, hidden


def _fill_merged_cells(table: Any) -> int:
    """Write the text of cells that span rows into each of them; return how many were written to."""
    rows = [list(row.cells) for row in table.rows]
    written = 0
    for number, row in enumerate(rows):
        for column, cell in enumerate(row):
            below = rows[number + 1 : number + cell.span_height] if cell.is_merge_origin else []
            for covered in below:
                covered[column].text = cell.text
            written += len(below)
    return written


def _add_slide(number: int, elements: list[Any], draft: Draft) -> None:
    """Add one slide, its title first: notes come before it, and texts that only look like titles stay text."""
    draft.start_section()
    titles = [e for e in elements if e.category == "Title" and not e.metadata.category_depth]
    for title in titles[:1]:
        draft.heading(1, title.text, number)
    for element in elements:
        if element is (titles[0] if titles else None):
            continue
        if element.category == "Title":
            draft.add(Kind.TEXT, element.text, number)
        else:
            _add_elements([element], draft, page=lambda _: number)
