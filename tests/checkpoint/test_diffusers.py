"""DDPMs of diffusers are read to the numbers that diffusers computes, or refused by their key."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffcf_jax import load_network
from diffcf_jax.checkpoint.convert import describe_unconverted, main
from diffcf_jax.checkpoint.export import export_network
from diffcf_jax.checkpoint.store import read_description
from diffcf_jax.diffusion.sampler import ddim_step, p_mean_variance, p_sample
from diffcf_jax.diffusion.schedule import make_diffusion
from diffcf_jax.errors import UserError
from diffcf_jax.inputs import load_networks
from diffcf_jax.results.log import read_results
from diffcf_jax.run import run
from tests import tiny
from tests.checkpoint.diffusers_folder import CASES, GOLDEN, shapes, weights, write
from tests.regressors import onnx_files

RECORDED = np.load(GOLDEN / "outputs.npz")


def recorded(case, name):
    array = jnp.asarray(RECORDED[f"{case}/{name}"])
    return jnp.moveaxis(array, -3, -1) if array.ndim > 2 else array


def check(found, expected, bound=1e-5):
    error = np.abs(found - expected).max() / np.abs(expected).max()
    assert error < bound, error


@pytest.mark.parametrize("case", CASES)
def test_outputs_and_steps_are_those_of_diffusers(case, tmp_path):
    network = load_network(write(tmp_path, case))
    x, t = recorded(case, "x"), recorded(case, "t")
    outputs = jax.jit(network.module.apply)(network.variables, x, t)
    check(outputs, recorded(case, "output"))
    process = make_diffusion(**network.description["diffusion"])
    # diffusers multiplies in float32
    check(process.alphas_cumprod[::50], RECORDED[f"{case}/alphas_cumprod"])
    implicit = CASES[case][1]["_class_name"] == "DDIMScheduler"
    noise = recorded(case, "noise")
    for i, step in enumerate(t.tolist()):
        output = recorded(case, "output")[i]
        x_start = p_mean_variance(process, output, x[i], step).x_start
        check(x_start, recorded(case, "x_start")[i])
        if implicit:
            previous = ddim_step(process, output, x[i], step)
        else:
            previous = p_sample(process, output, x[i], step, noise)
        # diffusers has beta as 1 - a / a' in float32, of which four digits are left at t = 3
        check(previous, recorded(case, "previous")[i], 1e-4)


def test_other_layouts_of_the_folder_are_read(tmp_path):
    case = "published"
    expected = load_network(write(tmp_path / "new", case)).variables
    former = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    state_dict = weights(shapes(case))
    for new, old in former.items():
        state_dict = {key.replace(f".{new}.", f".{old}."): a for key, a in state_dict.items()}
    write(tmp_path / "parts", case, state_dict=state_dict)
    flat = tmp_path / "flat"
    flat.mkdir()
    for path in (tmp_path / "parts").rglob("*.*"):
        if path.is_file():
            path.rename(flat / path.name)
    jax.tree.map(np.testing.assert_array_equal, load_network(flat).variables, expected)


def test_a_folder_is_converted_once(tmp_path, capsys):
    folder = write(tmp_path / "ddpm", "trained")
    line = [str(folder), "--kind=diffusers", f"--out={tmp_path / 'out'}"]
    assert main(line) == 0
    network, direct = load_network(tmp_path / "out"), load_network(folder)
    jax.tree.map(np.testing.assert_array_equal, network.variables, direct.variables)
    description = describe_unconverted(f"{folder} --kind diffusers")
    assert description == direct.description == read_description(folder)
    assert main([*line, "--flags=--image_size 3"]) == 2
    assert "finds all in the folder: leave --flags out" in capsys.readouterr().err
    with pytest.raises(UserError, match="cannot build this network: .*schedule has betas"):
        export_network(network)


def test_ac_re_runs_on_it(tmp_path):
    unet = {"sample_size": 64}
    folder = write(tmp_path / "ddpm", "velocity", unet, {"num_train_timesteps": 100})
    onnx_files.convnet(tmp_path / "m.onnx")
    regressor = {"checkpoint": "", "model": str(tmp_path / "m.onnx"), "preprocess": "none"}
    config = {
        "method": {"name": "ac-re", "iterations": 2, "tau": 1, "threshold": 0.05},
        "generator": {"checkpoint": str(folder)},
        "regressor": {**regressor, "output": "column=1"},
        "data": {"name": "squares", "path": "", "limit": 1, "convert": False},
        "targets": "1",
        "batch_size": 1,
        "seed": 0,
    }
    run(tmp_path / "out", **config)
    (row,) = read_results(tmp_path / "out")
    assert abs(row["y_final"] - 1) < abs(row["y_initial"] - 1)


def test_it_counts_as_there_where_a_config_names_what_to_fetch(tmp_path):
    folder = str(write(tmp_path / "ddpm", "velocity"))
    generator = {"checkpoint": folder, "original": "somewhere", "convert": "x.pt --kind ddpm"}
    regressor = {"checkpoint": tiny.save(tmp_path / "regressor", tiny.REGRESSOR)}
    with pytest.raises(UserError, match="The generator is of 16 pixels and the regressor of 64"):
        load_networks(generator, regressor)


@pytest.mark.parametrize(
    ("unet", "scheduler", "expected"),
    [
        ({"_class_name": "UNet2DConditionModel"}, {}, "is of a 'UNet2DConditionModel': only a"),
        ({"in_channels": 1}, {}, r"unet/config.json has in_channels=1, .*: only 3 is"),
        ({"act_fn": "gelu"}, {}, "has act_fn='gelu', which is not supported: only silu or swish"),
        ({"mid_block_type": None}, {}, "has mid_block_type=None, .*: only UNetMidBlock2D is"),
        ({"class_embed_type": "timestep"}, {}, "has class_embed_type='timestep'"),
        ({"center_input_sample": True}, {}, "has center_input_sample=True"),
        ({"down_block_types": ["SkipDownBlock2D"]}, {}, "'SkipDownBlock2D' in down_block_types"),
        ({"down_block_types": ["AttnDownBlock2D"]}, {}, "do not mirror down_block_types"),
        ({"down_block_types": []}, {}, r"has down_block_types=\[\]: .* one block per level"),
        ({"block_out_channels": ["x"]}, {}, "has block_out_channels=.*: they must be multiples"),
        ({"block_out_channels": [40]}, {}, "must be multiples of norm_num_groups=32"),
        ({"layers_per_block": 0}, {}, "has layers_per_block=0: it must be a whole number"),
        ({"sample_size": None}, {}, "has sample_size=None: it must be a whole number"),
        ({"freq_shift": "x"}, {}, "has freq_shift='x': it must be 0 to 15"),
        ({"attn_norm_num_groups": None}, {}, "has attn_norm_num_groups=None, .*: only norm_num_"),
        ({"norm_eps": "x"}, {}, "norm_eps is 'x' instead of"),
        ({"out_channels": 3}, {}, "has out_channels=3, which does not fit variance_type="),
        ({}, {"_class_name": "PNDMScheduler"}, "has _class_name='PNDMScheduler'"),
        ({}, {"beta_schedule": "sigmoid"}, "has beta_schedule='sigmoid', .*linear or scaled"),
        ({}, {"beta_schedule": "linear", "beta_end": 2}, "has beta_start=0.0001 and beta_end=2"),
        ({}, {"variance_type": "learned"}, "has variance_type='learned'"),
        ({}, {"clip_sample": False}, "has clip_sample=False, .*: only True is"),
        ({}, {"thresholding": True}, "has thresholding=True"),
        ({}, {"prediction_type": "flow"}, "has prediction_type='flow'"),
        ({}, {"num_train_timesteps": 1e9}, "num_train_timesteps=1000000000.0: it must be a whole"),
        ({"resnet_time_scale_shift": "default"}, {}, r"does not fit its config.json: .*misshapen"),
        ({"layers_per_block": 2}, {}, "3 missing|down_blocks.0.resnets.1.norm1.weight"),
    ],
)
def test_what_is_not_supported_is_refused_by_its_key(tmp_path, unet, scheduler, expected):
    folder = write(tmp_path, "velocity", unet, scheduler)
    with pytest.raises(UserError, match=expected):
        load_network(folder)


def test_files_that_are_missing_or_broken_are_named(tmp_path):
    folder = write(tmp_path, "velocity")
    (folder / "unet/diffusion_pytorch_model.safetensors").write_bytes(b"x" * 20)
    with pytest.raises(UserError, match="diffusion_pytorch_model.safetensors is truncated"):
        load_network(folder)
    (folder / "unet/diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(UserError, match="cannot read .*diffusion_pytorch_model.safetensors"):
        load_network(folder)
    (folder / "scheduler/scheduler_config.json").write_text("[")
    with pytest.raises(UserError, match="scheduler_config.json is broken"):
        load_network(folder)
    (folder / "scheduler/scheduler_config.json").unlink()
    with pytest.raises(UserError, match="cannot read .*scheduler_config.json"):
        load_network(folder)
