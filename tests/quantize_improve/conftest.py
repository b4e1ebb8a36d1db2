"""What all tests start from, made once: the data, the small model by sweep, and by one run of gptq."""

from pathlib import Path

import pytest

from .material import made, write_data


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_data(tmp_path_factory.mktemp("improve") / "data.jsonl")


@pytest.fixture(scope="session")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Do not write into it."""
    return made(tmp_path_factory.mktemp("improve") / "sweep", rounding="sweep")


@pytest.fixture(scope="session")
def wanted(tmp_path_factory: pytest.TempPathFactory, data: str) -> Path:
    """Do not write into it."""
    return made(tmp_path_factory.mktemp("improve") / "wanted", rounding="gptq", calibrate=[data])
