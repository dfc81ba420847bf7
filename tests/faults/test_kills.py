"""A server, its worker and more workers are killed again and again while a user uploads, changes, deletes and searches.

``--kills`` says how often, ``--seed`` what chooses documents, victims and moments: the choices are the same for the
same seed, what each victim is at when it dies is not.
"""

from __future__ import annotations

import random
import threading
import time
from contextlib import ExitStack, closing

import pytest

from eval.corpus import FORMATS, generate
from tests.conftest import SAMPLES
from tests.faults.checks import check_documents, check_rest, check_searches
from tests.faults.ledger import Book, Habits, User, archive_of, file_of, real_files
from tests.faults.supervisor import Killer, say, site, until

#: Formats whose readers import little: after each kill a new reader has to. A soak takes all.
LIGHT = ("txt", "rst", "eml", "csv", "json", "jsonl", "xml", "xlsx", "pdf")
#: Kills from which on a run is a soak.
SOAK = 500
WORKERS = 1


def documents(folder, seed, formats, count):
    """Return names and contents: real documents, archives of generated ones, and generated ones, shuffled."""
    entries = generate(folder, count, seed, formats)
    files = {entry.name: file_of(folder, entry) for entry in entries}
    good = [name for name, file in files.items() if file.mark]
    for number in range(4):
        names = [good.pop() for _ in range(5)]
        inside = {f"{i}-{name.rpartition('/')[2]}": files.pop(name) for i, name in enumerate(names)}
        files[f"archives/box-{number}.zip"] = archive_of(inside)
    shuffled = [*real_files(SAMPLES).items(), *files.items()]
    random.Random(seed).shuffle(shuffled)
    return shuffled


@pytest.mark.long
def test_nothing_is_lost_doubled_or_left_behind_when_anything_is_killed_at_any_time(tmp_path, kills, seed):
    """After so many kills every document is there once and found, nothing retired is, and nothing is left lying."""
    started, rng = time.monotonic(), random.Random(seed)
    formats, count = (FORMATS, 600) if kills >= SOAK else (LIGHT, 240)
    files = documents(tmp_path / "corpus", seed, formats, count)
    with site(tmp_path / "site") as here, ExitStack() as users:
        here.mend(WORKERS)
        user = users.enter_context(closing(User(here.address, Book("faults"))))
        user.open_collection()
        habits = Habits(user, random.Random(seed + 1), files, here.queued)
        habits.begin(len(files) // 4)
        stop, errors = threading.Event(), []

        def use():
            try:
                habits.go_on(stop)
            except BaseException as error:  # noqa: BLE001 -- of a thread: the test looks at it
                errors.append(error)

        thread = threading.Thread(target=use)
        thread.start()
        killer = Killer(here, rng, WORKERS)
        try:
            for number in range(1, kills + 1):
                kind = killer.strike()
                assert not errors, errors
                if number % 10 == 0 or kills < SOAK:
                    seconds = time.monotonic() - started
                    say(f"kill {number} of {kills}: {kind}; {here.queued()} queued; {seconds:.0f} s; seed {seed}")
        finally:
            stop.set()
            thread.join()
        assert not errors, errors
        habits.begin(len(habits.files))
        until(lambda: here.queued() == 0, "all documents end", 1200)
        until(here.serves, "the server answers")
        check_searches(user)
        check_documents(here.data, user.book)
        here.stop()
        check_rest(here.data, here.temporary)
        assert here.processes() == []

        here.start_server()
        until(here.serves, "the server answers")
        user.purge()
        check_searches(user)
        here.stop()
        check_rest(here.data, here.temporary)
        assert here.query("SELECT count(*) FROM chunks WHERE retired_commit IS NOT NULL") == [(0,)]
        assert here.query("SELECT count(*) FROM versions WHERE state = 'retired'") == [(0,)]
    book = user.book
    say(
        f"{sum(killer.killed.values())} kills ({dict(killer.killed)}), {len(book.live)} documents, "
        f"{len(book.gone)} marks gone, {book.operations} operations, {book.searches} searches, "
        f"{time.monotonic() - started:.0f} s, seed {seed}"
    )
