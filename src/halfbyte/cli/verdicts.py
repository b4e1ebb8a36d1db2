"""Tables of `halfbyte evaluate`: what can be decided, what was."""

from typing import TYPE_CHECKING, Any

from halfbyte.cli.output import say

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from halfbyte.evaluate.calibrating import Noise
    from halfbyte.evaluate.judging import Judgement
    from halfbyte.evaluate.power import Power

SAYS = {"PASS": "is ruled out", "FAIL": "is certain", "INCONCLUSIVE": "is neither ruled out nor certain"}


def show_judgement(found: "Judgement", document: "Mapping[str, Any]") -> None:
    columns = ("n", "baseline", "candidate", "difference", "90 % interval", "verdict")
    widths = (5, 9, 10, 11, 17, 13)
    say(f"{'points':15}" + "".join(f"{name:>{width}}" for name, width in zip(columns, widths, strict=True)))
    for suite in found.suites:
        low, high = suite.interval
        values = (
            f"{suite.n:,}",
            f"{suite.baseline:.1f}",
            f"{suite.candidate:.1f}",
            f"{suite.difference:+.2f}",
            f"{low:+.2f} .. {high:+.2f}",
            suite.verdict,
        )
        numbers = "".join(f"{value:>{width}}" for value, width in zip(values, widths, strict=True))
        if len(suite.name) > 15:
            say(suite.name)
        say(f"{suite.name if len(suite.name) <= 15 else '':15}{numbers}")
        if any(suite.truncated.values()):
            of, base = suite.truncated["candidate"], suite.truncated["baseline"]
            say(f"  cut short: {of} of the candidate's, {base} of the baseline's")
        for state, counts in (("failed", suite.failed), ("unscorable", suite.unscorable)):
            if any(counts.values()):
                say(f"  {state}: {counts['candidate']} of the candidate's, {counts['baseline']} of the baseline's")
        if suite.warning is not None:
            say(f"  {suite.warning}")
        for line in _moved(suite.answers):
            say(f"  {line}")
    low, high = found.pooled["interval"]
    if len(found.suites) > 1:
        say(f"mean over suites: {found.pooled['difference']:+.2f} ({low:+.2f} .. {high:+.2f})")
    if "judge" in document:
        rates = document["judge"]["error_rate"]
        shown = ", ".join(f"{rate:.1%} of the {arm}'s" for arm, rate in rates.items())
        say(f"judge {document['judge']['target']}: gave no grade for {shown}")
    if "sequential" in document:
        say(f"asked {document['sequential']['asked']} of {document['sequential']['of']}")
    say(f"{found.verdict}: a loss of {found.suites[0].margin:g} points {SAYS[found.verdict]}")


def _moved(answers: dict[str, Any]) -> "Iterator[str]":
    """Lengths and rates whose 95 % interval of the difference leaves out 0."""
    for name, found in answers.items():
        if found is None or found["difference"]["low"] is None:
            continue
        ends = found["difference"]
        if ends["low"] > 0 or ends["high"] < 0:
            is_rate = name != "output_tokens"
            before, after, low, high = (
                f"{100 * value:.1f} %" if is_rate else f"{value:.0f}"
                for value in (found["baseline"]["mean"], found["candidate"]["mean"], ends["low"], ends["high"])
            )
            yield f"{name.replace('_', ' ')}: {before} to {after} (difference {low} .. {high})"


def show_noise(found: "Noise") -> None:
    """Of one model against itself."""
    columns = ("items", "runs", "accuracy", "flip", "ICC", "decides margin")
    say(f"{'points':20}" + "".join(f"{name:>{max(len(name), 6) + 2}}" for name in columns))
    for suite in found.suites:
        icc = suite.intraclass_correlation
        values = (
            str(suite.n),
            str(suite.runs),
            f"{suite.accuracy:.1f} %",
            f"{100 * suite.flip_rate:.1f} %",
            "-" if icc is None else f"{icc:.2f}",
            f"{suite.smallest_margin:.1f}",
        )
        cells = zip(columns, values, strict=True)
        name = suite.name if len(suite.name) <= 20 else suite.name[:17] + "..."
        say(f"{name:20}" + "".join(f"{value:>{max(len(column), 6) + 2}}" for column, value in cells))
    false = found.verdicts.count("FAIL")
    say(f"the mean over suites decides margins from {found.smallest_margin:.1f} points on; runs of one model against")
    say(f"each other at {found.margin:g} points: {false} of {len(found.verdicts)} verdicts false")


def show_power(found: "Power", margin: float) -> None:
    from halfbyte.evaluate.power import undecidable

    columns = ("items", "runs", "accuracy", "sees drop", "decides", "wanted", "GPU h")
    say(f"{'points':20}" + "".join(f"{name:>{max(len(name), 5) + 2}}" for name in columns))
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
        name = suite.name if len(suite.name) <= 20 else suite.name[:17] + "..."
        say(f"{name:20}" + "".join(f"{value:>{max(len(column), 5) + 2}}" for column, value in cells))
    if len(found.suites) > 1:
        say(f"the mean over suites decides margins from {found.pooled_margin:.1f} points on")
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
