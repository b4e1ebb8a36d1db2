"""`calibrate`: a checkpoint and text in, activation scales out, streaming."""

import os
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from halfbyte.calibrate.coverage import Coverage
from halfbyte.calibrate.file import write_scales
from halfbyte.calibrate.findings import SCHEMA, findings
from halfbyte.calibrate.held_out import held_out
from halfbyte.calibrate.options import CalibrateOptions
from halfbyte.calibrate.watch import Watch
from halfbyte.checkpoint.source import Checkpoint
from halfbyte.data.documents import load
from halfbyte.data.tokenizer import open_tokenizer
from halfbyte.disk import check_output
from halfbyte.errors import OutputError, said
from halfbyte.process import peak_rss_bytes
from halfbyte.progress import Progress
from halfbyte.stream.executor import Streamed


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
    src: str | Path | Checkpoint,
    data: Sequence[str],
    output: str | Path,
    options: CalibrateOptions | None = None,
    *,
    progress: Progress | None = None,
    on_done: Callable[[CalibrationResult], None] | None = None,
    **given: Any,
) -> CalibrationResult:
    """Run `data` through the checkpoint `src`, wherever it lies; write the scales of its linears' inputs.

    given: fields of CalibrateOptions by name, instead of `options`. Raises HalfbyteError.
    """
    began = time.monotonic()
    options = options or CalibrateOptions(**given)
    rule, output = options.rule, Path(output)
    work = None if options.work is None else Path(options.work)
    if os.path.lexists(output) and not options.overwrite:
        raise OutputError(f"{output}: exists", hint=said("choose another file, or replace it with {overwrite}"))
    sampling: dict[str, Any] = {
        "tokens": options.tokens,
        "max_length": options.max_length,
        "seed": options.seed,
        "pack": options.pack,
    }
    with ExitStack() as stack:
        source = stack.enter_context(Checkpoint.of(src))
        check_output(output, [*source.kept_apart(), *map(Path, data)])
        documents = load(list(data), open_tokenizer(source.folder), **sampling)
        model = stack.enter_context(
            Streamed.open(
                source,
                device=options.device,
                memory_budget=options.memory_budget,
                work=work,
                progress=progress,
            )
        )
        watch = Watch(model.num_experts, rule, options.seed, held_out(len(documents.documents)))
        model.start(
            [torch.from_numpy(document.ids) for document in documents.documents], key=f"calibrate {SCHEMA} {rule.text}"
        )
        resumed = model.next_layer
        model.restore(watch)
        while model.next_layer < model.layers:
            model.step(watch)
            watch.settle()
        tokens_seen = {n: [e.tokens for e in seen.gate_up] for n, seen in watch.layers.items()}
        coverage = Coverage(options.min_tokens, tokens_seen)
        scales, about = findings(watch, model.roles, documents, coverage, rule, sampling, options.per_expert)
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
