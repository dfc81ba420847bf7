"""Options of the abuse tests: how many examples, how many clients, for how long; ``make soak`` sets all three."""

from __future__ import annotations

import pytest

EXAMPLES, CLIENTS, SECONDS = 5, 8, 12


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--examples", type=int, default=EXAMPLES, help="requests of each kind that are made up")
    parser.addoption("--clients", type=int, default=CLIENTS, help="how many clients the mixed load has")
    parser.addoption("--seconds", type=int, default=SECONDS, help="how long the mixed load lasts")


@pytest.fixture(scope="session")
def made_up(request: pytest.FixtureRequest) -> int:
    """How many requests of each kind are made up; the usual number where pytest was not started on this folder."""
    return int(request.config.getoption("--examples", EXAMPLES))


@pytest.fixture(scope="session")
def clients(request: pytest.FixtureRequest) -> int:
    return int(request.config.getoption("--clients", CLIENTS))


@pytest.fixture(scope="session")
def seconds(request: pytest.FixtureRequest) -> int:
    return int(request.config.getoption("--seconds", SECONDS))
