"""What the tests take for the end of a process is its end: what it held is free."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys

from tests.processes import alive, children, family

#: A process that holds a lock while other threads of it wait for the disk, one of which ends last.
HOLDER = """
import fcntl, os, sys, threading
from pathlib import Path

folder = Path(sys.argv[1])
lock = (folder / "lock").open("a")
fcntl.flock(lock, fcntl.LOCK_EX)

def write(number):
    with (folder / str(number)).open("wb") as file:
        while True:
            file.seek(0)
            file.write(bytes(100_000))
            file.flush()
            os.fsync(file.fileno())

for number in range(6):
    threading.Thread(target=write, args=(number,)).start()
print("held", flush=True)
"""


def test_a_process_that_is_not_alive_holds_no_lock(tmp_path):
    """As soon as a killed process counts as gone, its lock can be had, though its threads end one after the other."""
    for _ in range(10):
        with subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE) as holder:
            assert holder.stdout.readline() == b"held\n"
            assert alive(holder.pid)
            os.kill(holder.pid, signal.SIGKILL)
            while alive(holder.pid):
                pass
            with (tmp_path / "lock").open("a") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_the_family_of_a_process_are_all_below_it():
    """Children and their children are found, and end with no trace."""
    command = [sys.executable, "-c", "import subprocess as s, sys; s.run([sys.executable, '-c', 'input()'])"]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as first:
        while not (below := children(first.pid)):
            pass
        assert family(first.pid) == [first.pid, *below]
        first.stdin.close()
        first.wait()
    assert not any(map(alive, [first.pid, *below]))
