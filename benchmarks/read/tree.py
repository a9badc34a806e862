"""What a process and all its descendants use: CPU time and memory, from ``/proc``, whoever made them and however.

Workers of some libraries live for an epoch and others for ever, some are children and others grandchildren by way of a
fork server; so all of them are looked up, and what processes that have ended used is in their parents' sums.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def cpu_s(pid: int) -> float:
    """Return user and system seconds of the tree below and with ``pid``, of its living processes and of those waited for."""
    ticks = 0
    for one in processes(pid):
        fields = _stat(one)
        ticks += sum(map(int, fields[11:15])) if fields else 0  # utime, stime, and both of children that were waited for
    return ticks / TICKS_PER_S


def memory_nbytes(pid: int) -> int:
    """Return the tree's anonymous and shared memory, each page of it divided by the processes that map it (proportional set size).

    Pages of files are left out: they are the page cache's, which mapping a file shows and reading it does not.
    """
    total_kb = 0
    for one in processes(pid):
        try:
            text = Path(f"/proc/{one}/smaps_rollup").read_text()
        except OSError:  # it has ended
            continue
        total_kb += sum(int(kb) for kb in re.findall(r"^Pss_(?:Anon|Shmem): +(\d+) kB", text, re.MULTILINE))
    return total_kb * 1024


def processes(pid: int) -> list[int]:
    """Return ``pid`` and all its living descendants."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit() and (fields := _stat(int(name))):
            children.setdefault(int(fields[1]), []).append(int(name))
    found = [pid]
    for one in found:  # grows as it goes
        found += children.get(one, [])
    return found


def _stat(pid: int) -> list[str]:
    """Return the fields of ``/proc/pid/stat`` from the state on; nothing if the process has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
