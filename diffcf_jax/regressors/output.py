"""How the numbers that a model computes become one prediction."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from diffcf_jax.errors import UserError
from diffcf_jax.regressors import options


@dataclasses.dataclass(frozen=True)
class Output:
    """From the outputs [B, ...] of a model to predictions [B].

    With z the outputs of one image,

        y = g(mean + scale h(z)),

    h(z) = z[column], or sum_k values[k] p[k] with probabilities p (`expectation`), or
    sum_k sigmoid(z[k]) (`ordinal`), and g the identity or exp.

    Attributes:
        name: of the model's output; None: its only one.
        column: which of several numbers; counted from 0.
        expectation: the value of each bin of a classifier over bins.
        softmax: whether z are logits, of which p is the softmax; None: as the model shows.
        ordinal: z are logits of "y is larger than k".
        mean: of the labels that the model was trained on, if these were standardised.
        scale: the same.
        exp: the model predicts the logarithm.
        hold: other columns that the method is to keep as they are in the input.
        report: other columns whose values are written into the results.
    """

    name: str | None = None
    column: int | None = None
    expectation: tuple[float, ...] | None = None
    softmax: bool | None = None
    ordinal: bool = False
    mean: float = 0.0
    scale: float = 1.0
    exp: bool = False
    hold: tuple[int, ...] = ()
    report: tuple[int, ...] = ()

    def __post_init__(self):
        ways = [self.column is not None, self.expectation is not None, self.ordinal]
        if sum(ways) > 1:
            raise UserError(
                "output has more than one of column, expectation and ordinal: give one."
            )
        if self.softmax is not None and self.expectation is None:
            raise UserError("output has softmax without expectation: give expectation=0..80.")
        if (self.hold or self.report) and self.column is None:
            raise UserError("output has hold or report without column: give column=N.")
        if self.scale == 0:
            raise UserError("output has scale=0: give the spread of the labels.")

    def check(self, shape: tuple[int, ...], what: str) -> None:
        """Refuse outputs [B, ...] of which this makes no prediction.

        Raises:
            UserError: they have too many columns or none.
        """
        count = int(np.prod(shape[1:], dtype=np.int64))
        if self.expectation is not None and len(self.expectation) != count:
            raise UserError(
                f"{what} has {count} outputs per image, but expectation has "
                f"{len(self.expectation)} values: give one for each, such as "
                f"expectation=0..{count - 1}."
            )
        columns = () if self.column is None else (self.column, *self.hold, *self.report)
        for column in columns:
            if not -count <= column < count:
                raise UserError(
                    f"{what} has {count} outputs per image and no column {column}: give a column "
                    f"from 0 to {count - 1}."
                )
        if len({column % count for column in columns}) < len(columns):
            raise UserError("output has a column twice in column, hold and report: give it once.")
        if self.column is None and self.expectation is None and not self.ordinal and count != 1:
            raise UserError(
                f"{what} has {count} outputs per image: give column=N, ordinal=true, or, for a "
                f"classifier over bins, expectation=0..{count - 1} in output."
            )

    def __call__(self, z: jax.Array) -> jax.Array:
        """Return predictions [B] of outputs [B, ...], float32."""
        z = z.reshape(z.shape[0], -1).astype(jnp.float32)
        if self.expectation is not None:
            p = jax.nn.softmax(z) if self.softmax else z
            values = jnp.asarray(self.expectation, jnp.float32)
            y = jnp.matmul(p, values, precision=jax.lax.Precision.HIGHEST)
        elif self.ordinal:
            y = jax.nn.sigmoid(z).sum(-1)
        else:
            y = z[:, self.column or 0]
        if self.mean or self.scale != 1:
            y = self.mean + self.scale * y
        return jnp.exp(y) if self.exp else y

    def others(self, z: jax.Array) -> jax.Array:
        """Return the columns to hold and to report [B, K] of outputs [B, ...], float32."""
        z = z.reshape(z.shape[0], -1).astype(jnp.float32)
        return z[:, np.asarray(self.hold + self.report, np.int64)]

    def __str__(self) -> str:
        default = Output()
        return options.as_text(
            {
                field.name: value
                for field in dataclasses.fields(self)
                if (value := getattr(self, field.name)) != getattr(default, field.name)
            }
        )


_READERS = {
    "name": options.word, "column": options.whole, "expectation": options.numbers,
    "softmax": options.yes_or_no, "ordinal": options.yes_or_no, "mean": options.number,
    "scale": options.number, "exp": options.yes_or_no,
    "hold": options.wholes, "report": options.wholes,
}  # fmt: skip


def parse_output(text: str) -> Output:
    """Read `expectation=0..80`, `column=2`, `name=age mean=40 scale=20` and the like.

    Raises:
        UserError: a key or value is none.
    """
    return Output(**options.parse_options(text, "output", _READERS))
