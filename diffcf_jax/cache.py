"""The persistent cache of compiled programs."""

import os
from pathlib import Path

import jax


def keep_compiled_programs() -> None:
    """Keep compiled programs in the user's cache folder, unless JAX was given another one."""
    if jax.config.jax_compilation_cache_dir is not None:
        return
    try:
        home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        folder = Path(home) / "diffcf_jax" / "xla"
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # no home, or one that cannot be written
        return
    if os.access(folder, os.W_OK):
        jax.config.update("jax_compilation_cache_dir", str(folder))
