"""`calibrate`: a checkpoint and text in, activation scales out, streaming."""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from halfbyte.calibrate.coverage import Coverage
from halfbyte.calibrate.file import write_scales
from halfbyte.calibrate.findings import SCHEMA, findings
from halfbyte.calibrate.held_out import held_out
from halfbyte.calibrate.rule import parse_rule
from halfbyte.calibrate.watch import Watch
from halfbyte.data.documents import load
from halfbyte.data.tokenizer import open_tokenizer
from halfbyte.errors import OutputError, UsageError
from halfbyte.process import peak_rss_bytes
from halfbyte.progress import Progress
from halfbyte.stream.executor import Streamed

DEFAULT_MIN_TOKENS = 64


@dataclass(frozen=True)
class CalibrationResult:
    """scales: amax by module, as written. coverage: see `coverage.Coverage`. data: what was read, by category.

    stream: where the time went and peak memory (`stream.stats.Stats`). resumed_layers: taken from an earlier run.
    """

    output: str
    amax: str
    documents: int
    tokens: int
    seconds: float
    peak_rss_bytes: int
    peak_cuda_bytes: int | None
    resumed_layers: int
    scales: dict[str, float]
    coverage: dict[str, Any]
    data: dict[str, Any]
    stream: dict[str, Any]
    warnings: list[str]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def calibrate(
    src: str | Path,
    data: Sequence[str],
    output: str | Path,
    *,
    tokens: int | None = None,
    max_length: int | None = None,
    seed: int = 0,
    pack: bool = False,
    memory_budget: int | None = None,
    work: str | Path | None = None,
    device: str = "cpu",
    min_tokens: int = DEFAULT_MIN_TOKENS,
    amax: str = "max",
    per_expert: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
    on_done: Callable[[CalibrationResult], None] | None = None,
) -> CalibrationResult:
    """Run `data` through the checkpoint in folder `src` and write the scales of its linears' inputs to `output`.

    data, tokens, max_length, seed, pack: see `data.documents.load`. memory_budget: resident bytes. work: folder to go
    on from after a kill. min_tokens: experts with fewer are reported, and take their layer's value. amax: `max`,
    `headroom`, `percentile:P` or `mse`. per_expert: write every covered expert's own value too (engines reduce them to
    the layer's largest). overwrite: replace an existing `output`.
    Raises HalfbyteError.
    """
    began = time.monotonic()
    rule = parse_rule(amax)
    output = Path(output)
    if output.exists() and not overwrite:
        raise OutputError(f"{output}: exists", hint="choose another file, or replace it with --overwrite")
    if per_expert and rule.kind == "headroom":
        raise UsageError("--per-expert: --amax headroom is a rule for all experts of a layer", hint="leave one out")
    if min_tokens < 1:
        raise UsageError(f"--min-tokens {min_tokens}: wanted at least 1")
    documents = load(list(data), open_tokenizer(src), max_length=max_length, tokens=tokens, seed=seed, pack=pack)
    with Streamed.open(
        src,
        device=device,
        memory_budget=memory_budget,
        work=None if work is None else Path(work),
        progress=progress,
    ) as model:
        watch = Watch(model.num_experts, rule, seed, held_out(len(documents.documents)))
        model.start(
            [torch.from_numpy(document.ids) for document in documents.documents], key=f"calibrate {SCHEMA} {rule.text}"
        )
        resumed = model.next_layer
        model.restore(watch)
        while model.next_layer < model.layers:
            model.step(watch)
            watch.settle()
        coverage = Coverage(min_tokens, {n: [e.tokens for e in seen.gate_up] for n, seen in watch.layers.items()})
        sampling = {"tokens": tokens, "max_length": max_length, "seed": seed, "pack": pack}
        scales, about = findings(watch, model.roles, documents, coverage, rule, sampling, per_expert)
        model.finish()
        stream = model.stats.as_json()
    write_scales(output, scales, about)
    result = CalibrationResult(
        output=str(output),
        amax=rule.text,
        documents=len(documents.documents),
        tokens=documents.tokens,
        seconds=round(time.monotonic() - began, 3),
        peak_rss_bytes=peak_rss_bytes(),
        peak_cuda_bytes=stream["peak_cuda_bytes"],
        resumed_layers=resumed,
        scales=scales,
        coverage=coverage.as_json(),
        data=documents.report(),
        stream=stream,
        warnings=about.warnings,
    )
    if on_done is not None:
        on_done(result)
    return result
