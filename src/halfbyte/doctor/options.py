"""What `doctor` can be asked for; every default stands here alone."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class DoctorOptions:
    """folder: whose disk is measured, by writing and reading `disk_mb` there; 0 measures none."""

    folder: Path = Path(".")
    disk_mb: int = 256
