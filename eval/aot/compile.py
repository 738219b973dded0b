"""Compiles a method's iteration for TPUs on a machine without one."""

import importlib.util
import os
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from diffcf_jax import parallel
from diffcf_jax.chips import TPUS
from diffcf_jax.counterfactual.methods import bind_method
from diffcf_jax.counterfactual.programs import compile_step
from diffcf_jax.counterfactual.types import Method, Query
from diffcf_jax.errors import UserError
from diffcf_jax.flops import count_flops
from diffcf_jax.inputs import (
    abstract_networks,
    abstract_refiner,
    apply_of,
    naming_option,
    parse_batch_size,
    parse_method,
)
from diffcf_jax.models import cpu
from diffcf_jax.regressors.open import held_by

from .estimate import Estimate, estimate
from .traffic import count_bytes

# bfloat16 products that one product takes
_PASSES = {"bfloat16": 1, "float32": 6}


def compile_for(
    topology: str,
    method: Mapping[str, Any],
    generator: Mapping[str, Any],
    regressor: Mapping[str, Any],
    batch_size: int | str,
    refiner: Mapping[str, Any] | None = None,
    **_: Any,
) -> Estimate:
    """Compiles a run's iteration for a TPU topology, and estimates its memory and speed.

    Needs no weights: a checkpoint that has not been converted yet is described by its preset.

    Args:
        topology: such as "v5e:16x16", see `compile_only`.
        method: of the config of a run.
        generator: of the config of a run.
        regressor: of the config of a run.
        batch_size: images on all chips together; "auto": one per chip.
        refiner: of the config of a run.

    Raises:
        UserError: the config, a checkpoint or the topology is not valid.
    """
    slots = parse_batch_size(batch_size)
    network, reader = abstract_networks(generator, regressor)
    second = abstract_refiner(refiner)
    with naming_option():
        options, held = parse_method(method), held_by(reader)
        built = bind_method(options, network, apply_of(reader), second, held)
    params = {"generator": network.variables, "regressor": reader.variables}
    if second is not None:
        params["refiner"] = second.variables
    size = network.description["image_size"]
    precision = method.get("precision", "float32")
    slots = 1 if slots == "auto" else slots
    return compile_only(built, params, (size, size, 3), slots, topology, precision)


def compile_only(
    method: Method,
    params: Any,
    image_shape: tuple[int, ...],
    batch_size: int,
    topology: str,
    precision: str = "float32",
) -> Estimate:
    """Compiles one iteration for every chip of a TPU topology; needs libtpu, not a TPU.

    Args:
        method: see `types.Method`; its `loop_length` is the number of turns of the denoising loop.
        params: arrays or `jax.ShapeDtypeStruct`s.
        image_shape: [H, W, C].
        batch_size: slots on all chips together, rounded up to a multiple of their number.
        topology: generation and shape, such as "v5e:16x16" or "v4:2x2x4".
        precision: of the method's generator; decides which peak the estimate takes.

    Raises:
        UserError: libtpu is missing, does not know the topology, or the program does not fit.
    """
    chip = TPUS.get(topology.partition(":")[0])
    if chip is None:
        raise UserError(
            f"Unknown TPU generation in the topology '{topology}'; choose {', '.join(TPUS)} "
            "with a shape, such as v5e:16x16."
        )
    mesh = parallel.data_mesh(topology_devices(topology))
    slots = max(1, -(-batch_size // mesh.size))
    abstract = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), params)
    try:
        with cpu.tracing_for("tpu"):
            program = compile_step(method, abstract, image_shape, slots * mesh.size, mesh)
    except jax.errors.JaxRuntimeError as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"The program does not compile for {topology}: {reason}") from error
    memory = program.memory_analysis()
    return estimate(
        topology,
        chip,
        mesh.size,
        slots,
        params_bytes=sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(abstract)),
        program_bytes=memory.argument_size_in_bytes + memory.temp_size_in_bytes,
        moved_bytes=count_bytes(program.as_text(), method.loop_length),
        flops=image_flops(method, abstract, image_shape),
        iterations=method.iterations,
        passes=_PASSES[precision],
    )


def topology_devices(topology: str) -> list[jax.Device]:
    """Returns the devices of a TPU topology, for which programs can be compiled.

    Raises:
        UserError: libtpu is missing or does not know the topology.
    """
    if importlib.util.find_spec("libtpu") is None:
        raise UserError("Compiling for a TPU needs libtpu: pip install 'diffcf_jax[tpu-aot]'.")
    from jax.experimental import topologies

    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # asks a metadata server that only clouds have
    try:
        return list(topologies.get_topology_desc(topology, "tpu").devices)
    except Exception as error:  # libtpu has no error type of its own
        reason = str(error).splitlines()[0]
        raise UserError(f"libtpu knows no topology '{topology}': {reason}") from error


def image_flops(
    method: Method, params: Any, image_shape: tuple[int, ...]
) -> tuple[float, float, float]:
    """Returns the FLOPs of `init`, `step` and `finish` for one image, see `count_flops`."""
    image = jax.ShapeDtypeStruct(image_shape, np.float32)
    query = jax.eval_shape(lambda image: Query.of(image, 0.0), image)
    key = jax.eval_shape(lambda: jax.random.key(0))
    state = jax.eval_shape(method.init, params, query, key)
    return (
        count_flops(method.init, params, query, key),
        count_flops(method.step, params, state),
        count_flops(method.finish, params, state),
    )
