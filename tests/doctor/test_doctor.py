"""`halfbyte doctor`: exits 0 whatever is missing, and says what for."""

import json
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest

from halfbyte.doctor.machine import disk, gpus
from halfbyte.doctor.packages import SERVES, _extra, _spelled_out, extras

WITHOUT_TORCH = """
import sys
for name in ("torch", "transformers", "altair", "vl_convert", "xllamacpp", "gguf"):
    sys.modules[name] = None
sys.argv = ["halfbyte", "doctor", "--json", "--disk-mb", "4"]
from halfbyte.cli.main import main
main()
"""


def test_without_torch_it_ends_well(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT_TORCH], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["extras"]["core"]["whole"]
    assert found["disk"]["write_bytes_per_s"] > 0
    assert found["disk"]["read_bytes_per_s"] > 0
    assert set(found["engines"]) >= {"vllm", "sglang", "xllamacpp"}
    assert list(tmp_path.iterdir()) == []


def test_every_extra_says_what_it_is_for() -> None:
    project = tomllib.loads(Path(__file__).parents[2].joinpath("pyproject.toml").read_text("utf-8"))["project"]
    assert {*project["optional-dependencies"], ""} == set(SERVES)


def test_extras_name_each_other() -> None:
    wanted = {
        "": ["numpy>=2"],
        "torch": ["torch>=2.8; extra == 'torch'"],
        "cuda": ["halfbyte[torch]; extra == 'cuda'", "no-such-package>=1; extra == 'cuda'"],
    }
    packages = _spelled_out("cuda", wanted)
    assert packages == ["torch", "no-such-package"]
    found = _extra("cuda", [*packages[1:], "numpy"])
    assert (found.installed, found.missing) == ({"numpy": version("numpy")}, ["no-such-package"])
    assert not found.is_whole
    assert found.hint == "pip install 'halfbyte[cuda]'"
    assert any(one.name == "" and one.is_whole for one in extras())


@pytest.mark.parametrize(
    ("script", "count", "says"),
    [
        ("echo 'NVIDIA H100 80GB HBM3, 81559, 9.0, 580.65'", 1, None),
        ("echo 'cannot talk to the driver' >&2; exit 9", 0, "cannot talk to the driver"),
        ("true", 0, "names none"),
    ],
)
def test_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, count: int, says: str | None) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    found, none = gpus()
    assert len(found) == count
    assert (none is None) == (says is None)
    if says is not None:
        assert says in (none or "")
    else:
        assert (found[0]["bytes"], found[0]["compute_capability"]) == (81559 * 2**20, "9.0")


def test_a_folder_that_takes_no_file_is_no_error(tmp_path: Path) -> None:
    assert disk(tmp_path / "nowhere", 1)["error"] == "No such file or directory"
