"""The shipped networks explain squares as well as README's table says."""

import numpy as np
import pytest

from configs import squares_acre, squares_diffae
from diffcf_jax import Explainer, load_network
from diffcf_jax.data.squares import Squares
from diffcf_jax.inputs import parse_method
from eval.metrics.squares import square_metrics

# README's means of all 630 validation squares. A mean of a few squares may be twice as large; the
# numbers of iterations may lie between half and twice README's.
README = {
    "acre": {"square_mae": 0.039, "background_mae": 0.0003, "oracle": 0.042, "iterations": 6.7},
    "diffae": {"square_mae": 0.043, "background_mae": 0.0013, "oracle": 0.015, "iterations": 5.8},
}


@pytest.mark.usefixtures("optimised")
@pytest.mark.parametrize(
    ("name", "config", "count"), [("acre", squares_acre, 4), ("diffae", squares_diffae, 8)]
)
def test_squares_are_explained_as_the_readme_says(name, config, count):
    config = config.get_config()
    networks = (load_network(config[role].checkpoint) for role in ("generator", "regressor"))
    explainer = Explainer(*networks, parse_method(config.method), batch_size=8, seed=config.seed)
    squares = Squares("validation")
    records = [squares[i] for i in range(0, len(squares), len(squares) // count)][:count]
    images = np.stack([record.image for record in records]).astype(np.float32) / 255
    targets = np.array([record.target for record in records], np.float32)
    explanation = explainer.explain(images, targets)

    rows = [
        square_metrics(image, counterfactual, record.mask, record.target)
        for image, counterfactual, record in zip(images, explanation.image, records, strict=True)
    ]
    found = {key: np.mean([row[key] for row in rows]) for key in ("square_mae", "background_mae")}
    oracle = load_network(config.oracle.checkpoint)
    reading = oracle.module.apply(oracle.variables, explanation.image)
    found["oracle"] = np.abs(reading - targets).mean()
    assert explanation.success.all(), explanation.reason
    for key, value in found.items():
        assert value < 2 * README[name][key], (key, value)
    iterations = README[name]["iterations"]
    assert iterations / 2 < explanation.iterations.mean() < 2 * iterations
