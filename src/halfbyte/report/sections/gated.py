"""The gate's decision, with its findings."""

from halfbyte.plots.parts import Section, Table
from halfbyte.report.dossier import Read
from halfbyte.report.words import hexadecimal, short

TITLE = "Gate"
MISSING = "Not judged yet. halfbyte gate TARGET makes this evidence."
MOST_FINDINGS = 300


def gated(read: Read) -> Section:
    found = read.decision
    if found is None:
        return Section(TITLE, missing=MISSING)
    options = found.options
    asked = f"depth {short(options.depth, 20)}"
    asked += f", engine {short(options.engine, 40)}" if options.engine else ""
    asked += f", hardware {short(options.hardware, 40)}" if options.hardware else ""
    lines = [
        f"{found.decision}: by policy {short(found.policy.name, 80)} (version {found.policy.version}, "
        f"{hexadecimal(found.policy.sha256)}), {asked}, on {short(found.time, 10)}; "
        f"checkpoint {hexadecimal(found.checkpoint.fingerprint)}."
    ]
    if not read.decided_of_this:
        lines.append("The decision is of other shards than those below: judge again.")
    if found.policy.weakens:
        lines.append(f"The policy asks less than the default in: {short('; '.join(found.policy.weakens))}.")
    rows = [
        [
            f"{one.severity}, waived" if one.waived else one.severity,
            short(one.rule, 80),
            short(one.message),
            short(one.tensor or one.module or one.file or "", 160),
        ]
        for one in found.findings[:MOST_FINDINGS]
    ]
    title = f"{len(found.findings)} findings"
    if len(found.findings) > MOST_FINDINGS:
        title += f", the first {MOST_FINDINGS}; gate.json has all"
    table = Table(title, ["severity", "rule", "what", "where"], rows, text=4)
    return Section(TITLE, lines if rows else [*lines, "No findings."], tables=[table] if rows else [])
