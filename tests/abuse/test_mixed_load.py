"""Many clients at once do everything that there is to do, and none of them ever sees another one's document."""

from __future__ import annotations

from tests.abuse.load import Memory, load, told
from tests.api.served import started

#: From so many seconds on it is long enough to tell whether memory grows.
LONG = 300
#: How much more the second half may hold at its end than at its beginning.
GROWTH = 0.05


def test_clients_at_once_get_their_own_answers_and_no_errors(tmp_path, clients, seconds):
    """Searches, answers, streams, uploads, deletions, dropped connections: nothing swapped, no error but 429.

    Where it lasts long, the processes of the server together do not grow.
    """
    with started(tmp_path / "data", tmp_path / "log") as server:
        with Memory(server.process.pid) as memory:
            tally = load(server.url, clients, seconds)
        figures = told(tally, memory)
        print(figures)  # noqa: T201
        assert not tally.swapped, figures
        assert not tally.faults, figures
        assert tally.answered, figures
        if seconds >= LONG:
            held = memory.figures()
            grown = held["slope_mib_per_minute"] * held["minutes_of_slope"]
            assert grown <= GROWTH * held["middle_mib"], figures
        assert server.stop() == 0
