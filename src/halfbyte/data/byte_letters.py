"""GPT-2's printable stand-ins of the 256 bytes, in which byte-level BPE spells its tokens."""


def _letters() -> dict[int, str]:
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + n) for n, byte in enumerate(others)}


LETTER = _letters()
"""Byte -> letter."""

BYTE = {letter: byte for byte, letter in LETTER.items()}
