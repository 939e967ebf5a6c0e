"""CPU time of processes, read from /proc: who used how much of the machine between two moments.

A server is found by the port it listens on, so that it need not be one that the benchmark started. Where /proc is
missing, or belongs to another machine or user, there is no figure rather than a wrong one.
"""

from __future__ import annotations

import os
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

PROC = Path("/proc")
LISTENING = "0A"


class ProcessorTime:
    """Seconds of CPU by group of processes: each group is some processes and all their descendants."""

    def __init__(self, groups: Mapping[str, Iterable[int]], *, without: Iterable[int] = ()) -> None:
        """`without` are processes not to be counted: the server's side of the benchmark's own connection."""
        self._groups = {name: frozenset(pids) for name, pids in groups.items()}
        self._without = frozenset(without)

    def read(self) -> dict[str, float]:
        """Seconds used so far, those of ended and reaped descendants included."""
        if not PROC.is_dir():
            return {}
        used, children = _snapshot()
        return {
            name: sum(
                used[pid] for pid in _with_descendants(roots, children) if pid in used and pid not in self._without
            )
            for name, roots in self._groups.items()
        }

    def memory(self, group: str) -> float | None:
        """MiB that a group's processes hold now, what they share counted in each; None where that cannot be seen."""
        if group not in self._groups or not PROC.is_dir():
            return None
        _, children = _snapshot()
        page = os.sysconf("SC_PAGE_SIZE")
        return sum(_resident_pages(pid) for pid in _with_descendants(self._groups[group], children)) * page / 2**20


def used_between(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    """The difference of two readings."""
    return {name: after[name] - before[name] for name in before.keys() & after.keys()}


def listeners(port: int) -> frozenset[int]:
    """The processes of this machine that listen on a TCP port; empty when none is visible."""
    sockets = {f"socket:[{inode}]" for inode in _listening_inodes(port)}
    return frozenset(pid for pid in _pids() if sockets and any(link in sockets for link in _descriptors(pid)))


def _snapshot() -> tuple[dict[int, float], dict[int, list[int]]]:
    used: dict[int, float] = {}
    children: defaultdict[int, list[int]] = defaultdict(list)
    tick = os.sysconf("SC_CLK_TCK")
    for pid in _pids():
        try:
            fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # it has ended meanwhile
            continue
        children[int(fields[1])].append(pid)
        used[pid] = sum(int(field) for field in fields[11:15]) / tick  # utime, stime, cutime, cstime
    return used, children


def _resident_pages(pid: int) -> int:
    try:
        return int((PROC / str(pid) / "statm").read_text().split()[1])
    except OSError:  # it has ended meanwhile
        return 0


def _with_descendants(roots: Iterable[int], children: Mapping[int, Iterable[int]]) -> set[int]:
    found: set[int] = set()
    waiting = list(roots)
    while waiting:
        pid = waiting.pop()
        if pid not in found:
            found.add(pid)
            waiting.extend(children.get(pid, ()))
    return found


def _pids() -> Iterator[int]:
    return (int(entry.name) for entry in PROC.iterdir() if entry.name.isdigit()) if PROC.is_dir() else iter(())


def _listening_inodes(port: int) -> Iterator[str]:
    for table in ("tcp", "tcp6"):
        path = PROC / "net" / table
        for line in path.read_text().splitlines()[1:] if path.exists() else ():
            fields = line.split()
            if fields[3] == LISTENING and int(fields[1].rpartition(":")[2], 16) == port:
                yield fields[9]


def _descriptors(pid: int) -> Iterator[str]:
    try:
        for descriptor in (PROC / str(pid) / "fd").iterdir():
            yield str(descriptor.readlink())
    except OSError:  # not ours to see, or gone
        return
