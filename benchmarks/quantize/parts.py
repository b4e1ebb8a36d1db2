"""Two processes with `--part` against one, where encoding is the limit: `--rounding sweep`, each on a core of its own.

    python -m benchmarks.quantize.parts [--gigabytes 1.5] [--folder FOLDER]

Source: random BF16 weights. The peer is one process on one core, hashing and syncing included; the limit is twice that.
Unpinned, one process hashes on the second core while it encodes on the first. Output is compared byte for byte.
"""

import argparse
import filecmp
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.quantize.quantize import make_checkpoint
from benchmarks.table import record, show

HALFBYTE = (sys.executable, "-m", "halfbyte", "quantize")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--gigabytes", type=float, default=1.5)
    options.add_argument("--folder", type=Path)
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory(dir=chosen.folder) as temporary:
        folder = Path(temporary)
        size_bytes = make_checkpoint(folder / "source", chosen.gigabytes, hidden=2048, width=768, layers=4)
        common = ["--rounding", "sweep", "--workers", "1", "--max-shard-size", "50MB"]

        def words(out: str, core: int, *more: str) -> list[str]:
            return ["taskset", "-c", str(core), *HALFBYTE, str(folder / "source"), str(folder / out), *common, *more]

        subprocess.run(words("warm", 0), check=True, capture_output=True)
        shutil.rmtree(folder / "warm")
        began = time.monotonic()
        subprocess.run(words("one", 0), check=True, capture_output=True)
        one = time.monotonic() - began
        began = time.monotonic()
        running = [subprocess.Popen(words("two", i, "--part", f"{i}/2"), stdout=subprocess.DEVNULL) for i in range(2)]
        assert [process.wait() for process in running] == [0, 0]
        both = time.monotonic() - began
        subprocess.run(words("two", 0, "--finish"), check=True, capture_output=True)
        joined = time.monotonic() - began
        names = sorted(path.name for path in (folder / "one").iterdir())
        assert names == sorted(path.name for path in (folder / "two").iterdir())
        assert all(filecmp.cmp(folder / "one" / name, folder / "two" / name, shallow=False) for name in names)
    rows = [
        ["one process", f"{one:.1f}", f"{size_bytes / one / 1e9:.3f}", "1.00", ""],
        ["two parts", f"{both:.1f}", f"{size_bytes / both / 1e9:.3f}", f"{one / both:.2f}", "2.00"],
        ["two parts, --finish too", f"{joined:.1f}", f"{size_bytes / joined / 1e9:.3f}", f"{one / joined:.2f}", "2.00"],
    ]
    show(f"sweep, {size_bytes / 1e9:.2f} GB of source", ["", "seconds", "GB/s of source", "ratio", "limit"], rows)
    row = {"source_bytes": size_bytes, "one_seconds": one, "two_seconds": both, "joined_seconds": joined}
    record("parts", row)


if __name__ == "__main__":
    main()
