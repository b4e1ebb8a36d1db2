"""The report: one HTML page of what is known about a checkpoint."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from halfbyte.checkpoint.writer import write_whole
from halfbyte.disk import check_output
from halfbyte.plots.charts import library
from halfbyte.plots.page import html
from halfbyte.plots.parts import Page
from halfbyte.report.dossier import Read, read
from halfbyte.report.options import ReportOptions
from halfbyte.report.sections.compared import compared
from halfbyte.report.sections.errors import errors
from halfbyte.report.sections.evaluated import evaluated
from halfbyte.report.sections.gated import gated
from halfbyte.report.sections.packed import packed
from halfbyte.report.sections.planned import planned
from halfbyte.report.sections.provenance import provenance
from halfbyte.report.sections.recalled import recalled
from halfbyte.report.words import number, short, size


@dataclass(frozen=True)
class Report:
    """bytes: of the page. missing: titles of the sections without evidence."""

    output: str
    bytes: int
    read: list[str]
    missing: list[str]

    def as_json(self) -> dict[str, Any]:
        return {"output": self.output, "bytes": self.bytes, "read": self.read, "missing": self.missing}


def report(target: str | Path, options: ReportOptions | None = None, **given: Any) -> Report:
    """Write one page about the checkpoint in folder `target`, of which only the dossier is read: halfbyte.json, and
    gate.json and plan.json where they lie beside it.

    given: fields of ReportOptions by name, instead of `options`. The same documents give the same bytes. Raises
    CheckpointError for a bad dossier, OutputError; nothing is written then.
    """
    options = options or ReportOptions(**given)
    library()
    found = read(target)
    output = Path(options.output)
    check_output(output, [Path(target), *found.files])
    page = page_of(found)
    content = html(page, interactive=options.interactive).encode()
    write_whole(output, content)
    missing = [section.title for section in page.sections if section.missing]
    return Report(str(output), len(content), [path.name for path in found.files], missing)


def page_of(found: Read) -> Page:
    dossier = found.dossier
    before = sum(row.bytes_before for row in dossier.roles)
    after = sum(row.bytes_after for row in dossier.roles)
    facts = [
        ("model", short(dossier.model_type, 80)),
        ("source", short(dossier.source.name, 120)),
        ("recipe", f"{short(dossier.recipe.name, 80)} ({short(dossier.recipe.algorithm, 40)})"),
        ("size", f"{size(before)} before, {size(after)} after"),
    ]
    if dossier.compare and dossier.compare[-1].figures.kl is not None:
        facts.append(("KL", f"{number(dossier.compare[-1].figures.kl.mean)} nats a token"))
    if found.decision is not None:
        facts.append(("gate", found.decision.decision))
    facts.append(("read", ", ".join(path.name for path in found.files)))
    sections = [
        packed(dossier),
        errors(dossier),
        compared(dossier),
        recalled(dossier),
        evaluated(dossier),
        gated(found),
        planned(found.plan),
        provenance(dossier),
    ]
    return Page(f"Halfbyte report: {short(dossier.source.name, 80)}", facts, sections)
