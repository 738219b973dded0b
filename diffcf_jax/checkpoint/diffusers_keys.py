"""Names and layouts of the weights of diffusers: flax path -> state-dict key of a UNet2DModel."""

import re
from collections.abc import Callable, Mapping

import numpy as np

from diffcf_jax.checkpoint.torch_keys import LEAVES, Path

_PARTS = {
    "in_norm": "norm1",
    "in_conv": "conv1",
    "emb_proj": "time_emb_proj",
    "out_norm": "norm2",
    "out_conv": "conv2",
    "skip_conv": "conv_shortcut",
    "norm": "group_norm",
    "proj_out": "to_out.0",
}
_OUTER = {
    "time_embed_0": "time_embedding.linear_1",
    "time_embed_2": "time_embedding.linear_2",
    "input_blocks_0_0": "conv_in",
    "middle_block_0": "mid_block.resnets.0",
    "middle_block_1": "mid_block.attentions.0",
    "middle_block_2": "mid_block.resnets.1",
    "out_norm": "conv_norm_out",
    "out_conv": "conv_out",
}
# How diffusers once called the layers of attention
_FORMER = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def rearranged(state_dict: Mapping[str, np.ndarray], cosine_first: bool) -> dict[str, np.ndarray]:
    """Return weights as `UNet` has them: q, k and v in one layer, and cosines before sines.

    Args:
        state_dict: arrays by key.
        cosine_first: whether the timestep embedding has its cosines first (`flip_sin_to_cos`).
    """
    found = {
        re.sub(
            r"(?<=\.)(query|key|value|proj_attn)(?=\.(weight|bias)$)",
            lambda name: _FORMER[name[0]],
            key,
        ): array
        for key, array in state_dict.items()
    }
    for key in [key for key in found if ".to_q." in key]:
        names = [key.replace(".to_q.", f".to_{name}.") for name in "qkv"]
        if all(name in found for name in names):
            found[key.replace(".to_q.", ".qkv.")] = np.concatenate(
                [found.pop(name) for name in names]
            )
    for key in [key for key in found if re.search(r"\.(qkv|to_out\.0)\.weight$", key)]:
        found[key] = found[key][..., None]  # convolutions in the original of `UNet`
    key = "time_embedding.linear_1.weight"
    if not cosine_first and key in found:
        found[key] = np.roll(found[key], found[key].shape[-1] // 2, axis=-1)
    return found


def names(layers: int) -> Callable[[Path], str]:
    """Return what names a variable, for a UNet of that many residual blocks per level."""

    def block(name: str, part: str | None) -> str:
        family, index, place = re.fullmatch(r"(input|output)_blocks_(\d+)_(\d)", name).groups()
        down = family == "input"
        level, i = divmod(int(index) - down, layers + 1)
        where = f"{'down' if down else 'up'}_blocks.{level}"
        if part == "conv":
            return f"{where}.{'down' if down else 'up'}samplers.0"
        return f"{where}.{'attentions' if int(place) else 'resnets'}.{i}"

    def name(path: Path) -> str:
        _, outer, *part, leaf = path
        layer = _OUTER[outer] if outer in _OUTER else block(outer, *part[:1])
        return ".".join([layer, *(_PARTS.get(p, p) for p in part), LEAVES[leaf]])

    return name
