"""What a door serves."""

from dataclasses import dataclass

from halfbyte.serve.money import Price


@dataclass(frozen=True)
class Service:
    """What is served. model: its name. price: None where no prices are given. embedded: whether the engine is ours.

    context: tokens of one sequence, None if not known. reparse: see `reparse_from`.
    """

    model: str
    price: Price | None = None
    embedded: bool = False
    context: int | None = None
    reparse: tuple[str, str] | None = None
