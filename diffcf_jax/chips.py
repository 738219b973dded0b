"""What accelerators can do at most, from their vendors' data sheets: the one table of peaks."""

import dataclasses

import jax


@dataclasses.dataclass(frozen=True)
class Chip:
    """The limits of one device.

    Attributes:
        flops: bfloat16 operations per second of the matrix units, without sparsity.
        bandwidth: of the main memory, in bytes per second; None where nothing needs it.
        memory: in bytes; None where nothing needs it.
    """

    flops: float
    bandwidth: float | None = None
    memory: float | None = None


# The generation that a topology such as "v5e:2x4" names -> its chip.
TPUS = {
    "v4": Chip(275e12, 1228e9, 32 * 2**30),
    "v5e": Chip(197e12, 819e9, 16 * 2**30),
    "v5p": Chip(459e12, 2765e9, 95 * 2**30),
    "v6e": Chip(918e12, 1640e9, 32 * 2**30),
}

# Part of `device_kind` in lower case -> its chip; the first match counts.
_KINDS = {
    "tpu v4": TPUS["v4"],
    "tpu v5 lite": TPUS["v5e"],
    "tpu v5e": TPUS["v5e"],
    "tpu v5": TPUS["v5p"],
    "tpu v6": TPUS["v6e"],
    "h100 pcie": Chip(756e12),
    "h100": Chip(989e12),
    "h200": Chip(989e12),
    "b200": Chip(2250e12),
    "a100": Chip(312e12),
    "a10": Chip(125e12),
    "l40s": Chip(362e12),
    "l40": Chip(181e12),
    "l4": Chip(121e12),
    "4090": Chip(165e12),
    "v100": Chip(125e12),
    "t4": Chip(65e12),
}


def peak_flops(device: jax.Device) -> float | None:
    """Returns a device's `Chip.flops`; None for a CPU and for a device that is not in the table."""
    kind = device.device_kind.lower()
    return next((chip.flops for name, chip in _KINDS.items() if name in kind), None)
