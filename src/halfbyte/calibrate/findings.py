"""What stands beside the scales in their file: data, coverage, statistics of inputs, and what each rule does to them.

Rules are judged as they will fare on unseen text: each chooses on the documents that calibrate, alone, and is measured
on these and on those held out. What is written is then chosen on all documents, as nothing measured is thrown away.
"""

from collections.abc import Iterator
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from halfbyte import __version__
from halfbyte.calibrate.blocks import Split
from halfbyte.calibrate.coverage import Coverage
from halfbyte.calibrate.headroom import MOST_ADDED_ERROR, headroom_scale
from halfbyte.calibrate.held_out import held_out
from halfbyte.calibrate.histogram import Histogram
from halfbyte.calibrate.rule import Rule
from halfbyte.calibrate.scales import expert_statistics, group_modules, scale_values
from halfbyte.calibrate.shares import CEILING, shares
from halfbyte.calibrate.watch import Watch
from halfbyte.data.documents import Documents
from halfbyte.evidence.calibration import CalibratedInput, Calibration, CoverageRecord, DataReport
from halfbyte.models.role_map import RoleMap

SCHEMA = 2


def findings(
    watch: Watch,
    roles: RoleMap,
    documents: Documents,
    coverage: Coverage,
    rule: Rule,
    sampling: dict[str, Any],
    per_expert: bool = False,
    model: str = "source",
) -> tuple[dict[str, float], Calibration]:
    """A finished Watch as amax by module path and how it came about, for `file.write_scales`.

    sampling: options that chose the data. model: whose activations were watched, `source` or `rounded`.
    """
    values = scale_values(
        roles, watch.layers, watch.linears, watch.linear_blocks, rule, per_expert, coverage.min_tokens
    )
    inputs = {name: _input(split, rule, values[name]) for name, split in _splits(watch, roles) if name in values}
    about = Calibration(
        schema=SCHEMA,
        halfbyte=__version__,
        versions={name: version(name) for name in ("torch", "transformers")},
        model_type=roles.family.model_type,
        model=model,
        amax=rule.text,
        data=_without_folders(documents.report()),
        held_out={"documents": sum(held_out(len(documents.documents)))},
        sampling=sampling,
        coverage=CoverageRecord(**coverage.as_json()),
        experts=expert_statistics(roles, watch.layers, coverage),
        inputs=inputs,
        warnings=[*_coverage_warnings(documents, coverage), *_room_warnings(inputs, rule)],
    )
    return values, about


def _splits(watch: Watch, roles: RoleMap) -> Iterator[tuple[str, Split]]:
    """Everything whose blocks were counted, by its name in the scales file."""
    for layer, seen in sorted(watch.layers.items()):
        yield from zip(group_modules(roles, layer), (seen.gate_up_blocks, seen.down_blocks), strict=True)
    for name, split in sorted(watch.linear_blocks.items()):
        yield roles.published(name), split


def _input(split: Split, rule: Rule, amax: float) -> CalibratedInput:
    """headroom: of the amax written, over the largest value of all documents."""
    largest = max(split.calibration.largest, split.held_out.largest)
    scales = {
        "max": split.calibration.largest / CEILING,
        "headroom": headroom_scale(split.calibration),
        "1": 1.0,
        "written": amax / CEILING,
    }
    return CalibratedInput(
        headroom=amax / largest,
        largest={"calibration": split.calibration.largest, "held_out": split.held_out.largest},
        rules={name: _judged(split, scale) for name, scale in scales.items() if scale},
        blocks={"calibration": split.calibration.as_json(), "held_out": split.held_out.as_json()},
    )


def _judged(split: Split, input_scale: float) -> dict[str, Any]:
    def shares_of(blocks: Histogram) -> dict[str, float] | None:
        found = shares(blocks, input_scale)
        return None if found is None else asdict(found)

    both = {"calibration": shares_of(split.calibration), "held_out": shares_of(split.held_out)}
    return {"input_scale": input_scale, **both}


def _without_folders(report: dict[str, Any]) -> DataReport:
    """The report as it may travel with a checkpoint: files by their names only."""
    sources: dict[str, dict[str, int]] = {}
    for source, counts in report["sources"].items():
        name = source if source.startswith("hf:") else Path(source).name
        total = sources.setdefault(name, dict.fromkeys(counts, 0))
        for key, count in counts.items():
            total[key] += count
    return DataReport(**report | {"sources": sources})


def _coverage_warnings(documents: Documents, coverage: Coverage) -> list[str]:
    uncovered = coverage.uncovered
    if not uncovered:
        return []
    never = sum(count == 0 for _, _, count in uncovered)
    experts = sum(len(counts) for counts in coverage.tokens.values())
    return [
        f"{len(uncovered)} of {experts} experts saw fewer than {coverage.min_tokens} of {documents.tokens} tokens "
        f"({never} saw none); they take their layer's value: give more data, or data of more kinds"
    ]


def _room_warnings(inputs: dict[str, CalibratedInput], rule: Rule) -> list[str]:
    """Inputs whose range does not fit the format: least headroom, and small blocks pay for it all the same."""
    if rule.kind != "headroom":
        return []
    costs = {name: one.rules["written"]["calibration"] for name, one in inputs.items()}
    wide = {
        name: cost["added_error"] for name, cost in costs.items() if cost and cost["added_error"] > MOST_ADDED_ERROR
    }
    if not wide:
        return []
    worst = max(wide, key=lambda name: wide[name])
    return [
        f"{len(wide)} inputs span more than NVFP4's window of 28,672: with {inputs[worst].headroom:.1f} times the "
        f"largest value seen, small blocks of {worst} add {wide[worst]:.0%} to its rounding error"
    ]
