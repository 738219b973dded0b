"""The PyTorch originals' side, imported from the user's clone of the paper's repository.

Left out of a whole run, to the originals' advantage: AC-RE's reconstruction and refinement.
"""

import copy
import sys
import time
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from diffcf_jax.errors import UserError

from .job import read_job, serve


def prepare(
    folder: Path,
) -> tuple[Callable[[], None], Callable[[], tuple[float, float, int]] | None]:
    """Builds the original networks; returns one iteration of a batch and a whole run, if any."""
    import torch

    job, images, targets = read_job(folder)
    torch.set_num_threads(job["threads"])
    root = Path(job["originals"])
    _stand_in()
    part = "ACE" if job["network"]["kind"] == "ddpm" else "diffae"
    sys.path[:0] = [str(root / "related_work" / part), str(root)]
    images = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
    if job["method"] is None:
        return _update(job, 2 * images - 1), None
    targets = torch.from_numpy(targets)[:, None]
    regressor = _regressor(folder, images.shape[-1])
    build = _ac_re if part == "ACE" else _diffae_re
    attack = build(folder, job, regressor)  # (images, targets, iterations, threshold)
    batch, options = job["batch"], job["method"]
    iterate = attack(images[:batch], targets[:batch], 1, -1.0)

    def explain() -> tuple[float, float, int]:
        start = time.monotonic()
        for i in range(0, job["images"], batch):
            rows = slice(i, min(i + batch, job["images"]))
            attack(images[rows], targets[rows], options["iterations"], options["threshold"])()
        return time.monotonic() - start, 0.0, job["images"]

    return iterate, explain


def _update(job: Mapping[str, Any], images: Any) -> Callable[[], None]:
    """One update of a training: loss, gradient, Adam, exponential moving average."""
    import torch
    import torch.nn.functional as F

    network = job["network"]
    model = network["model"]
    patch = model.get("unet", model)["patch_size"]
    images = F.pixel_unshuffle(images, patch)
    if network["kind"] == "ddpm":
        model, process = _adm(network, patch), _adm_process(network)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.0)

        def terms(t: Any) -> Mapping[str, Any]:
            return process.training_losses(model, images, t)

    else:
        model, process = _autoencoder(network, patch), _autoencoder_process(network)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)

        def terms(t: Any) -> Mapping[str, Any]:
            return process.training_losses(model=model, x_start=images, t=t)

    average = copy.deepcopy(model).requires_grad_(False)
    model.train()

    def update() -> None:
        optimizer.zero_grad()
        t = torch.randint(0, network["diffusion"]["steps"], images.shape[:1])
        terms(t)["loss"].mean().backward()
        optimizer.step()
        with torch.no_grad():
            for old, new in zip(average.parameters(), model.parameters(), strict=True):
                old.mul_(0.9999).add_(new, alpha=0.0001)

    return update


def _ac_re(folder: Path, job: Mapping[str, Any], regressor: Any) -> Callable:
    from core.attacks_and_models import JointClassifierDDPM, get_attack

    options = job["method"]
    diffusion = _adm_process(job["network"], str(options["respacing"]))
    model = _adm(job["network"])
    model.load_state_dict(_weights(folder, "generator"))
    joint = JointClassifierDDPM(
        classifier=regressor, ddpm=model.eval(), diffusion=diffusion, steps=options["tau"],
        stochastic=True,
    ).eval()  # fmt: skip
    pgd = get_attack("PGD", False, False)

    def attack(images: Any, targets: Any, iterations: int, threshold: float) -> Callable:
        made = pgd(
            predict=joint, predictor=regressor, loss_fn="mse", dist_fn=None, eps=1.0,
            step=options["step_size"], nb_iter=iterations, confidence_threshold=threshold,
            steps_dir="",
        )  # fmt: skip
        return lambda: made.perturb(images, targets)

    return attack


def _diffae_re(folder: Path, job: Mapping[str, Any], regressor: Any) -> Callable:
    import torch
    from diff_cf_ir.diffeocf import DiffeoCF

    options = job["method"]
    network = _autoencoder(job["network"])
    weights = _weights(folder, "generator")
    network.load_state_dict({k.removeprefix("ema_model."): v for k, v in weights.items()})
    network.eval().requires_grad_(False)

    inversion, decoding = (
        _autoencoder_process(job["network"], f"ddim{options[key]}", grads)
        for key, grads in (("inversion_steps", False), ("decode_steps", True))
    )

    class Autoencoder:
        """The interface that the original loop asks of its generator."""

        @torch.no_grad()
        def encode(self, x: Any) -> tuple[Any, Any]:
            z = network.encoder.forward(x)
            found = inversion.ddim_reverse_sample_loop(network, x, model_kwargs={"cond": z})
            return z, found["sample"]

        def decode(self, z: Any, x_T: Any) -> Any:
            image = decoding.sample(model=network, noise=x_T, model_kwargs={"cond": z})
            return (image + 1) / 2

    weight = options["distance_weight"]
    method = DiffeoCF(
        Autoencoder(), regressor, (3, network.conf.image_size, network.conf.image_size), "",
        dist=options["distance"] if weight else None, dist_type=options["distance_space"],
        dist_factor=weight,
    )  # fmt: skip

    def attack(images: Any, targets: Any, iterations: int, threshold: float) -> Callable:
        names = [str(i) for i in range(len(images))]
        if threshold >= 0:
            return lambda: method.adv_attack_dae_batch(
                2 * images - 1, targets, targets, names, threshold, iterations,
                options["learning_rate"],
            )  # fmt: skip
        z = network.encoder.forward(2 * images - 1)
        x_T = torch.randn_like(images)
        return lambda: method._run_adv_attack_dae_batch(
            images, z.clone(), x_T, targets, targets, threshold, options["learning_rate"],
            iterations, images, z,
        )  # fmt: skip

    return attack


def _adm(network: Mapping[str, Any], patch: int = 1) -> Any:
    """ADM's UNet; with a patch size that of images whose patches are folded into channels."""
    from guided_diffusion.unet import UNetModel

    model = network["model"]
    return UNetModel(
        image_size=network["image_size"] // patch,
        in_channels=3 * patch**2,
        model_channels=model["channels"],
        out_channels=model["out_channels"] * patch**2,
        num_res_blocks=model["num_res_blocks"],
        attention_resolutions=tuple(model["attention_downsampling"]),
        dropout=model["dropout"],
        channel_mult=tuple(model["channel_mult"]),
        conv_resample=model["conv_resample"],
        num_heads=model["num_heads"],
        num_head_channels=model["num_head_channels"] or -1,
        use_scale_shift_norm=model["scale_shift_norm"],
        resblock_updown=model["resblock_updown"],
        use_new_attention_order=model["qkv_before_heads"],
    )


def _adm_process(network: Mapping[str, Any], respacing: str = "") -> Any:
    from guided_diffusion.script_util import create_gaussian_diffusion

    process = network["diffusion"]
    return create_gaussian_diffusion(
        steps=process["steps"],
        learn_sigma=process["variance"] == "learned_range",
        noise_schedule=process["schedule"],
        predict_xstart=process["predict"] == "x_start",
        rescale_timesteps=process["rescale_timesteps"],
        timestep_respacing=respacing,
    )


def _autoencoder(network: Mapping[str, Any], patch: int = 1) -> Any:
    """Diff-AE's encoder and UNet; the patch size as in `_adm`."""
    from model.unet_autoenc import BeatGANsAutoencConfig

    unet, encoder = network["model"]["unet"], network["model"]["encoder"]
    size = network["image_size"] // patch

    def resolutions(model: Mapping[str, Any]) -> tuple[int, ...]:
        return tuple(size // factor for factor in model["attention_downsampling"])

    return BeatGANsAutoencConfig(
        attention_resolutions=resolutions(unet),
        channel_mult=tuple(unet["channel_mult"]),
        conv_resample=unet["conv_resample"],
        dims=2,
        dropout=unet["dropout"],
        embed_channels=unet["emb_channels"] or 4 * unet["channels"],
        enc_out_channels=encoder["z_channels"],
        enc_pool="adaptivenonzero",
        enc_num_res_block=encoder["num_res_blocks"],
        enc_channel_mult=tuple(encoder["channel_mult"]),
        enc_grad_checkpoint=False,
        enc_attn_resolutions=resolutions(encoder),
        image_size=size,
        in_channels=3 * patch**2,
        model_channels=unet["channels"],
        num_classes=None,
        num_head_channels=unet["num_head_channels"] or -1,
        num_heads_upsample=-1,
        num_heads=unet["num_heads"],
        num_res_blocks=unet["num_res_blocks"],
        num_input_res_blocks=None,
        out_channels=unet["out_channels"] * patch**2,
        resblock_updown=unet["resblock_updown"],
        use_checkpoint=False,
        use_new_attention_order=unet["qkv_before_heads"],
        resnet_two_cond=True,
        resnet_use_zero_module=True,
        latent_net_conf=None,
        resnet_cond_channels=encoder["z_channels"],
    ).make_model()


def _autoencoder_process(
    network: Mapping[str, Any], respacing: str = "", grads: bool = False
) -> Any:
    from choices import GenerativeType, LossType, ModelMeanType, ModelType, ModelVarType
    from diffusion.base import get_named_beta_schedule
    from diffusion.diffusion import SpacedDiffusionBeatGansConfig, space_timesteps

    length = network["diffusion"]["steps"]
    return SpacedDiffusionBeatGansConfig(
        gen_type=GenerativeType.ddim,
        model_type=ModelType.autoencoder,
        betas=get_named_beta_schedule(network["diffusion"]["schedule"], length),
        model_mean_type=ModelMeanType.eps,
        model_var_type=ModelVarType.fixed_large,
        loss_type=LossType.mse,
        rescale_timesteps=False,
        use_timesteps=space_timesteps(length, respacing or [length]),
        fp16=False,
    ).make_sampler(grads=grads)


def _regressor(folder: Path, size: int) -> Any:
    import torch
    import torchvision

    weights = _weights(folder, "regressor")
    if size == 64:
        network = torchvision.models.resnet18()
        network.conv1 = torch.nn.Conv2d(3, 64, 4, 1, 2, bias=False)
        network.fc = torch.nn.Linear(512, 1)
        _load(network, {k.removeprefix("model."): v for k, v in weights.items()})
        return network.eval()
    network = torchvision.models.densenet121()
    network.classifier = torch.nn.Linear(1024, 1)
    renamed = {
        k.replace("model.classifier.0.feat_extract.", "").replace(
            "model.classifier.1", "classifier"
        ): v
        for k, v in weights.items()
    }
    mu, sigma = renamed.pop("model.mu"), renamed.pop("model.sigma")
    _load(network, renamed)
    network.eval()
    return lambda x: network((x - mu) / sigma)


def _load(network: Any, weights: Mapping[str, Any]) -> None:
    missing, unexpected = network.load_state_dict(weights, strict=False)
    missing = [key for key in missing if not key.endswith("num_batches_tracked")]
    if missing or unexpected:
        raise UserError(f"The regressor's weights do not fit: {(missing + unexpected)[0]}.")


def _weights(folder: Path, role: str) -> dict[str, Any]:
    from safetensors.torch import load_file

    return load_file(folder / f"{role}.safetensors")


def _stand_in() -> None:
    """Stands in for those of the originals' modules that draw and write files.

    Their imports (pandas, seaborn and more) play no part in the computation.
    """
    import torch.nn.functional as F

    def module(name: str, **members: Any) -> None:
        made = types.ModuleType(name)
        made.__dict__.update(members)
        sys.modules[name] = made

    nothing = lambda *args, **kwargs: None  # noqa: E731
    module(
        "diff_cf_ir.metrics",
        get_regr_confidence=lambda y, y_hat: F.l1_loss(y, y_hat, reduction="none"),
    )
    module("diff_cf_ir.file_utils", save_img_threaded=nothing, save_image=nothing)
    module("diff_cf_ir.counterfactuals", CFResult=lambda **fields: types.SimpleNamespace(**fields))
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        module("matplotlib", use=nothing, rc=nothing)


if __name__ == "__main__":
    serve(prepare)
