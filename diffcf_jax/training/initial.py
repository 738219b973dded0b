"""The variables that a training starts from: fresh ones, or those of another network."""

import functools
import json
from collections.abc import Mapping
from typing import Any

import flax
import jax

from diffcf_jax.checkpoint.network import abstract_variables, init_variables
from diffcf_jax.checkpoint.store import load_network
from diffcf_jax.errors import UserError
from diffcf_jax.models.unet import GEOMETRY_EMBED
from diffcf_jax.training.regression import HEADS


def initial_variables(network: Mapping[str, Any], seed: int, init: str = "") -> Any:
    """Makes the variables before the first update.

    A head (the last layer of a regressor) of another width than the new one is left as it was
    initialised, so that a classifier can become a regressor. A UNet may learn to be told of an
    augmentation, or no longer be told; everything else must fit.

    Args:
        network: description of the network.
        seed: of the initialisation.
        init: network directory or name of a shipped network to start from; "" starts afresh.

    Raises:
        UserError: `init` is of another kind or does not fit.
    """
    if not init:
        return _fresh(network, seed)
    try:
        found = load_network(init)
    except UserError as error:
        raise UserError(f"config.init: {error}") from None
    if found.kind != network["kind"]:
        raise UserError(
            f"config.init={init} is a {found.kind}, but config.network.kind is {network['kind']}: "
            f"give a {network['kind']}."
        )
    wanted = flax.traverse_util.flatten_dict(abstract_variables(network))
    given = flax.traverse_util.flatten_dict(found.variables)
    anew = {
        path[1]
        for path in wanted.keys() & given.keys()
        if path[1] in HEADS and wanted[path].shape != given[path].shape
    }
    anew |= {path[1] for path in wanted.keys() ^ given.keys() if path[1] == GEOMETRY_EMBED}
    problems = []
    for path in sorted(wanted.keys() | given.keys()):
        name = "/".join(path)
        if path[1] in anew:
            continue
        if path not in given:
            problems.append(f"{name} is missing")
        elif path not in wanted:
            problems.append(f"{name} is not in the new network")
        elif wanted[path].shape != given[path].shape:
            problems.append(f"{name} has shape {given[path].shape} instead of {wanted[path].shape}")
    if problems:
        more = f" and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise UserError(
            f"config.init={init} does not fit config.network.model: "
            f"{'; '.join(problems[:5])}{more}."
        )
    if not anew:
        return found.variables
    fresh = flax.traverse_util.flatten_dict(_fresh(network, seed))
    return flax.traverse_util.unflatten_dict(
        {path: x if path[1] in anew else given[path] for path, x in fresh.items()}
    )


def _fresh(network: Mapping[str, Any], seed: int) -> Any:
    module = {name: network[name] for name in ("kind", "model", "image_size")}
    return _initialise(json.dumps(module), jax.random.fold_in(jax.random.key(seed), 0))


@functools.partial(jax.jit, static_argnums=0)
def _initialise(network: str, key: jax.Array) -> Any:
    """Fresh variables; the description is JSON, by which JAX recognises a program that it has."""
    return init_variables(json.loads(network), key)
