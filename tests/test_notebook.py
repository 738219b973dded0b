"""The notebook runs as it stands."""

import json
from pathlib import Path

import numpy as np

NOTEBOOK = Path(__file__).resolve().parents[1] / "docs" / "tutorial.ipynb"


def test_notebook_runs(tmp_path, monkeypatch):
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    cells = ["".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == "code"]
    assert cells[0] == "%pip install diffcf-jax"  # as Colab needs it
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "__main__"}
    for number, cell in enumerate(cells):
        if not cell.startswith(("%pip", "!pip")):
            exec(compile(cell, f"cell {number}", "exec"), names)
    explanation = names["explanation"]
    assert explanation.success.all()
    np.testing.assert_allclose(explanation.y_final, [0.6, 0.4], atol=0.05)
    assert (tmp_path / "out_notebook" / "report.html").is_file()


def test_notebook_is_saved_without_outputs():
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    for cell in notebook["cells"]:
        assert not cell.get("outputs") and cell.get("execution_count") is None
