"""The walls of the process that reads documents: what it may use, and that it reaches no network and no other process.

Knows the calls of Linux that build walls: namespaces, limits, capabilities, the kernel's filter of system calls. Where
a system forbids some of them the others stand. Knows no document.
"""

from __future__ import annotations

import ctypes
import math
import os
import platform
import resource
import signal
import sys
from typing import Any

from rag.settings import IngestSettings

#: How far the reader steps back behind the embedder and the server.
NICE = 5

_NEW_USER, _NEW_PID, _NEW_NET = 0x10000000, 0x20000000, 0x40000000
_SET_DEATH_SIGNAL, _DROP_BOUNDING, _NO_NEW_PRIVILEGES, _SET_SECCOMP, _SECCOMP_FILTER = 1, 24, 38, 22, 2
_NETWORK_EVENTS = frozenset(
    f"socket.{name}"
    for name in "connect bind sendto sendmsg getaddrinfo gethostbyname gethostbyaddr getnameinfo".split()
)
#: By machine: its number in the audit rules of the kernel, the call that makes sockets, and the calls that no parser
#: needs and that reach other processes or large parts of the kernel: ptrace, process_vm_readv, process_vm_writev,
#: setns, unshare, mount, bpf, add_key, request_key, keyctl, userfaultfd, perf_event_open, io_uring_setup.
_CALLS = {
    "x86_64": (0xC000003E, 41, (101, 310, 311, 308, 272, 165, 321, 248, 249, 250, 323, 298, 425)),
    "aarch64": (0xC00000B7, 198, (117, 270, 271, 268, 97, 40, 280, 217, 218, 219, 282, 241, 425)),
}
_AF_UNIX = 1


def _libc() -> Any:
    libc = ctypes.CDLL(None)
    libc.prctl.argtypes = [ctypes.c_int, *[ctypes.c_ulong] * 4]
    libc.signal.argtypes = [ctypes.c_int, ctypes.c_void_p]
    return libc


def leave_namespaces() -> list[str]:
    """Leave the network, and the sight of other processes, behind; say what stands, which some systems forbid."""
    if _libc().unshare(_NEW_USER | _NEW_PID | _NEW_NET) != 0:
        return []
    return ["namespaces"]


def build_walls(limits: IngestSettings, walls: list[str]) -> None:
    """Shut this process in, and add to ``walls`` what stands."""
    libc = _libc()
    libc.prctl(_SET_DEATH_SIGNAL, int(signal.SIGKILL), 0, 0, 0)
    os.nice(NICE)
    # The first process of a namespace is not ended by signals that it does not handle: this one is to end it.
    libc.signal(int(signal.SIGXCPU), ctypes.cast(libc._exit, ctypes.c_void_p))  # noqa: SLF001
    _set_limits(limits)
    _drop_capabilities(libc)
    libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    if _filter_calls(libc):
        walls.append("system calls")
    sys.addaudithook(_forbid_network)
    walls.append("audit hook")


def _set_limits(limits: IngestSettings) -> None:
    for kind, most in (
        (resource.RLIMIT_AS, limits.parse_memory_bytes),
        (resource.RLIMIT_NOFILE, limits.parse_open_files),
        (resource.RLIMIT_FSIZE, limits.parse_write_bytes),
        (resource.RLIMIT_CORE, 0),
    ):
        hard = resource.getrlimit(kind)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)  # noqa: PLW2901
        resource.setrlimit(kind, (most, most))


def limit_cpu(seconds: float) -> None:
    """Give the next document its seconds of processor time: the limit counts from the start of the process."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    most = math.ceil(usage.ru_utime + usage.ru_stime + seconds) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (most, resource.getrlimit(resource.RLIMIT_CPU)[1]))


def end_strays() -> None:
    """End what the last document has left running, where nothing else can be hit."""
    if os.getpid() != 1:
        return
    try:
        os.kill(-1, signal.SIGKILL)
        while os.waitpid(-1, 0):
            pass
    except (ProcessLookupError, ChildProcessError):  # there is none, or none any more
        return


def _drop_capabilities(libc: Any) -> None:
    """Give up every privilege, also for programs that this process starts."""
    for capability in range(64):
        libc.prctl(_DROP_BOUNDING, capability, 0, 0, 0)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    libc.capset(ctypes.byref(header), ctypes.byref((ctypes.c_uint32 * 6)()))


class _Rule(ctypes.Structure):
    _fields_ = [("code", ctypes.c_uint16), ("yes", ctypes.c_uint8), ("no", ctypes.c_uint8), ("value", ctypes.c_uint32)]


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_uint16), ("rules", ctypes.POINTER(_Rule))]


def _filter_calls(libc: Any) -> bool:
    """Have the kernel refuse sockets but local ones, and the calls in `_CALLS`; False where that can not be done."""
    if platform.machine() not in _CALLS:
        return False
    rules = _rules(*_CALLS[platform.machine()])
    array = (_Rule * len(rules))(*rules)
    program = _Program(len(rules), ctypes.cast(array, ctypes.POINTER(_Rule)))
    return bool(libc.prctl(_SET_SECCOMP, _SECCOMP_FILTER, ctypes.addressof(program), 0, 0) == 0)


def _rules(machine: int, socket_call: int, forbidden: tuple[int, ...]) -> list[_Rule]:
    """Return a program for the kernel's filter; jumps are counted in rules from the next one on."""
    load, equal, at_least, end = 0x20, 0x15, 0x35, 0x06
    kill, refuse, allow = 0x80000000, 0x00050001, 0x7FFF0000
    number, architecture, first_argument = 0, 4, 16
    return [
        _Rule(load, 0, 0, architecture),
        _Rule(equal, 1, 0, machine),
        _Rule(end, 0, 0, kill),
        _Rule(load, 0, 0, number),
        _Rule(at_least, 0, 1, 0x40000000),  # the calls of another binary interface
        _Rule(end, 0, 0, refuse),
        *(rule for call in forbidden for rule in (_Rule(equal, 0, 1, call), _Rule(end, 0, 0, refuse))),
        _Rule(equal, 0, 3, socket_call),
        _Rule(load, 0, 0, first_argument),
        _Rule(equal, 1, 0, _AF_UNIX),
        _Rule(end, 0, 0, refuse),
        _Rule(end, 0, 0, allow),
    ]


def _forbid_network(event: str, args: tuple[Any, ...]) -> None:
    del args
    if event in _NETWORK_EVENTS:
        raise PermissionError(f"{event}: parsing has no network")
