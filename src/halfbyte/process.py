"""What the running process has used."""

import resource
from pathlib import Path


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
