"""AC-RE: F_tau with its gradient, the PGD, the refinement and the whole filter.

The originals work on batches: their loss is the mean over a batch, and their PGD freezes images by
a mask. Both are put together here from the package's functions of one image.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffcf_jax.counterfactual.ac_re import ACRE, ACREMethod
from diffcf_jax.counterfactual.refinement import change_mask, dilate, refine
from diffcf_jax.counterfactual.signed_steps import pgd_update
from diffcf_jax.counterfactual.types import Query
from diffcf_jax.diffusion.sampler import bind, noise_and_denoise, p_sample
from diffcf_jax.diffusion.schedule import q_sample

from .diffusion import original_diffusion
from .golden import FLOAT32_ERROR, Golden, loss_error, prediction_error
from .networks import load_original, load_regressor

Array = jax.Array

# Signs of gradients that are rounding errors: a few pixels of a float32 trajectory may move apart.
FLIPPED = 0.002


class Original:
    """The parts of the original's attack, compiled for a batch.

    Args:
        golden: a folder of kind AC-RE.
    """

    def __init__(self, golden: Golden):
        config = golden.config
        unet = load_original(golden, config["unet"], "ddpm", config["unet_flags"])
        regressor = load_regressor(golden, config["regressor"])
        self.tau = config["tau"]
        self.step_size = config["step"]
        self.eps = config.get("eps", 1.0)
        self.diffusion = original_diffusion(config["unet_flags"])
        self._params = {"generator": unet.variables, "regressor": regressor.variables}
        self._unet, self._regressor = unet.module.apply, regressor.module.apply
        self._method = ACREMethod(ACRE(tau=self.tau), self.diffusion, self._unet, self._regressor)

    def read(self, images: Array) -> Array:
        """The regressor's predictions [B, 1]."""
        return self._jitted_read(self._params, images)[:, None]

    def attack(self, x: Array, targets: Array, noises: Array) -> tuple[Array, Array, Array]:
        """Mean squared error over the batch, predictions [B, 1], gradient [B, H, W, C]."""
        return self._jitted_attack(self._params, x, targets[:, 0], noises)

    def denoise(self, x: Array, noises: Array) -> Array:
        """F_tau(x) in [0, 1], unclipped."""
        return self._jitted_denoise(self._params, x, noises)

    def states(self, x: Array, noises: Array) -> Array:
        """What the network sees in F_tau(x): [tau, B, H, W, C] in [-1, 1], from t = tau - 1 on."""
        x_t = q_sample(self.diffusion, 2 * x - 1, self.tau - 1, noises[0])
        states = [x_t]
        for t in range(self.tau - 1, 0, -1):
            x_t = self._jitted_step(self._params, x_t, t, noises[-t])
            states.append(x_t)
        return jnp.stack(states)

    def refine(self, x: Array, pe: Array, keep: Array, noises: Array) -> Array:
        """Refines x_adv where `keep` [B, H, W, 1] is 0, with noises [2 tau, B, H, W, C]."""
        return self._jitted_refine(self._params, x, pe, keep, noises)

    @functools.cached_property
    def _jitted_read(self) -> Any:
        return jax.jit(lambda params, images: self._regressor(params["regressor"], images))

    @functools.cached_property
    def _jitted_attack(self) -> Any:
        def attack(params: Any, x: Array, targets: Array, noises: Array) -> Any:
            nothing = jnp.zeros_like(x[..., :1])
            losses, y, gradients = jax.vmap(
                self._method.attack_gradient, (None, 0, 0, 1, 0)
            )(params, x, jax.vmap(Query.of)(x, targets), noises, nothing)  # fmt: skip
            return losses.mean(), y[:, None], gradients / len(x)

        return jax.jit(attack)

    @functools.cached_property
    def _jitted_denoise(self) -> Any:
        def denoise(params: Any, x: Array, noises: Array) -> Any:
            model = bind(self._unet, params["generator"])
            return noise_and_denoise(self.diffusion, model, 2 * x - 1, noises) / 2 + 0.5

        return jax.jit(denoise)

    @functools.cached_property
    def _jitted_step(self) -> Any:
        def step(params: Any, x_t: Array, t: Array, noise: Array) -> Array:
            output = bind(self._unet, params["generator"])(x_t, self.diffusion.model_t(t))
            return p_sample(self.diffusion, output, x_t, t, noise)

        return jax.jit(step)

    @functools.cached_property
    def _jitted_refine(self) -> Any:
        def one(params: Any, x: Array, pe: Array, keep: Array, noises: Array) -> Array:
            model = bind(self._unet, params["generator"])
            return refine(self.diffusion, model, x, pe, keep, noises)

        return jax.jit(jax.vmap(one, (None, 0, 0, 0, 1)))


def check(golden: Golden) -> None:
    """Compares a folder of kind `AC-RE`."""
    original = Original(golden)
    x = golden.images("x")
    _check_denoising(golden, original, x)
    x_final = _check_pgd(golden, original, x)
    noises = [golden.images(f"refine_noise_{part}") for part in ("init", "orig", "step")]
    noises = jnp.concatenate([noises[0][None], *noises[1:]])
    for case in golden.config["refine_cases"]:
        _check_refinement(golden, original, x, noises, case)
    full = golden.config.get("full")
    if full is not None:
        _check_full(golden, original, x, x_final, noises, full)


def _check_denoising(golden: Golden, original: Original, x: Array) -> None:
    noises, targets = golden.images("ftau_noises"), golden.real("ftau_target")
    image = original.denoise(x, noises)
    golden.compare_images("ftau_xt", original.states(x, noises), f32=1e-6)
    indices = np.arange(original.tau)[::-1, None].repeat(len(x), 1)
    golden.compare("ftau_t", indices)
    golden.compare_images("ftau_image", image, f32=1e-6)
    golden.compare_images("ftau_mean_last", 2 * image - 1, f32=2e-6)
    _compare_attack(golden, "ftau", targets, original.attack(x, targets, noises))

    # The same without noise
    nothing = jnp.zeros_like(noises)
    golden.compare_images("ftau_det_image", original.denoise(x, nothing), f32=1e-6)
    _compare_attack(golden, "ftau_det", targets, original.attack(x, targets, nothing))

    golden.compare_images("initial_reconstruction", image, f32=1e-6)
    y = original.read(x)
    golden.compare("initial_y", y, f32=prediction_error(y))


def _compare_attack(
    golden: Golden, key: str, targets: Array, result: tuple[Array, Array, Array]
) -> None:
    loss, y, gradient = result
    golden.compare(f"{key}_y", y, f32=prediction_error(y))
    golden.compare(f"{key}_loss", loss, f32=loss_error(y, targets))
    golden.compare_images(f"{key}_grad", gradient, f32=_gradient_error(gradient, y, targets))


def _gradient_error(gradient: Array, y: Array, targets: Array) -> float:
    """1e-6 of each image's largest gradient, and what y's error does to the factor y - target."""
    y, targets = np.asarray(y), np.asarray(targets)
    largest = np.abs(np.asarray(gradient)).max((-3, -2, -1))
    miss = np.abs(y - targets)[..., 0]
    return float(np.max(largest * (FLOAT32_ERROR + prediction_error(y) / miss)))


def _check_pgd(golden: Golden, original: Original, x: Array) -> Array:
    """Compares the PGD iteration by iteration and as a whole; returns its last image."""
    if not golden.x64:
        _check_iterations(golden, original, x)
    noises, targets = golden.images("pgd_noises"), golden.real("pgd_targets")
    threshold = np.float32(golden.config["confidence_threshold"])
    x_adv, mask = x, np.ones(len(x), np.int32)
    steps = np.zeros(len(x), np.int64)
    images, masks, y_hat, gradients = [], [], [], []
    for i in range(golden.config["nb_iter"]):
        images.append(x_adv)
        masks.append(mask)
        _, y, gradient = original.attack(x_adv, targets, noises[i])
        x_adv = _update(original, x, x_adv, gradient, mask)
        # The prediction before the update decides; who has passed is frozen for good.
        hit = np.abs(np.asarray(y - targets))[:, 0] <= threshold
        mask = np.where(hit, 0, mask).astype(np.int32)
        steps = np.where(mask == 1, i, steps)
        y_hat.append(np.asarray(y))
        gradients.append(gradient)
        if not mask.any():
            break
    y_hat, gradients = np.stack(y_hat), jnp.stack(gradients)
    y_error, flipped = prediction_error(y_hat), {"allow": FLIPPED, "note": " (trajectory)"}
    golden.compare("pgd_mask_before", np.stack(masks), note=" (trajectory)")
    golden.compare("pgd_successes", mask == 0, note=" (trajectory)")
    golden.compare("pgd_steps", steps, note=" (trajectory)")
    golden.compare("pgd_y_hat", y_hat, f32=y_error, note=" (trajectory)")
    golden.compare("pgd_confidences", np.abs(y_hat - targets), f32=y_error, note=" (trajectory)")
    error = _gradient_error(gradients, y_hat, targets)
    golden.compare_images("pgd_grads", gradients, f32=error, **flipped)
    golden.compare_images("pgd_x_adv", jnp.stack(images), **flipped)
    golden.compare_images("pgd_x_final", x_adv, **flipped)
    golden.compare("full_successes", mask == 0)
    golden.compare("full_steps", steps)
    return x_adv


def _check_iterations(golden: Golden, original: Original, x: Array) -> None:
    """Compares each iteration from its recorded image, so that no error is handed on."""
    noises, targets = golden.images("pgd_noises"), golden.real("pgd_targets")
    given, masks = golden.images("pgd_x_adv"), golden.array("pgd_mask_before")
    results = [original.attack(given[i], targets, noises[i]) for i in range(len(given))]
    y_hat = jnp.stack([y for _, y, _ in results])
    gradients = jnp.stack([gradient for _, _, gradient in results])
    golden.compare("pgd_y_hat", y_hat, f32=prediction_error(y_hat))
    error = _gradient_error(gradients, y_hat, targets)
    golden.compare_images("pgd_grads", gradients, f32=error)
    recorded = golden.images("pgd_grads")
    moved = [_update(original, x, given[i], recorded[i], masks[i]) for i in range(len(given))]
    golden.compare_images("pgd_x_adv", jnp.stack([x, *moved[:-1]]))
    golden.compare_images("pgd_x_final", moved[-1])


def _update(original: Original, x: Array, x_adv: Array, gradient: Array, mask: Any) -> Array:
    """One PGD step of the images whose mask is 1, within the ball around x."""
    gradient = gradient * jnp.asarray(mask, x.dtype)[:, None, None, None]
    x_adv = pgd_update(x_adv, gradient, original.step_size)
    return jnp.clip(x_adv, x - original.eps, x + original.eps)


def _check_refinement(
    golden: Golden, original: Original, x: Array, noises: Array, case: dict[str, Any]
) -> None:
    key, pe = case["key"], golden.images("refine_pe")
    mask, dilated, keep = masks_of(x, pe, case["dilation"], case["inpaint"])
    _compare_masks(golden, key, x, pe, mask, dilated)
    golden.compare_images(f"{key}_boolmask", keep.astype(jnp.uint8))
    if not case["stochastic"]:
        noises = jnp.zeros_like(noises)
    golden.compare_images(f"{key}_ce", original.refine(x, pe, keep, noises), f32=1e-6)
    noised = q_sample(original.diffusion, 2 * pe - 1, original.tau - 1, noises[0])
    golden.compare_images(f"{key}_noise_x", jnp.clip(noised / 2 + 0.5, 0, 1))


def _check_full(
    golden: Golden,
    original: Original,
    x: Array,
    x_final: Array,
    noises: Array,
    case: dict[str, Any],
) -> None:
    """PGD and refinement in one; in float32 from the recorded PGD, whose mask is a threshold."""
    pe = x_final if golden.x64 else golden.images("pgd_x_final")
    mask, dilated, keep = masks_of(x, pe, case["dilation"], case["inpaint"])
    _compare_masks(golden, "full", x, pe, mask, dilated)
    ce = original.refine(x, pe, keep, noises)
    golden.compare_images("full_ce", ce, f32=1e-6)
    y_final = original.read(ce)
    golden.compare("full_y_final", y_final, f32=prediction_error(y_final))


def _compare_masks(
    golden: Golden, key: str, x: Array, pe: Array, mask: Array, dilated: Array
) -> None:
    """A pixel's float32 rounding, seen on the scale of the largest change."""
    largest = jnp.abs(x - pe).sum(-1).max((1, 2))
    error = max(FLOAT32_ERROR, 2e-7 / float(largest.min()))
    golden.compare_images(f"{key}_mask", mask, f32=error)
    golden.compare_images(f"{key}_dil_mask", dilated, f32=error)


def masks_of(x: Array, pe: Array, dilation: int, inpaint: float) -> tuple[Array, Array, Array]:
    """The change, dilated, and 1 where the original is kept, of a batch [B, H, W, C].

    The package keeps an image whole that did not change. The originals divide 0 by 0 there, and a
    NaN keeps nothing.
    """
    mask = jax.vmap(change_mask)(x, pe)
    unchanged = (x == pe).all((1, 2, 3), keepdims=True)
    mask = jnp.where(unchanged, jnp.nan, mask)
    dilated = jax.vmap(lambda m: dilate(m, dilation))(mask)
    return mask, dilated, (dilated < inpaint).astype(x.dtype)
