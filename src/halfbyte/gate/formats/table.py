"""For a terminal: the findings, hardest first, and the decision as the last line."""

import io
from typing import Any

from halfbyte.gate.formats.blamed import blamed
from halfbyte.text import line


def rendered(document: dict[str, Any]) -> str:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    checkpoint, policy = document["checkpoint"], document["policy"]
    out = io.StringIO()
    console = Console(file=out, width=80, no_color=True)
    if document["findings"]:
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for name in ("severity", "rule", "what"):
            table.add_column(name, no_wrap=name != "what", overflow="fold")
        for finding in document["findings"]:
            severity = f"{finding['severity']} (waived)" if finding["waived"] else finding["severity"]
            message, subject = finding["message"], blamed(finding)
            where = f" [{subject}]" if subject and subject not in message else ""
            table.add_row(severity, finding["rule"], Text(line(message + where)))
        console.print(table)
    if policy.get("weakens") is not None:
        which = f"policy file {policy['source']} (SHA-256 {policy['sha256'][:12]})"
        less = "; ".join(policy["weakens"]) or "nothing"
        console.print(Text(f"{which} asks less than default in: {less}"), soft_wrap=True)
    counts = dict.fromkeys(("deny", "warn", "info"), 0)
    for finding in document["findings"]:
        counts[finding["severity"]] += not finding["waived"]
    console.print(
        Text(
            f"{document['decision']}: {line(checkpoint['target'])} by policy {line(policy['name'])} at depth "
            f"{document['options']['depth']}: {checkpoint['tensors']:,} tensors in {len(checkpoint['shards']):,} "
            f"shard(s), "
            f"{counts['deny']} refusal(s), {counts['warn']} warning(s)"
        ),
        soft_wrap=True,
    )
    return out.getvalue()
