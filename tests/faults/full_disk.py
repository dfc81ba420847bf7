"""The data folder on a disk of a few megabytes that becomes full: run in a mount namespace of its own by its test.

Everything but the disk is as in production: a server and a worker, files that come by HTTP. Says what it found as one
line of JSON on standard output.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import httpx

from eval.corpus import generate
from tests.faults.checks import check_documents, check_rest, check_searches
from tests.faults.ledger import Book, User, archive_of, file_of
from tests.faults.supervisor import Site, say, site, until

MEBIBYTES = 24
#: Seconds for which the disk stays full: longer than some leases, so that whatever dies of it would show.
FULL_SECONDS = 9.0


def main(folder: Path) -> None:
    """Fill a disk under a server and its worker, free it again, and check that nothing was lost by it."""
    data = folder / "site" / "data"
    data.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={MEBIBYTES}m", "tmpfs", str(data)], check=True)
    entries = generate(folder / "corpus", 40, 5, ("txt", "csv", "json", "pdf", "xml"), oddities=False)
    files = {entry.name: file_of(folder / "corpus", entry) for entry in entries}
    names = list(files)
    boxed = {f"box/{number}.{name.rpartition('.')[2]}": files.pop(name) for number, name in enumerate(names[-6:])}
    names = names[:-6]
    with site(folder / "site", INGEST__DEATHS="3", INGEST__ATTEMPTS="2") as here:
        here.mend(1)
        with closing(User(here.address, Book("full"))) as user:
            user.open_collection()
            user.upload({name: files[name] for name in names[:10]})
            until(lambda: here.queued() == 0, "the first files are done")
            workers = here.all_workers()
            for pid in workers:
                os.kill(pid, signal.SIGSTOP)
            user.upload({name: files[name] for name in names[10:]} | {"box.zip": archive_of(boxed)})
            fill(data / "ballast", leave=64 << 10)
            for pid in workers:
                os.kill(pid, signal.SIGCONT)
            time.sleep(1.0)
            fill(data / "ballast", leave=0)
            refused = refusals(here)
            end = time.monotonic() + FULL_SECONDS
            while time.monotonic() < end:
                user.look(names[0])  # what was searchable stays so
                time.sleep(0.5)
            assert here.query("SELECT name FROM versions v JOIN documents d ON d.id = document_id "
                              "WHERE v.state = 'failed'") == []  # fmt: skip
            waiting = here.queued()
            (data / "ballast").unlink()
            until(lambda: here.queued() == 0, "all files are done once there is room")
            until(here.serves, "the server answers")
            check_documents(data, user.book)
            check_searches(user)
            counts = here.query("SELECT max(attempts), max(deaths) FROM versions")
        here.stop()
        check_rest(data, here.temporary)
    say(json.dumps({"refused": refused, "waiting": waiting, "attempts": counts[0][0], "deaths": counts[0][1]}))


def fill(file: Path, leave: int) -> None:
    """Write to a file until its disk has ``leave`` bytes left."""
    with file.open("ab", buffering=0) as stream:
        while True:
            there = os.statvfs(file)
            free = there.f_bavail * there.f_bsize - leave
            if free <= 0:
                return
            try:
                stream.write(bytes(min(free, 1 << 16)))
            except OSError:
                return


def refusals(here: Site) -> list[list[object]]:
    """Upload to a full disk in every way; return status and error of each answer. None may be accepted."""
    rng, found = random.Random(1), []
    with httpx.Client(base_url=here.address, timeout=60, trust_env=False) as client:
        address = "/v1/collections/full/documents"
        for size in (20_000, 300_000, 6_000_000):
            body = rng.randbytes(size).hex().encode()
            form = client.post(address, files=[("files", (f"form-{size}.txt", body))])
            put = client.put(f"{address}/put-{size}.txt", content=body)
            found += [[reply.status_code, reply.json().get("error")] for reply in (form, put)]
        listed = client.get(address, params={"limit": 1000}).json()["documents"]
        assert not [d["name"] for d in listed if d["name"].startswith(("form-", "put-"))]
    return found


if __name__ == "__main__":
    main(Path(sys.argv[1]))
