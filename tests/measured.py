"""Peak memory of a command, by the kernel's own count."""

import subprocess
import sys

LAUNCH = """
import os, sys
child = os.posix_spawnp(sys.argv[1], sys.argv[1:], os.environ)
_, status, usage = os.wait4(child, 0)
print(usage.ru_maxrss * 1024, file=sys.stderr)
sys.exit(os.waitstatus_to_exitcode(status))
"""
"""A child's count begins with its parent's memory, so a small process stands between the tests' and the command's."""


def output_and_peak_bytes(command: list[str]) -> tuple[str, int]:
    """What a command printed, and its peak resident memory. It must succeed."""
    done = subprocess.run([sys.executable, "-S", "-c", LAUNCH, *command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout, int(done.stderr.split()[-1])
