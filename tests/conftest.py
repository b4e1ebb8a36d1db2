"""The files that take longest begin first: one of them, begun last, would leave the other processes with nothing to do.

`make tests` deals whole files to processes in the order of collection (`--no-loadscope-reorder`).
"""

from pathlib import Path

import pytest

LONGEST = (
    "quantize/test_on_ray.py",
    "stream/test_kill.py",
    "quantize_gptq/test_every_damage.py",
    "serve/test_door.py",
    "evaluate/running/test_runs.py",
    "evaluate/running/test_embedded.py",
    "quantize_gptq/test_room.py",
    "serve/test_postgres.py",
    "quantize_gptq/test_command.py",
    "quantize/test_full_size.py",
    "stream/test_branch.py",
    "quantize_improve/test_interrupted.py",
    "quantize_improve/test_command.py",
    "quantize_improve/test_kill.py",
    "export/test_resume.py",
    "families/test_every_family.py",
    "families/test_towers.py",
    "calibrate/test_modelopt_equal.py",
    "report/test_report.py",
    "serve/test_conservation.py",
    "search/test_search.py",
)
"""From pytest's `--durations`."""

_PLACE = {Path(__file__).parent / name: place for place, name in enumerate(LONGEST)}
if missing := [str(path) for path in _PLACE if not path.is_file()]:
    raise pytest.UsageError(f"tests/conftest.py names files that are gone: {', '.join(missing)}")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: _PLACE.get(item.path, len(_PLACE)))
