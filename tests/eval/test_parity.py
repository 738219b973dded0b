"""The comparison with the originals: what passes, and everything that must not."""

import json
import re
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from eval.parity.__main__ import compare_folder, main

GOLDEN = Path(__file__).parents[1] / "golden"

# Folder, in float64 or float32, and how many quantities it has at least.
FOLDERS = [
    ("acre_a", True, 29),
    ("diffae_a", True, 60),
    ("unet_a", True, 7),
    ("unet_a", False, 7),
    ("densenet_a", True, 1),
    ("resnet_a", True, 1),
    ("ckpt_formats", True, 1),
    ("ddim", True, 40),
    ("ddim", False, 30),
    ("diffusion", True, 50),
    ("diffusion", False, 50),
    ("acre_terms", True, 20),
    ("acre_terms", False, 20),
    ("mask", True, 10),
    ("mask", False, 10),
]


def pytest_generate_tests(metafunc):
    if "original" in metafunc.fixturenames:
        originals = metafunc.config.getoption("originals")
        found = sorted(Path(originals).glob("*/config.json")) if originals else []
        if originals and not found:
            raise pytest.UsageError(f"--originals={originals}: there is no DIR/*/config.json.")
        folders = [path.parent for path in found]
        metafunc.parametrize("original", folders, ids=lambda folder: folder.name)


@pytest.mark.parametrize(("folder", "x64", "at_least"), FOLDERS)
def test_recorded_vectors(folder, x64, at_least, request):
    """Everything in a folder of tests/golden; float32, where rounding shows, as users compile."""
    if not x64:
        request.getfixturevalue("optimised")
    with jax.enable_x64(x64):
        rows = compare_folder(GOLDEN / folder, x64)
    assert len(rows) >= at_least
    assert not [row for row in rows if not row.passed]


def test_all_vectors(original):
    """Everything in the folder that the option --originals names."""
    with jax.enable_x64(True):
        rows = compare_folder(original, x64=True)
    assert not [row for row in rows if not row.passed]


@pytest.fixture
def copy(tmp_path):
    """A folder that passes, and a way to change it."""
    folder = tmp_path / "mask_copy"
    shutil.copytree(GOLDEN / "mask", folder)

    def change(config=None, **arrays):
        if config is not None:
            old = json.loads((folder / "config.json").read_text())
            (folder / "config.json").write_text(json.dumps({**old, **config}))
        with np.load(folder / "io.npz") as file:
            old = {name: file[name] for name in file.files}
        np.savez(folder / "io.npz", **{**old, **arrays})

    return folder, change


def test_a_folder_that_passes(copy, capsys):
    folder, change = copy
    change(config={"kind": "some new name"})  # the folder's name still says what it is
    assert main([str(folder), str(folder)]) == 0
    output = capsys.readouterr().out
    assert output.count("10 of 10 passed") == 2 and output.endswith("all passed\n")
    assert main([str(folder), "--x64"]) == 0
    assert "float64" in capsys.readouterr().out
    # A shell's * gives files too: they are named. But something has to be compared.
    (folder.parent / "README.md").write_text("What this is.")
    assert main([str(path) for path in (folder.parent / "README.md", folder)]) == 0
    assert "README.md: a file, passed over" in capsys.readouterr().out
    assert main([str(folder.parent / "README.md")]) == 1


def test_a_wrong_value_fails(copy, capsys):
    folder, change = copy
    with np.load(folder / "io.npz") as file:
        mask = file["mask"].copy()
    mask[0, 0, 3, 4] += 1e-5
    change(mask=mask)
    assert main([str(folder)]) == 1
    failed = [line for line in capsys.readouterr().out.splitlines() if line.endswith("FAIL")]
    assert len(failed) == 1
    name, largest, *_ = failed[0].split()
    assert name == "mask" and float(largest) == pytest.approx(1e-5, rel=0.05)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"surplus": np.zeros(3)}, "surplus .* no counterpart"),
        ({"config": {"kind": "something else"}}, "unknown kind"),
        ({"x1": np.zeros((2, 3, 5, 5), np.float32)}, "stopped by"),
        ({"mask": np.zeros((2, 1, 5, 5), np.float32)}, "mask .* shape"),
        ({"mask": np.full((2, 1, 40, 40), np.nan, np.float32)}, "mask .* NaN"),
        ({"boolmask_5_0.15": np.ones((2, 1, 40, 40), np.uint8)}, "boolmask_5_0.15 .* exact"),
    ],
)
def test_what_cannot_be_compared_fails(copy, tmp_path, capsys, change, message):
    folder, apply = copy
    apply(**change)
    if "config" in change:
        folder = folder.rename(tmp_path / "other")
    assert main([str(folder)]) == 1
    assert re.search(message, capsys.readouterr().out)


def test_unreadable_folders_fail_and_the_others_are_compared(copy, tmp_path, capsys):
    folder, _ = copy
    broken = tmp_path / "mask_broken"
    shutil.copytree(folder, broken)
    (broken / "io.npz").write_bytes((folder / "io.npz").read_bytes()[:5000])
    assert main([str(tmp_path / "missing"), str(broken), str(folder)]) == 1
    output = capsys.readouterr().out
    assert output.count("unreadable: ") == 2
    assert "10 of 10 passed" in output and output.endswith("2 FAILED\n")
