"""A small checkpoint that the gate passed, plans of 8 and of 16 GPUs of two kinds, and the example platform."""

import copy
import json
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from halfbyte.api import gate, quantize
from halfbyte.deploy.manifests import dumped
from halfbyte.deploy.reading import LOADER

TINY = Path(__file__).parents[2] / "examples/tiny-glm"


def halfbyte(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "halfbyte", *map(str, words)], capture_output=True, text=True, check=False
    )


@dataclass(frozen=True)
class Ground:
    """What `deploy` is called with."""

    target: Path
    plan: Path
    plan16: Path
    platform: Path
    on_h200: Path
    on_h200_16: Path

    def words(self, *more: object, plan: Path | None = None, platform: Path | None = None) -> list[object]:
        return ["deploy", self.target, "--plan", plan or self.plan, "--platform", platform or self.platform, *more]


@pytest.fixture(scope="session")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Ground:
    folder = tmp_path_factory.mktemp("deploy")
    target = folder / "tiny-nvfp4"
    quantize(TINY, target)
    (target / "gate.json").write_text(json.dumps(gate(target).as_json()))
    for name, gpu, gpus, stages in (
        ("plan", "b200", 8, 2),
        ("plan16", "b200", 16, 4),
        ("h200", "h200", 8, 2),
        ("h200x16", "h200", 16, 4),
    ):
        shape = ("--gpus", gpus, "--tp", 4, "--pp", stages)
        done = halfbyte("plan", target, "--gpu", gpu, *shape, "-o", folder / f"{name}.json")
        assert done.returncode == 0, done.stderr
    (folder / "platform.yaml").write_text(halfbyte("deploy", "--example").stdout)
    plan, plan16, h200, h200x16 = (folder / f"{name}.json" for name in ("plan", "plan16", "h200", "h200x16"))
    return Ground(target, plan, plan16, folder / "platform.yaml", h200, h200x16)


@pytest.fixture(scope="session")
def written(ground: Ground) -> Path:
    """Manifests of the plan of 8 GPUs."""
    out = ground.target.parent / "k8s"
    done = halfbyte(*ground.words("-o", out))
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="session")
def written16(ground: Ground) -> Path:
    out = ground.target.parent / "k8s16"
    done = halfbyte(*ground.words("-o", out, plan=ground.plan16))
    assert done.returncode == 0, done.stderr
    return out


def documents(folder: Path) -> list[dict[str, Any]]:
    """To be edited."""
    return copy.deepcopy(_documents(folder))


@cache
def _documents(folder: Path) -> list[dict[str, Any]]:
    listed = yaml.safe_load((folder / "kustomization.yaml").read_text())["resources"]
    return [one for name in listed for one in yaml.load_all((folder / name).read_text(), LOADER)]


def save(folder: Path, edited: list[dict[str, Any]]) -> None:
    """As one file."""
    folder.mkdir()
    (folder / "all.yaml").write_text(dumped(edited))
    (folder / "kustomization.yaml").write_text(
        "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: [all.yaml]\n"
    )
