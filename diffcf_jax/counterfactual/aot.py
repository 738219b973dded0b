"""Compiles a method's step for TPUs that are not there, and estimates what they would do."""

import dataclasses
import importlib.util
import os
from typing import Any

import jax
import numpy as np

from diffcf_jax import parallel
from diffcf_jax.counterfactual.programs import compile_step
from diffcf_jax.counterfactual.traffic import count_bytes
from diffcf_jax.counterfactual.types import Method
from diffcf_jax.errors import UserError
from diffcf_jax.flops import count_flops

# Assumptions of the estimate, printed with it
SHARE_OF_PEAK = 0.4  # of the chip's FLOP/s that the convolutions reach
SHARE_OF_BANDWIDTH = 0.7
SHARE_OF_MEMORY = 0.9  # the rest: the runtime, fragmentation, the states that come and go


@dataclasses.dataclass(frozen=True)
class Chip:
    """What a TPU chip can do, from Google Cloud's documentation.

    Attributes:
        flops: a second, in bfloat16.
        bandwidth: of its memory, bytes a second.
        memory: bytes.
    """

    flops: float
    bandwidth: float
    memory: float


CHIPS = {
    "v4": Chip(275e12, 1228e9, 32 * 2**30),
    "v5e": Chip(197e12, 819e9, 16 * 2**30),
    "v5p": Chip(459e12, 2765e9, 95 * 2**30),
    "v6e": Chip(918e12, 1640e9, 32 * 2**30),
}
# A float32 product is made of six in bfloat16.
_PASSES = {"bfloat16": 1, "float32": 6}


@dataclasses.dataclass(frozen=True)
class Estimate:
    """What a method needs on each chip of a topology, and what it would do there.

    Attributes:
        topology: such as "v5e:16x16".
        chips: their number.
        slots: images in work on each chip in the program that was compiled.
        params_bytes: of all networks.
        slot_bytes: of one image: its state and its share of the program's temporary memory.
        fitting_slots: images in work that fit on each chip.
        flops: of one iteration of one image, every turn of the loops and everything that is
            recomputed included.
        image_flops: of an image that uses all iterations, from `init` to one `finish`.
        bytes: that one iteration of one image moves to and from memory.
        seconds: of one iteration of all slots, by the slower of arithmetic and memory.
        images_per_hour: on all chips, for images that use all iterations.
        compute_bound: whether arithmetic is the slower of the two.
    """

    topology: str
    chips: int
    slots: int
    params_bytes: float
    slot_bytes: float
    fitting_slots: int
    flops: float
    image_flops: float
    bytes: float
    seconds: float
    images_per_hour: float
    compute_bound: bool

    def __str__(self) -> str:
        """A table."""
        bound = "arithmetic" if self.compute_bound else "memory traffic"
        rows = {
            "topology": f"{self.topology}, {self.chips} chips",
            "slots a chip, as compiled": f"{self.slots}",
            "parameters a chip": f"{self.params_bytes / 2**30:.2f} GiB",
            "state and temporaries a slot": f"{self.slot_bytes / 2**30:.2f} GiB",
            "slots a chip that fit": f"{self.fitting_slots}",
            "one iteration of an image": f"{self.flops / 1e12:.2f} TFLOP, "
            f"{self.bytes / 2**30:.1f} GiB moved",
            "an image, all iterations": f"{self.image_flops / 1e12:.0f} TFLOP",
            "estimated seconds an iteration": f"{self.seconds:.3f}, bound by {bound}",
            "estimated images an hour": f"{self.images_per_hour:.0f}",
        }
        width = max(map(len, rows))
        lines = [f"{name:{width}}  {value}" for name, value in rows.items()]
        lines.append(
            f"Estimated for {SHARE_OF_PEAK:.0%} of the peak FLOP/s and {SHARE_OF_BANDWIDTH:.0%} of "
            f"the memory bandwidth, on {SHARE_OF_MEMORY:.0%} of the memory. FLOPs are counted on "
            "the traced program, bytes on the compiled one, every turn of a loop included."
        )
        return "\n".join(lines)


def compile_only(
    method: Method,
    params: Any,
    image_shape: tuple[int, ...],
    batch_size: int,
    topology: str,
    precision: str = "float32",
) -> Estimate:
    """Compiles one iteration for every chip of a TPU topology; needs libtpu and no TPU.

    Args:
        method: see `types.Method`; its `loop_length` is the turns of the denoising loop.
        params: arrays or `jax.ShapeDtypeStruct`s.
        image_shape: [H, W, C].
        batch_size: slots on all chips together; rounded up to a multiple of their number.
        topology: generation and shape, such as "v5e:16x16" or "v4:2x2x4".
        precision: of the method's generator; decides which peak the estimate takes.

    Raises:
        UserError: libtpu is missing, does not know the topology, or the program does not fit.
    """
    chip = CHIPS.get(topology.partition(":")[0])
    if chip is None:
        raise UserError(
            f"Unknown TPU generation in the topology '{topology}'; choose {', '.join(CHIPS)} "
            "with a shape, such as v5e:16x16."
        )
    mesh = parallel.data_mesh(topology_devices(topology))
    slots = max(1, -(-batch_size // mesh.size))
    abstract = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), params)
    try:
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
    """The devices of a TPU topology, which programs can be compiled for.

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
    """FLOPs of `init`, `step` and `finish` for one image, see `count_flops`."""
    image = jax.ShapeDtypeStruct(image_shape, np.float32)
    target = jax.ShapeDtypeStruct((), np.float32)
    key = jax.eval_shape(lambda: jax.random.key(0))
    state = jax.eval_shape(method.init, params, image, target, key)
    return (
        count_flops(method.init, params, image, target, key),
        count_flops(method.step, params, state),
        count_flops(method.finish, params, state),
    )


def estimate(
    topology: str,
    chip: Chip,
    chips: int,
    slots: int,
    params_bytes: float,
    program_bytes: float,
    moved_bytes: float,
    flops: tuple[float, float, float],
    iterations: int,
    passes: int = 1,
) -> Estimate:
    """Roofline: time = max(FLOPs / FLOP/s, bytes / bandwidth), for as many slots as fit.

    Args:
        topology: its name.
        chip: of which kind.
        chips: their number.
        slots: on each chip in the program that the bytes are of.
        params_bytes: of all networks.
        program_bytes: arguments and temporaries of the program on a chip.
        moved_bytes: of one iteration on a chip.
        flops: of `init`, one `step` and `finish` for one image.
        iterations: of an image at most.
        passes: bfloat16 products that one product takes.
    """
    init, step, finish = flops
    slot_bytes = (program_bytes - params_bytes) / slots
    fitting = int((SHARE_OF_MEMORY * chip.memory - params_bytes) // slot_bytes)
    rate = SHARE_OF_PEAK * chip.flops / passes
    arithmetic = step / rate
    traffic = moved_bytes / slots / (SHARE_OF_BANDWIDTH * chip.bandwidth)
    seconds = max(arithmetic, traffic)
    image_seconds = iterations * seconds + (init + finish) / rate
    return Estimate(
        topology=topology,
        chips=chips,
        slots=slots,
        params_bytes=params_bytes,
        slot_bytes=slot_bytes,
        fitting_slots=fitting,
        flops=step,
        image_flops=init + iterations * step + finish,
        bytes=moved_bytes / slots,
        seconds=seconds * max(fitting, 1),
        images_per_hour=3600 * chips / image_seconds if fitting else 0.0,
        compute_bound=arithmetic >= traffic,
    )
