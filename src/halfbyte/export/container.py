"""The GGUF container: headers, shard split and the place of every tensor, through the `gguf` package.

The package writes headers, key-values and tensor infos, and decides the split; the tensors' bytes are streamed by
`stream` to the offsets found here.
"""

import logging
import struct
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from gguf import GGML_QUANT_VERSION, GGMLQuantizationType, GGUFType, GGUFWriter, LlamaFileType, Metadata, size_label
from yaml import YAMLError

from halfbyte.checkpoint.source import Checkpoint
from halfbyte.errors import CheckpointError
from halfbyte.export.hyperparameters import add_hyperparameters
from halfbyte.export.lossy import FILE_TYPES, KEY, Lossy
from halfbyte.export.mapping import Mapping, Planned
from halfbyte.export.tokenizer import add_tokenizer
from halfbyte.formats.modelopt import WEIGHT_ONLY
from halfbyte.models import text_config_of
from halfbyte.models.architecture import Architecture
from halfbyte.models.llama_cpp import LlamaCpp

ALIGNMENT = 32
"""Bytes to which the data section and every tensor are padded (`general.alignment` when it is not said)."""


class Placed(NamedTuple):
    """A tensor and where its bytes go: `offset` in file number `file`."""

    tensor: Planned
    file: int
    offset: int


@dataclass(frozen=True)
class Layout:
    """The output, byte for byte but for the tensors' content. headers and sizes: one entry per file."""

    paths: list[Path]
    headers: list[bytes]
    sizes: list[int]
    tensors: list[Placed]

    @property
    def bytes(self) -> int:
        return sum(self.sizes)


def open_writer(
    checkpoint: Checkpoint,
    arch: Architecture,
    architecture: LlamaCpp,
    mapping: Mapping,
    blocks: int,
    algorithm: str | None,
    tokenizer_pre: str | None,
    max_shard_size: int | None = None,
    lossy: Lossy | None = None,
) -> GGUFWriter:
    """A writer that holds all metadata and tensor infos. algorithm: ModelOpt's quant_algo, None if unquantized.
    arch: with the MTP layers that are in the file."""
    logging.getLogger("gguf").setLevel(logging.ERROR)  # it explains its defaults at length
    split = max_shard_size if max_shard_size and sum(t.bytes for t in mapping.tensors) > max_shard_size else 0
    writer = GGUFWriter(None, architecture.name, split_max_size=split)
    for tensor in mapping.tensors:
        # the dtype only says that `shape` is the logical one; what counts is raw_dtype
        writer.add_tensor_info(tensor.name, tensor.shape, np.dtype(np.float32), tensor.bytes, raw_dtype=tensor.type)
    kind = file_type(mapping.tensors) if lossy is None else FILE_TYPES[lossy]
    _add_general(writer, checkpoint.folder.absolute(), kind, "" if lossy is None else f" (lossy {lossy})")
    if lossy is not None:
        writer.add_string(KEY, lossy)
    with _blamed_on("config.json"):
        add_hyperparameters(writer, text_config_of(checkpoint.config), arch, architecture, blocks)
    if algorithm == WEIGHT_ONLY and lossy is None:
        names = sorted(tensor.name for tensor in mapping.tensors if tensor.type == GGMLQuantizationType.NVFP4)
        writer.add_array("general.tensor_extra.name", names)  # gguf 0.19 has no method for these two
        writer.add_array("general.tensor_extra.prec_a4", [False] * len(names))
    with _blamed_on("the tokenizer's files"):
        add_tokenizer(writer, checkpoint.folder, architecture, arch.vocab, tokenizer_pre)
    return writer


@contextmanager
def _blamed_on(what: str) -> Iterator[None]:
    """Values of the wrong type or shape in a checkpoint's JSON surface deep inside; say where they came from."""
    try:
        yield
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, struct.error) as error:
        reason = f"{type(error).__name__}: {error}"[:200]
        raise CheckpointError(f"{what}: not as expected ({reason})") from None


def _add_general(writer: GGUFWriter, folder: Path, kind: LlamaFileType, remark: str) -> None:
    """remark: behind the model's name."""
    total, shared, expert, experts = writer.get_total_parameter_count()
    try:
        metadata: Any = Metadata.load(None, folder, None, total)
    except (YAMLError, ValueError, TypeError, AttributeError, KeyError):
        metadata = Metadata()  # a model card that cannot be read: it only names authors and licences
    if metadata.name is None:
        metadata.name = folder.name
    metadata.name += remark
    if metadata.size_label is None:
        metadata.size_label = size_label(total, shared, expert, experts)
    writer.add_type(GGUFType.MODEL)
    metadata.set_gguf_meta_model(writer)
    writer.add_file_type(kind)
    writer.add_quantization_version(GGML_QUANT_VERSION)


def file_type(tensors: list[Planned]) -> LlamaFileType:
    """`general.file_type`: NVFP4 or MXFP4 if anything is, else the type of the first matrix in 16 bits."""
    types = [tensor.type for tensor in tensors]
    if GGMLQuantizationType.NVFP4 in types:
        return LlamaFileType.MOSTLY_NVFP4
    if GGMLQuantizationType.MXFP4 in types:
        return LlamaFileType.MOSTLY_MXFP4_MOE
    if GGMLQuantizationType.BF16 in types:
        return LlamaFileType.MOSTLY_BF16
    return LlamaFileType.MOSTLY_F16 if GGMLQuantizationType.F16 in types else LlamaFileType.ALL_F32


def lay_out(writer: GGUFWriter, tensors: list[Planned], out: Path) -> Layout:
    """Place all tensors. `out` names the file, or where the writer splits, the series `STEM-00001-of-000NN.gguf`."""
    with tempfile.TemporaryDirectory() as scratch:
        writer.write_header_to_file(Path(scratch) / out.name)
        with _blamed_on("config.json"):
            writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        writer.close()
        names = [path.name for path in writer.format_shard_names(out)]
        headers = [_padded((Path(scratch) / name).read_bytes()) for name in names]
    by_name = {tensor.name: tensor for tensor in tensors}
    placed, sizes = [], []
    for file, (header, infos) in enumerate(zip(headers, writer.tensors, strict=True)):
        offset = len(header)
        for name in infos:
            placed.append(Placed(by_name[name], file, offset))
            offset += GGUFWriter.ggml_pad(by_name[name].bytes, ALIGNMENT)
        sizes.append(offset)
    return Layout([out.with_name(name) for name in names], headers, sizes, placed)


def _padded(header: bytes) -> bytes:
    return header + bytes(-len(header) % ALIGNMENT)
