"""The numbers of the paper, by data set and method, in its own units.

Ha and Bender, Diffusion Counterfactuals for Image Regressors, 2025, Tables 1 and 2.
"""

from collections.abc import Mapping
from typing import Any

PUBLISHED: Mapping[str, Mapping[str, Mapping[str, float]]] = {
    "squares": {
        "ac-re": {"square_mae": 0.130, "fid": 38.1, "background_mae": 0.012},
        "diffae-re": {"square_mae": 0.167, "fid": 121.9, "background_mae": 0.032},
    },
    "celeba-hq": {
        "ac-re": {
            "oracle_mae": 0.260, "fid": 30.9, "fva": 93.1, "fs": 0.666, "mnac_originals": 2.68
        },
        "diffae-re": {
            "oracle_mae": 0.184, "fid": 26.7, "fva": 80.1, "fs": 0.599, "mnac_originals": 3.61
        },
    },
}  # fmt: skip

_AGES = 0.01  # the paper's networks and files have ages / 100

# What a value of ours is multiplied by to be in the paper's unit.
SCALE: Mapping[str, Mapping[str, float]] = {
    "squares": {},
    "celeba-hq": {"fva": 100.0, "oracle_mae": _AGES},  # in percent; of ages / 100
}


def published(config: Mapping[str, Any]) -> dict[str, float]:
    """Return the paper's numbers for a run on the paper's data with its method, in our units."""
    data, method = _names(config)
    scale = SCALE.get(data, {})
    found = PUBLISHED.get(data, {}).get(method, {})
    return {name: value / scale.get(name, 1.0) for name, value in found.items()}


def paper_scale(config: Mapping[str, Any]) -> float:
    """Return what a run's predictions are multiplied by, to be those of the paper's code."""
    return _AGES if _names(config)[0] == "celeba-hq" else 1.0


def _names(config: Mapping[str, Any]) -> list[str | None]:
    """The names of data set and method."""
    sections = (config.get(key) for key in ("data", "method"))
    return [x.get("name") if isinstance(x, Mapping) else None for x in sections]
