"""The PyTorch originals' side, imported from the user's clone of the paper's repository.

Left out of a whole run, to the originals' advantage: AC-RE's reconstruction and refinement.
"""

import shlex
import sys
import time
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from diffcf_jax.errors import UserError
from eval.speed.job import read_job, serve


def prepare(folder: Path) -> tuple[Callable[[], None], Callable[[], tuple[float, int]]]:
    """Builds the original networks; returns one iteration of a batch and a whole run."""
    import torch

    job, images, targets = read_job(folder)
    torch.set_num_threads(job["threads"])
    root = Path(job["originals"])
    _stand_in()
    part = "ACE" if job["method"]["name"] == "ac-re" else "diffae"
    sys.path[:0] = [str(root / "related_work" / part), str(root)]
    images = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
    targets = torch.from_numpy(targets)[:, None]
    regressor = _regressor(folder, images.shape[-1])
    build = _ac_re if part == "ACE" else _diffae_re
    attack = build(folder, job, regressor)  # (images, targets, iterations, threshold)
    batch, options = job["batch"], job["method"]
    iterate = attack(images[:batch], targets[:batch], 1, -1.0)

    def explain() -> tuple[float, int]:
        start = time.monotonic()
        for i in range(0, job["images"], batch):
            rows = slice(i, min(i + batch, job["images"]))
            attack(images[rows], targets[rows], options["iterations"], options["threshold"])()
        return time.monotonic() - start, job["images"]

    return iterate, explain


def _ac_re(folder: Path, job: Mapping[str, Any], regressor: Any) -> Callable:
    from core.attacks_and_models import JointClassifierDDPM, get_attack
    from guided_diffusion import script_util

    defaults = script_util.model_and_diffusion_defaults()
    flags = _flags(job["flags"]["generator"], defaults)
    options = job["method"]
    flags["timestep_respacing"] = str(options["respacing"])
    model, diffusion = script_util.create_model_and_diffusion(**(defaults | flags))
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
    from choices import GenerativeType, LossType, ModelMeanType, ModelType, ModelVarType
    from diff_cf_ir.diffeocf import DiffeoCF
    from diffusion.base import get_named_beta_schedule
    from diffusion.diffusion import SpacedDiffusionBeatGansConfig, space_timesteps
    from model.unet_autoenc import BeatGANsAutoencConfig

    options = job["method"]
    words = shlex.split(job["flags"]["generator"])
    flags = {key.removeprefix("--"): value for key, value in zip(words[::2], words[1::2])}  # noqa: B905

    def integers(key: str) -> tuple[int, ...]:
        return tuple(int(part) for part in flags[key].split(",") if part)

    network = BeatGANsAutoencConfig(
        attention_resolutions=integers("net_attn"),
        channel_mult=integers("net_ch_mult"),
        conv_resample=True,
        dims=2,
        dropout=0.1,
        embed_channels=int(flags["net_beatgans_embed_channels"]),
        enc_out_channels=int(flags["style_ch"]),
        enc_pool="adaptivenonzero",
        enc_num_res_block=int(flags["net_enc_num_res_blocks"]),
        enc_channel_mult=integers("net_enc_channel_mult"),
        enc_grad_checkpoint=False,
        enc_attn_resolutions=integers("net_enc_attn"),
        image_size=int(flags["img_size"]),
        in_channels=3,
        model_channels=int(flags["net_ch"]),
        num_classes=None,
        num_head_channels=-1,
        num_heads_upsample=-1,
        num_heads=int(flags["net_beatgans_attn_head"]),
        num_res_blocks=int(flags["net_num_res_blocks"]),
        num_input_res_blocks=None,
        out_channels=3,
        resblock_updown=flags["net_resblock_updown"] == "True",
        use_checkpoint=False,
        use_new_attention_order=False,
        resnet_two_cond=True,
        resnet_use_zero_module=True,
        latent_net_conf=None,
        resnet_cond_channels=None,
    ).make_model()
    weights = _weights(folder, "generator")
    network.load_state_dict({k.removeprefix("ema_model."): v for k, v in weights.items()})
    network.eval().requires_grad_(False)

    def sampler(steps: int, grads: bool = False) -> Any:
        length = int(flags["T"])
        return SpacedDiffusionBeatGansConfig(
            gen_type=GenerativeType.ddim,
            model_type=ModelType.autoencoder,
            betas=get_named_beta_schedule(flags["beta_scheduler"], length),
            model_mean_type=ModelMeanType.eps,
            model_var_type=ModelVarType.fixed_large,
            loss_type=LossType.mse,
            rescale_timesteps=False,
            use_timesteps=space_timesteps(num_timesteps=length, section_counts=f"ddim{steps}"),
            fp16=False,
        ).make_sampler(grads=grads)

    inversion, decoding = (
        sampler(options["inversion_steps"]), sampler(options["decode_steps"], True),
    )  # fmt: skip

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


def _flags(text: str, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Flags in the types of the originals' defaults."""
    words = shlex.split(text)
    found = {}
    for key, value in zip(words[::2], words[1::2], strict=True):
        name = key.removeprefix("--")
        kind = type(defaults[name])
        found[name] = value == "True" if kind is bool else kind(value)
    return found


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
