"""What is looked at: finished counterfactuals of a Diff-AE-RE run, with their codes."""

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffcf_jax.counterfactual.diffae_re import DiffAEREMethod
from diffcf_jax.counterfactual.types import quantize
from diffcf_jax.errors import UserError
from diffcf_jax.files import read_image
from diffcf_jax.inputs import apply_of, load_networks, parse_method, regressor_unit
from diffcf_jax.regressors.open import held_by
from diffcf_jax.regressors.readings import Reader, open_reader, oracle_sections, spec_of
from diffcf_jax.results.log import image_path, order_of, read_codes, read_results
from diffcf_jax.results.summary import read_summary
from diffcf_jax.units import Unit

Array = jax.Array

_MOST_DIFFERENT = 2 / 255  # mean difference from the saved image; other devices round otherwise


@dataclasses.dataclass(frozen=True)
class Case:
    """One counterfactual.

    Attributes:
        name: of the input.
        target: as in results.jsonl.
        x_T: the stochastic code [H, W, 3], which stays as it is.
        z_0: the semantic code of the input [D].
        z: that of the counterfactual [D].
        decode_error: mean difference of what z decodes to from the saved image, in [0, 1].
    """

    name: str
    target: float | str
    x_T: Array
    z_0: Array
    z: Array
    decode_error: float


@dataclasses.dataclass(frozen=True)
class Subject:
    """A finished run, opened.

    Attributes:
        method: Diff-AE-RE with its networks.
        params: {"generator": variables, "regressor": variables}.
        oracles: second regressors by name.
        unit: of the regressor.
        cases: what is looked at.
    """

    method: DiffAEREMethod
    params: Mapping[str, Any]
    oracles: Mapping[str, Reader]
    unit: Unit
    cases: list[Case]


def open_subject(folder: Path, limit: int) -> Subject:
    """Open a results folder.

    Args:
        folder: the `--workdir` of a finished run.
        limit: counterfactuals, spread evenly over those that reach their target; one that is the
            reconstruction itself is left out.

    Raises:
        UserError: it is a run of another method, or restricted by masks; no counterfactual reaches
            its target; a code does not decode to the saved image; a file is missing or broken.
    """
    config = read_summary(folder)["config"]
    options = parse_method(config["method"])
    if options.name != "diffae-re":
        raise UserError(
            f"{folder} is a run of {options.name}, whose images are not decoded from a semantic "
            "code alone, so that there is no tangent space to measure: give a run of diffae-re."
        )
    if any(config["data"].get(key) for key in ("mask", "masks")):
        raise UserError(
            f"{folder} is a run with masks, whose images are only in part the generator's: give "
            "the folder of a run without."
        )
    rows = [row for row in read_results(folder) if row.get("success") and row["answer"] == 1]
    if not rows:
        raise UserError(f"{folder} holds no counterfactual that reaches its target.")
    chosen = np.unique(np.linspace(0, len(rows) - 1, min(limit, len(rows))).round().astype(int))
    rows = [sorted(rows, key=order_of)[i] for i in chosen]

    generator, regressor = load_networks(config["generator"], config["regressor"])
    method = options.bind(generator, apply_of(regressor), held_by(regressor))
    params = {"generator": generator.variables, "regressor": regressor.variables}
    cases = [_case(folder, row, method, params) for row in rows]
    cases = [case for case in cases if not np.array_equal(case.z, case.z_0)]
    if not cases:
        raise UserError(
            f"{folder} holds no counterfactual that a search has moved: the inputs meet their "
            "targets."
        )
    unit = regressor_unit(regressor, config["regressor"])
    return Subject(method, params, _oracles(config), unit, cases)


def _oracles(config: Mapping[str, Any]) -> dict[str, Reader]:
    own = config.get("oracle") or {}
    sections = {"oracle": own} if spec_of(own) else {}
    sections |= oracle_sections(config.get("oracles") or "")
    return {name: open_reader(spec_of(section), section) for name, section in sections.items()}


def _case(folder: Path, row: Mapping[str, Any], method: DiffAEREMethod, params: Any) -> Case:
    if "codes" not in row:
        raise UserError(
            f"{folder} holds results without codes, which an earlier version wrote: explain again "
            "in a new folder."
        )
    z_0, z = map(jnp.asarray, read_codes(folder, row))
    image = jnp.asarray(read_image(image_path(folder, row, "input")), jnp.float32) / 255
    x_T, made = _decoded(method, params, image, z_0, z)
    saved = read_image(image_path(folder, row, "cf")).astype(np.float64) / 255
    error = float(np.abs(np.asarray(made) - saved).mean())
    if not error <= _MOST_DIFFERENT:
        raise UserError(
            f"{folder / row['cf']} is not what its code decodes to: give a folder whose networks "
            "have not changed since."
        )
    return Case(row["name"], row["target"], x_T, z_0, z, error)


@functools.partial(jax.jit, static_argnums=0)
def _decoded(
    method: DiffAEREMethod, params: Any, image: Array, z_0: Array, z: Array
) -> tuple[Array, Array]:
    """The stochastic code of an input, and what it decodes to with another semantic code."""
    x_T = method.invert(params, image, z_0)
    return x_T, quantize(method.render(params, z, x_T))
