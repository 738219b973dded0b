"""The latent DPM of Diff-AE: predicts noise in normalised semantic codes."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Real

from diffcf_jax.models.layers import timestep_embedding, uniform_fan_in

Codes = Float[Array, "b c"]

he_normal = nn.initializers.variance_scaling(2.0, "fan_in", "normal")


class ConditionedLayer(nn.Module):
    """silu(norm(linear(x) * (1 + linear(silu(cond)))))."""

    features: int
    use_norm: bool = True
    dtype: Any = None

    @nn.compact
    def __call__(
        self, x: Float[Array, "b c"], cond: Float[Array, "b d"]
    ) -> Float[Array, "b {self.features}"]:
        """Apply the layer to x with the embedded timestep cond."""
        h = nn.Dense(self.features, dtype=self.dtype, kernel_init=he_normal, name="linear")(x)
        scale = nn.Dense(self.features, dtype=self.dtype, kernel_init=he_normal, name="linear_emb")
        h = h * (1 + scale(nn.silu(cond)))
        if self.use_norm:
            h = nn.LayerNorm(epsilon=1e-5, dtype=self.dtype, name="norm")(h)
        return nn.silu(h)


class LatentDPM(nn.Module):
    """The MLP with skip connections of Preechakul et al. 2022 (arXiv:2111.15640, appendix A).

    Attributes:
        channels: size of z_sem.
        hidden: width of the hidden layers.
        layers: number of layers, the last one linear.
        skip_layers: layers whose input has z_t appended.
        time_channels: size of the sinusoidal embedding of t.
        use_norm: layer norm in every layer but the last.
        dtype: compute type (None: that of input and parameters).
    """

    channels: int = 512
    hidden: int = 2048
    layers: int = 10
    skip_layers: Sequence[int] = tuple(range(1, 10))
    time_channels: int = 64
    use_norm: bool = True
    dtype: Any = None

    def setup(self) -> None:
        """Make the layers and the statistics of z_sem."""
        self.z_mean = self.variable("stats", "z_mean", jnp.zeros, (self.channels,))
        self.z_std = self.variable("stats", "z_std", jnp.ones, (self.channels,))
        dense = {"dtype": self.dtype, "kernel_init": uniform_fan_in}
        self.time_embed_0 = nn.Dense(self.channels, **dense)
        self.time_embed_2 = nn.Dense(self.channels, **dense)
        self.hidden_layers = [
            ConditionedLayer(self.hidden, self.use_norm, self.dtype, name=f"layers_{i}")
            for i in range(self.layers - 1)
        ]
        self.last_layer = nn.Dense(self.channels, **dense, name=f"layers_{self.layers - 1}_linear")

    def __call__(self, z_t: Codes, t: Real[Array, " b"]) -> Codes:
        """Predict the noise in z_t.

        Args:
            z_t: noised, normalised codes.
            t: timesteps of the original process.
        """
        t = t.astype(jnp.promote_types(z_t.dtype, jnp.float32))
        cond = timestep_embedding(t, self.time_channels)
        cond = self.time_embed_2(nn.silu(self.time_embed_0(cond)))
        h = z_t
        for i, layer in enumerate(self.hidden_layers):
            if i in self.skip_layers:
                h = jnp.concatenate([h, z_t], axis=-1)
            h = layer(h, cond)
        if self.layers - 1 in self.skip_layers:
            h = jnp.concatenate([h, z_t], axis=-1)
        return self.last_layer(h)

    def normalize(self, z_sem: Codes) -> Codes:
        """Return (z_sem - mean) / std, what the DPM is trained on."""
        return (z_sem - self.z_mean.value) / self.z_std.value

    def denormalize(self, z: Codes) -> Codes:
        """Undo `normalize`."""
        return z * self.z_std.value + self.z_mean.value
