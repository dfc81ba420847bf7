"""The training of the reader and the judge: rows that are true, a run that learns and resumes, an equal export."""

from __future__ import annotations

import gzip
import json
import random
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from eval.bench_reader import Asked as Retrieved
from eval.training.batches import JudgeExample, inputs, judge_examples, order, reader_examples, reader_target
from eval.training.calibration import SILENT, calibrate, fit_logistic, fit_slope, join_readers
from eval.training.claims import claim_questions, shared_runs
from eval.training.clozes import changed_rows, cloze_rows
from eval.training.detokenise import detokenised
from eval.training.export import averaged, export, load_model, shipped
from eval.training.exported import load_shipped
from eval.training.grids import grid_rows
from eval.training.judge_rows import judge_rows, sentence_rows, stated
from eval.training.model import PairModel, Shape, load_words, start_from
from eval.training.reader_rows import reader_rows
from eval.training.rows import JudgeRow, ReaderRow, is_held
from eval.training.swaps import TRUE_EDITS, edited, false_edits, names_in
from eval.training.train import Recipe, Rows, Run, parted
from rag.encoders import built_in_model
from rag.errors import BadInput
from rag.judge import TrainedJudge
from rag.pair_model import TrainedPairs
from rag.pairs import PairTokenizer
from rag.span_reader import Asked, SpanReader
from rag.trained_reader import Seen

#: Two layers of the real encoder: as wide as it, and trained in seconds.
TINY = {"reader": Shape(layers=2, token_values=3), "judge": Shape(layers=2)}
CLAIMS = [
    "The bridge was opened in 1932 by the mayor of Lisbon.",
    "More than 1,200 people can not swim in the lake before April.",
    "On 12 March 1987, the firm (then small) sold 40% of its ships, which were old.",
    "In the north, Anna Keller won three prizes and was the first to leave Berlin.",
]
EVIDENCE = "In 1945 and 1961 Maria Santos and John Okafor saw 17 ships in Porto. She was in Madrid in 2003."


@pytest.fixture(scope="module")
def tokenizer():
    return PairTokenizer(built_in_model() / "tokenizer.json")


@pytest.fixture(scope="module")
def words():
    return load_words(built_in_model())


# -- rows --------------------------------------------------------------------------------------------------------------


@given(number=st.integers(0, 10**9))
def test_no_held_row_trains_in_another_spelling(number):
    """Of two spellings of a text both train, both are held, or the one that is not held trains alone."""
    texts = f"They didn't see it, number {number}.", f"They did n't see it , number {number} ."
    rows = [ReaderRow("Who?", "", text, None, answerable=False, source="nq") for text in texts]
    trained, held = parted(rows)
    expected = [row for row in rows if not is_held(row.text)]
    assert trained == expected
    assert held == ([] if expected else rows)


@given(claim=st.sampled_from(CLAIMS) | st.text(max_size=80), seed=st.integers(0, 2**32))
def test_an_edit_that_makes_false_never_leaves_a_claim_as_it_was(claim, seed):
    """Not even in other letters: the words or the figures differ."""
    false = edited(claim, EVIDENCE, false_edits(names_in(EVIDENCE)), random.Random(seed))
    assert false is None or re.sub(r"[\s,]", "", false) != re.sub(r"[\s,]", "", claim)


@pytest.mark.parametrize("edit", range(6))
@pytest.mark.parametrize("claim", CLAIMS[:1] + CLAIMS[3:])
def test_each_edit_changes_its_own_part_alone(claim, edit):
    """What stands before and after the edited words stays."""
    change = false_edits(["Kofi Mensah"])[edit]
    false = change(claim, EVIDENCE, random.Random(4))
    if false is not None:
        same = sum(a == b for a, b in zip(claim, false, strict=False))
        same += sum(a == b for a, b in zip(claim[::-1], false[::-1], strict=False))
        assert same >= len(claim) - 16


def test_edits_that_keep_a_claim_true():
    """Brackets and clauses go, dates lose their day, numbers are spelt in another way."""
    found = {edited(CLAIMS[2], "", [edit], random.Random(1)) for edit in TRUE_EDITS}
    assert found == {
        "On 12 March 1987, the firm sold 40% of its ships, which were old.",
        "On 12 March 1987, the firm (then small) sold 40% of its ships.",
        "On 12 March 1987, the firm (then small) sold 40 percent of its ships, which were old.",
        "In March 1987, the firm (then small) sold 40% of its ships, which were old.",
        "The firm (then small) sold 40% of its ships, which were old on 12 March 1987.",
    }
    assert edited("1,200 people", "", TRUE_EDITS, random.Random(1)) == "1200 people"


PASSAGES = [
    (
        "The harbour bridge was opened on 12 March 1987 by Maria Santos. It is 420 metres long and carries six lanes.",
        "B",
    ),
    (
        "Anna Keller won the race in 1932. In Berlin she beat 17 runners, although nobody there had ever seen her run.",
        "",
    ),
    ("Nobody knows.", ""),
]


@given(seed=st.integers(0, 10_000))
def test_a_made_up_question_is_answered_where_it_says(seed):
    """By a name, a year, a date or a number of the passage, which is no word of the question, or by nothing at all."""
    for row in cloze_rows(PASSAGES, 3, random.Random(seed)):
        assert row.answerable == (row.answer is not None) == (row.source == "cloze")
        if row.answer is not None:
            said = row.text[slice(*row.answer)]
            assert re.fullmatch(r"[\d,.]+|(?:\d{1,2} )?[A-Z][\w ]+|The [\w ]+", said)
            assert said not in row.question
            assert re.search(r"\b(?:who|what|which|when|how many|on what|in what)\b", row.question.lower())
        else:
            assert row.question not in {
                made.question for made in cloze_rows(PASSAGES, 3, random.Random(seed)) if made.answer
            }


@given(seed=st.integers(0, 10_000))
def test_a_changed_question_asks_for_something_else(seed):
    """Another word or name of the passage, another figure, the opposite, or a "not"; the passage stays as it is."""
    text, context = PASSAGES[0]
    row = ReaderRow("Who was the harbour bridge opened by in 1987?", context, text, (48, 60), True, "squad")
    for changed in changed_rows([row], 1.0, random.Random(seed)):
        assert changed.question != row.question
        assert (changed.text, changed.answer, changed.answerable) == (text, None, False)
        assert changed.source == "squad-changed"


def test_evidence_is_edited_too_so_that_a_not_alone_proves_nothing():
    """Of the same evidence one claim is true and one is false, and of the claims with a "not" some are true."""
    text = " ".join(f"Boat {n} may not leave the north harbour before {n} in May {1950 + n}." for n in range(10, 19))
    rows = [row for seed in range(60) for row in sentence_rows([text], ["Kofi Mensah"], random.Random(seed))]
    turned = [row for row in rows if row.source == "sentence-turned"]
    assert [row.supported for row in turned] == [True, False] * (len(turned) // 2)
    assert all(true.evidence == false.evidence for true, false in zip(turned[::2], turned[1::2], strict=True))
    assert {row.supported for row in rows if " not " in row.claim} == {True, False}
    assert {row.supported for row in rows if " not " not in row.claim} == {True, False}
    missing = [row for row in rows if row.source == "sentence-missing"]
    assert missing
    assert not any(row.claim in row.evidence for row in missing)


@pytest.mark.parametrize(
    ("question", "claim"),
    [
        ("who wrote the song", "Ann Lee wrote the song."),
        ("Which river is the longest?", "Ann Lee is the longest."),
        ("what did he sell", "What did he sell? Ann Lee."),
        ("When was it built?", "When was it built? Ann Lee."),
    ],
)
def test_question_and_answer_as_one_claim(question, claim):
    assert stated(question, "Ann Lee") == claim


@given(st.text(alphabet="ab1 ,.()`'-$%", max_size=60))
def test_places_follow_their_characters_through_detokenising(text):
    """Each letter and digit of the text stands at its new place, in the same order."""
    plain, places = detokenised(text)
    assert len(places) == len(text) + 1
    assert places == sorted(places)
    assert places[-1] == len(plain)
    assert all(plain[places[i]] == c for i, c in enumerate(text) if c.isalnum())


def test_text_cut_into_tokens_as_people_write_it():
    text = "the `` fruit '' ( 1893 ) , isn n't 7 % of Smith 's -- a well - known $ 5 note ."
    assert detokenised(text)[0] == "the \"fruit\" (1893), isnn't 7% of Smith's–a well-known $5 note."


@given(seed=st.integers(0, 10_000))
def test_the_answer_of_a_table_is_the_cell_of_its_row_and_column(seed):
    """A made-up table answers with a whole cell of the row that is asked for, or not at all."""
    for row in grid_rows(3, random.Random(seed)):
        assert row.answerable == (row.answer is not None)
        if row.answer is not None:
            start, end = row.answer
            line = row.text[row.text.rfind("\n", 0, start) + 1 :].split("\n")[0]
            name = re.split(r" \| |\| |\t|, |\|", line)[0].casefold()
            assert name in row.question.casefold()
            assert row.text[start:end].strip()
            assert row.text[start - 1] in " |\t"
            assert end == len(row.text) or row.text[end] in " |\t\n,"


@given(
    before=st.text(alphabet="ab é.\n", max_size=900),
    answer=st.text(alphabet="xy7", min_size=1, max_size=8),
    after=st.text(alphabet="ab é.\n", max_size=900),
    context=st.sampled_from(["", "A title"]),
)
def test_spans_are_where_they_say(tokenizer, before, answer, after, context):
    """The first and the last token of an answer begin and end exactly where the row says that it stands."""
    text = f"{before} {answer} {after}"
    start = len(before) + 1
    row = ReaderRow("What is it?", context, text, (start, start + len(answer)), True, "test")
    example = reader_examples([row], tokenizer, 1)[0]
    lead = len(context) + 1 if context else 0
    first, last = example.places
    assert example.pair.spans[first, 0] == start + lead
    assert example.pair.spans[last, 1] == start + len(answer) + lead
    assert example.sentences[first] == example.right


@pytest.fixture
def data(tmp_path):
    """The training files of all sets, a few rows each."""
    passages = [
        f"Ship {i} was built in {1900 + i} in Port {chr(65 + i)}. It carried {10 * i + 7} guns." for i in range(26)
    ]
    asked = [
        {
            "_id": str(i), "question": f"When was ship {i} built?", "title": f"Ship {i}", "context": text,
            "corpus_id": f"c{i}", "answers": [{"text": str(1900 + i), "answer_start": text.index(str(1900 + i))}],
            "answerable": True,
        }
        for i, text in enumerate(passages)
    ]  # fmt: skip
    health = [
        {"_id": f"h{i}", "question": f"What is (are) X{i // 2} ?", "corpus_id": f"c{i}", "qtype": str(i % 2)}
        for i in range(26)
    ]
    corpus = [{"_id": f"c{i}", "title": f"X{i // 2}", "text": text} for i, text in enumerate(passages)]
    claims = [
        {
            "split": "dev" if i % 5 == 0 else "train",
            "response": f"Ship {i} is old and large.",
            "context": text,
            "label": i % 2 == 0,
        }
        for i, text in enumerate(4 * passages)
    ]
    article = "\n".join(passages)
    wice = [
        {
            "split": "train", "response": "In May, ship 3 was built.", "context": article, "title": "t", "label": False,
            "spans": [{"start": 0, "end": 6}],
        }
    ]  # fmt: skip
    for name, rows in {
        "squad/train": asked, "nq_qed/train": asked, "medquad/train": health, "medquad/corpus": corpus,
        "faithfulness/fever_rte": claims, "faithfulness/scifact_rte": claims, "faithfulness/begin_wow": claims,
        "faithfulness/wice_spans": wice, "squad/corpus": corpus[:1], "squad/queries": [{"_id": "q", "text": "Dev?"}],
    }.items():  # fmt: skip
        (tmp_path / name).parent.mkdir(exist_ok=True)
        with gzip.open(tmp_path / f"{name}.jsonl.gz", "wt") as out:
            out.writelines(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "squad" / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\nq\tc0\t1\n")
    return tmp_path


def test_reader_rows_of_the_training_files(data):
    """Each question has its own passage and a near one without its answer; equal seeds give equal rows.

    The passage that answers the one dev question is in no row of reading comprehension.
    """
    rows = reader_rows(data, 7)
    assert rows == reader_rows(data, 7) != reader_rows(data, 8)
    assert {row.text[slice(*row.answer)] for row in rows if row.source == "claim"} >= {"Ship 2", "Ship 4"}
    assert {row.answerable for row in rows if row.source in ("claim-refuted", "claim-near")} == {False}
    near = [row for row in rows if row.source == "squad-near"]
    assert 12 <= len(near) <= 24, "most questions, not all, meet a near miss"
    assert all(re.search(r"\d+", row.question).group() not in row.text for row in near if len(row.question) > 23)
    assert {row.text[slice(*row.answer)] for row in rows if row.source == "nq"} == {str(1901 + i) for i in range(25)}
    assert {row.answerable for row in rows if row.source == "health-near"} == {False}


def test_judge_rows_take_no_dev_row(data):
    """Only rows of the split train become claims, and every kind of made row is there."""
    rows = judge_rows(data, 7)
    assert rows == judge_rows(data, 7)
    told = {row.claim for row in rows if row.source == "fever_rte"}
    assert told == {f"Ship {i} is old and large." for i in range(4 * 26) if i % 5}
    assert {row.source for row in rows} >= {
        "sentence",
        "sentence-edited",
        "answer",
        "answer-wrong",
        "wice",
        "wice-line",
    }


def test_a_damaged_training_file_is_named(data):
    (data / "squad" / "train.jsonl.gz").write_bytes(b"no gzip")
    with pytest.raises(BadInput, match=r"squad/train\.jsonl\.gz is not readable"):
        reader_rows(data, 1)


# -- claims as questions -----------------------------------------------------------------------------------------------


BORN = "Eric Bana was born on 9 August 1968. He is an Australian actor and comedian, known for the film Chopper."


@pytest.mark.parametrize(
    ("claim", "runs"),
    [
        ("Eric Bana is a comedian.", ["Eric Bana", "comedian"]),
        ("The actor Eric Bana was born in August 1968.", ["Eric Bana", "August 1968"]),
        ("Eric Bana Smith is funny.", []),  # only part of the name stands there
        ("Bana acted in the film Chopper", ["Bana", "Chopper"]),
        ("He is comedian material", []),
        ("He is an actor and comedian", ["comedian"]),
        ("In 1968 he was 9 years old", ["1968", "9"]),
        ("The house of Eric Bana", ["Eric Bana"]),
        ("The Chopper of Melbourne", []),
        ("", []),
    ],
)
def test_what_a_claim_shares_with_its_evidence(claim, runs):
    """Whole names and numbers, and what the claim ends with; no parts of names, nothing amid a phrase."""
    assert [claim[a:b] for a, b in shared_runs(claim.rstrip("."), BORN)] == runs


@given(seed=st.integers(0, 2**32))
def test_a_claim_asks_for_what_its_evidence_says(seed):
    """The answer is the shared words wherever the evidence has come to stand, and a refuted claim has none."""
    claims = [
        JudgeRow("Eric Bana is a comedian.", BORN, True, "fever_rte", "a"),
        JudgeRow("Eric Bana was born in 1970 in Melbourne.", BORN, False, "fever_rte", "b"),
        JudgeRow("Chopper is a film.", "Melbourne is a city. Chopper is a 2000 crime film.", True, "fever_rte", "c"),
    ]
    rows = [*claim_questions(claims, random.Random(seed))]
    said = {row.text[slice(*row.answer)] for row in rows if row.answer}
    assert said <= {"Eric Bana", "comedian", "Chopper", "film"}
    assert {row.answer for row in rows if row.source == "claim-refuted"} == {None}
    assert {row.question.lower().split()[0] for row in rows} <= {"who", "what", "which", "whose", "eric", "chopper"}
    assert all(BORN in row.text or "crime" in row.text for row in rows)


# -- batches -----------------------------------------------------------------------------------------------------------


@given(lengths=st.lists(st.integers(1, 320), max_size=200), seed=st.integers(0, 9), epoch=st.integers(0, 3))
def test_an_epoch_has_every_row_once(lengths, seed, epoch):
    batches = order(lengths, seed, epoch)
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    assert batches == order(lengths, seed, epoch)


def test_the_target_of_a_batch(tokenizer):
    """Answer, sentences and what an answer may be made of, of a row with an answer and one without."""
    rows = [
        ReaderRow("Who?", "", "It rained. Ann came. Bob left.", (11, 14), True, "test"),
        ReaderRow("Who?", "", "It rained.", None, False, "test"),
        ReaderRow("Who?", "", "It rained.", None, True, "test"),
    ]
    target = reader_target(reader_examples(rows, tokenizer, 1))
    assert target.right.tolist() == [0, 1, 0, 0]
    assert target.answerable.tolist() == [1, 0, 1]
    assert target.marked.tolist() == [True, True, False]
    assert target.places[1].tolist() == [0, 0]
    assert target.open[0].tolist() == [True] + [False] * 3 + [True] * 9 + [False]
    assert target.owners.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]


# -- a run -------------------------------------------------------------------------------------------------------------


def lesson(count: int) -> list[JudgeRow]:
    """Claims that are supported if evidence names the same colour: easy to learn."""
    rng = random.Random(5)
    colours = ["red", "blue", "green", "white", "black"]
    return [
        JudgeRow(f"The ship is {mine}.", f"The ship was painted {its}.", mine == its, "test", "test")
        for _ in range(count)
        for mine in [rng.choice(colours)]
        for its in [mine if rng.random() < 0.5 else rng.choice([c for c in colours if c != mine])]
    ]


@pytest.fixture(scope="module")
def start_in(tokenizer, words):
    """Returns what begins or resumes a run over the same rows in a folder."""
    torch.set_num_threads(1)
    examples = judge_examples(lesson(320), tokenizer)

    def begin(folder: Path, steps: int = 12, device: str = "cpu") -> Run:
        recipe = Recipe("judge", rate=5e-4, warm_up=4, low_precision=False)
        rows = Rows(examples[:256], examples[256:])
        return Run(recipe, TINY["judge"], rows, words, folder, built_in_model(), steps, device)

    return begin


@pytest.fixture
def start(start_in, tmp_path):
    """The same by the name of a folder."""
    return lambda name, steps=12: start_in(tmp_path / name, steps)


@dataclass(frozen=True)
class Trained:
    """A run that has ended, its folder, its held loss before the first step, and what it told."""

    run: Run
    folder: Path
    before: float
    lines: list[dict[str, float]]


@pytest.fixture(scope="module")
def trained(start_in, tmp_path_factory) -> Trained:
    folder = tmp_path_factory.mktemp("trained") / "run"
    run = start_in(folder, 60)
    before = run.held_loss()
    return Trained(run, folder, before, list(run.train()))


def test_a_run_learns(trained):
    """The loss on rows that were not trained on falls well below chance, which is 0.69."""
    after = trained.run.held_loss()
    assert trained.before > 0.6
    assert after < 0.35
    assert trained.lines[-1] == {"step": 60, "held_loss": round(after, 4)}


def test_a_stopped_run_goes_on_as_if_it_had_not_been(start, tmp_path):
    """All weights are equal, bit for bit, to those of a run that was never stopped: twice, in two of its passes."""
    whole = start("whole")
    assert 5 < whole.epoch_steps < 9 < whole.steps
    list(whole.train())
    list(start("parts").train(until=5))
    list(start("parts").train(until=9))
    rest = start("parts")
    assert rest.step == 9
    list(rest.train())
    for name, weights in whole.model.state_dict().items():
        assert torch.equal(weights, rest.model.state_dict()[name]), name
    assert (tmp_path / "parts" / "final.pt").is_file()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_a_gpu_learns_what_the_cpu_learns_and_goes_on_where_it_was(start_in, tmp_path):
    """Six steps there and six on the GPU leave the held loss of twelve on the CPU; what comes out needs no GPU."""
    expected = list(start_in(tmp_path / "cpu").train())
    list(start_in(tmp_path / "gpu").train(until=6))
    found = list(start_in(tmp_path / "gpu", device="cuda").train())
    assert found[-1]["held_loss"] == pytest.approx(expected[-1]["held_loss"], abs=0.01)
    assert {weights.device.type for weights in load_model(tmp_path / "gpu" / "final.pt").parameters()} == {"cpu"}


def test_a_folder_of_another_recipe_is_not_overwritten(start, tokenizer, words, tmp_path):
    list(start("run").train(until=1))
    with pytest.raises(SystemExit, match="another recipe"):
        Run(Recipe("judge", seed=2), TINY["judge"], Rows([], []), words, tmp_path / "run", built_in_model(), 1)


# -- what comes out ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["reader", "judge"])
def test_training_goes_on_from_what_ships(task, words, tmp_path):
    """The file that ships gives back the rounded weights, all of them, and a run that starts from it has them."""
    torch.manual_seed(3)
    model = PairModel(TINY[task])
    start_from(model, built_in_model())
    export(model, tmp_path / "model.onnx")
    again = load_shipped(tmp_path / "model.onnx", TINY[task])
    rounded = dict(shipped(model).named_parameters())
    run = Run(Recipe(task), TINY[task], Rows([], []), words, tmp_path / "run", tmp_path / "model.onnx", 1)
    begun = dict(run.model.named_parameters())
    for name, weights in again.named_parameters():
        assert torch.allclose(weights, rounded[name], atol=2e-7), name
        assert torch.equal(weights, begun[name]), name


@pytest.mark.parametrize(("backend", "rounding"), [("openvino", 0.05), ("onnxruntime", 1e-4)])
@pytest.mark.parametrize("task", ["reader", "judge"])
def test_the_export_equals_the_torch_model(task, backend, rounding, tokenizer, words, tmp_path):
    """The same values of every token and row in any batch, but for what the arithmetic of the engine rounds away."""
    pytest.importorskip(backend)
    torch.manual_seed(3)
    model = PairModel(TINY[task])
    start_from(model, built_in_model())
    export(model, tmp_path / f"{task}.onnx")
    (tmp_path / f"{task}.json").write_text("{}")
    assert (tmp_path / f"{task}.onnx").stat().st_size < 6e6
    opened = TrainedPairs(task, tmp_path, backend=backend)
    texts = ["It was built. " * count for count in (1, 9, 120)]
    pairs = [pair for row in tokenizer.windows("When was it built?", texts) for pair in row]
    found = opened.read(pairs)
    opened.close()
    read = inputs([JudgeExample(pair, supported=True) for pair in pairs])
    with torch.inference_mode():
        tokens, rows = shipped(model)(words[read.ids], read.types, read.mask)
    for i, (pair, values) in enumerate(zip(pairs, found, strict=True)):
        assert np.allclose(values.row, rows[i], atol=rounding)
        if task == "reader":
            assert np.allclose(values.token, tokens[i, : len(pair.ids)], atol=rounding)


def test_what_ships_is_near_what_was_trained(words, tokenizer):
    """Rounded weights move a value by a few hundredths, and every matrix of a layer has at most 255 steps a row."""
    torch.manual_seed(3)
    model = PairModel(TINY["judge"])
    start_from(model, built_in_model())
    rounded = shipped(model)
    row = rounded.layers[0].up.weight[5]
    assert len(torch.unique((row / row.abs().max() * 127).round())) == len(torch.unique(row)) <= 255
    read = inputs(judge_examples(lesson(20), tokenizer))
    with torch.inference_mode():
        one, other = (m(words[read.ids], read.types, read.mask)[1] for m in (model, rounded))
    assert 0 < float((one - other).abs().max()) < 0.05


def test_runs_become_one_model_with_their_mean_and_a_share_of_the_encoder_they_began_from():
    models = [PairModel(TINY["judge"]) for _ in range(2)]
    began = PairModel(TINY["judge"])
    start_from(began, built_in_model())
    one, other, before, mean = (
        {name: weights.detach() for name, weights in model.named_parameters()}
        for model in (*models, began, averaged(models, built_in_model(), 0.25))
    )
    for name, weights in mean.items():
        middle = (one[name] + other[name]) / 2
        kept = middle if name.startswith(("pooled.", "row.")) else 0.75 * middle + 0.25 * before[name]
        assert torch.allclose(weights, kept, atol=1e-6), name
    alone = averaged(models[:1], built_in_model())
    assert all(torch.equal(weights, one[name]) for name, weights in alone.named_parameters())


def test_a_run_becomes_what_ships(data, trained, tmp_path):
    """The trained judge is exported, calibrated on the held rows, and tells right from wrong where it is used."""
    export(load_model(trained.folder / "final.pt"), tmp_path / "judge.onnx")
    calibrate("judge", data, tmp_path, 7)
    facts = json.loads((tmp_path / "judge.json").read_text())
    assert facts["held_rows"] == sum(is_held(row.group) for row in judge_rows(data, 7))
    assert len(facts["supported"]["weights"]) == len(facts["long"]["weights"]) == 3
    judge = TrainedJudge(TrainedPairs("judge", tmp_path))
    right, wrong = judge.signs([("The ship is red.", f"The ship was painted {c}.") for c in ("red", "blue")])
    assert right[0, 0] > wrong[0, 0] + 1
    assert [tuple(signs[0, 1:]) for signs in (right, wrong)] == [(1.0, 0.0), (0.5, 0.0)]
    judge.close()


def test_the_weight_of_one_more_value_is_that_of_a_regression_with_the_rest_held():
    """Where one value alone tells, beside odds that are known, the derivative of the likelihood is 0 at the weight."""
    rng = np.random.default_rng(2)
    odds, value = rng.normal(size=4000), rng.integers(0, 2, 4000).astype(float)
    right = (rng.random(4000) < 1 / (1 + np.exp(-(odds - 1.5 * value)))).astype(float)
    weight = fit_slope(odds, value, right)
    assert weight == pytest.approx(-1.5, abs=0.15)
    assert float((value * (right - 1 / (1 + np.exp(-(odds + weight * value))))).sum()) == pytest.approx(0, abs=1)


def test_the_reader_reads_what_an_untrained_model_says(data, tmp_path, cache, monkeypatch):
    """A small model is exported and calibrated; its answer is a part of the passage, its sentences are all.

    The held question is asked twice for each of its sets: with the passages found for it, and without its own.
    """
    monkeypatch.setenv("CITEWELL_CACHE", str(cache))
    model = PairModel(TINY["reader"])
    start_from(model, built_in_model())
    model.eval()
    export(model, tmp_path / "reader.onnx")
    calibrate("reader", data, tmp_path, 7)
    assert sorted(file.name for file in tmp_path.glob("reader*")) == ["reader.json", "reader.onnx"]
    facts = json.loads((tmp_path / "reader.json").read_text())
    assert (facts["held_questions"], len(facts["sentences"]["weights"])) == (4, 4)
    reader = SpanReader(TrainedPairs("reader", tmp_path))
    text = "It rained. Ann came at noon. Bob left."
    [reading] = reader.read([Asked("When did Ann come?", "A title", text)])
    assert 0 <= reading.answer[0] < reading.answer[1] <= len(text)
    assert [text[s.start : s.end] for s in reading.sentences] == ["It rained.", "Ann came at noon.", "Bob left."]
    assert 0 < reading.probability < 1
    reader.close()


def test_two_readers_are_joined_by_what_told_the_answers_apart():
    """The last value alone tells which sentence answers: it gets the weight, and the answered reach the threshold."""
    rng = np.random.default_rng(3)
    asked = [Retrieved("?", (), ("noon",) if i % 2 else ()) for i in range(400)]
    seen = [
        [
            Seen(1, 0, 1, text, (*rng.normal(size=3), rng.normal() + 2 * (text == "At noon.")), None)
            for text in ("It rained.", "At noon." if one.answers else "At six.")
        ]
        for one in asked
    ]
    facts = join_readers(asked, seen)
    sentences, passages = facts["sentences"], facts["passages"]
    *others, last = sentences["weights"]
    assert last == pytest.approx(2, abs=0.3)
    assert others == pytest.approx([0, 0, 0], abs=0.2)
    best = [max(np.dot(sentences["weights"], s.values) + sentences["offset"] for s in found) for found in seen]
    sure = 1 / (1 + np.exp(-(np.array(best) * passages["weights"][0] + passages["offset"])))
    assert np.mean(sure[1::2] < facts["threshold"]) == SILENT
    assert np.mean(sure[0::2] < facts["threshold"]) > 5 * SILENT
    assert sure.mean() == pytest.approx(0.5, abs=0.01)


def test_a_logistic_regression_finds_what_made_the_data():
    """Values of 0 with odds 1 to 3, values of 1 with odds 3 to 1: the log odds are -ln 3 and 2 ln 3 more."""
    values = np.array([[0.0]] * 400 + [[1.0]] * 400)
    right = np.array([0.0, 0, 0, 1] * 100 + [0.0, 1, 1, 1] * 100)
    weights, offset = fit_logistic(values, right)
    assert offset == pytest.approx(-np.log(3), abs=0.03)
    assert weights == pytest.approx([2 * np.log(3)], abs=0.07)
    [smaller], same = fit_logistic(values / 100, right)
    assert (smaller / 100, same) == pytest.approx((weights[0], offset), rel=1e-3)
