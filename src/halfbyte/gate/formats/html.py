"""One self-contained HTML file: no script, no font, no address outside of it."""

from html import escape
from typing import Any

from halfbyte.gate.catalogue import all_rules
from halfbyte.gate.formats.blamed import blamed

STYLE = """
:root{color-scheme:light dark;--ink:#1c2128;--paper:#fff;--line:#d8dee4;--soft:#57606a;--deny:#b42318;--warn:#8a5a00;
--info:#3b5b8c;--pass:#1a7f37;--undecided:#8a5a00;--refused:#b42318}
@media(prefers-color-scheme:dark){:root{--ink:#e6edf3;--paper:#0d1117;--line:#30363d;--soft:#9198a1;--deny:#ff8f85;
--warn:#e3b341;--info:#8db4f0;--pass:#5fd47c;--undecided:#e3b341;--refused:#ff8f85}}
body{font:16px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);max-width:70rem;margin:2rem auto;
padding:0 1rem}
h1{font-size:1.6rem;margin:0}h2{font-size:1.1rem;margin:2rem 0 .5rem}
table{border-collapse:collapse;width:100%}th,td{text-align:left;vertical-align:top;padding:.4rem .6rem;
border-bottom:1px solid var(--line)}th{color:var(--soft);font-weight:600}
code{font:.88em ui-monospace,monospace;overflow-wrap:anywhere}
.rule{white-space:nowrap}.soft{color:var(--soft)}
.deny{color:var(--deny);font-weight:600}.warn{color:var(--warn)}.info{color:var(--info)}
.pass{color:var(--pass)}.refused{color:var(--refused)}.undecided{color:var(--undecided)}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.2rem 1rem}dt{color:var(--soft)}dd{margin:0}
"""


def rendered(document: dict[str, Any]) -> str:
    checkpoint, policy, verdict = document["checkpoint"], document["policy"], document["decision"]
    facts = {
        "checkpoint": checkpoint["target"],
        "fingerprint": checkpoint["fingerprint"],
        "model": checkpoint["model_type"] or "unknown",
        "tensors": f"{checkpoint['tensors']:,} in {len(checkpoint['shards']):,} shard(s), "
        f"{checkpoint['bytes']:,} bytes",
        "policy": f"{policy['name']} (version {policy['version']}, {policy['sha256'][:16]})",
        **_own_policy(policy),
        "depth": document["options"]["depth"],
        "made": f"{document['time']} by {document['tool']['name']} {document['tool']['version']}",
    }
    rows = "".join(_row(finding) for finding in document["findings"])
    table = (
        f"<table><thead><tr><th>severity<th>rule<th>what</tr></thead><tbody>{rows}</tbody></table>"
        if rows
        else "<p class=soft>No findings.</p>"
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>Gate: {escape(verdict)}</title><style>{STYLE}</style></head><body>\n"
        f'<h1>Gate: <span class="{escape(verdict)}">{escape(verdict)}</span></h1>\n<dl>'
        + "".join(f"<dt>{escape(key)}<dd><code>{escape(str(value))}</code>" for key, value in facts.items())
        + f"</dl>\n<h2>Findings</h2>\n{table}\n<h2>Shards</h2>\n{_shards(checkpoint['shards'])}\n</body></html>\n"
    )


def _own_policy(policy: dict[str, Any]) -> dict[str, str]:
    """Of a policy that does not come with Halfbyte: its file, and what it asks less of."""
    if policy.get("weakens") is None:
        return {}
    return {"policy file": policy["source"], "asks less in": "; ".join(policy["weakens"]) or "nothing"}


def _row(finding: dict[str, Any]) -> str:
    waived = " (waived)" if finding["waived"] else ""
    rationale, subject = all_rules()[finding["rule"]].rationale, blamed(finding)
    where = f"<br><code>{escape(subject)}</code>" if subject and subject not in finding["message"] else ""
    return (
        f'<tr><td class="{finding["severity"]}">{finding["severity"]}{waived}'
        f"<td class=rule><code>{escape(finding['rule'])}</code>"
        f'<td>{escape(finding["message"])}{where}<br><span class="soft">{escape(rationale)}</span></tr>\n'
    )


def _shards(shards: list[dict[str, Any]]) -> str:
    rows = "".join(
        f"<tr><td><code>{escape(str(row['file']))}</code><td>{row['bytes'] if row['bytes'] is not None else 'missing'}"
        f"<td><code>{escape(str(row['sha256'] or row['stated_sha256'] or ''))}</code></tr>\n"
        for row in shards
    )
    return (
        f"<table><thead><tr><th>file<th>bytes<th>SHA-256 (computed or stated)</tr></thead><tbody>{rows}</tbody></table>"
    )
