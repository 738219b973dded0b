"""Keeps compiled programs on disk from one process to the next."""

import os
from pathlib import Path

import jax


def keep_compiled_programs() -> None:
    """Uses a folder in the user's cache, unless JAX already has one.

    The folder is `$XDG_CACHE_HOME/diffcf_jax/xla`, by default under `~/.cache`. Where there is no
    home directory, or the folder cannot be written, programs are compiled anew in each process.
    """
    if jax.config.jax_compilation_cache_dir is not None:
        return
    try:
        home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        folder = Path(home) / "diffcf_jax" / "xla"
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # RuntimeError: the user has no home directory
        return
    if os.access(folder, os.W_OK):
        jax.config.update("jax_compilation_cache_dir", str(folder))
