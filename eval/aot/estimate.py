"""The roofline of a compiled iteration: memory, slots that fit, time and images per hour."""

import dataclasses

from diffcf_jax.chips import Chip

# Assumptions of the estimate, printed with it
SHARE_OF_PEAK = 0.4  # of the chip's FLOP/s that the convolutions reach
SHARE_OF_BANDWIDTH = 0.7
SHARE_OF_MEMORY = 0.9  # the rest: the runtime, fragmentation, states in transit


@dataclasses.dataclass(frozen=True)
class Estimate:
    """The memory that a method needs on each chip of a topology, and its speed there.

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
            "slots per chip, as compiled": f"{self.slots}",
            "parameters per chip": f"{self.params_bytes / 2**30:.2f} GiB",
            "state and temporaries per slot": f"{self.slot_bytes / 2**30:.2f} GiB",
            "slots per chip that fit": f"{self.fitting_slots}",
            "one iteration of an image": f"{self.flops / 1e12:.2f} TFLOP, "
            f"{self.bytes / 2**30:.1f} GiB moved",
            "an image, all iterations": f"{self.image_flops / 1e12:.0f} TFLOP",
            "estimated seconds per iteration": f"{self.seconds:.3f}, bound by {bound}",
            "estimated images per hour": f"{self.images_per_hour:.0f}",
        }
        width = max(map(len, rows))
        lines = [f"{name:{width}}  {value}" for name, value in rows.items()]
        lines.append(
            f"Estimated for {SHARE_OF_PEAK:.0%} of the peak FLOP/s and {SHARE_OF_BANDWIDTH:.0%} of "
            f"the memory bandwidth, on {SHARE_OF_MEMORY:.0%} of the memory. FLOPs are counted on "
            "the traced program, bytes on the compiled one, every turn of a loop included."
        )
        return "\n".join(lines)


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
    """Returns the roofline estimate: time = max(FLOPs / FLOP/s, bytes / bandwidth).

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
