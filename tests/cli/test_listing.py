"""The list of commands is kept apart from the commands, which are imported when they are run: both must agree."""

import inspect
import subprocess
import sys
from dataclasses import MISSING, fields
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from halfbyte import cli
from halfbyte.calibrate.options import CalibrateOptions
from halfbyte.chat.options import Sampling
from halfbyte.cli.main import SUMMARIES
from halfbyte.compare.options import CompareOptions
from halfbyte.convert.options import ConvertOptions
from halfbyte.deploy.options import DeployOptions
from halfbyte.doctor.options import DoctorOptions
from halfbyte.evaluate.options import EvaluateOptions
from halfbyte.export.options import ExportOptions
from halfbyte.gate.options import GateOptions
from halfbyte.plan.options import PlanOptions
from halfbyte.plan.workload import Workload
from halfbyte.quantize.options import QuantizeOptions
from halfbyte.quantize.part_options import PartOptions
from halfbyte.quantize.verify_options import VerifyOptions
from halfbyte.report.options import ReportOptions
from halfbyte.search.options import SearchOptions
from halfbyte.serve.options import ServeOptions

NO_COMMANDS = {"__init__", "main", "many", "output", "verdicts"}
OPTIONS: dict[type[Any], str] = {
    QuantizeOptions: "quantize",
    CalibrateOptions: "calibrate",
    CompareOptions: "compare",
    SearchOptions: "search",
    GateOptions: "gate",
    PlanOptions: "plan",
    Workload: "plan",
    Sampling: "chat",
    ServeOptions: "serve",
    ExportOptions: "export",
    DeployOptions: "deploy",
    EvaluateOptions: "evaluate",
    VerifyOptions: "verify",
    ConvertOptions: "convert",
    PartOptions: "quantize",
    ReportOptions: "report",
    DoctorOptions: "doctor",
}
NOT_FLAGS = {"workload", "today", "max_shard_bytes"}
"""Given by the program that calls, or (max_shard_bytes) written by users as --max-shard-size 5GB."""
RESTATED = {"also", "data", "slice", "calibrate", "policy", "upstream", "context_length"}
"""Nothing given is None on the command line, and the options' own default stands for it."""


@pytest.mark.parametrize("name", SUMMARIES)
def test_a_summary_is_the_first_line_of_its_command(name: str) -> None:
    module = import_module(f"halfbyte.cli.{name}")
    said = module.APP.info.help if hasattr(module, "APP") else inspect.getdoc(getattr(module, name))
    assert (said or "").splitlines()[0] == SUMMARIES[name]


def test_every_command_is_listed() -> None:
    modules = {path.stem for path in Path(cli.__path__[0]).glob("*.py")}
    assert modules - NO_COMMANDS == set(SUMMARIES)


@pytest.mark.parametrize("kind", OPTIONS)
def test_flags_are_the_options_with_their_defaults(kind: type[Any]) -> None:
    """No number is written twice, and no option has no flag."""
    name = OPTIONS[kind]
    flags = inspect.signature(getattr(import_module(f"halfbyte.cli.{name}"), name)).parameters
    for option in fields(kind):
        if option.name in NOT_FLAGS:
            continue
        assert option.name in flags
        if option.default is not MISSING and option.name not in RESTATED and name != "search":
            assert flags[option.name].default == option.default, option.name


def test_help_imports_no_command() -> None:
    code = "import sys, halfbyte.cli.main as m; print(*[n for n in sys.modules if n.startswith('halfbyte.')])"
    imported = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert sorted(imported) == ["halfbyte.cli", "halfbyte.cli.main"]
