"""What the running process has used, and may use."""

import math
import os
import resource
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUPS = Path("/proc/self/cgroup")


def peak_rss_bytes() -> int:
    """Largest resident memory of this process so far, in bytes.

    VmHWM where there is /proc: `getrusage` also counts what the parent had resident when it started us.
    """
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def rss_bytes() -> int:
    """Resident memory of this process now, in bytes; the peak where there is no /proc."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    except OSError:
        return peak_rss_bytes()


def cores() -> int:
    """Cores that this process may use: those it is bound to, and no more than a container's quota, rounded up.

    `os.cpu_count` is the machine's: a pod with a limit of 2 on 64 cores would start 64 threads that wait for one
    another.
    """
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _quota()
    return bound if quota is None else max(1, min(bound, math.ceil(quota)))


def fewer_than_all() -> int | None:
    """`cores`, where they are fewer than the machine's; None where they are all of them."""
    own = cores()
    return own if own < (os.cpu_count() or 1) else None


def _quota() -> float | None:
    """Processors by the least quota of the control groups that this process is in; None if there is none.

    Sources: the kernel's cgroup-v2 (`cpu.max`: quota and period in microseconds, or `max`) and sched-bwc (v1:
    `cpu.cfs_quota_us`, -1 for none).
    """
    found = []
    for line in _lines(OWN_CGROUPS):
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        top = CGROUPS / controllers if controllers else CGROUPS
        own = top / path.lstrip("/")  # in a container its own group is mounted at the top
        for folder in {top, own, *(one for one in own.parents if one.is_relative_to(top))}:
            if not controllers:
                quota = "".join(_lines(folder / "cpu.max")).split()
            else:
                quota = [*_lines(folder / "cpu.cfs_quota_us"), *_lines(folder / "cpu.cfs_period_us")]
            if len(quota) == 2 and quota[0].isdigit() and float(quota[1]) > 0:
                found.append(float(quota[0]) / float(quota[1]))
    return min(found, default=None)


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text().splitlines()
    except OSError:
        return []
