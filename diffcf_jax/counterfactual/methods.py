"""The methods by their names in configs."""

import dataclasses
import difflib
from collections.abc import Mapping
from typing import Any

from diffcf_jax.checkpoint.network import Network
from diffcf_jax.counterfactual.ac_re import ACRE
from diffcf_jax.counterfactual.diffae_re import DiffAERE
from diffcf_jax.counterfactual.hybrid import Hybrid
from diffcf_jax.counterfactual.options import OptionError, Options
from diffcf_jax.counterfactual.types import Method, Regressor
from diffcf_jax.errors import UserError

METHODS: dict[str, type[Options]] = {method.name: method for method in (ACRE, DiffAERE, Hybrid)}


def method_options(name: str, options: Mapping[str, Any]) -> Options:
    """Return the options of the method of that name.

    Raises:
        OptionError: the name or an option is unknown, or a value is out of its range.
    """
    if name not in METHODS:
        raise OptionError(f"name='{name}' is no method; choose one of {', '.join(METHODS)}.")
    known = [field.name for field in dataclasses.fields(METHODS[name])]
    for key in options:
        if key not in known:
            close = difflib.get_close_matches(key, known, 1)
            hint = f"did you mean {close[0]}?" if close else f"choose from {', '.join(known)}."
            raise OptionError(f"{key} is no option of {name}: {hint}")
    return METHODS[name](**options)


def bind_method(
    options: Options,
    generator: Network,
    regressor: Regressor,
    refiner: Network | None = None,
    held: Regressor | None = None,
) -> Method:
    """Return a method's three functions for its networks.

    Args:
        options: of the method.
        generator: see `Options.generator_kind`.
        regressor: (variables, images) -> predictions.
        refiner: the second generator of a method that takes two.
        held: (variables, images) -> numbers that must stay as they are; None: nothing.

    Raises:
        UserError: a refiner is missing, superfluous or of another size, or a network is of
            another kind than the method needs.
    """
    if options.refiner_kind is None:
        if refiner is not None:
            raise UserError(f"The method {options.name} takes no refiner: leave it out.")
        return options.bind(generator, regressor, held)
    if refiner is None:
        raise UserError(
            f"The method {options.name} needs a second generator, a {options.refiner_kind}: give "
            "its directory as config.refiner.checkpoint, or refiner=load_network(DIRECTORY)."
        )
    size, other = (network.description["image_size"] for network in (generator, refiner))
    if size != other:
        raise UserError(
            f"The generator is of {size} pixels and the refiner of {other}; give two networks of "
            "one image size."
        )
    return options.bind(generator, regressor, held, refiner)
