"""NVFP4 experts beside weights that stay in a published format of more bits: where engines load such a checkpoint.

Under ModelOpt's NVFP4 both engines build what the list excludes unquantized, and vLLM's MIXED_PRECISION knows
ModelOpt's own FP8 (a scale for the tensor), not tiles, rows or INT4 (`ModelOptMixedPrecisionConfig`; read, not run). A
family whose classes do more has a `Mixture`.
"""

from collections.abc import Iterable, Iterator

from halfbyte.formats.catalogue import QUANTIZED
from halfbyte.models.family import Mixture
from halfbyte.models.roles import TensorRole

WHY_NOTHING_BESIDE = (
    "under NVFP4 vLLM and SGLang build what the exclusion list names unquantized; "
    "no engine is known to load the mixture"
)


def misread_beside(mixture: Mixture, linears: Iterable[tuple[TensorRole, str]]) -> Iterator[tuple[str, str]]:
    """(module, what is wrong) of the linears that engines read in another format. linears: role, storage format."""
    for role, form in linears:
        wanted = mixture.wanted(role)
        if form not in wanted if wanted else form in QUANTIZED:
            yield role.module, f"{role.module} is {form}, engines read {' or '.join(wanted) or '16 bits'} there"
