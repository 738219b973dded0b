"""Folders as diffusers writes them, of random weights, and what diffusers computes with them.

    pip install torch diffusers && python -m tests.checkpoint.diffusers_folder

writes tests/golden/diffusers anew. The weights are not stored: they follow from the seed.
"""

import json
import math
import zlib
from pathlib import Path

import numpy as np
import safetensors.numpy

GOLDEN = Path(__file__).resolve().parents[1] / "golden/diffusers"
WEIGHTS = "diffusion_pytorch_model.safetensors"

CASES = {
    # As `train_unconditional.py` of diffusers makes them
    "trained": (
        {
            "sample_size": 16, "block_out_channels": [32, 64], "layers_per_block": 1,
            "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
            "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
        },
        {"_class_name": "DDPMScheduler"},
    ),
    # As the published networks of Ho et al. (2020) are
    "published": (
        {
            "sample_size": 16, "block_out_channels": [32, 32, 48], "layers_per_block": 2,
            "down_block_types": ["DownBlock2D", "AttnDownBlock2D", "DownBlock2D"],
            "up_block_types": ["UpBlock2D", "AttnUpBlock2D", "UpBlock2D"],
            "flip_sin_to_cos": False, "freq_shift": 1, "norm_eps": 1e-6, "norm_num_groups": 8,
            "downsample_padding": 0, "attention_head_dim": None, "time_embedding_dim": 64,
        },
        {
            "_class_name": "DDPMScheduler", "variance_type": "fixed_large", "beta_start": 0.0002,
            "beta_end": 0.03, "num_train_timesteps": 800,
        },
    ),
    "velocity": (
        {
            "sample_size": 16, "block_out_channels": [32], "layers_per_block": 1,
            "down_block_types": ["DownBlock2D"], "up_block_types": ["UpBlock2D"],
            "resnet_time_scale_shift": "scale_shift", "attn_norm_num_groups": 32,
            "out_channels": 6, "dropout": 0.1,
        },
        {
            "_class_name": "DDPMScheduler", "variance_type": "learned_range",
            "beta_schedule": "squaredcos_cap_v2", "prediction_type": "v_prediction",
        },
    ),
    "implicit": (
        {
            "sample_size": 16, "block_out_channels": [32], "layers_per_block": 1,
            "down_block_types": ["DownBlock2D"], "up_block_types": ["UpBlock2D"],
        },
        {
            "_class_name": "DDIMScheduler", "beta_schedule": "scaled_linear", "beta_start": 0.00085,
            "beta_end": 0.012, "prediction_type": "sample",
        },
    ),
}  # fmt: skip


def shapes(case):
    """Shapes of the weights by key."""
    return json.loads((GOLDEN / "shapes.json").read_text(encoding="utf-8"))[case]


def weights(shapes):
    """Random weights in which every layer has an effect."""

    def draw(key, shape):
        noise = np.random.default_rng(zlib.crc32(key.encode())).normal(size=shape)
        if len(shape) > 1:
            return noise / math.sqrt(math.prod(shape[1:]))
        return ("norm" in key and key.endswith("weight")) + 0.1 * noise

    return {key: draw(key, shape).astype(np.float32) for key, shape in shapes.items()}


def write(folder, case, unet=None, scheduler=None, state_dict=None):
    """Writes the folder of a case, with changes to its configs or with other weights."""
    configs = [
        {**of_case, **(new or {})}
        for of_case, new in zip(CASES[case], (unet, scheduler), strict=True)
    ]
    (folder / "unet").mkdir(parents=True, exist_ok=True)
    (folder / "scheduler").mkdir(exist_ok=True)
    (folder / "unet/config.json").write_text(json.dumps(configs[0]))
    (folder / "scheduler/scheduler_config.json").write_text(json.dumps(configs[1]))
    state_dict = weights(shapes(case)) if state_dict is None else state_dict
    safetensors.numpy.save_file(state_dict, folder / "unet" / WEIGHTS)
    return folder


def main():
    """Records what diffusers computes."""
    import diffusers
    import torch

    found_shapes, arrays = {}, {}
    rng = np.random.default_rng(0)
    for case, (unet, scheduler) in CASES.items():
        model = diffusers.UNet2DModel(**unet).eval()
        found_shapes[case] = {key: list(a.shape) for key, a in sorted(model.state_dict().items())}
        state_dict = {key: torch.from_numpy(a) for key, a in weights(found_shapes[case]).items()}
        model.load_state_dict(state_dict)
        x = rng.normal(size=(2, 3, 16, 16)).astype(np.float32)
        t = np.array([3, 700])
        with torch.no_grad():
            output = model(torch.from_numpy(x), torch.from_numpy(t)).sample.numpy()
            double = model.double()(torch.from_numpy(x).double(), torch.from_numpy(t)).sample
        error = np.abs(output - double.numpy()).max() / np.abs(output).max()
        print(f"{case}: float32 differs from float64 by {error:.1e} of the largest value")
        options = {key: value for key, value in scheduler.items() if key != "_class_name"}
        process = getattr(diffusers, scheduler["_class_name"])(**options)
        process.set_timesteps(process.config.num_train_timesteps)
        # The noise that belongs to the clipped image, as here and in the originals
        clipped = {"use_clipped_model_output": True} if "DDIM" in scheduler["_class_name"] else {}
        steps = []
        for step, image, predicted in zip(t, x, output, strict=True):
            given = [torch.from_numpy(a)[None] for a in (predicted, image)]
            result = process.step(
                given[0], int(step), given[1], generator=torch.manual_seed(0), **clipped
            )
            steps.append({"previous": result.prev_sample, "x_start": result.pred_original_sample})
        noise = torch.randn(given[1].shape, generator=torch.manual_seed(0))[0]
        arrays |= {
            f"{case}/x": x, f"{case}/t": t, f"{case}/output": output,
            f"{case}/noise": noise.numpy(),
            f"{case}/alphas_cumprod": process.alphas_cumprod.numpy()[::50],
            **{f"{case}/{name}": torch.cat([s[name] for s in steps]).numpy() for name in steps[0]},
        }  # fmt: skip
    GOLDEN.mkdir(exist_ok=True)
    (GOLDEN / "shapes.json").write_text(json.dumps(found_shapes) + "\n")
    np.savez_compressed(GOLDEN / "outputs.npz", **arrays)


if __name__ == "__main__":
    main()
