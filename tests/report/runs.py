"""A small finished run, with names that are HTML."""

import types

import numpy as np

from diffcf_jax.data.record import Record
from diffcf_jax.results.log import read_results
from diffcf_jax.results.summary import summarise, write_summary
from diffcf_jax.results.writer import ResultWriter

EVIL = '<img src=x onerror="alert(1)">&.png'


def make_run(folder, n=3, size=8, config=None):
    names = [EVIL.replace("x ", f"{i} ") for i in range(n)]
    random = np.random.default_rng(0)
    with ResultWriter(folder, [*names, "broken<b>.png"]) as writer:
        for i, name in enumerate(names):
            image = random.integers(0, 256, (size, size, 3), dtype=np.uint8)
            counterfactual = types.SimpleNamespace(
                image=random.random((size, size, 3), np.float32),
                reconstruction=random.random((size, size, 3), np.float32),
                **{"y_initial": 0.1, "y_reconstruction": np.nan, "y_final": 0.4 + 0.1 * i},
                codes=None,
                **{"success": i > 0, "iterations": 5 + i, "curve": np.linspace(0, 0.4, 5 + i)},
            )
            reason = None if i else "too <hard>"
            writer.save(Record(i, name, image, y=0.1), 0.5, counterfactual, 1.0, reason)
        writer.save_error(n, "broken<b>.png", None, "cannot read broken<b>.png: replace it")
    config = config or {"method": {"name": "ac-re", "threshold": 0.05}}
    write_summary(folder, summarise(read_results(folder), config, 100.0, {"device": "cpu"}))
