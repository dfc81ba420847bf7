"""The language of a text: owns the detection library. Knows no document and no format.

py3langid (a naive Bayes classifier over byte sequences, model inside, 5 MB, no network) was right on all of the 63
short texts in ``tests/ingest/languages.tsv`` (33 languages) at 0.1 ms a text, after 0.4 s and 106 MB of memory for its
model, and its probabilities are low for what is no language. langdetect: right on 62 at 1.1 ms, and "hjkl" is Dutch to
it. lingua: right on 63 at 21 ms, after 5 s, and it is 96 MB. Nothing is drawn at random: one text, one answer.
"""

from __future__ import annotations

from functools import cache
from typing import Any

#: A long text is judged by this many characters of its start, its middle and its end.
_SAMPLE = 1500
#: Least probability of the likeliest language. It is low for few words, for figures and for codes.
_SURE = 0.35
#: Signs that programs are full of, and the share of them that no prose has.
_SIGNS, _MOST_SIGNS = "{}[]()<>=;_\\", 0.05
#: Languages of the model that have no code of two letters, or a code inside another, as the code that covers them.
_COVERED = {"yue": "zh", "wuu": "zh", "nn": "no", "ary": "ar", "arz": "ar"}
#: What the model says of what is no language.
_NO_LANGUAGE = "zxx"


def detect_language(text: str) -> str | None:
    """Return the ISO 639-1 code of most of ``text``, judged by samples of it.

    None where there is too little text to tell, or it is figures or code. Norwegian is ``no``, Chinese ``zh`` in
    either script. Never raises for what the text says.
    """
    sample = _sampled(text)
    visible = sum(map(len, sample.split()))
    if not visible or sum(map(sample.count, _SIGNS)) / visible > _MOST_SIGNS:
        return None
    language, probability = _model().classify(sample)
    if language == _NO_LANGUAGE or probability < _SURE:
        return None
    return _COVERED.get(language, str(language))


def _sampled(text: str) -> str:
    if len(text) <= 3 * _SAMPLE:
        return text
    middle = (len(text) - _SAMPLE) // 2
    return "\n".join((text[:_SAMPLE], text[middle : middle + _SAMPLE], text[-_SAMPLE:]))


@cache
def _model() -> Any:
    """Load the model once, when the first text comes."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    model = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    model.set_languages([label for label in model.labels if len(label) == 2 or label in {*_COVERED, _NO_LANGUAGE}])
    return model
