"""`deploy`: manifests from a checkpoint, its plan and a platform, or what writing them again would change."""

import difflib
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from halfbyte.deploy.checks import faults
from halfbyte.deploy.errors import DeployError, files_at_fault
from halfbyte.deploy.facts import Served, facts
from halfbyte.deploy.manifests import contents, manifests
from halfbyte.deploy.options import DeployOptions
from halfbyte.deploy.platform import Platform
from halfbyte.deploy.reading import ManifestError, object_lines
from halfbyte.disk import check_output
from halfbyte.errors import OutputError, UsageError, said
from halfbyte.evidence.plan import PlanDocument


@dataclass(frozen=True)
class Deployed:
    """files: text by path within the folder. folder: None if nothing was written. objects: how many there are."""

    served: list[Served]
    files: dict[str, str]
    objects: int
    folder: Path | None

    def as_json(self) -> dict[str, Any]:
        return {
            "folder": None if self.folder is None else str(self.folder),
            "files": list(self.files),
            "objects": self.objects,
            "gated": all(one.decision is not None for one in self.served),
            "models": [
                {
                    "model": one.name,
                    "pool": one.pool.name,
                    "fallback_pools": [pool.name for pool in one.pools[1:]],
                    "gpus": one.gpus,
                    "nodes": one.nodes,
                    "min_replicas": one.min_replicas,
                    "max_replicas": one.max_replicas,
                    "cold_start_s": one.cold_start_s,
                    "startup_budget_s": one.startup_budget_s,
                    "drain_s": one.drain_s,
                }
                for one in self.served
            ],
        }


def deploy(
    target: str | Path, out: str | Path | None = None, options: DeployOptions | None = None, **given: Any
) -> Deployed:
    """Write the manifests of `target` into folder `out`; with None, only make them.

    given: fields of DeployOptions by name, instead of `options`. A folder that is there is replaced whole, if it holds
    manifests of ours or nothing. Raises HalfbyteError; then nothing is written.
    """
    options = options or DeployOptions(**given)
    if options.plan is None or options.platform is None:
        raise UsageError(
            said("deploy needs {plan} and {platform}"), hint=said("a platform to start from: halfbyte deploy {example}")
        )
    target = Path(target)
    with files_at_fault():
        platform = Platform.from_file(options.platform)
        pairs = [(target, Path(options.plan)), *map(_pair, options.also)]
        plans: dict[Path, list[PlanDocument]] = {}
        for one, plan in pairs:
            same = next((known for known in plans if known.resolve() == one.resolve()), one)
            plans.setdefault(same, []).append(PlanDocument.read(plan))
        served = [facts(one, its, platform, gated=not options.no_gate) for one, its in plans.items()]
        _check_pools(served)
    documents = [one for group in manifests(platform, served).values() for one in group]
    found = [line for one in documents for line in object_lines(one)] or faults(documents)
    if found:
        raise ManifestError(f"these manifests would not work: {found[0]}", hint="; ".join(found[1:4]) or None)
    files = contents(platform, served)
    if out is not None:
        _write(files, Path(out), [Path(options.platform), *(path for pair in pairs for path in pair)])
    return Deployed(served, files, len(documents), None if out is None else Path(out))


def _pair(text: str) -> tuple[Path, Path]:
    """Raises UsageError."""
    folder, equals, plan = text.rpartition("=")
    if not equals or not folder or not plan:
        raise UsageError(said("{also} {text!r}: wanted FOLDER=PLAN", text=text[:100]))
    return Path(folder), Path(plan)


def _check_pools(served: list[Served]) -> None:
    """Raises DeployError for one model twice, or floors that a pool cannot give."""
    for name in {one.name for one in served}:
        if sum(one.name == name for one in served) > 1:
            raise DeployError(f"two checkpoints are served as model {name}", hint="give models their checkpoint: names")
    for pool in {one.pool.name: one.pool for one in served}.values():
        floors = sum(one.floor for one in served if one.pool.name == pool.name)
        if floors > pool.gpus:
            raise DeployError(f"pool {pool.name}: models' least replicas own {floors} GPUs of its {pool.gpus}")


def difference(files: dict[str, str], folder: Path) -> str:
    """What writing would change in a folder, as a unified diff; empty if nothing."""
    lines: list[str] = []
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    for name in sorted(there | set(files)):
        old = (folder / name).read_text("utf-8", "replace").splitlines(True) if name in there else []
        new = files.get(name, "").splitlines(True)
        lines += difflib.unified_diff(old, new, f"now/{name}", f"new/{name}")
    return "".join(lines)


def _write(files: dict[str, str], out: Path, read: list[Path]) -> None:
    """All or nothing: beside `out` first, then in its place."""
    check_output(out, read)
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not (out / "kustomization.yaml").is_file())):
        raise OutputError(f"{out}: is there and holds no manifests of ours", hint="give another folder, or remove it")
    parent = out.resolve().parent
    if not parent.is_dir():
        raise OutputError(f"{out}: folder {parent} is not there")
    try:
        new = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=parent))
    except OSError as error:
        raise OutputError(f"{out}: cannot be written: {error.strerror}") from None
    try:
        new.chmod(0o755)
        for name, text in files.items():
            (new / name).parent.mkdir(exist_ok=True)
            (new / name).write_text(text, "utf-8")
        if out.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{out.name}.old.", dir=parent))
            out.rename(old / "old")
            new.rename(out)
            shutil.rmtree(old)
        else:
            new.rename(out)
    except OSError as error:
        shutil.rmtree(new, ignore_errors=True)
        raise OutputError(f"{out}: cannot be written: {error.strerror}") from None
