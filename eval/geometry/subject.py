"""What is looked at: finished counterfactuals of a Diff-AE-RE run, with their codes."""

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffcf_jax.counterfactual.diffae_re import DiffAEREMethod, DiffAEREState
from diffcf_jax.counterfactual.types import Query
from diffcf_jax.errors import UserError
from diffcf_jax.files import read_image
from diffcf_jax.inputs import apply_of, load_networks, parse_method, regressor_unit
from diffcf_jax.regressors.open import held_by
from diffcf_jax.regressors.readings import Reader, open_reader, oracle_sections, spec_of
from diffcf_jax.results.log import image_path, order_of, read_results
from diffcf_jax.results.summary import read_summary
from diffcf_jax.target import bounds, parse_target
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
        repeat_error: mean difference of the repeated search's image from the saved one, in [0, 1].
    """

    name: str
    target: float | str
    x_T: Array
    z_0: Array
    z: Array
    repeat_error: float


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

    A run saves images and no codes, so the searches are repeated, which gives the same codes.

    Args:
        folder: the `--workdir` of a finished run.
        limit: counterfactuals, spread evenly over those that reach their target; one that is the
            reconstruction itself is left out.

    Raises:
        UserError: it is a run of another method, or restricted by masks; no counterfactual reaches
            its target; a repeated search does not give the saved image; a file is missing or
            broken.
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
    unit = regressor_unit(regressor, config["regressor"])
    options = dataclasses.replace(options, threshold=options.threshold / unit.scale)
    method = options.bind(generator, apply_of(regressor), held_by(regressor))
    params = {"generator": generator.variables, "regressor": regressor.variables}
    cases = [_case(folder, row, method, params, unit) for row in rows]
    cases = [case for case in cases if not np.array_equal(case.z, case.z_0)]
    if not cases:
        raise UserError(
            f"{folder} holds no counterfactual that a search has moved: the inputs meet their "
            "targets."
        )
    return Subject(method, params, _oracles(config), unit, cases)


def _oracles(config: Mapping[str, Any]) -> dict[str, Reader]:
    own = config.get("oracle") or {}
    sections = {"oracle": own} if spec_of(own) else {}
    sections |= oracle_sections(config.get("oracles") or "")
    return {name: open_reader(spec_of(section), section) for name, section in sections.items()}


def _case(
    folder: Path, row: Mapping[str, Any], method: DiffAEREMethod, params: Any, unit: Unit
) -> Case:
    image = jnp.asarray(read_image(image_path(folder, row, "input")), jnp.float32) / 255
    target = row["target"]
    wanted = unit.normalise_target(parse_target(target) if isinstance(target, str) else target)
    accept, aim = bounds(wanted, float(method.regressor(params["regressor"], image[None])[0]))
    query = Query(image, jnp.ones_like(image[..., :1]), jnp.asarray(accept), jnp.asarray(aim))
    state = search(method, params, query)
    saved = read_image(image_path(folder, row, "cf")).astype(np.float64) / 255
    error = float(np.abs(np.asarray(state.result.image) - saved).mean())
    if not error <= _MOST_DIFFERENT:
        raise UserError(
            f"{folder / row['cf']} is not what the search finds when it is repeated: give a folder "
            "whose networks have not changed since."
        )
    z = state.opt_state.kept if method.options.solver == "newton" else state.z
    return Case(row["name"], target, state.x_T, state.z_0, z, error)


@functools.partial(jax.jit, static_argnums=0)
def search(method: DiffAEREMethod, params: Any, query: Query) -> DiffAEREState:
    """The whole search for one counterfactual; it draws no random number."""
    start = method.init(params, query, jax.random.PRNGKey(0))
    return jax.lax.while_loop(
        lambda state: ~state.done,
        lambda state: method.finish(params, method.step(params, state)),
        start,
    )
