"""Probes are what they say: exact length, one fact asked for, its answer at the end; scores by definition."""

from pathlib import Path

import numpy as np
import pytest

from compare.models import pair
from halfbyte.compare.comparison import compare
from halfbyte.compare.recall import DISTRACTORS, Probe, build_probes, parse_lengths, recall_rows
from halfbyte.compare.tokens import TokenMeasures
from halfbyte.data.document import Document
from halfbyte.data.tokenizer import Tokenizer, open_tokenizer
from halfbyte.errors import UsageError

TINY = Path(__file__).parents[2] / "examples/tiny-glm"


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return open_tokenizer(TINY)


@pytest.fixture
def plain(tmp_path: Path) -> Tokenizer:
    """The same tokenizer without a chat template."""
    for name in ("tokenizer.json", "tokenizer_config.json", "config.json"):
        (tmp_path / name).write_bytes((TINY / name).read_bytes())
    return open_tokenizer(tmp_path)


def check(probe: Probe, tokenizer: Tokenizer) -> None:
    assert len(probe.ids) == probe.length
    text = tokenizer.decode(probe.ids.tolist())
    code = tokenizer.decode(probe.ids[-probe.answer :].tolist()).strip()
    assert code.isdigit()
    assert len(code) == 5
    assert text.count(code) == 2  # in its fact, and as the answer
    assert text.count("Note: " if probe.language == "en" else "참고: ") == 1 + DISTRACTORS
    fact = next(line for line in text.splitlines() if code in line)
    name = fact.split(" of ")[1].split(" is ")[0] if probe.language == "en" else fact[4:].split("의 ")[0]
    assert name in text.splitlines()[-1]
    assert probe.span == slice(probe.length - 1 - probe.answer, probe.length - 1)


def test_probes_under_the_chat_template(tokenizer: Tokenizer) -> None:
    probes = build_probes([256, 512], tokenizer, [], context=8192, probes=4)
    assert [(probe.language, probe.length) for probe in probes] == [
        (language, length) for language in ("ko", "en") for length in (256, 512) for _ in range(4)
    ]
    for probe in probes:
        check(probe, tokenizer)
        text = tokenizer.decode(probe.ids.tolist())
        assert text.startswith("[gMASK]<sop><|user|>\n")
        assert "<|assistant|></think>" in text


def test_probes_without_a_chat_template(plain: Tokenizer) -> None:
    for probe in build_probes([256], plain, [], context=None, probes=3):
        check(probe, plain)
        assert "<|user|>" not in plain.decode(probe.ids.tolist())


def test_the_fact_stands_at_every_depth(tokenizer: Tokenizer) -> None:
    probes = [p for p in build_probes([1024], tokenizer, [], context=8192, probes=4) if p.language == "en"]
    depths = []
    for probe in probes:
        text = tokenizer.decode(probe.ids.tolist())
        code = tokenizer.decode(probe.ids[-probe.answer :].tolist())
        depths.append(text.index(code) / len(text))
    assert depths == pytest.approx([1 / 8, 3 / 8, 5 / 8, 7 / 8], abs=0.1)


def test_filler_is_the_given_documents(tokenizer: Tokenizer) -> None:
    document = Document(np.array([7] * 5, np.int64), {}, "f", 1)
    [probe, *_] = build_probes([300], tokenizer, [document], context=8192, probes=1)
    assert (probe.ids == 7).sum() > 100


def test_seeded(tokenizer: Tokenizer) -> None:
    first, again, other = (
        [p.ids.tolist() for p in build_probes([256], tokenizer, [], context=8192, probes=2, seed=seed)]
        for seed in (0, 0, 1)
    )
    assert first == again != other


def test_lengths() -> None:
    assert parse_lengths("16K, 1k,4096,4k") == [1024, 4096, 16384]
    for text in ("", "1k,,4k", "k", "-1k", "1.5k", "0", "1m"):
        with pytest.raises(UsageError, match="is no length"):
            parse_lengths(text)


def test_too_long_and_too_short(tokenizer: Tokenizer) -> None:
    with pytest.raises(UsageError, match="recall 16384: the model takes 8192 tokens"):
        build_probes([1024, 16384], tokenizer, [], context=8192)
    with pytest.raises(UsageError, match="recall 64: too short"):
        build_probes([64], tokenizer, [], context=8192)


def test_scores() -> None:
    def measures(nll: list[float], ranks: list[int]) -> TokenMeasures:
        none = np.zeros(len(nll))
        own = np.array(nll), np.array(nll) * 2, np.array(ranks, float), np.array(ranks, float)
        return TokenMeasures(9, none, none, none, *own)

    probes = [Probe(np.zeros(12, np.int64), 2, 12, "en", depth) for depth in (0.1, 0.5, 0.5)]
    found = [measures([0.5, 0.5], [1, 1]), measures([1.0, 2.0], [1, 7]), measures([0.1, 0.1], [1, 1])]
    [row] = recall_rows(probes, found)
    assert (row["length"], row["language"], row["probes"]) == (12, "en", 3)
    assert row["log_probability"]["base"]["mean"] == pytest.approx(-(1.0 + 3.0 + 0.2) / 3)
    assert row["log_probability"]["base"]["high"] <= 0
    assert row["log_probability"]["difference"]["mean"] == pytest.approx(-(1.0 + 3.0 + 0.2) / 3)
    assert row["rank"] == {"base": 1.0, "candidate": 1.0}
    assert row["recalled"]["base"]["mean"] == pytest.approx(2 / 3)
    assert row["depths"] == [
        {"depth": 0.1, "probes": 1, "difference": -1.0, "recalled": {"base": 1.0, "candidate": 1.0}},
        {"depth": 0.5, "probes": 2, "difference": pytest.approx(-1.6), "recalled": {"base": 0.5, "candidate": 0.5}},
    ]
    assert 0 < row["recalled"]["base"]["low"] < row["recalled"]["base"]["high"] < 1


def test_recall_without_data(tmp_path: Path) -> None:
    """A small model with tiny-glm's tokenizer has too small a vocabulary: said before anything runs."""
    base, other = pair(tmp_path)
    for folder in (base, other):
        for name in ("tokenizer.json", "tokenizer_config.json"):
            (folder / name).write_bytes((TINY / name).read_bytes())
    with pytest.raises(UsageError, match=r"token .* the model has 0 to 95"):
        compare(base, other, recall="1k", probes=1)


@pytest.mark.slow
def test_tiny_glm_recalls_in_english() -> None:
    found = compare(TINY, TINY, recall="512", probes=4).as_json()
    rows = {row["language"]: row for row in found["recall"]}
    assert rows["en"]["recalled"]["base"]["mean"] == 1.0
    assert rows["en"]["log_probability"]["difference"]["mean"] == 0.0
    assert (found["tokens"], found["kl"]["mean"], found["positions"]) == (0, None, [])
