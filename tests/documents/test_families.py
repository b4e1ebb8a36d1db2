"""docs/families.md is what the catalogue says; a family that is not read is refused with its reason."""

import subprocess
import sys
from pathlib import Path

import pytest

from halfbyte.errors import UnsupportedError
from halfbyte.models import BY_NAME, architecture_of, roles_of
from halfbyte.models.unsupported import ALIASES, REASONS

ROOT = Path(__file__).parents[2]


def test_the_page_is_made_from_the_catalogue() -> None:
    words = [sys.executable, "docs/reference_pages.py", "families"]
    made = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert (ROOT / "docs/families.md").read_text("utf-8") == made


@pytest.mark.parametrize("model_type", [*REASONS, *ALIASES])
def test_what_is_not_read_says_why(model_type: str) -> None:
    reason = REASONS[ALIASES.get(model_type, model_type)]
    assert model_type not in BY_NAME
    for config in (
        {"model_type": model_type},
        {"model_type": "x", "text_config": {"model_type": model_type, "hidden_size": 1}},
    ):
        with pytest.raises(UnsupportedError) as refused:
            architecture_of(config)
        assert refused.value.message.endswith(reason)
    with pytest.raises(UnsupportedError, match="is not a known mixture-of-experts family"):
        roles_of({"model_type": model_type})
