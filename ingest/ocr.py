"""The text in pictures: grey pixels to lines with their size and place. Runs tesseract, and owns rapidocr.

Two engines read, one at a time: Debian's tesseract where it is installed, else rapidocr of the extra `ocr`, whose
models are inside its package. Knows no file: a picture is a matrix of grey values, and who opened what to get it
(`ingest.image`, `ingest.pdf`) is not known here. Neither engine uses the network or more than one thread.

What is noise: a word read with less than 30 % confidence, a sign without letter or digit read with less than 80 %,
the rules of tables, and a line whose words have less than 50 % together.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ingest.layout import WIDE_GAP, Line, Piece, arranged
from rag.errors import DamagedDocument, DocumentTooLarge, UnsupportedDocument
from rag.quiet import silence_dependencies
from rag.settings import IngestSettings

Grey = npt.NDArray[np.uint8]
Engine = Literal["tesseract", "rapidocr"]

_MOST_LANGUAGES = 4
_SMALLEST = 12  # pixels: no letter is to be read in a picture that is lower or narrower
_LONGEST = 32_000  # pixels: tesseract takes no side of more than 2 ** 15
_DARK = 96  # a picture whose middle grey is below this is white on black
_LEAST_WORD, _LEAST_SIGN, _LEAST_LINE = 30.0, 80.0, 50.0
_POOR = 60.0  # mean confidence below which the picture may stand on its head; print has 90, and 30 if it does
_RULES = re.compile(r"[|¦_‗]+")
_PLACE = re.compile(r"(bbox|baseline|x_size|x_wconf) ([-\d. ]+)")
_POINTS = 72.0


@dataclass(frozen=True, slots=True)
class _Word:
    """A word in pixels from the upper left, and how sure the engine is of it, 0 to 100."""

    text: str
    left: float
    right: float
    confidence: float

    @property
    def weight(self) -> int:
        return sum(char.isalnum() for char in self.text)


@dataclass(frozen=True, slots=True)
class _Row:
    """The words of one line in reading order; ``baseline`` at its left end, which it leaves with ``slope``."""

    words: tuple[_Word, ...]
    left: float
    baseline: float
    slope: float
    size: float
    lies: bool = False  # it runs up or down the picture


def engine(limits: IngestSettings) -> Engine | None:
    """Return what reads pictures here, None if nothing does: it is not installed, or switched off by ``limits.ocr``."""
    if limits.ocr in {"auto", "tesseract"} and shutil.which("tesseract"):
        return "tesseract"
    return "rapidocr" if limits.ocr in {"auto", "rapidocr"} and _has_rapidocr() else None


def cure(limits: IngestSettings) -> str:
    """Say what to do about a picture where `engine` is None, as the second half of a sentence."""
    if limits.ocr == "off":
        return "OCR is switched off here (ingest.ocr): run OCR yourself, or allow it in the settings."
    debian, extra = "Debian's tesseract-ocr", "the extra of Python packages: pip install 'citewell[ocr]'"
    what = {"tesseract": debian, "rapidocr": extra}.get(limits.ocr, f"{debian}, or {extra}")
    return f"no program for OCR is installed here: install {what}."


def read_picture(grey: Grey, dpi: float, limits: IngestSettings) -> list[Line]:
    """Return the lines of text in a picture in reading order, in points; none if it shows no text.

    ``grey`` has one byte a pixel, rows from the top, 0 black; ``dpi`` says how many of them make an inch. A picture
    that lies on its side or stands on its head is read as if it were upright. Raises `UnsupportedDocument` where
    `engine` is None or has no data for the languages in ``limits``, `DocumentTooLarge` if the engine takes longer
    than they allow, and `DamagedDocument` if it fails.
    """
    chosen = engine(limits)
    if chosen is None:
        raise UnsupportedDocument(f"The text in the picture can not be read: {cure(limits)}", needs="ocr")
    if min(grey.shape) < _SMALLEST or not np.ptp(grey):
        return []
    step = -(-max(grey.shape) // _LONGEST)
    grey, dpi = grey[::step, ::step], dpi / step
    if np.median(grey[::8, ::8]) < _DARK:
        grey = 255 - grey
    rows = _by_tesseract(grey, dpi, limits) if chosen == "tesseract" else _by_rapidocr(grey)
    kept = (clean for row in rows if (clean := _without_noise(row)))
    return arranged([piece for row in kept for piece in _pieces(row, _POINTS / dpi)])


def _lies(box: tuple[float, ...]) -> bool:
    return box[3] - box[1] > 1.5 * (box[2] - box[0])


def _without_noise(row: _Row) -> _Row | None:
    words = tuple(word for word in row.words if _is_word(word))
    if not any(word.weight for word in words) or _confidence(words) < _LEAST_LINE:
        return None
    return replace(row, words=words)


def _is_word(word: _Word) -> bool:
    least = _LEAST_WORD if word.weight else _LEAST_SIGN
    return word.confidence >= least and not _RULES.fullmatch(word.text)


def _confidence(words: Sequence[_Word]) -> float:
    """Return the mean confidence of ``words`` by their letters; 0 of none."""
    letters = sum(word.weight for word in words)
    return sum(word.weight * word.confidence for word in words) / letters if letters else 0.0


def _pieces(row: _Row, scale: float) -> Iterator[Piece]:
    """Yield the parts of a line between wide gaps, measured in points by ``scale``."""
    start = 0
    for end in range(1, len(row.words) + 1):
        if end < len(row.words) and _gap(row.words[end - 1], row.words[end]) <= WIDE_GAP * row.size:
            continue
        words = row.words[start:end]
        left, right = min(word.left for word in words), max(word.right for word in words)
        baseline = row.baseline + row.slope * (left - row.left)
        text = " ".join(word.text for word in words)
        yield Piece(text, left * scale, right * scale, -baseline * scale, row.size * scale)
        start = end


def _gap(word: _Word, following: _Word) -> float:
    """Return the space between two words, whichever way the line runs."""
    return max(following.left - word.right, word.left - following.right)


# -- tesseract -------------------------------------------------------------------------------------------------------


def _by_tesseract(grey: Grey, dpi: float, limits: IngestSettings) -> list[_Row]:
    """Read the picture as it is, and if lines stand on end or little is understood, turned; return the best of it."""
    languages = _languages(limits)
    rows = _read_upright(grey, dpi, languages, limits)
    words = [word for row in rows for word in row.words]
    lying = sum(word.weight * (1 if row.lies else -1) for row in rows for word in row.words) > 0
    if not lying and (not words or _confidence(words) >= _POOR):
        return rows
    turns = (1, 3) if lying else (0, 2)
    readings = (_read_upright(np.rot90(grey, turn), dpi, languages, limits) if turn else rows for turn in turns)
    return max(readings, key=_worth)


def _worth(rows: Sequence[_Row]) -> float:
    """Return how much has been read, and how surely: letters of words that are no noise, by their confidence."""
    return sum(word.weight * word.confidence for row in rows for word in row.words if _is_word(word))


def _read_upright(grey: Grey, dpi: float, languages: str, limits: IngestSettings) -> list[_Row]:
    # Method 2 is Sauvola's local threshold: it keeps what stands on coloured ground (table heads), and costs nothing.
    options = ["-l", languages, "--psm", "3", "-c", "thresholding_method=2", "-c", "tessedit_create_hocr=1"]
    return _rows(_tesseract(grey, dpi, options, limits))


def _tesseract(grey: Grey, dpi: float, options: list[str], limits: IngestSettings) -> str:
    """Return what tesseract writes about a picture."""
    height, width = grey.shape
    picture = b"P5 %d %d 255\n" % (width, height) + grey.tobytes()
    command = ["tesseract", "stdin", "stdout", "--dpi", str(min(max(round(dpi), 70), 2400)), *options]
    try:
        # One thread: several of them are slower, and each parsing process has one core.
        done = subprocess.run(
            ["env", "OMP_THREAD_LIMIT=1", *command],  # noqa: S607 -- where the system has them
            input=picture,
            capture_output=True,
            timeout=limits.ocr_seconds,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise DocumentTooLarge(
            f"Reading a picture took longer than {limits.ocr_seconds:g} seconds (ingest.ocr_seconds); "
            "make it smaller or raise the limit."
        ) from error
    if done.returncode != 0:
        raise DamagedDocument(
            "The text in the picture can not be read, tesseract fails on it: save it anew and ingest it again.",
            cause=done.stderr.decode("utf-8", "replace").strip()[-500:],
        )
    return done.stdout.decode("utf-8", "replace")


def _languages(limits: IngestSettings) -> str:
    """Return the languages to read in, as tesseract takes them. Raises `UnsupportedDocument` for one it has not."""
    installed = _installed()
    asked = [name for name in limits.ocr_languages.split("+") if name]
    missing = [name for name in asked if name not in installed]
    if missing or not installed - {"osd", "equ"}:
        names = ", ".join(missing) or "eng"
        raise UnsupportedDocument(
            f"The text in the picture can not be read: tesseract has no data for the language {names} "
            "(ingest.ocr_languages); install it (Debian: "
            f"{', '.join('tesseract-ocr-' + name.replace('_', '-') for name in names.split(', '))}).",
            needs="ocr",
        )
    found = sorted(installed - {"osd", "equ"}, key=lambda name: (name != "eng", name))
    return "+".join(asked or found[:_MOST_LANGUAGES])


@lru_cache(maxsize=1)
def _installed() -> frozenset[str]:
    """Return the names of what tesseract has data for, scripts left out."""
    command = ["tesseract", "--list-langs"]
    said = subprocess.run(command, capture_output=True, check=False, timeout=60).stdout.decode("utf-8", "replace")
    return frozenset(name for line in said.splitlines()[1:] if (name := line.strip()) and "/" not in name)


def _rows(hocr: str) -> list[_Row]:
    """Return the lines in tesseract's answer, which is a web page with the places in its titles."""
    from lxml import etree  # type: ignore[import-untyped]

    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, recover=True, huge_tree=True)
    page = etree.fromstring(hocr.encode(), parser)
    rows = []
    for line in page.iterfind(".//{*}p/{*}span"):
        words = tuple(word for span in line.iterfind("{*}span") if (word := _word(span)))
        left, top, right, bottom = (place := _place(line))["bbox"]
        slope, offset = place.get("baseline", (0.0, 0.0))
        if words and _lies((left, top, right, bottom)):
            rows.append(_Row(words, left, bottom, 0.0, right - left, lies=True))
        elif words:
            rows.append(_Row(words, left, bottom + offset, slope, 0.9 * place.get("x_size", (bottom - top,))[0]))
    return rows


def _word(span: Any) -> _Word | None:
    text, place = "".join(span.itertext()).strip(), _place(span)
    return _Word(text, place["bbox"][0], place["bbox"][2], place["x_wconf"][0]) if text else None


def _place(span: Any) -> dict[str, tuple[float, ...]]:
    return {name: tuple(map(float, numbers.split())) for name, numbers in _PLACE.findall(span.get("title", ""))}


# -- rapidocr --------------------------------------------------------------------------------------------------------

# Its boxes stand a little off the letters: shares of their height, measured on print of known size.
_BOX_SIZE, _BOX_BELOW = 0.74, 0.27
_ASKED = 9  # lines that are asked whether the picture stands on its head


@lru_cache(maxsize=1)
def _has_rapidocr() -> bool:
    from importlib.util import find_spec

    return find_spec("rapidocr") is not None


@lru_cache(maxsize=1)
def _rapidocr() -> Any:
    """Load the models once, 0.8 s: they are in the package."""
    import cv2

    silence_dependencies()  # onnxruntime, under which it runs, reports its use
    from rapidocr import RapidOCR

    cv2.setNumThreads(1)
    threads = "EngineConfig.onnxruntime.{}_op_num_threads"
    return RapidOCR(
        params={
            "Global.log_level": "critical",
            "Global.text_score": _LEAST_LINE / 100,
            threads.format("intra"): 1,
            threads.format("inter"): 1,
        }
    )


def _by_rapidocr(grey: Grey) -> list[_Row]:
    """Read the picture as it is, and again if that shows how to turn it: lines on their heads are read badly."""
    seen = _seen(grey)
    lying = sum(len(text) * (1 if _lies(box) else -1) for box, text, _ in seen if len(text) > 1) > 0
    longest = sorted(seen, key=lambda line: -len(line[1]))[:_ASKED]
    turns = int(lying) + 2 * _stand_on_their_heads(grey, [box for box, _, _ in longest])
    rows = []
    for (left, top, right, bottom), text, score in _seen(np.rot90(grey, turns)) if turns else seen:
        height = bottom - top
        word = _Word(text.strip(), left, right, 100.0 * score)
        rows.append(_Row((word,), left, bottom - _BOX_BELOW * height, 0.0, _BOX_SIZE * min(height, right - left)))
    return rows


def _seen(grey: Grey) -> list[tuple[tuple[float, ...], str, float]]:
    """Return the box, the text and the score of each line."""
    found = _rapidocr()(np.stack([grey] * 3, axis=-1))
    if found.boxes is None:
        return []
    boxes = ((*corners.min(axis=0), *corners.max(axis=0)) for corners in np.asarray(found.boxes, dtype=float))
    return list(zip(boxes, found.txts, found.scores, strict=True))


def _stand_on_their_heads(grey: Grey, boxes: Sequence[tuple[float, ...]]) -> bool:
    """Tell whether most of these lines do, or do once lying ones are turned to the left by a quarter."""
    votes = []
    for box in boxes:
        left, top, right, bottom = (max(round(place), 0) for place in box)
        line = grey[top : max(bottom, top + 1), left : max(right, left + 1)]
        line = np.rot90(line) if _lies(box) else line
        asked = _rapidocr()(np.stack([line] * 3, axis=-1), use_det=False, use_cls=True, use_rec=False)
        votes.append(str(asked.cls_res[0][0]) == "180")
    _rapidocr().update_params(use_det=True, use_cls=True, use_rec=True)  # it keeps what the last call said
    return sum(votes) * 2 > len(votes)
