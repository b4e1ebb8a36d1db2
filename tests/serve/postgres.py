"""A real PostgreSQL for tests: Debian's, in a folder of its own."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from serve.doors import free_port


def binaries() -> Path | None:
    """The newest that is installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    return found[-1].parent if found else None


def _as_user(words: list[str]) -> list[str]:
    """PostgreSQL does not run as root."""
    return ["runuser", "-u", "postgres", "--", *words] if os.getuid() == 0 else words


@contextmanager
def postgres() -> Iterator[str]:
    """Its URL, with an empty database."""
    programs = binaries()
    assert programs is not None
    folder = Path(tempfile.mkdtemp(prefix="pg"))
    try:
        if os.getuid() == 0:
            owner = pwd.getpwnam("postgres")
            os.chown(folder, owner.pw_uid, owner.pw_gid)
        user, port = "halfbyte", free_port()
        init = [str(programs / "initdb"), "-D", str(folder / "data"), "-U", user, "-A", "trust", "--no-sync"]
        subprocess.run(_as_user(init), check=True, capture_output=True, cwd=folder)
        settings = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder} -c fsync=off"
        control = [str(programs / "pg_ctl"), "-D", str(folder / "data"), "-w", "-l", str(folder / "log")]
        subprocess.run(_as_user([*control, "-o", settings, "start"]), check=True, capture_output=True, cwd=folder)
        try:
            yield f"postgresql://{user}@127.0.0.1:{port}/postgres"
        finally:
            stop = _as_user([*control, "-m", "immediate", "stop"])
            subprocess.run(stop, check=True, capture_output=True, cwd=folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
