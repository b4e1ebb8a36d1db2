"""Where the server, etcd and the definitions are; what is missing, in words.

HALFBYTE_APISERVER names the server (or its .xz), HALFBYTE_CRDS the folder of definitions. Without them, a folder beside
this repository that holds `tools/apiextensions-apiserver-linux-amd64.xz` and `crds/` is taken.
"""

import hashlib
import lzma
import os
import shutil
from pathlib import Path
from typing import NamedTuple

REPOSITORY = Path(__file__).parents[3]
ARCHIVE = "apiextensions-apiserver-linux-amd64.xz"


class Found(NamedTuple):
    server: Path
    etcd: Path
    definitions: Path


def cache() -> Path:
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = base / "halfbyte-tests"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def find() -> Found | str:
    """All three, or which is missing."""
    server = _given("HALFBYTE_APISERVER", f"*/tools/{ARCHIVE}")
    definitions = _given("HALFBYTE_CRDS", "*/crds/kueue")
    etcd = shutil.which("etcd")
    if server is None:
        return "no API server: HALFBYTE_APISERVER is to name apiextensions-apiserver"
    if definitions is None:
        return "no definitions of custom resources: HALFBYTE_CRDS is to name their folder"
    if etcd is None:
        return "no etcd is installed (Debian: etcd-server)"
    return Found(unpacked(server), Path(etcd), definitions.parent if definitions.name == "kueue" else definitions)


def _given(variable: str, beside: str) -> Path | None:
    if os.environ.get(variable):
        path = Path(os.environ[variable])
        return path if path.exists() else None
    return next(iter(sorted(REPOSITORY.parent.glob(beside))), None)


def unpacked(server: Path) -> Path:
    """The program itself; an archive is unpacked once for each content."""
    if server.suffix != ".xz":
        return server
    data = server.read_bytes()
    target = cache() / f"apiserver-{hashlib.sha256(data).hexdigest()[:16]}"
    if not target.exists():
        half = target.with_suffix(f".{os.getpid()}")
        half.write_bytes(lzma.decompress(data))
        half.chmod(0o755)
        half.rename(target)
    return target
