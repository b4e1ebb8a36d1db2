"""`calibrate`: a checkpoint and text in, activation scales out, streaming."""

import os
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from halfbyte.calibrate.coverage import Coverage
from halfbyte.calibrate.file import write_scales
from halfbyte.calibrate.findings import findings
from halfbyte.calibrate.held_out import held_out
from halfbyte.calibrate.options import CalibrateOptions
from halfbyte.calibrate.watching import watched
from halfbyte.checkpoint.source import Checkpoint
from halfbyte.data.documents import load
from halfbyte.data.tokenizer import open_tokenizer
from halfbyte.disk import check_output
from halfbyte.errors import OutputError, UsageError, said
from halfbyte.models import roles_of
from halfbyte.process import peak_rss_bytes
from halfbyte.progress import Progress


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
        if options.per_expert and roles_of(source.config).family.stacked:
            raise UsageError(
                said(
                    "{per_expert}: {src}'s experts are stacks with one input_scale for all of them", src=source.folder
                ),
                hint=said("leave {per_expert} out"),
            )
        documents = load(list(data), open_tokenizer(source.folder), **sampling)
        left_out = held_out(len(documents.documents))
        if options.ray is None:
            seen = watched(source, documents.documents, left_out, options, progress)
        else:
            from halfbyte.calibrate.on_ray import watched_on_ray

            where = source.where if source.is_remote else os.path.abspath(source.folder)
            seen = watched_on_ray(source, where, documents.documents, left_out, options, progress)
    tokens_seen = {n: [e.tokens for e in layer.gate_up] for n, layer in sorted(seen.watch.layers.items())}
    coverage = Coverage(options.min_tokens, tokens_seen)
    scales, about = findings(seen.watch, seen.roles, documents, coverage, rule, sampling, options.per_expert)
    stream = seen.stream
    write_scales(output, scales, about)
    result = CalibrationResult(
        output=str(output),
        amax=rule.text,
        documents=len(documents.documents),
        tokens=documents.tokens,
        seconds=round(time.monotonic() - began, 3),
        peak_rss_bytes=peak_rss_bytes(),
        peak_cuda_bytes=stream["peak_cuda_bytes"],
        resumed_layers=seen.resumed_layers,
        scales=scales,
        coverage=coverage.as_json(),
        data=documents.report(),
        stream=stream,
        warnings=about.warnings,
    )
    if on_done is not None:
        on_done(result)
    return result
