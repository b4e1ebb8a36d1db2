"""Commands that a model's publisher printed, flag for flag, to be compared with what the plan says."""

from dataclasses import dataclass

from halfbyte.engines.engine import EngineName
from halfbyte.models.architecture import Architecture


@dataclass(frozen=True)
class Card:
    """engine, model_type, layers, experts: what it is for. gpus: how many, of compute majors with FP4 tensor cores.

    why: flag -> what this flag is to us, where the plan says otherwise.
    """

    title: str
    engine: EngineName
    model_type: str
    layers: int
    experts: int
    gpus: int
    flags: tuple[tuple[str, str | None], ...]
    why: tuple[tuple[str, str], ...]

    def is_of(self, arch: Architecture) -> bool:
        """Whether it was written for a model of this size; if not, for one of the same family."""
        return (arch.layers, arch.experts) == (self.layers, self.experts)

    def words(self) -> list[str]:
        return [word for flag, value in self.flags for word in (flag, value) if word is not None]


CARDS = (
    Card(
        title="NVIDIA's model card of GLM-5.2-NVFP4",
        engine="sglang",
        model_type="glm_moe_dsa",
        layers=78,
        experts=256,
        gpus=8,
        flags=(
            ("--tensor-parallel-size", "8"),
            ("--quantization", "modelopt_fp4"),
            ("--tool-call-parser", "glm47"),
            ("--reasoning-parser", "glm45"),
            ("--trust-remote-code", None),
            ("--chunked-prefill-size", "131072"),
            ("--mem-fraction-static", "0.80"),
        ),
        why=(
            ("--tensor-parallel-size", "the same flag by its other name"),
            ("--quantization", "read from the checkpoint itself; on one without metadata this flag would requantize"),
            ("--trust-remote-code", "the architecture is the engine's own; code of the checkpoint need not be run"),
            ("--chunked-prefill-size", "buffers grow with the chunk: a smaller one leaves more memory for the cache"),
            ("--mem-fraction-static", "what the planned chunk leaves; the card's chunk of 131072 needs a lower one"),
        ),
    ),
)


def card_for(engine: str, arch: Architecture) -> Card | None:
    return next((card for card in CARDS if (card.engine, card.model_type) == (engine, arch.model_type)), None)
