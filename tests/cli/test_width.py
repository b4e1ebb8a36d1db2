"""Tables are readable at 80 columns: what is wider is shown in pieces, and no cell is cut."""

import pytest

from halfbyte.cli.output import print_table

COLUMNS = ["role", *(f"column {i}" for i in range(9))]
ROWS = [[f"role {i}", *(f"{i * 1000 + at:,} bytes" for at in range(9))] for i in range(3)]


def test_a_wide_table_comes_in_pieces(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    print_table("a title", COLUMNS, ROWS, [f"sum {at}" for at in range(10)])
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80
    assert text.count("a title") == 1
    for cell in (one for row in ROWS for one in row[1:]):
        assert cell in text
    assert text.count("role 2") == 2  # pieces


def test_a_cell_wider_than_the_terminal_is_folded(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    name = "model.layers.3.mlp.experts.1.gate_proj.weight"
    print_table("errors", ["tensor", "error"], [[name, "0.09609"]])
    text = capsys.readouterr().out
    assert "…" not in text
    assert "0.09609" in text
    assert name in "".join(line.split("   ")[0].strip() for line in text.splitlines())


def test_a_narrow_table_is_one(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    print_table("t", COLUMNS[:3], [row[:3] for row in ROWS])
    assert capsys.readouterr().out.count("role 1") == 1
