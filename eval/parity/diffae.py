"""The Diff-AE: conditional UNet, semantic encoder, inversion, decoding."""

import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from diffcf_jax.counterfactual.losses import DISTANCES
from diffcf_jax.diffusion import sampler
from diffcf_jax.diffusion.schedule import make_diffusion
from diffcf_jax.models.diffae import DiffAE

from .golden import Golden
from .networks import compare_frequencies, load_original, load_regressor

Array = jax.Array


class Distance(NamedTuple):
    """A distance term of the loss.

    Attributes:
        norm: "l1", "l2" or None.
        space: "latent" or "pixel".
        factor: its weight.
    """

    norm: str | None = None
    space: str = "latent"
    factor: float = 0.0


class Loss(NamedTuple):
    """The original's loss of a batch, and what it saw.

    Attributes:
        value: with the distance.
        distance: times its factor.
        y: predictions [B, 1].
        images: decoded, in [0, 1] [B, H, W, C].
        gradient: in z [B, D].
    """

    value: Array
    distance: Array
    y: Array
    images: Array
    gradient: Array


class Original:
    """The original's generator and loss, compiled for a batch.

    Args:
        golden: a folder of kind `Diff-AE BeatGANsAutoencModel`.
    """

    def __init__(self, golden: Golden):
        config = golden.config
        network = load_original(golden, "weights.npz", "diffae", config["over"])
        regressor = load_regressor(golden, config["regressor"])
        self._module, self._regressor = network.module, regressor.module
        self._params = {"generator": network.variables, "regressor": regressor.variables}
        schedule = config["over"].get("beta_scheduler", "linear")
        self._process = functools.partial(make_diffusion, config["T_train"], schedule)
        self.decoding = self._process(f"ddim{config['T_render']}")

    def unet(self, x: Array, t: Array, cond: Array, cotangent: Array) -> tuple[Array, ...]:
        """The conditional UNet's output and its gradients in x and cond."""

        @jax.jit
        def run(params: Any, x: Array, cond: Array) -> tuple[Array, ...]:
            out, vjp = jax.vjp(lambda x, cond: self._predict(params, x, t, cond), x, cond)
            return out, *vjp(cotangent)

        return run(self._params, x, cond)

    def encode(self, x: Array) -> Array:
        """z_sem of images in [-1, 1]."""
        apply = functools.partial(self._module.apply, method=DiffAE.encode)
        return jax.jit(apply)(self._params["generator"], x)

    def invert(self, x: Array, z: Array, steps: int) -> Array:
        """x_T of images in [-1, 1] after this many steps."""
        process = self._process(f"ddim{steps}")

        @jax.jit
        def run(params: Any, x: Array, z: Array) -> Array:
            return sampler.invert(process, self._model(params, z), x)

        return run(self._params, x, z)

    def decode(self, z: Array, x_T: Array) -> Array:
        """The images in [0, 1], but for their last bits."""
        return self._jitted_decode(self._params, z, x_T)

    @functools.cached_property
    def _jitted_decode(self) -> Callable[..., Array]:
        return jax.jit(self._image)

    def states(self, z: Array, x_T: Array) -> Array:
        """The images in [-1, 1] after each decoding step."""

        @jax.jit
        def step(params: Any, z: Array, x_t: Array, t: Array) -> Array:
            eps = self._model(params, z)(x_t, self.decoding.model_t(t))
            return sampler.ddim_step(self.decoding, eps, x_t, t)

        states = [x_T]
        for t in reversed(range(self.decoding.num_timesteps)):
            states.append(step(self._params, z, states[-1], t))
        return jnp.stack(states[1:])

    def loss(
        self, z: Array, z_0: Array, x: Array, x_T: Array, targets: Array, distance: Distance
    ) -> Loss:
        """`mean (y^ - target)^2 + factor |z - z_0|_p`, one norm over the whole batch.

        Args:
            z: codes [B, D].
            z_0: codes of the inputs.
            x: inputs in [0, 1], for `|x - x'|_p`.
            x_T: stochastic codes.
            targets: [B, 1].
            distance: the term.
        """
        return next(self.losses(z, z_0, x, x_T, targets, [distance]))

    def losses(
        self,
        z: Array,
        z_0: Array,
        x: Array,
        x_T: Array,
        targets: Array,
        distances: Iterable[Distance],
    ) -> Iterator[Loss]:
        """The losses with several distances, of one decoding."""
        images, pullback = self._jitted_decode_vjp(self._params, z, x_T)
        # Clipped, with the identity as gradient: the pullback is that of the unclipped images.
        images = jnp.clip(images, 0, 1)
        (mse, y), of_images = self._jitted_mse(self._params, images, targets)
        for norm, space, factor in distances:
            distance, of_difference = jnp.zeros((), z.dtype), 0.0
            if norm is not None:
                difference = z - z_0 if space == "latent" else images - x
                distance, of_difference = jax.value_and_grad(DISTANCES[norm])(difference)
                distance, of_difference = factor * distance, factor * of_difference
            if space == "pixel":
                gradient = self._jitted_pull(pullback, of_images + of_difference)
            else:
                gradient = self._jitted_pull(pullback, of_images) + of_difference
            yield Loss(mse + distance, distance, y, images, gradient)

    @functools.cached_property
    def _jitted_decode_vjp(self) -> Callable[..., Any]:
        def run(params: Any, z: Array, x_T: Array) -> tuple[Array, Any]:
            return jax.vjp(lambda z: self._image(params, z, x_T), z)

        return jax.jit(run)

    @functools.cached_property
    def _jitted_pull(self) -> Callable[[Any, Array], Array]:
        return jax.jit(lambda pullback, of_images: pullback(of_images)[0])

    @functools.cached_property
    def _jitted_mse(self) -> Callable[..., Any]:
        def mse(images: Array, params: Any, targets: Array) -> tuple[Array, Array]:
            y = self._regressor.apply(params["regressor"], images)[:, None]
            return jnp.mean(jnp.square(y - targets)), y

        gradient = jax.value_and_grad(mse, has_aux=True)
        return jax.jit(lambda params, images, targets: gradient(images, params, targets))

    def _predict(self, params: Any, x_t: Array, t: Array, z: Array) -> Array:
        return self._module.apply(params["generator"], x_t, t, z, method=DiffAE.predict)

    def _model(self, params: Any, z: Array) -> sampler.Model:
        return sampler.bind(self._module.apply, params["generator"], z, method="predict")

    def _image(self, params: Any, z: Array, x_T: Array) -> Array:
        return sampler.decode(self.decoding, self._model(params, z), x_T) / 2 + 0.5


def check_networks(golden: Golden, original: Original) -> None:
    """Compares the conditional UNet and its gradients."""
    out, grad_x, grad_cond = original.unet(
        golden.images("unet_x"),
        jnp.asarray(golden.array("unet_t"), jnp.int32),
        golden.real("unet_cond"),
        golden.images("unet_cotangent"),
    )
    golden.compare_images("unet_out", out, f32=3e-6)
    golden.compare_images("unet_grad_x", grad_x, f32=2e-5)
    golden.compare("unet_grad_cond", grad_cond, f32=2e-5)
    compare_frequencies(golden, golden.config["over"]["net_ch"])


def check_autoencoder(golden: Golden, original: Original) -> tuple[Array, Array]:
    """Compares encoder, inversion and decoding; returns z_sem and x_T of the inputs."""
    x = golden.images("x")
    z = original.encode(x)
    golden.compare("z_sem", z)
    # Encoding runs T_eval steps, whatever the original was asked for.
    default = golden.config["T_eval"]
    x_T = original.invert(x, z, default)
    golden.compare_images("dae_encode_xT", x_T, f32=3e-5)
    for name in [name for name in golden.names() if name.startswith("xT_T")]:
        steps = int(name.removeprefix("xT_T").removesuffix("_f64"))
        inverted = x_T if steps == default else original.invert(x, z, steps)
        if name in golden.names():
            golden.compare_images(f"xT_T{steps}", inverted, f32=3e-5)
    golden.compare_images("render", original.decode(z, x_T), f32=4e-6)
    golden.compare_images("render_samples", original.states(z, x_T)[:, :1], f32=8e-6)
    from_noise = original.decode(z, golden.images("unet_x"))
    golden.compare_images("render_from_noise", from_noise, f32=4e-6)
    return z, x_T
