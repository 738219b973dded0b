"""What a regressor from outside is: a model, what it takes, and what its numbers mean."""

import dataclasses
import hashlib
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffcf_jax.checkpoint.network import fingerprint
from diffcf_jax.errors import UserError
from diffcf_jax.regressors.output import Output
from diffcf_jax.regressors.preprocess import Preprocess
from diffcf_jax.units import Unit


@dataclasses.dataclass(frozen=True)
class Model:
    """A model as its file has it, before pre-processing and output are added.

    Attributes:
        source: what it was read from, for messages.
        apply: (variables, what the model takes [B, ...]) -> outputs [B, ...].
        variables: of the model, a tree of arrays.
        layout: "nchw" or "nhwc".
        size: (height, width) that the model takes; None: any.
        channels: 1 or 3; None: unknown.
        probabilities: whether the outputs end in a softmax; None: unknown.
        images: the model takes images [B, H, W, 3] in [0, 1] where nothing else is said.
        hints: "preprocess" and "output", as the file says them.
        digest: of what is not in `variables`.
        native: the library that the model is of, and the model there: what it takes, as numpy, to
            its outputs. None: unknown.
    """

    source: str
    apply: Callable[[Any, jax.Array], jax.Array]
    variables: Any
    layout: str = "nhwc"
    size: tuple[int, int] | None = None
    channels: int | None = None
    probabilities: bool | None = None
    images: bool = False
    hints: Mapping[str, str] = dataclasses.field(default_factory=dict)
    digest: str = ""
    native: tuple[str, Callable[[np.ndarray], np.ndarray]] | None = None


@dataclasses.dataclass(frozen=True, eq=False)  # compared by identity, as jit wants it
class Regressor:
    """A differentiable regressor with its pre-processing, its output and its unit.

    Attributes:
        model: what was read.
        preprocess: what is done to the images first.
        output: how the model's numbers become y.
        unit: of y, with the mean and spread that the methods normalise it by.
    """

    model: Model
    preprocess: Preprocess
    output: Output
    unit: Unit

    @property
    def source(self) -> str:
        """What it was read from."""
        return self.model.source

    @property
    def variables(self) -> Any:
        """The first argument of `apply`."""
        return self.model.variables

    def apply(self, variables: Any, images: jax.Array) -> jax.Array:
        """Return `(y - mean) / scale` of a label y in `unit`.

        It works under jit, vmap, grad, scan and remat.

        Args:
            variables: of the model.
            images: [B, H, W, 3] in [0, 1], of any size that the pre-processing takes.

        Returns:
            float32 [B].
        """
        z = self.model.apply(variables, self.preprocess(images))
        self.output.check(z.shape, self.source)
        return self.unit.normalise(self.output(z))

    def others(self, variables: Any, images: jax.Array) -> jax.Array:
        """Return the outputs that are held or reported [B, K], as the model has them."""
        z = self.model.apply(variables, self.preprocess(images))
        return self.output.others(z)

    def held(self, variables: Any, images: jax.Array) -> jax.Array:
        """Return the outputs that are held [B, K], the first ones of `others`."""
        return self.others(variables, images)[:, : len(self.output.hold)]

    def __call__(self, images: jax.Array) -> jax.Array:
        """Return predictions [B] in the unit of the labels."""
        return self.unit.denormalise(self.apply(self.variables, jnp.asarray(images)))

    def fingerprint(self) -> str:
        """Return a hash of the model, its pre-processing and its output."""
        parts = [
            fingerprint(self.variables),
            self.model.digest,
            str(self.preprocess),
            str(self.output),
        ]
        return hashlib.blake2b("\n".join(parts).encode(), digest_size=16).hexdigest()

    def check_size(self, size: int) -> None:
        """Refuse a generator's image size that the regressor does not take.

        Raises:
            UserError: it does not, or the model does not compute what it should.
        """
        images = jax.ShapeDtypeStruct((2, size, size, 3), jnp.float32)
        out = jax.eval_shape(self.apply, self.variables, images)
        if out.shape != (2,) or not jnp.issubdtype(out.dtype, jnp.floating):
            raise UserError(f"{self.source} returns {out} for two images; it must return floats.")

    def __repr__(self) -> str:
        count = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(self.variables))
        parts = [self.source, f"{count:,} parameters"]
        parts += [f"preprocess '{self.preprocess}'"] if str(self.preprocess) else []
        parts += [f"output '{self.output}'"] if str(self.output) else []
        parts += [f"in {self.unit.name}"] if self.unit.name else []
        return f"Regressor({', '.join(parts)})"


def assemble(model: Model, preprocess: Preprocess | None, output: Output, unit: Unit) -> Regressor:
    """Put a model, its pre-processing, its output and its unit together.

    Raises:
        UserError: they do not fit each other.
    """
    return Regressor(model, completed(model, preprocess), _decided(model, output), unit)


def completed(model: Model, preprocess: Preprocess | None) -> Preprocess:
    """Return the pre-processing with what only the model knows.

    Raises:
        UserError: there is none, or they do not fit each other.
    """
    if preprocess is None and not model.images:
        raise UserError(
            f"{model.source} does not say how images are prepared for it: give preprocess, such as "
            "imagenet, or 'range=255 mean=122.8,117,104.3 std=256', or none for RGB in [0, 1]."
        )
    preprocess = preprocess or Preprocess()
    layout = preprocess.layout or model.layout
    size, cut = preprocess.size, preprocess.crop
    if size is None and cut is None:
        size = model.size
    final = cut or size
    if model.size is not None and final is not None and final != model.size:
        raise UserError(
            f"{model.source} takes images of {model.size[0]}x{model.size[1]} pixels, but "
            f"preprocess makes them {final[0]}x{final[1]}: leave size out, or give the model's."
        )
    channels = 1 if preprocess.channels == "grey" else 3
    if model.channels not in (None, channels):
        raise UserError(
            f"{model.source} takes images of {model.channels} channels, but preprocess makes "
            f"{channels}: give channels=grey, rgb or bgr."
        )
    return dataclasses.replace(preprocess, layout=layout, size=size)


def _decided(model: Model, output: Output) -> Output:
    """The output with softmax true or false."""
    if output.expectation is None or output.softmax is not None:
        return output
    if not model.probabilities:
        raise UserError(
            f"{model.source} does not show whether its outputs are probabilities: add softmax=true "
            "(they are logits) or softmax=false (they sum to one) to output."
        )
    return dataclasses.replace(output, softmax=False)
