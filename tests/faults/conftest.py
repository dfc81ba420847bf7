"""Options of the fault tests: how many kills, and the seed that chooses them; ``make soak`` sets both."""

from __future__ import annotations

import pytest

KILLS, SEED = 50, 20261122


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--kills", type=int, default=KILLS, help="how many processes the fault tests kill")
    parser.addoption("--seed", type=int, default=SEED, help="what chooses the documents and the moments of the kills")


@pytest.fixture(scope="session")
def kills(request: pytest.FixtureRequest) -> int:
    """How many kills are wanted. The options are unknown where pytest was not started on this folder."""
    return int(request.config.getoption("--kills", KILLS))


@pytest.fixture(scope="session")
def seed(request: pytest.FixtureRequest) -> int:
    """What a failing run has to be given to make the same choices again."""
    return int(request.config.getoption("--seed", SEED))
