"""The examples of the pages about frameworks run, where the framework is installed."""

import re
from pathlib import Path

import numpy as np
import pytest

DOCS = Path(__file__).resolve().parents[1] / "docs"


def examples(page):
    """The examples of a page by the heading above them, "" before the first."""
    parts = re.split(r"^## (.*)\n", (DOCS / page).read_text(encoding="utf-8"), flags=re.MULTILINE)
    sections = dict(zip(["", *parts[1::2]], parts[::2], strict=True))
    blocks = {
        name: "\n".join(re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
        for name, text in sections.items()
    }
    return {name: code for name, code in blocks.items() if code}


@pytest.mark.parametrize(
    ("page", "sections", "modules"),
    [
        ("from-flax.md", ("", "Flax"), ()),
        ("from-flax.md", ("", "Equinox"), ("equinox",)),
        ("from-flax.md", ("", "Haiku"), ("haiku",)),
        ("from-keras.md", ("",), ("keras",)),
        ("from-pytorch.md", ("", "Files of PyTorch"), ("torchvision", "onnxscript")),
        ("from-hugging-face.md", ("Hugging Face",), ("transformers", "onnxscript")),
        ("from-hugging-face.md", ("timm",), ("timm", "onnxscript")),
    ],
)
def test_examples_run(page, sections, modules, tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    for name in modules:
        pytest.importorskip(name)
    monkeypatch.chdir(tmp_path)
    code = "\n".join(examples(page)[section] for section in sections)
    names: dict = {}
    exec(compile(code, page, "exec"), names)
    if sections == ("timm",):
        assert np.isfinite(names["regressor"](np.zeros((1, 64, 64, 3)))).all()
        return
    explanation, regressor = names["explanation"], names.get("regressor")
    if page != "from-hugging-face.md":  # whose network is untrained and hardly reacts
        assert explanation.success.all()
    if regressor is not None:
        np.testing.assert_allclose(explanation.y_final, regressor(explanation.image), atol=1e-3)
