import re
from pathlib import Path

from diffcf_jax.regressors.onnx.graph import OPERATORS

DOCS = Path(__file__).resolve().parents[3] / "docs" / "own-regressor.md"


def test_the_table_of_the_docs_lists_exactly_what_is_supported():
    section = DOCS.read_text(encoding="utf-8").split("## ONNX operators")[1]
    rows = [line for line in section.splitlines() if line.startswith("| ")]
    named = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
    assert len(named) == len(set(named))
    assert set(named) == OPERATORS.keys() | {"If"}
