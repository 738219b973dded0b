"""Options of the methods: each default and its range stand once, in the dataclass of the method."""

import dataclasses
import math
import numbers
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import jax.numpy as jnp

from diffcf_jax.checkpoint.network import Network
from diffcf_jax.counterfactual.types import Method, Regressor
from diffcf_jax.diffusion.schedule import Diffusion, make_diffusion
from diffcf_jax.errors import UserError

_PRECISIONS = {"float32": None, "bfloat16": jnp.bfloat16}
_MOST = 100_000  # iterations and steps; every image keeps a curve of that length

Rule = tuple[Callable[[Any], bool], str]


class OptionError(UserError):
    """A wrong option; the sentence begins with its name, which callers may put a prefix to."""


def _is_whole(value: Any) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)


COUNT: Rule = (
    lambda value: _is_whole(value) and 1 <= value <= _MOST,
    f"a whole number from 1 to {_MOST:,}",
)
COUNT_OR_ZERO: Rule = (
    lambda value: _is_whole(value) and 0 <= value <= _MOST,
    f"a whole number from 0 to {_MOST:,}",
)
ODD: Rule = (
    lambda value: COUNT[0](value) and value % 2 == 1,
    f"an odd whole number from 1 to {_MOST:,}",
)
POSITIVE: Rule = lambda value: _is_number(value) and value > 0, "a finite number above 0"
NOT_NEGATIVE: Rule = lambda value: _is_number(value) and value >= 0, "a finite number, 0 or more"
SHARE: Rule = lambda value: _is_number(value) and 0 <= value <= 1, "a number from 0 to 1"
TEXT: Rule = lambda value: isinstance(value, str), "text"


def one_of(choices: Sequence[str]) -> Rule:
    """The rule of an option with these values."""
    return lambda value: isinstance(value, str) and value in choices, f"one of {', '.join(choices)}"


def option(default: Any, rule: Rule, solver: str | None = None) -> Any:
    """A dataclass field with a default and the rule that its value must follow.

    One that only this `solver` reads must keep its default with any other.
    """
    return dataclasses.field(default=default, metadata={"rule": rule, "solver": solver})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What every method has.

    Attributes:
        iterations: optimisation steps at most.
        threshold: success is |prediction - target| at most this, in the regressor's unit.
        remat: what a gradient recomputes to save memory: "none" (no convolution, product or
            attention), each denoising "step", or within it each "block" of the network.
        precision: of the generator, "float32" or "bfloat16"; parameters, norms, softmax, the
            network's output and everything outside of it are float32 in both.

    Raises:
        OptionError: a value is out of its range, or is set for a solver that is not chosen.
    """

    name: ClassVar[str]
    generator_kind: ClassVar[str]
    refiner_kind: ClassVar[str | None] = None  # of the second generator, where there is one

    iterations: int = option(100, COUNT)
    threshold: float = option(0.05, NOT_NEGATIVE)
    remat: str = option("none", one_of(("none", "step", "block")))
    precision: str = option("float32", one_of(tuple(_PRECISIONS)))

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            fits, what = field.metadata["rule"]
            if not fits(value):
                raise OptionError(f"{field.name}={value!r} must be {what}.")
        for field in dataclasses.fields(self):
            value, solver = getattr(self, field.name), field.metadata["solver"]
            if solver and solver != self.solver and value != field.default:
                raise OptionError(
                    f"{field.name}={value!r} has no effect with solver={self.solver}: leave it at "
                    f"{field.default!r}, or set solver={solver}."
                )

    def bind(
        self, generator: Network, regressor: Regressor, held: Regressor | None = None
    ) -> Method:
        """Return the method's three functions for these networks; see `types.Method`.

        Raises:
            UserError: the generator does not fit, or the method cannot hold numbers.
        """
        raise NotImplementedError

    def _check_kind(self, network: Network, role: str = "generator") -> None:
        """Refuses a generator, or a refiner, of another kind than the method's."""
        kind = getattr(self, f"{role}_kind")
        if network.kind != kind:
            raise UserError(
                f"The method {self.name} needs a {role} of kind {kind}, "
                f"but this one is a {network.kind}."
            )

    def _module(self, generator: Network) -> Any:
        """The module of a generator with these options."""
        dtype = _PRECISIONS[self.precision]
        return generator.module.clone(dtype=dtype, remat=self.remat == "block")

    def _process(self, generator: Network, option: str, respacing: str) -> Diffusion:
        """The generator's process, respaced as the option says."""
        try:
            return make_diffusion(**generator.description["diffusion"], respacing=respacing)
        except UserError as error:
            raise OptionError(f"{option}={getattr(self, option)!r}: {error}") from None
