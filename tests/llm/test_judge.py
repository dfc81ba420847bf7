"""The suite with a real language model as its judge: every score is a number within bounds, or listed with a reason."""

from __future__ import annotations

import pytest

from eval.judges import open_judge
from eval.scored import METRICS, Sample
from eval.suite import score_all
from rag.grounding import LexicalJudge
from rag.settings import ScoringSettings
from rag.testing import WordEmbedder
from tests.llm.conftest import LlmServer

pytestmark = pytest.mark.llm


def test_answers_are_judged_by_a_real_model(llm_server: LlmServer):
    """It is too small to judge well: what it says is scored, what it can not say is counted, and nothing is lost."""
    settings = ScoringSettings(
        judge="openai", base_url=llm_server.base_url, context_tokens=llm_server.window, max_tokens=40, attempts=1,
        in_flight=1,
    )  # fmt: skip
    sample = Sample(
        "one", "How much may a hotel room cost?", "A hotel room may cost 145 euros per night.",
        ("The hotel limit is 145 euros per night.",), "145 euros per night",
    )  # fmt: skip
    with open_judge(settings, LexicalJudge(), WordEmbedder()) as judge:
        found = score_all([sample], judge, settings)
    assert found.judge.endswith(llm_server.model)
    named = [one.metric for one in (*found.scores, *found.unscored)]
    assert sorted(named) == sorted(METRICS)
    assert all(0 <= score.value <= 1 for score in found.scores)
    assert all(one.why.endswith(".") for one in found.unscored if one.failed)
    assert sum(score.tokens for score in found.scores) > 0 or found.unscored
