"""Tasks that inspect-evals brings: its own cannot run here without their data, one that is like them can."""

from pathlib import Path

from inspect_ai import Task
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.log import read_eval_log
from inspect_ai.scorer import match
from inspect_ai.solver import generate

from halfbyte.evaluate.running.asking import ask
from halfbyte.evaluate.running.suite import AskedSuite, Sampling
from halfbyte.evaluate.running.targets import Target
from halfbyte.progress import Silent

from .server import served

NAMES = [f"[mobile_data_issue]airplane_mode_on|bad_{kind}[PERSONA:None]" for kind in ("network", "vpn", "*", "roam")]
"""As tau2 names its items: with what inspect's own filter of samples takes for patterns and for a task's name."""


def like_tau2() -> Task:
    samples = [Sample(id=name, input=f"mend {name}", target="done") for name in NAMES]
    return Task(MemoryDataset(samples), solver=generate(), scorer=match())


def test_the_chosen_items_are_asked_whatever_their_names_hold(tmp_path: Path) -> None:
    suite = AskedSuite("tau2-telecom", tuple({"id": name} for name in NAMES), Sampling(epochs=2), like_tau2)
    chosen = [suite.items[0], suite.items[2]]
    with served(lambda text: "done") as server:
        ask(suite, chosen, Target(server.url, "m", ""), {}, tmp_path, Silent())
        assert dict(server.asked) == {f"mend {item['id']}": 2 for item in chosen}
    (path,) = tmp_path.glob("*.eval")
    log = read_eval_log(path)
    assert {sample.id for sample in log.samples or ()} == {item["id"] for item in chosen}
    assert all(score.value == "C" for sample in log.samples or () for score in (sample.scores or {}).values())
