"""Two sound checkpoints, made once a session: tiny-glm quantized, and a small GLM with an MTP layer."""

from pathlib import Path

import pytest
from small import small_checkpoint

from halfbyte.quantize.pipeline import quantize

from .draft import Draft
from .tokenizers import tokenizer_for

ROOT = Path(__file__).parents[2]
TINY = ROOT / "examples/tiny-glm"


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("gate") / "tiny-nvfp4"
    quantize(TINY, out)
    return out


@pytest.fixture(scope="session")
def mtp_source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = small_checkpoint(tmp_path_factory.mktemp("gate") / "small-glm")
    (folder / "tokenizer.json").write_text(tokenizer_for(96))
    return folder


@pytest.fixture(scope="session")
def mtp_folder(mtp_source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("gate") / "small-nvfp4"
    quantize(mtp_source, out)
    return out


@pytest.fixture(scope="session")
def tiny(tiny_folder: Path) -> Draft:
    return Draft(tiny_folder)


@pytest.fixture(scope="session")
def small_mtp(mtp_folder: Path) -> Draft:
    return Draft(mtp_folder)
