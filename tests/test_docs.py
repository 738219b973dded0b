"""The documentation builds without a warning and needs nothing from elsewhere."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
needs_mkdocs = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("mkdocs", "material", "mkdocstrings", "latex2mathml"))),
    reason="mkdocs is not installed: pip install -e '.[docs]'",
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    return folder


@needs_mkdocs
def test_every_page_of_the_site_is_built(site):
    pages = {path.with_suffix(".html").name for path in DOCS.glob("*.md")}
    assert pages <= {path.name for path in site.glob("*.html")}
    assert (site / "tutorial.ipynb").is_file()


@needs_mkdocs
def test_site_loads_nothing_from_elsewhere(site):
    loads = r"<(?:script|img|iframe)[^>]*\ssrc=\"(https?:)?//|<link[^>]*\shref=\"(https?:)?//"
    for page in site.glob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert not re.search(loads, text), page.name


@needs_mkdocs
def test_equations_are_mathml(site):
    text = (site / "method.html").read_text(encoding="utf-8")
    assert text.count('<math xmlns="http://www.w3.org/1998/Math/MathML" display="block">') >= 10
    assert "arithmatex" not in text
    assert not re.search(r"\\(frac|sqrt|mathcal|hat|tilde)", text)


@needs_mkdocs
def test_api_has_signatures_and_descriptions(site):
    text = (site / "api.html").read_text(encoding="utf-8")
    names = ("Explainer", "Explanation", "ACRE", "DiffAERE", "Hybrid", "explain", "load_network")
    for name in names:
        assert f'id="diffcf_jax.{name}"' in text, name


def test_commands_of_the_docs_name_configs_that_exist():
    pages = [*DOCS.glob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
    for page in pages:
        for name in re.findall(r"--config (\S+)", page.read_text(encoding="utf-8")):
            if name.strip("`").isupper():
                continue
            name = name.strip("`.,;)").split(":")[0].removeprefix("configs/").removesuffix(".py")
            assert (ROOT / "configs" / f"{name}.py").is_file(), f"{page.name}: {name}"


def test_files_that_the_architecture_page_names_exist():
    text = (DOCS / "architecture.md").read_text(encoding="utf-8")
    for path in re.findall(r"`((?:diffcf_jax|eval|configs|docs|tests)/[\w/.]+)`", text):
        assert (ROOT / path).exists(), path
