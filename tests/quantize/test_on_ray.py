"""`quantize --ray`: two machines of a cluster, both here, do what one process does, also when one of them dies."""

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from small import small_checkpoint
from typer.testing import CliRunner

from halfbyte.api import quantize
from halfbyte.cli.main import app
from halfbyte.cluster import ClusterError, cluster
from halfbyte.errors import CheckpointError, OutputError

ray = pytest.importorskip("ray")
pytestmark = pytest.mark.timeout(240)

SIZE = 60_000
TINY = Path(__file__).parents[2] / "examples" / "tiny-glm"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_checkpoint(tmp_path_factory.mktemp("source") / "in", "GLM-4.5-Air")


@pytest.fixture(scope="module")
def two() -> Iterator[Any]:
    """A cluster of two machines of one core each."""
    from ray.cluster_utils import Cluster

    found = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    found.add_node(num_cpus=1)
    yield found
    found.shutdown()  # type: ignore[no-untyped-call]


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_the_bytes_of_one_process(source: Path, two: Any, tmp_path: Path) -> None:
    quantize(source, tmp_path / "one", max_shard_bytes=SIZE)
    words = ["quantize", str(source), str(tmp_path / "out"), "--max-shard-size", "60KB", "--ray", two.address]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.stderr
    assert "2 part(s)" in done.stderr
    assert files(tmp_path / "out") == files(tmp_path / "one")
    assert not (tmp_path / "out/.halfbyte").exists()
    again = CliRunner().invoke(app, words)
    assert again.exit_code == 1
    assert "is not empty" in again.stderr


def test_each_piece_on_a_machine_of_its_own_and_errors_as_they_are(two: Any) -> None:
    def where(number: int) -> tuple[int, str]:  # functions in here travel whole: workers do not have the tests
        return number, ray.get_runtime_context().get_node_id()

    def refused(number: int) -> None:
        raise CheckpointError(f"{number}: no", hint="so")

    with cluster(two.address) as machines:
        assert len(machines.machines) == 2
        found = machines.run(where, [(0,), (1,)])
        assert [number for number, _ in found] == [0, 1]
        assert {node for _, node in found} == set(machines.machines)
        with pytest.raises(CheckpointError, match="no") as raised:
            machines.run(refused, [(7,)])
        assert raised.value.hint == "so"
        with pytest.raises(ClusterError, match="ZeroDivisionError"):
            machines.run(lambda one, other: one / other, [(1, 0)])


@pytest.mark.slow
def test_a_machine_that_dies(source: Path, two: Any, tmp_path: Path) -> None:
    """Its part is begun again on the other one, and what it had under way is taken over."""
    quantize(source, tmp_path / "one", max_shard_bytes=20_000)
    third, out = two.add_node(num_cpus=1), tmp_path / "out"

    def kill() -> None:
        while not list(out.glob(".halfbyte/parts/model-*.lease-1")):
            time.sleep(0.001)
        two.remove_node(third, allow_graceful=False)

    killing = threading.Thread(target=kill)
    killing.start()
    quantize(source, out, max_shard_bytes=20_000, ray=two.address, lease_seconds=2)
    killing.join()
    assert files(out) == files(tmp_path / "one")


def test_what_cannot_be(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(ClusterError, match="no cluster answers"):
        quantize(source, out, ray="127.0.0.1:1")
    for other in ("--finish", "--improve"):
        done = CliRunner().invoke(app, ["quantize", str(source), str(out), "--ray", "local", other])
        assert done.exit_code == 2
        assert "--ray" in done.stderr
    (out / "x").mkdir(parents=True)
    with pytest.raises(OutputError, match="is not empty"):
        quantize(source, out, ray="127.0.0.1:1")


@pytest.mark.slow  # two machines that import torch: over a minute on two cores
@pytest.mark.parametrize("model", ["small", "tiny-glm"])
def test_scales_of_shares_are_those_of_all(model: str, source: Path, two: Any, tmp_path: Path) -> None:
    """Two machines, half of the documents each: all counts are the same, all values to the last bits of a product."""
    data = tmp_path / "data.jsonl"
    rows = [{"input_ids": [(7 * n + 11 * i) % 96 for i in range(20 + n)]} for n in range(20)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["calibrate", str(source), "--data", str(data), "--json"]
    if model == "tiny-glm":
        words = ["calibrate", str(TINY), "--data", str(TINY / "calibration.jsonl"), "--tokens", "12000", "--json"]
    found = []
    for name, more in (("one", []), ("shares", ["--ray", two.address])):
        done = CliRunner().invoke(app, [*words, "-o", str(tmp_path / name), "--amax", "headroom", *more])
        assert done.exit_code == 0, done.stderr
        found.append(json.loads(done.stdout))
    one, shares = found
    assert one["coverage"] == shares["coverage"]
    assert one["data"] == shares["data"]
    assert one["scales"].keys() == shares["scales"].keys()
    assert max(abs(shares["scales"][name] / value - 1) for name, value in one["scales"].items()) < 1e-5
    refused = CliRunner().invoke(app, [*words, "-o", str(tmp_path / "x"), "--amax", "mse", "--ray", "local"])
    assert refused.exit_code == 2
    assert "adds up shares" in refused.stderr
