"""The command on a run of tiny networks: a real search, measured from its saved files."""

import functools
import json
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffcf_jax.counterfactual.types import Query
from diffcf_jax.data.squares import Squares
from diffcf_jax.errors import UserError
from diffcf_jax.files import encode_png, read_image, write_file
from diffcf_jax.inputs import apply_of, load_networks, parse_method
from diffcf_jax.results.log import read_results
from diffcf_jax.results.summary import summarise, write_summary
from diffcf_jax.results.writer import ResultWriter
from eval.geometry.__main__ import geometry, main
from tests import tiny

METHOD = {
    "name": "diffae-re", "inversion_steps": 2, "decode_steps": 2, "iterations": 30,
    "threshold": 0.0005,
}  # fmt: skip


@functools.partial(jax.jit, static_argnums=0)
def search(method, params, query):
    return jax.lax.while_loop(
        lambda state: ~state.done,
        lambda state: method.finish(params, method.step(params, state)),
        method.init(params, query, jax.random.PRNGKey(0)),
    )


def save_run(folder, config, found):
    """Save (record, target, counterfactual) as explain.py does."""
    with ResultWriter(folder, [record.name for record, *_ in found]) as writer:
        for record, target, result in found:
            numbers = {"y_initial", "y_reconstruction", "y_final", "success", "iterations", "codes"}
            result = types.SimpleNamespace(
                **{name: np.asarray(getattr(result, name)) for name in numbers},
                image=np.asarray(result.image), reconstruction=np.asarray(result.reconstruction),
                curve=[],
            )  # fmt: skip
            writer.save(record, target, result, 1.0)
    write_summary(folder, summarise(read_results(folder), config, 1.0, {}))


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("networks")
    return {
        "generator": {"checkpoint": tiny.save(folder / "diffae", tiny.DIFFAE)},
        "regressor": {"checkpoint": tiny.save(folder / "regressor", tiny.REGRESSOR)},
        "oracle": {"checkpoint": tiny.save(folder / "oracle", tiny.REGRESSOR, 1)},
    }


@pytest.fixture
def finished(networks, tmp_path):
    config = {"method": METHOD, **networks, "data": {"name": "squares"}, "seed": 0}
    generator, regressor = load_networks(networks["generator"], networks["regressor"])
    method = parse_method(METHOD).bind(generator, apply_of(regressor))
    params = {"generator": generator.variables, "regressor": regressor.variables}
    found = []
    for record in Squares("validation", 2):
        image = jnp.asarray(record.image, jnp.float32) / 255
        start = search(method, params, Query.of(image, 0.0)).result
        target = float(start.y_reconstruction) + 0.002
        state = search(method, params, Query.of(image, target))
        assert state.result.success
        found.append((record, target, state.result))
    save_run(tmp_path, config, found)
    return tmp_path


def test_a_run_is_measured(finished):
    assert main([str(finished), "--values=4"]) == 0
    folder = finished / "geometry"
    found = json.loads((folder / "geometry.json").read_text())
    assert [case["name"] for case in found["cases"]] == ["lower_000.png", "lower_001.png"]
    for case in found["cases"]:
        assert case["rise"] == pytest.approx(0.002, abs=0.001)
        assert case["decode_error"] < 1e-6
        assert case["exact"] and len(case["singular_values"]) == 4
        assert 1 <= case["effective_rank"] <= 4
        shares = case["tangent"]
        assert shares.keys() == {
            "regressor", "oracle", "another image", "random", "expected of a random change",
        }  # fmt: skip
        assert all(0 < share <= 1 for share in shares.values())
        assert shares["random"] < 0.1 and shares["regressor"] != shares["another image"]
        lengths = case["lengths"]
        assert lengths["path"] >= lengths["straight"] > 0
        assert lengths["pixels"] == pytest.approx(lengths["shortest"] * shares["regressor"])
        assert 0 <= case["nearest"]["pulled_back"] <= 180 and len(case["cycle"]["code"]) == 5
    summary = found["summary"]["lengths.ratio"]
    assert summary["low"] <= summary["mean"] <= summary["high"]
    text = (folder / "geometry.txt").read_text().strip()
    assert text == found["text"] and "4 leading singular values of 8" in text
    assert "nan" not in text and (folder / "geometry.svg").read_text().count("<svg") == 1
    assert (folder / "geometry.png").is_file()

    row = read_results(finished)[0]
    write_file(finished / row["cf"], encode_png(255 - read_image(finished / row["cf"])))
    with pytest.raises(UserError, match="is not what its code decodes to"):
        geometry(finished, limit=1)

    (folder := finished / "results.jsonl").write_text(
        folder.read_text().replace('"codes"', '"other"')
    )
    with pytest.raises(UserError, match="without codes, which an earlier version wrote"):
        geometry(finished, limit=1)


@pytest.mark.parametrize(
    "change, message",
    [
        (
            {"method": {"name": "ac-re", "threshold": 0.1}},
            "is a run of ac-re, whose images are not decoded",
        ),
        ({"data": {"name": "squares", "mask": "0,0,8,8"}}, "is a run with masks"),
        ({}, "holds no counterfactual that reaches its target"),
    ],
)
def test_what_is_refused(tmp_path, capsys, change, message):
    config = {"method": METHOD, "data": {"name": "squares"}, **change}
    write_summary(tmp_path, summarise([], config, 1.0, {}))
    (tmp_path / "results.jsonl").touch()
    assert main([str(tmp_path)]) == 2
    assert message in capsys.readouterr().err


def test_without_matplotlib_nothing_is_measured(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # as if it were not installed
    with pytest.raises(UserError, match="matplotlib, which is not installed"):
        geometry(tmp_path / "nowhere")
