"""The lock files are installed without a resolver: each must name all that its extras need, at versions that agree."""

from __future__ import annotations

import tomllib
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]


def lock(name: str) -> dict[str, Version]:
    """Version by canonical name of every line of a lock file."""
    pins: dict[str, Version] = {}
    for line in (ROOT / name).read_text().splitlines():
        if line and not line.startswith("#"):
            project, version = line.split("==")
            pins[canonicalize_name(project)] = Version(version)
    return pins


def project() -> dict[str, list[str]]:
    """Requirements of pyproject.toml by extra; "" holds those of the package itself."""
    table = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return {"": table["dependencies"], **table["optional-dependencies"]}


def needed(extras: list[str]) -> list[Requirement]:
    """All requirements of halfbyte[extras] and, in this environment, of what they bring."""
    own = project()
    found: dict[str, Requirement] = {}
    waiting = [Requirement(text) for extra in ["", *extras] for text in own[extra]]
    while waiting:
        wanted = waiting.pop()
        if wanted.marker and not any(wanted.marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            continue
        if str(wanted) in found:
            continue
        name = canonicalize_name(wanted.name)
        if name == "halfbyte":
            waiting += [Requirement(text) for extra in wanted.extras for text in own[extra]]
            continue
        found[str(wanted)] = wanted
        for text in distribution(name).requires or ():
            below = Requirement(text)
            if below.marker is None or any(below.marker.evaluate({"extra": extra}) for extra in ("", *wanted.extras)):
                waiting.append(Requirement(f"{below.name}{_extras(below)}{below.specifier}"))
    return list(found.values())


def _extras(requirement: Requirement) -> str:
    return f"[{','.join(sorted(requirement.extras))}]" if requirement.extras else ""


@pytest.mark.parametrize(
    ("name", "extras"), [("constraints.txt", ["dev"]), ("constraints-demo.txt", ["local", "report"])]
)
def test_a_lock_file_names_all_that_is_needed(name: str, extras: list[str]) -> None:
    pins = lock(name)
    wrong = [
        f"{requirement}: {pins.get(canonicalize_name(requirement.name))}"
        for requirement in needed(extras)
        if not requirement.specifier.contains(pins.get(canonicalize_name(requirement.name), "0"), prereleases=True)
        or canonicalize_name(requirement.name) not in pins
    ]
    assert wrong == []


def test_the_small_lock_brings_no_torch() -> None:
    assert "torch" not in lock("constraints-demo.txt")
