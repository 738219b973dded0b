"""How to make the results of a report again: the config as a file, and the command."""

import pprint
from collections.abc import Mapping
from typing import Any

from diffcf_jax.shipped import command

_IN_MEMORY = "arrays"  # what `Explanation.save` calls its data


def config_file(config: Mapping[str, Any]) -> str:
    """The text of a config file for `diffcf explain`."""
    text = pprint.pformat(dict(config), width=96, sort_dicts=False)
    return (
        '"""The config of a run, as its report has it."""\n\n'
        "from ml_collections import ConfigDict\n\n\n"
        "def get_config():\n"
        f"    return ConfigDict({text.replace(chr(10), chr(10) + ' ' * 22)})\n"
    )


def again(config: Mapping[str, Any]) -> str | None:
    """The command that explains the same again; None if the images came from a program."""
    if (config.get("data") or {}).get("name") == _IN_MEMORY:
        return None
    return f"{command('explain')} --config config.py --workdir again"
