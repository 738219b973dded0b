"""The README says what runs: the commands of CI, the shipped configs, the pinned versions."""

import re
import tomllib
from pathlib import Path

import numpy as np
import pytest

from tests.regressors import onnx_files

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def code_blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


def canonical(requirement: str) -> str:
    """Name of a requirement, spelled as constraints.txt spells it."""
    return re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", requirement).group()).lower()


def test_ci_runs_the_test_line_of_the_readme():
    commands = [line for block in code_blocks("sh") for line in block.splitlines()]
    (test_line,) = [line for line in commands if "pytest" in line]
    assert (ROOT / ".ci/run").read_text(encoding="utf-8").splitlines()[-1] == test_line


def test_set_up_takes_exactly_two_lines():
    set_up = README.split("## Set-up")[1].split("\n## ")[0]
    blocks = re.findall(r"^```sh\n(.*?)^```", set_up, flags=re.MULTILINE | re.DOTALL)
    assert [len(block.splitlines()) for block in blocks] == [1, 1]
    assert all("pip install -c constraints.txt" in block for block in blocks)


def test_configs_and_scripts_of_the_commands_exist():
    for block in code_blocks("sh"):
        for path in re.findall(r"(?:--config |python )(\S+\.py)", block):
            assert (ROOT / path).is_file(), path


def test_python_example_runs(tmp_path, monkeypatch):
    example, _, own = code_blocks("python")
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(compile(example, "README.md", "exec"), names)
    assert names["explanation"].success.all()
    assert (tmp_path / "out_python" / "report.html").is_file()
    # The same redness, of images prepared as for ImageNet.
    nodes = [
        onnx_files.node("GlobalAveragePool", "x", "p"), onnx_files.node("Flatten", "p", "f"),
        onnx_files.node("Gemm", "f,w,b", "y"),
    ]  # fmt: skip
    weights = np.array([[0.229], [-0.224], [0]], np.float32)
    constants = {"w": weights, "b": np.array([0.485 - 0.456], np.float32)}
    onnx_files.save(tmp_path / "model.onnx", nodes, constants, ("b", 3, 64, 64))
    exec(compile(own, "README.md", "exec"), names)
    assert names["explanation"].success.all()


def test_torchvision_example_runs(tmp_path, monkeypatch):
    for name in ("torchvision", "onnxscript"):
        pytest.importorskip(name)
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(compile(code_blocks("python")[1], "README.md", "exec"), names)
    assert names["explanation"].success.all()
    assert (tmp_path / "out_model" / "report.html").is_file()


def test_every_dependency_is_pinned():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    pins = [
        line
        for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
        if line and not line.startswith("#")
    ]
    assert all(re.match(r"[a-z0-9-]+==[\w.]+( ; .+)?$", pin) for pin in pins)
    required = project["dependencies"] + extras["test"] + extras["docs"] + extras["tfds"]
    assert {canonical(name) for name in required} <= {canonical(pin) for pin in pins}
