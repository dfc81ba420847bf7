"""Terms: English as it always was, every other script found by what its readers write, and no text that breaks it."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest
import Stemmer
from bm25s.stopwords import STOPWORDS_EN
from hypothesis import given
from hypothesis import strategies as st

from rag.catalog import Catalog
from rag.lexical import LexicalIndex
from rag.settings import IndexSettings
from rag.words import STOP_WORDS, WORD, Analyser
from tests.contracts.strategies import put

SCRIPTS = Path(__file__).parent / "scripts"
UNSEEN = "\u061c\u200d\u200e\u200f\u202a\u202b\u202c\u2066\u2067\u2069\ufeff"
#: Any text, and text in which the scripts that are treated apart meet in every order.
any_text = st.text(st.characters(), max_size=80) | st.text(
    "aİß é1٣_\"'-\u0301\u200c\u200d\u202e漢字かなカー々ｶﾞ한국은물을ᄀ수ก็เรือက္ကាា្ខשלוםַםكتابة\u0640\u064eیآहिन्दी\ud800\n",
    max_size=40,
)


@pytest.fixture(scope="module")
def analyser() -> Analyser:
    return Analyser()


def pairs(language: str) -> list[tuple[str, str]]:
    """The questions of a language, each with the passage that answers it."""
    lines = (SCRIPTS / f"{language}.tsv").read_text().splitlines()
    return [(question, passage) for question, passage in (line.split("\t") for line in lines)]


def plain_terms(text: str) -> list[str]:
    """What the terms of English have always been."""
    stemmer = Stemmer.Stemmer("english")
    words = WORD.findall(unicodedata.normalize("NFKC", text).casefold())
    return [stemmer.stemWord(word) for word in words if word not in STOPWORDS_EN]


def test_the_stop_words_are_those_that_indexes_were_made_with():
    assert frozenset(STOPWORDS_EN) == STOP_WORDS


@given(st.text(st.characters(max_codepoint=0x7F), max_size=200))
def test_english_terms_are_unchanged(text):
    assert Analyser().terms(text) == plain_terms(text)


def test_the_terms_of_a_whole_english_document_are_unchanged(analyser):
    """Twice, since the second time they are remembered."""
    text = (Path(__file__).parents[2] / "README.md").read_text()
    assert [analyser.terms(text), analyser.terms(text)] == [plain_terms(text)] * 2


def composed(character: str) -> bool:
    """Whether folding leaves no accent behind that stands alone."""
    return not any(map(unicodedata.combining, unicodedata.normalize("NFKC", character).casefold()))


LATIN = [character for character in map(chr, range(0x80, 0x250)) if composed(character)]


@given(st.text(st.sampled_from(["a", "e", " ", "'", "’", "“", "—", "α", "ж", *LATIN]), max_size=60))
def test_accents_and_alphabets_between_spaces_are_unchanged(text):
    assert Analyser().terms(text) == plain_terms(text)


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        pytest.param("iPhone15用", "iphone15 用", id="mixed"),
        pytest.param("Ｗｉ－Ｆｉに３回", "wi fi に 3 回", id="full width"),
        pytest.param("东京都", "东京 京都 东 京 都", id="Chinese"),
        pytest.param("電池の", "電池 池の 電 池", id="Japanese"),
        pytest.param("ﾃﾞｰﾀ・データ", "デー ータ デー ータ", id="half-width kana"),
        pytest.param("서울에서 물을", "서울 울에 에서 물을 물", id="Korean"),
        pytest.param("เรือข้าม", "เรื รือ อข้ ข้า าม", id="Thai"),
        pytest.param("မြန်မာ", "မြန် န်မာ", id="Burmese"),
        pytest.param("الـمُدِيرُ", "مدير المد لمدي مدير", id="Arabic"),
        pytest.param("می‌رود كى", "مي مي رود رود كي كي", id="Persian"),
        pytest.param("שָׁלוֹם לַמֶּלֶךְ", "לומ שלומ מלכ למלכ", id="Hebrew"),
        pytest.param('מנכ"ל ב"הארץ"', "נכל מנכל ב ב ארצ הארצ", id="Hebrew acronym"),
        pytest.param("١٢ ۱۲ १२", "12 12 12", id="digits"),
        pytest.param("हिन्दी में", "हिन्दी में", id="Hindi"),
        pytest.param("İstanbul за́мок", "istanbul замок", id="accents no letter takes up"),
    ],
)
def test_known_terms(analyser, text, terms):
    assert analyser.terms(text) == terms.split()


@pytest.mark.parametrize(
    ("question", "passage"),
    [
        ("서울", "서울에서"),
        ("물", "물을"),
        ("東京", "東京都"),
        ("データ", "データベース"),
        ("مكتبة", "والمكتبات"),
        ("السفن", "سُفُنٌ"),
        ("علی", "على"),
        ("کتاب", "كتاب‌ها"),
        ("ספרייה", "בספרייה"),
        ("สมุด", "ห้องสมุด"),
        ("Москва", "Москва́"),
    ],
)
def test_a_word_is_found_in_the_form_that_a_sentence_gives_it(analyser, question, passage):
    assert set(analyser.terms(question)) & set(analyser.terms(passage))


@given(any_text)
def test_any_text_has_terms_that_are_visible(text):
    assert all(term and not term.isspace() for term in Analyser().terms(text))


@given(any_text, any_text)
def test_the_terms_of_two_texts_are_those_of_each(first, second):
    analyser = Analyser()
    assert analyser.terms(f"{first} {second}") == analyser.terms(first) + analyser.terms(second)


@given(any_text)
def test_what_an_analyser_remembers_changes_nothing(text):
    analyser = Analyser()
    assert analyser.terms(text) == analyser.terms(text) == Analyser().terms(text)


@pytest.mark.parametrize("language", sorted(path.stem for path in SCRIPTS.glob("*.tsv")))
def test_how_a_text_is_encoded_changes_nothing(analyser, language):
    """Composed or decomposed, with or without what directs the eye: the same terms."""
    for text in (text for pair in pairs(language) for text in pair):
        terms = analyser.terms(text)
        assert analyser.terms(unicodedata.normalize("NFD", text)) == terms
        assert analyser.terms("".join(c + UNSEEN[n % len(UNSEEN)] for n, c in enumerate(text))) == terms


@pytest.mark.parametrize(
    ("language", "bar"),
    [("zh", 0.90), ("ja", 0.95), ("ko", 0.99), ("ar", 0.96), ("fa", 0.99), ("he", 0.95), ("th", 0.95)],
)
def test_questions_find_their_passages_among_those_of_all_languages(tmp_path, language, bar):
    """Mean reciprocal rank by the lexical index alone, sealed; before scripts were treated apart, 0 for Chinese."""
    catalog = Catalog.in_folder(tmp_path)
    collection = catalog.create_collection("all").id
    others = [p for path in sorted(SCRIPTS.glob("*.tsv")) if path.stem != language for _, p in pairs(path.stem)]
    put(catalog, collection, "passages", [passage for _, passage in pairs(language)] + others)
    index = LexicalIndex(catalog, collection, tmp_path / "indexes", IndexSettings(seal_rows=1, seal_share=0.0))
    index.seal()
    ranks = []
    for number, (question, _) in enumerate(pairs(language), 1):
        found = index.search(question, 50).seqs.tolist()
        ranks.append(1 / (found.index(number) + 1) if number in found else 0.0)
    catalog.close()
    assert sum(ranks) / len(ranks) >= bar
