"""Tables made up for training: rows of names and figures as the parser writes tables, with questions about a cell.

Half of the questions ask for what is not there: another row, another column. Knows no data set.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from eval.training.rows import ReaderRow
from rag.records import CELL

_SUBJECTS = (
    ("revenue", "operating income", "net sales", "cost of sales", "gross profit", "research and development",
     "depreciation", "interest expense", "income taxes", "total assets", "goodwill", "cash and equivalents"),
    ("north region", "south region", "Asia Pacific", "Europe", "Latin America", "United States", "Japan", "Germany"),
    ("pump A12", "valve V7", "filter F30", "sensor S5", "motor M220", "cable K9", "battery B4", "relay R11"),
    ("Anna Keller", "Omar Haddad", "Li Wei", "Maria Santos", "John Okafor", "Priya Nair", "Tom Baker", "Eva Novak"),
    ("wheat", "barley", "maize", "rice", "soybeans", "cotton", "coffee", "cocoa", "sugar beet", "potatoes"),
    ("error E01", "error E07", "error E12", "error E21", "error E33", "error E40", "error E52"),
    ("Springfield", "Riverton", "Oakdale", "Lakeside", "Fairview", "Milltown", "Greenfield", "Hillcrest"),
)  # fmt: skip
_MEASURES = (
    ("weight", "kg"), ("length", "mm"), ("price", "$"), ("pressure", "bar"), ("hours", "h"), ("yield", "t/ha"),
    ("population", ""), ("share", "%"), ("age", ""), ("score", "points"), ("temperature", "°C"), ("units sold", ""),
)  # fmt: skip
_MEANINGS = (
    "water in the housing", "battery is empty", "sensor not connected", "door is open", "filter must be cleaned",
    "pressure too low", "no signal", "motor overheated", "wrong password", "paper jam",
)  # fmt: skip
_ASKED = (
    "What is the {measure} of {name}?", "How high is the {measure} of {name}?", "{measure} of {name}",
    "what was the {measure} for {name}", "What {measure} does {name} have?", "Which {measure} is given for {name}?",
)  # fmt: skip
_ASKED_YEAR = (
    "What was the {name} in {measure}?", "how much was {name} in {measure}", "In {measure}, what was the {name}?",
    "What is the amount of {name} for {measure}?", "What were the {name} reported for {measure}?",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Grid:
    """A table: the header, and by row its name and its cells."""

    measures: list[str]
    names: list[str]
    cells: list[list[str]]
    missing: str
    missing_measure: str
    asked: tuple[str, ...]


def grid_rows(count: int, rng: random.Random) -> Iterator[ReaderRow]:
    """Yield ``count`` rows, about half of them without an answer."""
    for _ in range(count):
        yield _row(_grid(rng), rng)


def _row(grid: _Grid, rng: random.Random) -> ReaderRow:
    here, column = rng.randrange(len(grid.names)), rng.randrange(len(grid.measures))
    text, places = _text(grid, rng)
    name, measure = grid.names[here], grid.measures[column]
    answer: tuple[int, int] | None = places[here][column]
    if rng.random() < 0.5:
        answer = None
        if rng.random() < 0.5:
            name = grid.missing
        else:
            measure = grid.missing_measure
    question = rng.choice(grid.asked).format(name=name, measure=measure)
    context = rng.choice(("", "Annual report", "Data sheet", "Overview", "Appendix B"))
    return ReaderRow(question, context, text, answer, answer is not None, "grid")


def _grid(rng: random.Random) -> _Grid:
    subject = rng.randrange(len(_SUBJECTS))
    picked = rng.sample(_SUBJECTS[subject], rng.randint(3, min(6, len(_SUBJECTS[subject]) - 1)) + 1)
    names, missing = picked[:-1], picked[-1]
    if subject == 5:
        cells = [[meaning] for meaning in rng.sample(_MEANINGS, len(names))]
        asked = ("What does {name} mean?", "meaning of {name}", "What is the meaning of {name}?")
        return _Grid(["meaning"], names, cells, missing, "meaning", asked) if rng.random() < 0.5 else _coded(rng, names)
    if subject < 2:
        last = rng.randint(2005, 2024)
        years = [str(last - i) for i in range(rng.randint(2, 3))]
        size = 10 ** rng.randint(1, 5)
        cells = [[_amount(rng, size) for _ in years] for _ in names]
        return _Grid(years, names, cells, missing, str(last - len(years)), _ASKED_YEAR)
    measures = rng.sample(_MEASURES, rng.randint(2, 4) + 1)
    cells = [[_with_unit(_amount(rng, 10 ** rng.randint(1, 4)), unit, rng) for _, unit in measures[:-1]] for _ in names]
    return _Grid([m for m, _ in measures[:-1]], names, cells, missing, measures[-1][0], _ASKED)


def _coded(rng: random.Random, names: list[str]) -> _Grid:
    """A table of error codes with what to do about each; the codes asked for without one are near."""
    cells = [[meaning, rng.choice(("call service", "restart the device", "replace the part"))] for meaning in
             rng.sample(_MEANINGS, len(names))]  # fmt: skip
    missing = f"error E{rng.randint(60, 99)}"
    return _Grid(["meaning", "action"], names, cells, missing, "delay", ("What is the {measure} of {name}?",))


def _amount(rng: random.Random, size: int) -> str:
    value = rng.uniform(size / 10, size)
    return f"{value:,.1f}" if rng.random() < 0.5 else f"{int(value) + 1:,}"


def _with_unit(amount: str, unit: str, rng: random.Random) -> str:
    if unit == "$":
        return f"${amount}"
    return f"{amount} {unit}" if unit and rng.random() < 0.6 else amount


def _text(grid: _Grid, rng: random.Random) -> tuple[str, list[list[tuple[int, int]]]]:
    """Return the table as text and by row the places of its cells."""
    between = CELL if rng.random() < 0.7 else rng.choice(("| ", "\t", ", ", "|"))
    lines = [between.join([rng.choice(("", "Item", "Name", "(in thousands)")), *grid.measures])]
    places: list[list[tuple[int, int]]] = []
    length = len(lines[0]) + 1
    for name, cells in zip(grid.names, grid.cells, strict=True):
        shown = name.title() if rng.random() < 0.3 else name
        line, row = shown, []
        for cell in cells:
            line += between
            row.append((length + len(line), length + len(line) + len(cell)))
            line += cell
        places.append(row)
        lines.append(line)
        length += len(line) + 1
    return "\n".join(lines), places
