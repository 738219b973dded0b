"""The PyTorch originals' side, imported from the user's clone of the paper's repository."""

import copy
import functools
import sys
import time
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from . import originals_networks as networks
from .job import Commands, read_job, serve

Options = Mapping[str, Any]  # of the method, by this package's names
# Images [B, 3, H, W] in [0, 1], successes and steps, as the original counts them
Found = tuple[torch.Tensor, list[bool], list[int]]


def prepare(folder: Path) -> Commands:
    """Builds the original networks; see `serve` for the commands."""
    job, images, targets = read_job(folder)
    torch.set_num_threads(job["threads"])
    torch.manual_seed(0)
    root = Path(job["originals"])
    _stand_in()
    part = "ACE" if job["network"]["kind"] == "ddpm" else "diffae"
    sys.path[:0] = [str(root / "related_work" / part), str(root)]
    images = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
    if job["method"] is None:
        return {"iterate": _update(job, 2 * images - 1)}
    targets = torch.from_numpy(targets)[:, None]
    method = (_ACRE if part == "ACE" else _DiffAERE)(folder, job)

    def explain(options: Options, name: str) -> dict[str, Any]:
        start, cpu, found = time.monotonic(), time.process_time(), []
        for i in range(0, job["images"], job["batch"]):
            rows = slice(i, min(i + job["batch"], job["images"]))
            found.append(method.explain(images[rows], targets[rows], options))
        seconds, cpu_seconds = time.monotonic() - start, time.process_time() - cpu
        made = torch.cat([images for images, _, _ in found])
        np.save(folder / f"{name}.npy", (255 * _channels_last(made)).round().astype(np.uint8))
        successes = [bool(success) for _, batch, _ in found for success in batch]
        steps = [int(step) for _, _, batch in found for step in batch]
        return {
            "seconds": seconds, "cpu_seconds": cpu_seconds,
            "compile_seconds": 0.0, "compile_cpu_seconds": 0.0, "success": successes,
            # A search that succeeds in its k-th iteration reports k - 2, one that fails k - 1.
            "iterations": [step + 1 + hit for step, hit in zip(steps, successes, strict=True)],
        }  # fmt: skip

    def check() -> list[float]:
        generated, y = method.generate(images, job["settings"]["paper"])
        np.save(folder / "check_originals.npy", _channels_last(generated))
        return y[:, 0].tolist()

    if job["settings"]:
        return {"check": check} | {
            f"explain {name}": functools.partial(explain, options, name)
            for name, options in job["settings"].items()
        }
    batch, options = job["batch"], job["method"]
    return {
        "iterate": method.iteration(images[:batch], targets[:batch], options),
        "explain": functools.partial(explain, options, "originals"),
    }


def _channels_last(images: torch.Tensor) -> np.ndarray:
    return images.detach().permute(0, 2, 3, 1).numpy()


def _update(job: Mapping[str, Any], images: torch.Tensor) -> Callable[[], None]:
    """One update of a training: loss, gradient, Adam, exponential moving average."""
    network = job["network"]
    model = network["model"]
    images = F.pixel_unshuffle(images, model.get("unet", model)["patch_size"])
    if network["kind"] == "ddpm":
        model, process = networks.adm(network), networks.adm_process(network)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.0)

        def terms(t: torch.Tensor) -> Mapping[str, Any]:
            return process.training_losses(model, images, t)

    else:
        model, process = networks.autoencoder(network), networks.autoencoder_process(network)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)

        def terms(t: torch.Tensor) -> Mapping[str, Any]:
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


class _ACRE:
    """AC-RE with a job's networks."""

    def __init__(self, folder: Path, job: Mapping[str, Any]):
        self._model = networks.load_adm(folder, job["network"])
        self._regressor = networks.load_regressor(folder, job["regressor"])
        self._network = job["network"]

    def explain(self, images: torch.Tensor, targets: torch.Tensor, options: Options) -> Found:
        """What the original's script does with a batch."""
        from main_regression_square import filter_fn

        joint = self._joint(options)
        joint.initial(images)
        made, _, _, _, successes, steps = filter_fn(
            diffusion=joint.diffusion,
            attack=self._attack(joint, options, options["iterations"], options["threshold"]),
            model=self._model,
            steps=options["tau"],
            x=images,
            stochastic=True,
            target=targets,
            inpaint=options["inpaint"],
            dilation=options["dilation"],
        )
        return made, successes, steps

    def iteration(
        self, images: torch.Tensor, targets: torch.Tensor, options: Options
    ) -> Callable[[], None]:
        """One iteration, which meets no target."""
        attack = self._attack(self._joint(options), options, 1, -1.0)

        def iterate() -> None:
            attack.perturb(images, targets)

        return iterate

    def generate(self, images: torch.Tensor, options: Options) -> tuple[torch.Tensor, torch.Tensor]:
        """F_tau without noise, and the predictions for the images themselves."""
        return self._joint(options, stochastic=False).initial(images)

    def _joint(self, options: Options, stochastic: bool = True) -> Any:
        from core.attacks_and_models import JointClassifierDDPM

        return JointClassifierDDPM(
            classifier=self._regressor,
            ddpm=self._model,
            diffusion=networks.adm_process(self._network, str(options["respacing"])),
            steps=options["tau"],
            stochastic=stochastic,
        ).eval()

    def _attack(self, joint: Any, options: Options, iterations: int, threshold: float) -> Any:
        from core.attacks_and_models import get_attack

        return get_attack("PGD", False, False)(
            predict=joint, predictor=self._regressor, loss_fn="mse", dist_fn=None, eps=1.0,
            step=options["step_size"], nb_iter=iterations, confidence_threshold=threshold,
            steps_dir="",
        )  # fmt: skip


class _DiffAERE:
    """Diff-AE-RE with a job's networks."""

    def __init__(self, folder: Path, job: Mapping[str, Any]):
        self._model = networks.load_autoencoder(folder, job["network"])
        self._regressor = networks.load_regressor(folder, job["regressor"])
        self._network = job["network"]

    def explain(self, images: torch.Tensor, targets: torch.Tensor, options: Options) -> Found:
        """What the original's script does with a batch."""
        results = self._method(options).adv_attack_dae_batch(
            2 * images - 1, targets, targets, [str(i) for i in range(len(images))],
            options["threshold"], options["iterations"], options["learning_rate"],
        )  # fmt: skip
        made = torch.cat([result.x_prime for result in results])
        return made, [result.success for result in results], [result.steps for result in results]

    def iteration(
        self, images: torch.Tensor, targets: torch.Tensor, options: Options
    ) -> Callable[[], None]:
        """One iteration, which meets no target."""
        z = self._model.encode(2 * images - 1)
        x_T = torch.randn_like(images)
        method = self._method(options)
        rate = options["learning_rate"]

        def iterate() -> None:
            method._run_adv_attack_dae_batch(
                images, z.clone(), x_T, targets, targets, -1.0, rate, 1, images, z
            )

        return iterate

    @torch.no_grad()
    def generate(self, images: torch.Tensor, options: Options) -> tuple[torch.Tensor, torch.Tensor]:
        """What encoding and decoding make of the images, and the predictions for the images."""
        generator = self._method(options).gmodel
        return generator.decode(*generator.encode(2 * images - 1)), self._regressor(images)

    def _method(self, options: Options) -> Any:
        from diff_cf_ir.diffeocf import DiffeoCF

        model = self._model
        inversion, decoding = (
            networks.autoencoder_process(self._network, f"ddim{options[key]}", grads)
            for key, grads in (("inversion_steps", False), ("decode_steps", True))
        )

        class Autoencoder:
            """The interface that the original loop asks of its generator."""

            @torch.no_grad()
            def encode(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
                z = model.encode(x)
                found = inversion.ddim_reverse_sample_loop(model, x, model_kwargs={"cond": z})
                return z, found["sample"]

            def decode(self, z: torch.Tensor, x_T: torch.Tensor) -> torch.Tensor:
                image = decoding.sample(model=model, noise=x_T, model_kwargs={"cond": z})
                return (image + 1) / 2

        weight, size = options["distance_weight"], self._network["image_size"]
        return DiffeoCF(
            Autoencoder(), self._regressor, (3, size, size), "",
            dist=options["distance"] if weight else None,
            dist_type=options["distance_space"], dist_factor=weight,
        )  # fmt: skip


def _stand_in() -> None:
    """Stands in for those of the originals' modules that draw and write files.

    Their imports (pandas, seaborn, MPI and more) play no part in the computation.
    """
    nothing = lambda *args, **kwargs: None  # noqa: E731

    def module(name: str, **members: Any) -> None:
        made = types.ModuleType(name)
        made.__dict__.update(members)
        sys.modules[name] = made

    module(
        "diff_cf_ir.metrics",
        get_regr_confidence=lambda y, y_hat: F.l1_loss(y, y_hat, reduction="none"),
    )
    module(
        "diff_cf_ir.counterfactuals",
        CFResult=lambda **fields: types.SimpleNamespace(**fields),
        **dict.fromkeys(("save_cf_results", "update_results_true_latents"), nothing),
    )
    files = (
        "save_img_threaded", "save_image", "assert_paths_exist", "create_result_dir",
        "deterministic_run", "dump_args",
    )  # fmt: skip
    module("diff_cf_ir.file_utils", **dict.fromkeys(files, nothing))
    module("diff_cf_ir.image_folder_dataset", default_transforms=nothing)
    module("diff_cf_ir.models", load_resnet=nothing)
    data = ("get_experiment_targets", "SquaresDataset", "inner_square_color")
    module("diff_cf_ir.squares_dataset", **dict.fromkeys(data, nothing))
    module("guided_diffusion.dist_util")
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        module("matplotlib", use=nothing, rc=nothing)


if __name__ == "__main__":
    serve(prepare)
