"""Configs, checkpoints and commands that come with the package, installed or in a clone."""

import difflib
import os
import sys
from pathlib import Path

from diffcf_jax.errors import UserError

_PACKAGE = Path(__file__).resolve().parent

# What `diffcf NAME` is called in a clone, and the file that is then running.
_IN_CLONE = {
    "explain": ("python explain.py", "explain.py"),
    "train": ("python train.py", "train.py"),
    "evaluate": ("python -m eval.metrics", "eval/metrics/__main__.py"),
    "compare": ("python -m eval.metrics.compare", "eval/metrics/compare.py"),
    "paper": ("python -m eval.protocols.paper", "eval/protocols/paper.py"),
    "ablate": ("python -m eval.protocols.ablate", "eval/protocols/ablate.py"),
    "audit": ("python -m eval.audit", "eval/audit/__main__.py"),
    "diagnose": ("python -m eval.diagnose", "eval/diagnose/__main__.py"),
    "fetch": ("python -m diffcf_jax.fetch", "fetch/__main__.py"),
    "geometry": ("python -m eval.geometry", "eval/geometry/__main__.py"),
    "convert": ("python -m diffcf_jax.checkpoint.convert", "checkpoint/convert.py"),
    "export": ("python -m diffcf_jax.checkpoint.export", "checkpoint/export.py"),
    "parity": ("python -m eval.parity", "eval/parity/__main__.py"),
}


def in_clone() -> bool:
    """Whether the package lies in a clone, with configs, eval and checkpoints beside it."""
    return not (_PACKAGE / "configs").is_dir()


def folder(name: str) -> Path:
    """Returns the folder "configs" or "checkpoints": inside the package, in a clone beside it."""
    return (_PACKAGE.parent if in_clone() else _PACKAGE) / name


def config_names() -> list[str]:
    """Returns the names of the shipped configs, such as "squares_acre" and "train/squares_ddpm"."""
    root = folder("configs")
    paths = (path.relative_to(root).with_suffix("") for path in root.rglob("*.py"))
    return sorted(p.as_posix() for p in paths if p.name not in ("__init__", "common"))


def find_config(text: str) -> str:
    """Finds a config file, and leaves the argument of its `get_config` where it is.

    Args:
        text: a file, or the name of a shipped config; either may be followed by ":ARGUMENT".

    Returns:
        The file, with ":ARGUMENT" where there is one. A file in the current folder comes first.

    Raises:
        UserError: there is neither.
    """
    name, colon, argument = text.partition(":")
    path = Path(name).expanduser()
    if not path.is_file():
        known = config_names()
        short = name.removeprefix("configs/").removesuffix(".py")
        if short not in known:
            near = [k for k in known if k.endswith(f"/{short}")]
            near = near or difflib.get_close_matches(short, known, 3, 0.5) or known
            raise UserError(
                f"--config={text}: there is no file {name} in {Path.cwd()}, and no such config "
                f"comes with diffcf_jax: give a file, or a name such as {', '.join(near)}."
            )
        path = folder("configs") / f"{short}.py"
    return f"{path}{colon}{argument}"


def find_checkpoint(directory: str | os.PathLike) -> Path:
    """Finds a network directory.

    Args:
        directory: a folder, "~" for the home directory, relative to the current folder; where
            there is none, the name of a shipped network such as "squares_ddpm" or
            "checkpoints/squares_ddpm".

    Returns:
        An absolute path; if nothing is found, that in the current folder.
    """
    path = Path(directory).expanduser().absolute()
    name = Path(directory).as_posix().removeprefix("checkpoints/")
    shipped = folder("checkpoints") / name
    if not path.exists() and "/" not in name and (shipped / "network.json").is_file():
        return shipped
    return path


def command(name: str) -> str:
    """Returns how the user starts a command, for messages.

    Args:
        name: "explain", "train", "evaluate", ...

    Returns:
        "python explain.py" where a script of the clone is running, else "diffcf explain".
    """
    running = Path(sys.argv[0]).absolute().as_posix()
    if (
        name in _IN_CLONE
        and in_clone()
        and any(running.endswith(f"/{file}") for _, file in _IN_CLONE.values())
    ):
        return _IN_CLONE[name][0]
    return f"diffcf {name}"
