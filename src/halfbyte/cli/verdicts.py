"""Tables of `halfbyte evaluate`: what can be decided, what was."""

from typing import TYPE_CHECKING, Any

from halfbyte.cli.output import say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from halfbyte.evaluate.judging import Judgement
    from halfbyte.evaluate.power import Power

SAYS = {"PASS": "is ruled out", "FAIL": "is certain", "INCONCLUSIVE": "is neither ruled out nor certain"}


def show_judgement(found: "Judgement") -> None:
    columns = ("n", "baseline", "candidate", "difference", "90 % interval", "cut", "verdict")
    widths = (6, 9, 10, 11, 17, 7, 14)
    say(f"{'points':24}" + "".join(f"{name:>{width}}" for name, width in zip(columns, widths, strict=True)))
    for suite in found.suites:
        low, high = suite.interval
        values = (
            f"{suite.n:,}",
            f"{suite.baseline:.1f}",
            f"{suite.candidate:.1f}",
            f"{suite.difference:+.2f}",
            f"{low:+.2f} .. {high:+.2f}",
            f"{suite.truncated['candidate']}/{suite.truncated['baseline']}",
            suite.verdict,
        )
        name = suite.name if len(suite.name) <= 24 else suite.name[:21] + "..."
        say(f"{name:24}" + "".join(f"{value:>{width}}" for value, width in zip(values, widths, strict=True)))
        for state, counts in (("failed", suite.failed), ("unscorable", suite.unscorable)):
            if any(counts.values()):
                say(f"  {state}: {counts['candidate']} of the candidate's, {counts['baseline']} of the baseline's")
    low, high = found.pooled["interval"]
    if len(found.suites) > 1:
        say(f"mean over suites: {found.pooled['difference']:+.2f} ({low:+.2f} .. {high:+.2f})")
    say(f"{found.verdict}: a loss of {found.suites[0].margin:g} points {SAYS[found.verdict]}")


def show_power(found: "Power", margin: float) -> None:
    from halfbyte.evaluate.power import undecidable

    columns = ("items", "runs", "accuracy", "sees drop of", "decides margin", "items wanted", "GPU hours")
    say(f"{'points':24}" + "".join(f"{name:>{max(len(name), 5) + 2}}" for name in columns))
    for suite in found.suites:
        values = (
            str(suite.items),
            str(suite.repeats),
            f"{suite.accuracy:.1f} %",
            f"{suite.smallest_drop:.1f}",
            f"{suite.smallest_margin:.1f}",
            f"{suite.items_needed:,}",
            "-" if suite.gpu_hours is None else f"{suite.gpu_hours:.1f}",
        )
        cells = zip(columns, values, strict=True)
        name = suite.name if len(suite.name) <= 24 else suite.name[:21] + "..."
        say(f"{name:24}" + "".join(f"{value:>{max(len(column), 5) + 2}}" for column, value in cells))
    if found.decidable:
        say(f"a margin of {margin:g} points can be decided")
    else:
        say(f"a margin of {margin:g} points cannot be decided: {undecidable(found.suites)}")


def show_scores(rows: "Sequence[dict[str, Any]]") -> None:
    """Of a candidate alone."""
    for row in rows:
        mean = "nothing scored" if row["candidate"] is None else f"{row['candidate']:.1f} %"
        cut, failed = row["truncated"]["candidate"], row["failed"]["candidate"]
        say(f"{row['name']}: {mean} of {row['n']} items; {cut} answers cut short, {failed} failed")
    say("no baseline, no verdict")
