"""The PyTorch originals' networks and processes, built as this package's descriptions say."""

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from diffcf_jax.errors import UserError

Network = Mapping[str, Any]  # a description with every argument, as in job.json


def adm(network: Network) -> Any:
    """ADM's UNet; with a patch size that of images whose patches are folded into channels."""
    from guided_diffusion.unet import UNetModel

    model = network["model"]
    patch = model["patch_size"]
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


def adm_process(network: Network, respacing: str = "") -> Any:
    """ADM's diffusion process."""
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


def autoencoder(network: Network) -> Any:
    """Diff-AE's encoder and UNet; the patch size as in `adm`."""
    from model.unet_autoenc import BeatGANsAutoencConfig

    unet, encoder = network["model"]["unet"], network["model"]["encoder"]
    patch = unet["patch_size"]
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


def autoencoder_process(network: Network, respacing: str = "", grads: bool = False) -> Any:
    """Diff-AE's diffusion process, of a network that predicts the noise."""
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


class Folded(nn.Module):
    """An original network of folded patches, as one of whole images.

    Args:
        network: what `adm` or `autoencoder` returns.
        patch: the patch size.
        signal: alphas_cumprod of the whole process, for a Diff-AE that predicts v: the original's
            process knows only the noise, sqrt(a) v + sqrt(1 - a) x_t.
    """

    def __init__(self, network: nn.Module, patch: int, signal: torch.Tensor | None = None):
        super().__init__()
        self.network, self.patch, self.signal = network, patch, signal

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """A Diff-AE's semantic code."""
        return self.network.encoder.forward(_fold(x, self.patch))

    def forward(self, x: torch.Tensor, t: torch.Tensor, **condition: Any) -> Any:
        """What the original returns, for whole images."""
        output = self.network.forward(_fold(x, self.patch), t, **condition)
        if torch.is_tensor(output):
            return _unfold(output, self.patch)
        output = _unfold(output.pred, self.patch)
        if self.signal is not None:
            signal = self.signal[t].view(-1, 1, 1, 1)
            output = signal.sqrt() * output + (1 - signal).sqrt() * x
        return SimpleNamespace(pred=output)


def _fold(x: torch.Tensor, p: int) -> torch.Tensor:
    """[B, C, H, W] -> [B, p p C, H/p, W/p], in the package's order of channels."""
    b, c, h, w = x.shape
    x = x.view(b, c, h // p, p, w // p, p).permute(0, 3, 5, 1, 2, 4)
    return x.reshape(b, p * p * c, h // p, w // p)


def _unfold(x: torch.Tensor, p: int) -> torch.Tensor:
    b, c, h, w = x.shape
    x = x.view(b, p, p, c // p**2, h, w).permute(0, 3, 4, 1, 5, 2)
    return x.reshape(b, c // p**2, h * p, w * p)


def load_adm(folder: Path, network: Network) -> nn.Module:
    """The DDPM of a job, of whole images."""
    model = adm(network)
    model.load_state_dict(_weights(folder, "generator"))
    return Folded(model, network["model"]["patch_size"]).eval()


def load_autoencoder(folder: Path, network: Network) -> nn.Module:
    """The Diff-AE of a job, of whole images, that predicts the noise."""
    model = autoencoder(network)
    weights = _weights(folder, "generator")
    model.load_state_dict({k.removeprefix("ema_model."): v for k, v in weights.items()})
    signal = None
    if network["diffusion"]["predict"] == "v":
        signal = torch.from_numpy(autoencoder_process(network).alphas_cumprod).float()
    patch = network["model"]["unet"]["patch_size"]
    return Folded(model, patch, signal).eval().requires_grad_(False)


def load_regressor(folder: Path, network: Network) -> Any:
    """The regressor of a job: images in [0, 1] to predictions [B, 1]."""
    weights = _weights(folder, "regressor")
    if network["kind"] == "resnet":
        model = _resnet(network["model"])
        _load(model, {k.removeprefix("model."): v for k, v in weights.items()})
        return model.eval()
    import torchvision

    model = torchvision.models.densenet121()
    model.classifier = nn.Linear(1024, 1)
    renamed = {
        k.replace("model.classifier.0.feat_extract.", "").replace(
            "model.classifier.1", "classifier"
        ): v
        for k, v in weights.items()
    }
    mu, sigma = renamed.pop("model.mu"), renamed.pop("model.sigma")
    _load(model, renamed)
    model.eval()
    return lambda x: model((x - mu) / sigma)


def _resnet(model: Mapping[str, Any]) -> nn.Module:
    """A ResNet of torchvision's blocks."""
    from torchvision.models.resnet import BasicBlock

    width, kernel = model["width"], model["stem_kernel"]
    stem = nn.Conv2d(3, width, kernel, model["stem_stride"], model["stem_padding"], bias=False)
    layers = OrderedDict(conv1=stem, bn1=nn.BatchNorm2d(width), relu=nn.ReLU())
    if model["max_pool"]:
        layers["maxpool"] = nn.MaxPool2d(3, 2, 1)
    features = width
    for stage, count in enumerate(model["blocks"]):
        blocks = []
        for i in range(count):
            stride, wanted = 2 if stage and not i else 1, width * 2**stage
            shortcut = None
            if stride > 1 or features != wanted:
                shortcut = nn.Sequential(
                    nn.Conv2d(features, wanted, 1, stride, bias=False), nn.BatchNorm2d(wanted)
                )
            blocks.append(BasicBlock(features, wanted, stride, shortcut))
            features = wanted
        layers[f"layer{stage + 1}"] = nn.Sequential(*blocks)
    layers |= {"pool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten()}
    if model["hidden"]:
        layers |= {"hidden": nn.Linear(features, model["hidden"]), "hidden_relu": nn.ReLU()}
        features = model["hidden"]
    layers["fc"] = nn.Linear(features, 1)
    network = nn.Sequential(layers)
    if model["circular"]:
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                module.padding_mode = "circular"
    return network


def _load(model: nn.Module, weights: Mapping[str, Any]) -> None:
    missing, unexpected = model.load_state_dict(weights, strict=False)
    missing = [key for key in missing if not key.endswith("num_batches_tracked")]
    if missing or unexpected:
        raise UserError(f"The regressor's weights do not fit: {(missing + unexpected)[0]}.")


def _weights(folder: Path, role: str) -> dict[str, Any]:
    return load_file(folder / f"{role}.safetensors")
