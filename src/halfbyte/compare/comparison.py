"""`compare`: the whole comparison, from two folders and some data to figures and evidence."""

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from halfbyte import __version__
from halfbyte.checkpoint.source import Checkpoint
from halfbyte.compare.checks import check_comparable, check_context, check_tokenizers
from halfbyte.compare.options import CompareOptions
from halfbyte.compare.recorded import append, describes, shard_hashes
from halfbyte.data.documents import Documents, load
from halfbyte.data.tokenizer import Tokenizer, open_tokenizer
from halfbyte.evidence.comparison import Compared, ComparisonResult
from halfbyte.evidence.dossier import identity
from halfbyte.evidence.names import DOSSIER
from halfbyte.process import peak_rss_bytes
from halfbyte.progress import Progress, Silent

if TYPE_CHECKING:
    from halfbyte.compare.recall import Probe

FEW_DOCUMENTS = 10


@dataclass(frozen=True)
class Comparison:
    """result: the document of `--json`; docs/compare.md names every key."""

    result: dict[str, Any]

    def as_json(self) -> dict[str, Any]:
        return self.result


@dataclass(frozen=True)
class _Inputs:
    """Everything read and checked before a weight is touched. probes: of `--recall`."""

    documents: Documents
    probes: "list[Probe]"


def compare(
    base: str | Path,
    candidate: str | Path,
    options: CompareOptions | None = None,
    *,
    progress: Progress | None = None,
    **given: Any,
) -> Comparison:
    """Stream both checkpoints over the same tokens and measure what the candidate lost.

    given: fields of CompareOptions by name, instead of `options`. If the candidate has a `halfbyte.json` of these
    shards, the figures are added to it. Raises HalfbyteError.
    """
    options, progress = options or CompareOptions(**given), progress or Silent()
    with ExitStack() as stack:
        base_files = stack.enter_context(Checkpoint.of(base))
        candidate_files = stack.enter_context(Checkpoint.of(candidate))
        check_comparable(base_files, candidate_files)
        tokenizer = open_tokenizer(base_files.folder)
        documents = _read(tokenizer, open_tokenizer(candidate_files.folder), options)
        inputs = _Inputs(documents, _probes(tokenizer, documents, options))
        known_by = _known_by(base_files, candidate_files, inputs, progress)
        result = _measure(base_files, candidate_files, inputs, options, progress)
        if known_by is not None:
            append(candidate_files.folder, Compared(**known_by, halfbyte=__version__, result=_kept(result)))
            result["evidence"] = str(candidate_files.folder / DOSSIER)
        elif candidate_files.is_remote:
            result["notes"].append(f"the candidate is not here: nothing was added to its {DOSSIER}")
        elif (candidate_files.folder / DOSSIER).exists():
            result["notes"].append(
                f"{DOSSIER} is about other shards than the candidate's, or they are being improved: nothing was added "
                "to it; see `halfbyte verify`"
            )
    return Comparison(result)


def _read(tokenizer: Tokenizer, other: Tokenizer, options: CompareOptions) -> Documents:
    """The documents, checked against both models and the fields to slice by."""
    from halfbyte.compare.summary import check_field

    if not options.data:
        return Documents([])

    def read(tokenizer: Tokenizer) -> Documents:
        return load(options.data, tokenizer, max_length=options.max_length, tokens=options.tokens, seed=options.seed)

    documents = read(tokenizer)
    check_context(documents, tokenizer.context)
    known = sorted({field for document in documents.documents for field in document.labels})
    for field in options.slice:
        check_field(field, known)
    check_tokenizers(tokenizer, other, read)
    return documents


def _probes(tokenizer: Tokenizer, documents: Documents, options: CompareOptions) -> "list[Probe]":
    from halfbyte.compare.recall import build_probes, parse_lengths

    if options.recall is None:
        return []
    return build_probes(
        parse_lengths(options.recall),
        tokenizer,
        documents.documents,
        context=tokenizer.context,
        probes=options.probes,
        seed=options.seed,
    )


def _measure(
    base: Checkpoint,
    candidate: Checkpoint,
    inputs: _Inputs,
    options: CompareOptions,
    progress: Progress,
) -> dict[str, Any]:
    """The pass itself. Returns the document of `--json`."""
    import torch

    from halfbyte.compare.lockstep import Lockstep, Spans
    from halfbyte.compare.opening import Opening
    from halfbyte.compare.recall import recall_rows
    from halfbyte.compare.summary import positions, slices, summary, worst
    from halfbyte.compare.tokens import LOGIT_BYTES

    documents, probes = inputs.documents.documents, inputs.probes
    ids = [torch.from_numpy(array) for array in (*(one.ids for one in documents), *(one.ids for one in probes))]
    spans = [slice(0, len(document.ids)) for document in documents] + [probe.span for probe in probes]
    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    opening = Opening(device, options.memory_budget, None if options.work is None else Path(options.work), resume=True)
    job = Spans(ids, spans, len(documents) or len(ids), opening.logit_bytes or LOGIT_BYTES)
    wanted: list[tuple[Checkpoint, str | None]] = [(base, None), (candidate, None)]
    wanted += [(candidate, "a4-sim")] if options.a4_sim else []
    with opening.models(wanted, progress) as (baseline, *candidates):
        layer_bytes = (base.bytes + candidate.bytes * len(candidates)) // baseline.layers
        differences = Lockstep(baseline, candidates, job).run(progress, layer_bytes)
        if options.save_reference is not None:
            from halfbyte.compare.reference import chosen, reference_of

            own = dict(enumerate(ids[: len(documents)]))
            reference_of(candidates[0], own, chosen(list(own.values())), device).write(options.save_reference)
    columns = []
    for difference in differences:
        measures = difference.tokens[: len(documents)]
        columns.append(
            summary(measures)
            | {"slices": slices(options.slice, documents, measures), "positions": positions(measures)}
            | {"layers": difference.layers, "worst": worst(documents, measures)}
        )
        if probes:
            columns[-1]["recall"] = recall_rows(probes, difference.tokens[len(documents) :])
    result = columns[0]
    if options.a4_sim:
        result["a4_sim"] = columns[1]
    result["data"] = inputs.documents.report()
    result["notes"] = _notes(len(documents))
    result["device"] = device
    result["peak_rss_bytes"] = peak_rss_bytes()
    if device == "cuda":
        result["peak_cuda_bytes"] = torch.cuda.max_memory_allocated()
    return result


def _notes(documents: int) -> list[str]:
    if documents == 1:
        return ["one document: no intervals, for tokens of one document are not independent; give several documents"]
    if 1 < documents < FEW_DOCUMENTS:
        return [f"{documents} documents: intervals are wide, and hold only if the documents are alike"]
    return []


def _known_by(base: Checkpoint, candidate: Checkpoint, inputs: _Inputs, progress: Progress) -> dict[str, Any] | None:
    """What the evidence knows this comparison by; None if the candidate has no evidence of these shards.

    Both checkpoints are hashed as they lie on disk: what was compared is what is vouched for.
    """
    if candidate.is_remote or not (candidate.folder / DOSSIER).exists():
        return None
    progress.start("hashing", sum(shard.bytes for one in (base, candidate) for shard in one.shards.values()))
    hashes = shard_hashes(candidate, progress.advance)
    if not describes(candidate.folder, hashes):
        return None
    return {
        "base": identity(shard_hashes(base, progress.advance)),
        "candidate": identity(hashes),
        "data_sha256": inputs.documents.sha256 if inputs.documents.documents else None,
        "recall_sha256": Documents([one.document for one in inputs.probes]).sha256 if inputs.probes else None,
    }


def _kept(result: dict[str, Any]) -> ComparisonResult:
    """What goes into the evidence: figures, no machine's memory, no paths of the data."""
    dropped = ("device", "peak_rss_bytes", "peak_cuda_bytes", "worst", "data")
    kept = {key: value for key, value in result.items() if key not in dropped}
    if "a4_sim" in kept:
        kept["a4_sim"] = {key: value for key, value in kept["a4_sim"].items() if key not in dropped}
    return ComparisonResult(**kept)
