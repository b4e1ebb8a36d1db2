"""`compare`: the whole comparison, from two folders and some data to figures and evidence."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from halfbyte import __version__
from halfbyte.checkpoint.source import Checkpoint
from halfbyte.compare.checks import check_comparable, check_context, check_tokenizers
from halfbyte.compare.recorded import append, describes, shard_hashes
from halfbyte.data.documents import Documents, load
from halfbyte.data.tokenizer import Tokenizer, open_tokenizer
from halfbyte.errors import UsageError
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
    *,
    data: Sequence[str] = (),
    slice: Sequence[str] = (),
    recall: str | None = None,
    probes: int | None = None,
    a4_sim: bool = False,
    tokens: int | None = None,
    max_length: int | None = None,
    seed: int = 0,
    device: str | None = None,
    memory_budget: int | None = None,
    work: str | Path | None = None,
    progress: Progress | None = None,
) -> Comparison:
    """Stream both checkpoints over the same tokens and measure what the candidate lost.

    data, tokens, max_length, seed: see `data.documents.load`. slice: fields of the data to break the figures down by.
    recall: lengths of needle probes such as `1k,4k`; probes: how many of each length and language. a4_sim: measure a
    second candidate too, the same checkpoint with its activations rounded to four bits as on Blackwell.
    device: `cpu` or `cuda`, by default what there is. memory_budget: resident bytes. work: folder for spilled rows;
    after a kill the same run goes on in it.
    If the candidate has a `halfbyte.json` of these shards, the figures are added to it.
    Raises HalfbyteError.
    """
    progress = progress or Silent()
    if not data and recall is None:
        raise UsageError("nothing to compare on", hint="give --data FILE, or --recall 1k,4k")
    if slice and not data:
        raise UsageError("--slice needs --data")
    with ExitStack() as stack:
        base_files = stack.enter_context(Checkpoint.open(base))
        candidate_files = stack.enter_context(Checkpoint.open(candidate))
        check_comparable(base_files, candidate_files)
        tokenizer = open_tokenizer(base)
        documents = _read(tokenizer, open_tokenizer(candidate), data, tokens, max_length, seed, slice)
        inputs = _Inputs(documents, _probes(recall, probes, tokenizer, documents, seed))
        known_by = _known_by(base_files, candidate_files, inputs, progress)
        result = _measure(base_files, candidate_files, inputs, slice, a4_sim, device, memory_budget, work, progress)
        if known_by is not None:
            append(candidate_files.folder, Compared(**known_by, halfbyte=__version__, result=_kept(result)))
            result["evidence"] = str(candidate_files.folder / DOSSIER)
        elif (candidate_files.folder / DOSSIER).exists():
            result["notes"].append(
                f"{DOSSIER} is about other shards than the candidate's, or they are being improved: nothing was added "
                "to it; see `halfbyte verify`"
            )
    return Comparison(result)


def _read(
    tokenizer: Tokenizer,
    other: Tokenizer,
    data: Sequence[str],
    tokens: int | None,
    max_length: int | None,
    seed: int,
    fields: Sequence[str],
) -> Documents:
    """The documents, checked against both models and the fields to slice by."""
    from halfbyte.compare.summary import check_field

    if not data:
        return Documents([])

    def read(tokenizer: Tokenizer) -> Documents:
        return load(data, tokenizer, max_length=max_length, tokens=tokens, seed=seed)

    documents = read(tokenizer)
    check_context(documents, tokenizer.context)
    known = sorted({field for document in documents.documents for field in document.labels})
    for field in fields:
        check_field(field, known)
    check_tokenizers(tokenizer, other, read)
    return documents


def _probes(
    recall: str | None, probes: int | None, tokenizer: Tokenizer, documents: Documents, seed: int
) -> "list[Probe]":
    from halfbyte.compare.recall import PROBES, build_probes, parse_lengths

    count = PROBES if probes is None else probes
    if count < 1:
        raise UsageError(f"--probes {count}: wanted at least 1")
    if recall is None:
        return []
    lengths = parse_lengths(recall)
    return build_probes(lengths, tokenizer, documents.documents, context=tokenizer.context, probes=count, seed=seed)


def _measure(
    base: Checkpoint,
    candidate: Checkpoint,
    inputs: _Inputs,
    fields: Sequence[str],
    a4_sim: bool,
    device: str | None,
    memory_budget: int | None,
    work: str | Path | None,
    progress: Progress,
) -> dict[str, Any]:
    """The pass itself. Returns the document of `--json`."""
    import torch

    from halfbyte.compare.lockstep import Lockstep, Work
    from halfbyte.compare.opening import Opening
    from halfbyte.compare.recall import recall_rows
    from halfbyte.compare.summary import positions, slices, summary, worst
    from halfbyte.compare.tokens import LOGIT_BYTES

    documents, probes = inputs.documents.documents, inputs.probes
    ids = [torch.from_numpy(array) for array in (*(one.ids for one in documents), *(one.ids for one in probes))]
    spans = [slice(0, len(document.ids)) for document in documents] + [probe.span for probe in probes]
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    opening = Opening(device, memory_budget, None if work is None else Path(work), resume=True)
    job = Work(ids, spans, len(documents) or len(ids), opening.logit_bytes or LOGIT_BYTES)
    wanted: list[tuple[Path, str | None]] = [(base.folder, None), (candidate.folder, None)]
    wanted += [(candidate.folder, "a4-sim")] if a4_sim else []
    with opening.models(wanted) as (baseline, *candidates):
        layer_bytes = (base.bytes + candidate.bytes * len(candidates)) // baseline.layers
        differences = Lockstep(baseline, candidates, job).run(progress, layer_bytes)
    columns = []
    for difference in differences:
        measures = difference.tokens[: len(documents)]
        columns.append(
            summary(measures)
            | {"slices": slices(fields, documents, measures), "positions": positions(measures)}
            | {"layers": difference.layers, "worst": worst(documents, measures)}
        )
        if probes:
            columns[-1]["recall"] = recall_rows(probes, difference.tokens[len(documents) :])
    result = columns[0]
    if a4_sim:
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
    if not (candidate.folder / DOSSIER).exists():
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
