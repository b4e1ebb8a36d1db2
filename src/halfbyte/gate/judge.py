"""`gate`: open the target, collect the facts, ask every rule, decide."""

import json
import re
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

from halfbyte.checkpoint.targets import files_of
from halfbyte.disk import check_output, read_stream
from halfbyte.engines.catalogue import ENGINES
from halfbyte.engines.engine import EngineName
from halfbyte.errors import HalfbyteError, UnsupportedError, UsageError, said
from halfbyte.evidence.decision import DecisionDocument, JudgedWith
from halfbyte.evidence.names import DECISION
from halfbyte.gate.catalogue import all_rules
from halfbyte.gate.decision import Decision, ordered
from halfbyte.gate.depths import DEPTHS, reaches
from halfbyte.gate.facts import Facts, RuleOptions
from halfbyte.gate.findings import Finding, Found, printable
from halfbyte.gate.hashes import checkpoint_hashes, hash_shards
from halfbyte.gate.judging import applies, finding
from halfbyte.gate.options import GateOptions
from halfbyte.gate.reading import read_facts
from halfbyte.gate.registry import Rule
from halfbyte.progress import Progress, Silent
from halfbyte.recipes.policy import Depth, Policy, load_policy

CLUSTER_LIMIT_BYTES = 256_000_000


def gate(
    target: str | Path, options: GateOptions | None = None, *, progress: Progress | None = None, **given: Any
) -> Decision:
    """Judge one checkpoint by a policy. target: folder, hub name or https:// base URL.

    given: fields of GateOptions by name, instead of `options`. Raises UsageError for options that cannot be,
    CheckpointError if there is nothing to judge or the server fails.
    """
    asked = options or GateOptions(**given)
    policy = asked.policy if isinstance(asked.policy, Policy) else load_policy(asked.policy, all_rules())
    resolved = _resolved(asked)
    if asked.bom is not None:
        check_output(Path(asked.bom), asked.files_read(target))
    files = files_of(str(target), confined=True, seconds=asked.timeout)
    if files is None:
        raise UsageError(
            f"{str(target)[:300]}: no such checkpoint",
            hint="give a folder, a hub name (owner/name) or an https:// base URL",
        )
    try:
        if files.remote and resolved.depth != "headers":
            message = f"{files.where}: depth {resolved.depth} reads weights"
            raise UsageError(message, hint=said("download it, or use {depth} headers"))
        facts = read_facts(files, policy, resolved, progress or Silent())
        if resolved.depth == "full":
            hash_shards(facts)
        findings = judge(facts)
        if asked.bom is not None:
            from halfbyte.gate.bom import write_bom

            write_bom(facts, Path(asked.bom))
        recorded = JudgedWith(
            engine=asked.engine,
            hardware=asked.hardware,
            cluster=str(asked.cluster) if asked.cluster is not None else None,
            depth=asked.depth,
            source=resolved.source,
        )
        return Decision(findings, policy, str(asked.policy), checkpoint_hashes(facts), recorded)
    finally:
        files.close()


def _resolved(asked: GateOptions) -> RuleOptions:
    """The options as rules see them. Raises UsageError."""
    if asked.depth not in DEPTHS:
        raise UsageError(f"unknown depth {asked.depth[:40]!r}", hint=f"known: {', '.join(DEPTHS)}")
    depth: Depth = next(known for known in DEPTHS if known == asked.depth)
    engines, version = engine_from(asked.engine)
    policy = asked.policy
    found = RuleOptions(
        depth=depth,
        engines=engines,
        engine_version=version,
        hardware=asked.hardware,
        cluster=read_cluster(asked.cluster) if asked.cluster is not None else None,
        source=str(asked.source) if asked.source is not None else None,
        workers=asked.workers,
        policy_folder=Path(policy).parent if isinstance(policy, str | Path) and Path(policy).is_file() else Path(),
    )
    return found if asked.today is None else replace(found, today=asked.today)


def judge(facts: Facts) -> tuple[Finding, ...]:
    """Every rule's findings under the policy, hardest first."""
    found: list[Finding] = []
    for one in all_rules().values():
        if applies(facts.policy, one) and reaches(facts.options.depth, one.needs):
            found += [finding(facts.policy, one, item, facts.options.today) for item in _asked(one, facts)]
    return ordered(found)


def _asked(rule: Rule, facts: Facts) -> list[Found]:
    """What a rule says. A rule that fails has not been passed: the gate stays closed, and says so."""
    try:
        return list(rule.check(facts))
    except (UsageError, UnsupportedError):
        raise
    except HalfbyteError as error:
        return [Found(printable(error.message, 500))]
    except Exception as error:  # a bug of ours must not open the gate, nor hide what the other rules found
        return [Found(f"the rule itself failed, please report it: {type(error).__name__}: {printable(str(error))}")]


def engine_from(text: str | None) -> tuple[tuple[EngineName, ...], str | None]:
    """`sglang`, `vllm@0.33`: the engine and its version. Raises UsageError."""
    if text is None:
        return (), None
    name, at, version = text.partition("@")
    for engine in ENGINES:
        if name.strip().lower() == engine:
            if at and not re.match(r"v?\d", version):
                raise UsageError(f"{version[:40]!r} is no version of {engine}", hint="for instance sglang@0.5.23")
            return (engine,), version or None
    raise UsageError(f"unknown engine {name[:40]!r}", hint=f"known: {', '.join(ENGINES)}, with or without @VERSION")


def read_cluster(path: str | Path) -> dict[str, Any]:
    """The nodes of a cluster. Raises UsageError naming the file."""
    try:
        document = json.loads(read_stream(Path(path), UsageError, CLUSTER_LIMIT_BYTES).decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path}: cannot be read as nodes: {str(error)[:200]}") from None
    if not isinstance(document, dict):
        raise UsageError(f"{path}: not a JSON object", hint="write it with kubectl get nodes -o json")
    return document


def write_decision(decision: Decision, target: str | Path) -> Path | None:
    """Leave gate.json beside the weights, where `deploy` looks for it. None where that is not possible or not right:
    a remote target, a folder that cannot be written, one whose signature covers every file."""
    folder = Path(target)
    signature = decision.policy.supply_chain.signature.file
    if not folder.is_dir() or (folder / signature).exists():
        return None
    try:
        decision.document().write(folder / DECISION)
    except HalfbyteError:
        return None
    return folder / DECISION


def verify_decision(
    path: str | Path,
    target: str | Path | None = None,
    *,
    policy: str | Path | None = None,
    today: date | None = None,
    progress: Progress | None = None,
) -> tuple[Decision, list[str]]:
    """Make a recorded decision again, with its own options, and say why it no longer holds (nothing, if it does).

    target, policy: instead of the recorded ones, where files moved. Raises UsageError as `gate` does.
    """
    recorded = DecisionDocument.read(path)
    options = recorded.options
    again = gate(
        target if target is not None else _recorded_target(recorded, Path(path)),
        policy=policy if policy is not None else recorded.policy.source,
        engine=options.engine,
        hardware=options.hardware,
        cluster=options.cluster,
        depth=options.depth,
        source=options.source,
        today=today,
        progress=progress,
    )
    return again, recorded.differences(again.document())


def _recorded_target(recorded: DecisionDocument, path: Path) -> str:
    """A decision that lies beside its checkpoint belongs to that one, wherever the folder was moved."""
    return str(path.parent) if (path.parent / "config.json").is_file() else recorded.checkpoint.target
