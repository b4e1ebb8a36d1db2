"""For a terminal: the findings, hardest first, and the decision as the last line.

A finding is its severity and rule, then its message on a line of its own: whole, however narrow the terminal is, to be
searched for and copied.
"""

from typing import Any

from halfbyte.gate.formats.blamed import blamed
from halfbyte.text import line


def rendered(document: dict[str, Any]) -> str:
    checkpoint, policy = document["checkpoint"], document["policy"]
    lines = []
    for finding in document["findings"]:
        severity = f"{finding['severity']} (waived)" if finding["waived"] else finding["severity"]
        message, subject = finding["message"], blamed(finding)
        where = f" [{subject}]" if subject and subject not in message else ""
        lines += [f"{severity:<4} {line(finding['rule'])}", f"     {line(message + where)}"]
    if lines:
        lines.append("")
    if policy.get("weakens") is not None:
        which = f"policy file {policy['source']} (SHA-256 {policy['sha256'][:12]})"
        less = "; ".join(policy["weakens"]) or "nothing"
        lines.append(line(f"{which} asks less than default in: {less}"))
    counts = dict.fromkeys(("deny", "warn", "info"), 0)
    for finding in document["findings"]:
        counts[finding["severity"]] += not finding["waived"]
    lines.append(
        f"{document['decision']}: {line(checkpoint['target'])} by policy {line(policy['name'])} at depth "
        f"{document['options']['depth']}: {checkpoint['tensors']:,} tensors in {len(checkpoint['shards']):,} shard(s), "
        f"{counts['deny']} refusal(s), {counts['warn']} warning(s)"
    )
    return "\n".join(lines) + "\n"
