"""What `report` can be asked for; every default stands here alone."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ReportOptions:
    """output: the page to write. interactive: with Vega in it, for zooming and tooltips."""

    output: Path = Path("report.html")
    interactive: bool = False
