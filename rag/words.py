"""Text to index terms: owns the stemmers. What is split into words, and how, is decided by the script of each run.

The lexical index and the judge of overlap go through here with question and passage alike, so that only the characters
count, never a guess at the language:

- Latin, Greek, Cyrillic and whatever else stands between spaces: words, English stop words left out, English Snowball.
- Han and kana: overlapping pairs of characters, and each Han character alone.
- Hangul: overlapping pairs within a word, and the syllable before a particle, where it is only one.
- Thai, Lao, Khmer, Burmese: overlapping pairs of letters with their marks.
- Arabic and Hebrew script: vowel points and tatweel dropped, spellings unified, then the stem (Arabic: Snowball) and
  the overlapping fours of letters, which meet broken plurals and the articles and prepositions written with the noun.

No dictionary is needed for this, and none tried did better. Mean reciprocal rank of the 140 questions of
``tests/rag/scripts`` among their own passages and 400 to 600 made of shuffled pieces of them, this module alone:
Chinese .73 (jieba .59, ICU .57), Japanese .75 (janome .66, ICU .54), Korean .71 (words .15), Thai .94 (pairs of
characters .89), Arabic .70 (Snowball alone .52, fours alone .59), Persian .69 (words .47), Hebrew .68 (words .42).
The dictionaries would add 5 to 200 MB. Fours of letters: McNamee and Mayfield, "Character N-Gram Tokenization for
European Language Text Retrieval", Information Retrieval 7, 2004.

Knows no document and no index. Text that is all of the first kind costs no more than its words.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise

import Stemmer

#: Names what `Analyser.terms` does. Parts of the index made under another name are dropped and made anew: change it
#: with every change of a term.
ANALYSER = "nfkc-casefold-scripts-2"
WORD = re.compile(r"[^\W_]+")
STOP_WORDS = frozenset(
    "a an and are as at be but by for if in into is it no not of on or such that the their then there these they this "
    "to was will with".split()
)
#: Hostile text must not grow the memory without end: how many words are remembered with their stem, how many with
#: several terms, and how long one may be.
_STEMS, _PARTS, _LONGEST = 500_000, 100_000, 100

# -- characters --------------------------------------------------------------------------------------------------------

_HAN = "\u3005-\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003fffd"
_KANA = "\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff\U0001b000-\U0001b16f"
_HANGUL = "\u1100-\u11ff\u3131-\u318e\ua960-\ua97c\uac00-\ud7a3\ud7b0-\ud7fb"
#: Thai, Lao, Burmese (three blocks), Khmer: letters and marks, no digits, no signs.
_SPACELESS = "\u0e01-\u0e3a\u0e40-\u0e4e\u0e81-\u0ecd\u0edc-\u0edf\u1000-\u103f\u1050-\u108f\u109a-\u109d\ua9e0-\ua9ef"
_SPACELESS += "\ua9fa-\ua9fe\uaa60-\uaa76\uaa7a-\uaa7f\u1780-\u17b3\u17b6-\u17d3\u17dc\u17dd"
_ARABIC = "\u0620-\u063f\u0641-\u064a\u066e\u066f\u0671-\u06d3\u06d5\u06e5\u06e6\u06ee\u06ef\u06fa-\u06ff"
_ARABIC += "\u0750-\u077f\u0870-\u0887\u0889-\u088e\u08a0-\u08c9"
_HEBREW = "\u05d0-\u05ea\u05ef-\u05f2"
#: Marks without which a word is still the same word: accents that no letter has taken up, points, vowel signs; tatweel.
_OPTIONAL = (
    "\u0300-\u036f\u0483-\u0489\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u0610-\u061a\u0640\u064b-\u065f"
)
_OPTIONAL += "\u0670\u06d6-\u06dc\u06df-\u06e4\u06e7\u06e8\u06ea-\u06ed\u0711\u0730-\u074a\u0897-\u089f\u08ca-\u08e1"
_OPTIONAL += "\u08e3-\u08ff\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20f0\u3099\u309a\ufe20-\ufe2f"
#: What is there for the eye alone: joiners, directions, variants of a glyph, the byte order mark.
_UNSEEN = re.compile("[\u061c\u200d-\u200f\u202a-\u202e\u2060\u2066-\u2069\ufe00-\ufe0f\ufeff\U000e0100-\U000e01ef]")


def _class_of(fits: Callable[[str], object]) -> str:
    """Return, as the inside of a character class, all characters that fit, as few ranges."""
    numbers = [number for number in range(0x300, 0x10000) if fits(chr(number))]
    starts = [n for n, before in zip(numbers, [-1, *numbers], strict=False) if n != before + 1]
    ends = [n for n, after in zip(numbers, [*numbers[1:], -1], strict=True) if n != after - 1]
    return "".join(f"{chr(start)}-{chr(end)}" for start, end in zip(starts, ends, strict=True))


_MARK = re.compile(f"[{_OPTIONAL}\u200c]|{_UNSEEN.pattern}")
_MARKS = _class_of(lambda c: unicodedata.category(c) in {"Mn", "Mc"} and not _MARK.match(c))
#: Latin, Greek, Cyrillic, Armenian and the signs of writing: text of these alone is words between spaces, once folded.
_USUAL = frozenset(c for c in map(chr, [*range(0x590), *range(0x1E00, 0x2C00)]) if not _MARK.match(c))
_DROPPED = re.compile(f"[{_OPTIONAL}]")
#: Between Persian words that are one to the grammar stands a non-joiner, elsewhere it is there for the eye.
_NON_JOINER = re.compile(f"(?<=[{_ARABIC}])\u200c")
#: Inside a Hebrew word: the sign of an acronym, before its last letter, and that of a foreign sound.
_HEBREW_SIGNS = re.compile(
    f"(?<=[{_HEBREW}])(?:[\"\u05f4\u201d](?=[{_HEBREW}](?![{_HEBREW}]))|['\u05f3\u2019](?=[{_HEBREW}]))"
)
_LETTER = f"[^\\W_{_HAN}{_KANA}{_HANGUL}{_SPACELESS}{_ARABIC}{_HEBREW}]"
_RUN = re.compile(
    f"(?P<word>{_LETTER}+(?:[{_MARKS}]+{_LETTER}*)*)|(?P<ideographs>[{_HAN}{_KANA}]+)|(?P<hangul>[{_HANGUL}]+)"
    f"|(?P<spaceless>[{_SPACELESS}]+)|(?P<arabic>[{_ARABIC}]+)|(?P<hebrew>[{_HEBREW}]+)"
)
#: A word, or one character where writing knows no spaces between words.
UNIT = re.compile(f"[{_HAN}{_KANA}{_SPACELESS}]|[^\\W_{_HAN}{_KANA}{_SPACELESS}]+")
_HAN_CHARACTER = re.compile(f"[{_HAN}]")
_STACKED = "\u1039\u17d2"  # the next consonant stands below this one
_CLUSTER = re.compile(f".(?:[{_STACKED}].?|[{_MARKS}])*", re.DOTALL)

# -- spellings -------------------------------------------------------------------------------------------------------

_PARTICLES = "은 는 이 가 을 를 에 에서 에게 의 로 으로 와 과 도 만 부터 까지 보다 처럼"
_SYLLABLE_AND_PARTICLE = re.compile(f"(.)(?:{_PARTICLES.replace(' ', '|')})")
#: One letter that is written or typed in many ways: alef; ye and kaf of Persian and Urdu; their he.
_ARABIC_SPELLING = str.maketrans("أإآٱیېکۀہە", "ااااييكههه")
#: What Snowball still tells apart, and writers do not.
_ARABIC_ENDINGS = str.maketrans("ىةؤئ", "يهوي")
#: "and", the conjunctions, prepositions and the article, where at least three letters are left.
_HEBREW_PREFIX = re.compile("^ו?(?:כש|מה|שה|[משהבלכ])?(?=[א-ת]{3})")
_HEBREW_SUFFIX = re.compile("(?<=..)(?:ים|ות|ה|ת)$")
_HEBREW_FINALS = str.maketrans("ךםןףץ", "כמנפצ")


class Analyser:
    """Text to index terms. Remembers the terms of words it has seen, up to a bound."""

    def __init__(self) -> None:
        self._english = Stemmer.Stemmer("english")
        self._snowball = Stemmer.Stemmer("arabic")
        self._stems: dict[str, str] = {}
        self._parts: dict[str, list[str]] = {}
        self._splits: Mapping[str, Callable[[str], list[str]]] = {
            "word": self._word,
            "ideographs": _ideographs,
            "spaceless": _spaceless,
            "hangul": self._remembered(_hangul),
            "arabic": self._remembered(self._arabic),
            "hebrew": self._remembered(_hebrew),
        }

    def terms(self, text: str) -> list[str]:
        """Return the terms of ``text`` in order, repeated as they occur. Never raises."""
        if text.isascii():
            folded = text.lower()
        else:
            folded = unicodedata.normalize("NFKC", text).casefold()
            if not _USUAL.issuperset(folded):
                return list(self._of_every_script(text))
        stems, stem = self._stems, self._stem
        return [stems.get(word) or stem(word) for word in WORD.findall(folded) if word not in STOP_WORDS]

    def _of_every_script(self, text: str) -> Iterator[str]:
        for run in _RUN.finditer(_folded(text)):
            yield from self._splits[run.lastgroup or "word"](run.group())

    def _word(self, word: str) -> list[str]:
        if word in STOP_WORDS:
            return []
        if word.isdecimal() and not word.isascii():
            return ["".join(str(unicodedata.decimal(digit)) for digit in word)]
        return [self._stems.get(word) or self._stem(word)]

    def _stem(self, word: str) -> str:
        stem: str = self._english.stemWord(word)
        if len(word) <= _LONGEST:
            if len(self._stems) >= _STEMS:
                self._stems.clear()
            self._stems[word] = stem
        return stem

    def _arabic(self, word: str) -> list[str]:
        word = word.translate(_ARABIC_SPELLING)
        stem: str = self._snowball.stemWord(word).translate(_ARABIC_ENDINGS)
        return [stem, *_runs_of(word.translate(_ARABIC_ENDINGS), 4)]

    def _remembered(self, split: Callable[[str], list[str]]) -> Callable[[str], list[str]]:
        """Return ``split`` with a memory; the scripts that use it share no letter."""

        def remembering(word: str) -> list[str]:
            parts = self._parts.get(word)
            if parts is None:
                parts = split(word)
                if len(word) <= _LONGEST:
                    if len(self._parts) >= _PARTS:
                        self._parts.clear()
                    self._parts[word] = parts
            return parts

        return remembering


def _folded(text: str) -> str:
    """Return ``text`` with one way of writing for what is the same word to a reader."""
    text = unicodedata.normalize("NFKC", _UNSEEN.sub("", text)).casefold()
    text = _DROPPED.sub("", unicodedata.normalize("NFC", text))
    return _HEBREW_SIGNS.sub("", _NON_JOINER.sub(" ", text).replace("\u200c", ""))


def _runs_of(word: str, length: int) -> list[str]:
    """Return all overlapping runs of ``length`` characters; what is shorter is one run."""
    return [word[n : n + length] for n in range(max(len(word) - length, 0) + 1)]


def _ideographs(run: str) -> list[str]:
    return [run] if len(run) == 1 else _runs_of(run, 2) + _HAN_CHARACTER.findall(run)


def _spaceless(run: str) -> list[str]:
    clusters = _CLUSTER.findall(run)
    return [a + b for a, b in pairwise(clusters)] or clusters


def _hangul(word: str) -> list[str]:
    noun = _SYLLABLE_AND_PARTICLE.fullmatch(word)
    return _runs_of(word, 2) + ([noun[1]] if noun else [])


def _hebrew(word: str) -> list[str]:
    stem = _HEBREW_SUFFIX.sub("", _HEBREW_PREFIX.sub("", word)).translate(_HEBREW_FINALS)
    return [stem, *_runs_of(word.translate(_HEBREW_FINALS), 4)]
