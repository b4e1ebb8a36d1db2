"""The command that runs a checkpoint on an engine and a machine, or the reason why there is none."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from halfbyte.engines.card import Card, card_for
from halfbyte.engines.catalogue import engine as find_engine
from halfbyte.engines.engine import Engine
from halfbyte.engines.faults import Loaded, faults_met
from halfbyte.engines.kernels import NATIVE, SPARSE_FROM
from halfbyte.engines.recorded import recorded_flags
from halfbyte.errors import HalfbyteError, RecipeError, UnsupportedError, UsageError, said
from halfbyte.evidence.decision import DecisionDocument
from halfbyte.evidence.plan import PlanDocument
from halfbyte.formats.catalogue import NVFP4, NVFP4_WEIGHT_ONLY
from halfbyte.formats.quantization_block import QuantizationBlock
from halfbyte.models import FAMILIES, family_of
from halfbyte.models.roles import Role
from halfbyte.plan.hardware import Gpu, find_gpu
from halfbyte.plan.options import PlanOptions
from halfbyte.plan.planner import plan_for
from halfbyte.plan.result import Plan
from halfbyte.plan.target import PlannedModel, resolve

FALLBACK = (9,)
"""Compute majors on which four-bit experts may run weight-only."""
CONTEXT_STEP = 1024
DECISION = "gate.json"
CARD = "card"


class LaunchError(HalfbyteError):
    """A model that this engine or machine cannot serve."""

    kind = "launch"


@dataclass(frozen=True)
class LaunchOptions:
    """hardware: `b200x8`. context_length: None for all that the model and the machine have. preset: `card` for the
    published command. mtp: draft tokens a step."""

    engine: str
    hardware: str
    context_length: int | None = None
    kv_dtype: str | None = None
    mtp: int = 0
    preset: str | None = None
    max_running_requests: int | None = None
    engine_version: str | None = None
    served_model_name: str | None = None


@dataclass(frozen=True)
class Command:
    """words: the command. env: variables beside it. notes: what was chosen, and why. engine: whose it is."""

    words: list[str]
    env: dict[str, str]
    notes: list[str]
    engine: Engine
    served: str
    context: int | None = field(default=None)

    def as_json(self) -> dict[str, Any]:
        return {"command": self.words, "env": self.env, "notes": self.notes}


def command_for(target: str, options: LaunchOptions) -> Command:
    """Raises UsageError for an engine or machine that is not known, LaunchError for what cannot be."""
    engine = find_engine(options.engine)
    if options.preset not in (None, CARD):
        raise UsageError(said("{preset} {name!r}: wanted card", name=str(options.preset)[:40]))
    gpu, gpus = machine_from(options.hardware)
    model = resolve(target)
    _check_capability(model, gpu)
    notes = list(_decision_notes(target))
    faults = list(_faults(engine, model, gpu, options))
    notes += [note for _, note in faults]
    served = options.served_model_name or _name(target)
    if options.preset == CARD:
        words, more = _card_words(engine, model, gpu, gpus, target)
        notes += more
        return Command(words, {}, notes, engine, served)
    plan = _plan(model, engine, gpu, gpus, options)
    notes += list(_plan_notes(plan, options))
    if plan.memory.deployment.gpus < gpus:
        notes.append(f"{plan.memory.deployment.gpus} of {gpus} GPUs: the model does not divide over more")
    words = [*engine.start(target), *plan.engine_flags]
    for flag, _ in faults:
        words += [word for word in flag.split() if word not in words]
    words += engine.door_flags(served)
    card = card_for(engine.name, model.arch)
    if card is not None and card.is_of(model.arch) and gpus == card.gpus and _major(gpu) in NATIVE:
        notes += list(_differences(card, words))
    notes.append(_recorded_note(engine, words))
    return Command(words, engine.environment(), notes, engine, served, plan.memory.deployment.context)


def planned_command(target: Path, plan: PlanDocument, model: str, served: str, nodes: int = 1) -> Command:
    """The command of a plan that was made before. target: the checkpoint, here; model: where the server finds it.

    Raises UsageError for what the engine's recorded release does not take, LaunchError for what cannot be.
    """
    engine, gpu = find_engine(plan.deployment.engine), find_gpu(plan.deployment.gpu)
    found = resolve(str(target))
    _check_capability(found, gpu)
    faults = list(_faults(engine, found, gpu, LaunchOptions(engine.name, "")))
    words = [*engine.start(model), *plan.engine_flags]
    for flag, _ in faults:
        words += [word for word in flag.split() if word not in words]
    words += engine.door_flags(served)
    words += engine.node_flags(nodes) if nodes > 1 else []
    notes = [*(note for _, note in faults), _recorded_note(engine, words)]
    return Command(words, engine.environment(), notes, engine, served, plan.deployment.context)


def machine_from(text: str) -> tuple[Gpu, int]:
    """`b200x8`. Raises UsageError."""
    found = re.fullmatch(r"\s*(.+?)\s*[xX*]\s*(\d{1,4})\s*", text)
    if not found or not int(found[2]):
        raise UsageError(said("{hardware} {text!r}: wanted GPUxCOUNT, for instance b200x8", text=text[:60]))
    return find_gpu(found[1]), int(found[2])


def _name(target: str) -> str:
    path = Path(target)
    return path.resolve().name if path.exists() else target.rstrip("/").rpartition("/")[2]


def _major(gpu: Gpu) -> int:
    return int(gpu.compute_capability.split(".")[0]) if gpu.platform == "cuda" else 0


def _packed(model: PlannedModel) -> bool:
    return any(group.format in (NVFP4, NVFP4_WEIGHT_ONLY) for group in model.groups)


def _check_capability(model: PlannedModel, gpu: Gpu) -> None:
    """Raises LaunchError for a GPU without the kernels."""
    name = f"{gpu.name} (compute {gpu.compute_capability})"
    if gpu.platform != "cuda" and _packed(model):
        raise LaunchError(f"{name}: NVFP4 has no kernels on {gpu.platform}", hint="known: NVIDIA GPUs")
    if gpu.platform != "cuda":
        return
    major = _major(gpu)
    if model.arch.indexer is not None and major < SPARSE_FROM:
        raise LaunchError(f"{name}: no engine has sparse-attention kernels for it, and no FP4 tensor cores are there")
    if _packed(model) and major not in NATIVE and major not in FALLBACK:
        wanted = " or ".join(map(str, NATIVE))
        raise LaunchError(
            f"{name}: has no FP4 tensor cores (compute major {wanted}); on Hopper the experts run weight-only",
            hint="serve the checkpoint on Blackwell or Hopper, or the model in another format",
        )


def _decision_notes(target: str) -> Iterator[str]:
    """What the gate decided, where it did. Raises LaunchError for a checkpoint that it refused."""
    file = Path(target) / DECISION
    if not file.is_file():
        yield f"no gate decision beside the checkpoint: halfbyte gate {target} makes one"
        return
    decision = DecisionDocument.read(file)
    if decision.decision == "refused":
        why = next((found.message for found in decision.findings if found.severity == "deny"), "see its findings")
        raise LaunchError(f"{file}: the gate refused this checkpoint: {why}")
    yield f"gate: {decision.decision} by policy {decision.policy.name}"


def _faults(engine: Engine, model: PlannedModel, gpu: Gpu, options: LaunchOptions) -> Iterator[tuple[str, str]]:
    """(flag to add, note) of the engine's faults that this checkpoint meets. Raises LaunchError where nothing helps."""
    loaded = _loaded(model)
    version = tuple(int(number) for number in re.findall(r"\d+", options.engine_version or ""))
    for met in faults_met(engine.name, engine.faults, loaded, gpu.family, version):
        if met.certain and met.fault.fatal and not met.fault.flag:
            raise LaunchError(met.message)
        known = "" if met.certain else ", in some versions"
        added = f"; {met.fault.flag} added" if met.fault.flag else ""
        yield met.fault.flag, f"{met.message}{known}{added}"


def _loaded(model: PlannedModel) -> Loaded:
    _, text = family_of(model.config)
    scale, dtype = text.get("routed_scaling_factor"), text.get("dtype") or text.get("torch_dtype")
    kinds: dict[Role, set[bool]] = {}
    drafts = False
    for group in model.groups:
        packed = group.format in (NVFP4, NVFP4_WEIGHT_ONLY)
        kinds.setdefault(group.role, set()).add(packed)
        drafts |= packed and group.mtp and group.role is Role.ROUTED_EXPERT
    block = QuantizationBlock.of_config(model.config)
    return Loaded(
        family=FAMILIES[model.arch.model_type],
        arch=model.arch,
        algorithm=block.algorithm if block is not None else None,
        packed_experts=True in kinds.get(Role.ROUTED_EXPERT, set()),
        packed_drafts=drafts,
        kept_shared=False in kinds.get(Role.SHARED_EXPERT, set()),
        routed_scale=float(scale) if isinstance(scale, int | float) else 1.0,
        dtype=str(dtype or "").removeprefix("torch."),
    )


def _card_words(engine: Engine, model: PlannedModel, gpu: Gpu, gpus: int, target: str) -> tuple[list[str], list[str]]:
    card = card_for(engine.name, model.arch)
    if card is None:
        raise LaunchError(
            f"no published command is known for this model on {engine.title}", hint=said("leave out {preset}")
        )
    if _major(gpu) not in NATIVE:
        reason = "it counts on FP4 tensor cores, and its cache dtype and fused shared expert do not hold there"
        raise LaunchError(f"{card.title} is for Blackwell, not {gpu.name}: {reason}", hint=said("leave out {preset}"))
    if gpus != card.gpus:
        raise LaunchError(f"{card.title} is for {card.gpus} GPUs, not {gpus}", hint=said("leave out {preset}"))
    notes = [f"{card.title}, flag for flag; the plan may know better ones"]
    if not card.is_of(model.arch):
        notes.append(
            f"this checkpoint is another of the family: {model.arch.layers} layers, {model.arch.experts} experts"
        )
    return [*engine.start(target), *card.words()], notes


def _plan(model: PlannedModel, engine: Engine, gpu: Gpu, gpus: int, options: LaunchOptions) -> Plan:
    """The plan of the server. Raises LaunchError if it does not fit."""
    asked = PlanOptions(
        engine=engine.name,
        context=options.context_length,
        kv_dtype=options.kv_dtype,
        mtp=options.mtp,
        max_sequences=options.max_running_requests,
        engine_version=options.engine_version,
    )
    plan = _planned(model, gpu, gpus, asked)
    held = plan.memory.kv_tokens
    if options.context_length is None and (not plan.fits or held < plan.memory.deployment.context):
        most = plan.max_context or (0 if plan.change is None else plan.change.plan.deployment.context)
        context = most // CONTEXT_STEP * CONTEXT_STEP
        if context:
            plan = _planned(model, gpu, gpus, replace(asked, context=context))
            held = plan.memory.kv_tokens
    if not plan.fits:
        change = f"it would with {plan.change.what}" if plan.change is not None else None
        raise LaunchError(f"does not fit {gpus} x {gpu.name}: {plan.memory.problems[0]}", hint=change)
    if held < plan.memory.deployment.context:
        raise LaunchError(
            f"does not fit {gpus} x {gpu.name}: the cache of {held} tokens holds no sequence of "
            f"{plan.memory.deployment.context}",
            hint=said("a smaller {context_length}, or {kv_dtype} fp8"),
        )
    return plan


def _planned(model: PlannedModel, gpu: Gpu, gpus: int, options: PlanOptions) -> Plan:
    """On all GPUs, or as many of them (a power of two) as the model divides over."""
    first: HalfbyteError | None = None
    for count in (gpus, *(1 << bit for bit in range(gpus.bit_length() - 1, -1, -1) if 1 << bit < gpus)):
        try:
            return plan_for(model, gpu, count, options)
        except (UsageError, UnsupportedError, RecipeError) as error:
            first = first or error
    assert first is not None
    raise LaunchError(f"{gpus} x {gpu.name}: {first.message}", hint=first.hint) from None


def _plan_notes(plan: Plan, options: LaunchOptions) -> Iterator[str]:
    memory, d = plan.memory, plan.memory.deployment
    yield (
        f"plan: {memory.kv_tokens:,} tokens of cache, {plan.max_concurrency} times {d.context:,} tokens at once, "
        f"{memory.headroom_bytes / (1 << 30):.1f} GiB of headroom a GPU"
    )
    if options.context_length is None and d.context < plan.model.arch.max_context:
        yield f"context {d.context:,} of the model's {plan.model.arch.max_context:,}: as much as the cache holds"
    if _packed(plan.model) and _major(d.gpu) in FALLBACK:
        yield f"{d.gpu.name} has no FP4 tensor cores: experts run weight-only, activations stay in 16 bits"
    if options.kv_dtype is None:
        yield f"KV cache in {memory.limits.kv_dtype}, the engine's default for this GPU and model, written out"
    yield from (warning for warning in plan.warnings if "typical request" not in warning)  # of a workload not asked for


def _differences(card: Card, words: list[str]) -> Iterator[str]:
    """Where the plan says otherwise than the card, and why."""
    why = dict(card.why)
    for flag, value in card.flags:
        other = {"--tensor-parallel-size": "--tp-size"}.get(flag, flag)
        own = None if value is None or other not in words else words[words.index(other) + 1]
        if other not in words or own != value or other != flag:
            shown = "left out" if other not in words else f"{other} {own}"
            yield f"card: {flag}{'' if value is None else f' {value}'}; here {shown}: {why.get(flag, 'by the plan')}"


def _recorded_note(engine: Engine, words: list[str]) -> str:
    """Raises LaunchError for a flag that the recorded release does not take."""
    recorded = recorded_flags(engine.name)
    unknown = recorded.unknown(words)
    if unknown:
        raise LaunchError(f"{engine.title} {recorded.version} has no {unknown[0]}")
    return f"every flag is one of {engine.title} {recorded.version}'s (recorded from {recorded.made_from})"
