"""The tests run on the CPU unless JAX_PLATFORMS says otherwise, and compile a program only once."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")  # read when jax is imported

import jax

jax.config.update("jax_compilation_cache_dir", ".pytest_cache/xla")
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
