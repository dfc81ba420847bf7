"""How much a key may ask, counted by one process and by several together, held against plain numbers."""

from __future__ import annotations

import subprocess
import sys
from contextlib import ExitStack, closing
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.limits import Meter
from rag.access import Limits
from rag.errors import RateLimited
from rag.settings import AccessSettings

#: A process with two requests of one key under way.
HOLDING = """
import sys, time
from pathlib import Path
from api.limits import Meter
from rag.access import Limits
from rag.settings import AccessSettings
meter = Meter(AccessSettings(in_flight=2), Path(sys.argv[1]))
with meter.one("k", Limits()), meter.one("k", Limits()):
    print("holding", flush=True)
    time.sleep(600)
"""


def refused(meter: Meter, why: str | None = None) -> None:
    """Check that one more request of the key is refused."""
    with pytest.raises(RateLimited, match=why), meter.one("k", Limits()):
        pass


def test_tokens_come_back_with_time() -> None:
    """A key that was quiet may send a burst; then as many as its rate lets through, each told when to come."""
    at, waits = [0.0], set[object]()
    meter = Meter(AccessSettings(burst=3), clock=lambda: at[0])

    def passed(rate: int = 60) -> bool:
        try:
            with meter.one("k", Limits(requests_per_minute=rate)):
                return True
        except RateLimited as error:
            waits.add(error.facts["retry_after"])
            return False

    assert [passed() for _ in range(4)] == [True, True, True, False]
    at[0] = 1.0
    assert [passed() for _ in range(2)] == [True, False]
    at[0] = 1000.0
    assert [passed() for _ in range(4)] == [True, True, True, False]
    assert waits == {1}


def test_requests_at_once() -> None:
    """One more than the limit is refused, until one has ended; another key has a limit of its own."""
    meter = Meter(AccessSettings(in_flight=2))
    with meter.one("k", Limits()), meter.one("k", Limits()):
        refused(meter)
        with meter.one("other", Limits()):
            pass
    with meter.one("k", Limits()):
        pass


def test_processes_count_together(tmp_path: Path) -> None:
    """What one has let through counts at the other, and so does what it has under way, until it has left."""
    settings = AccessSettings(burst=3, in_flight=2, requests_per_minute=1)
    with closing(Meter(settings, tmp_path, clock=lambda: 0.0)) as one:
        with closing(Meter(settings, tmp_path, clock=lambda: 0.0)) as other:
            with one.one("k", Limits()), other.one("k", Limits()):
                refused(one, "under way")
            with other.one("k", Limits()):
                pass
            refused(one, "a minute")
        refused(one, "a minute")


def test_what_a_killed_process_had_under_way_is_forgotten(tmp_path: Path) -> None:
    """As long as it lives its requests count; when it is gone nobody is refused because of them."""
    settings = AccessSettings(in_flight=2)
    command = [sys.executable, "-c", HOLDING, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as killed, closing(Meter(settings, tmp_path)) as meter:
        try:
            assert killed.stdout is not None
            assert killed.stdout.readline() == b"holding\n"
            refused(meter)
        finally:
            killed.kill()
        killed.wait()
        with meter.one("k", Limits()), meter.one("k", Limits()):
            refused(meter)


@given(st.lists(st.tuples(st.integers(0, 1), st.sampled_from("abc"), st.sampled_from("in out later".split()))))
def test_they_count_as_one_alone_would(steps: list[tuple[int, str, str]]) -> None:
    """Whatever is asked of which process: the same are let through as by plain numbers, kept in one place."""
    settings, at = AccessSettings(burst=4, in_flight=3, requests_per_minute=60), [0.0]
    tokens, under_way = dict.fromkeys("abc", 4.0), {who: [list[ExitStack](), list[ExitStack]()] for who in "abc"}
    with TemporaryDirectory() as folder, ExitStack() as opened:
        meters = [Meter(settings, Path(folder), clock=lambda: at[0]) for _ in range(2)]
        for meter in meters:
            opened.callback(meter.close)
        for seat, who, act in steps:
            if act == "later":
                at[0] += 0.5
                tokens = {name: min(4.0, left + 0.5) for name, left in tokens.items()}
            elif act == "out" and under_way[who][seat]:
                under_way[who][seat].pop().close()
            elif act == "in":
                request, expected = ExitStack(), tokens[who] >= 1 and sum(map(len, under_way[who])) < 3
                try:
                    request.enter_context(meters[seat].one(who, Limits()))
                except RateLimited:
                    assert not expected
                    continue
                assert expected
                tokens[who] -= 1
                under_way[who][seat].append(request)
        for request in (request for seats in under_way.values() for seat in seats for request in seat):
            request.close()


def test_a_folder_that_can_not_be_written_is_told_and_counted_without(tmp_path: Path) -> None:
    """Each process then counts by itself, and the log says so."""
    (tmp_path / "limits").write_text("a file")
    with closing(Meter(AccessSettings(burst=1), tmp_path / "limits")) as meter:
        with meter.one("k", Limits()):
            pass
        refused(meter)
