from diffcf_jax import chips


def test_peak_flops():
    class Device:
        def __init__(self, kind):
            self.device_kind = kind

    for kind, peak in (
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("TPU v5 lite", 197e12),
        ("TPU v5p", 459e12),
        ("cpu", None),
    ):
        assert chips.peak_flops(Device(kind)) == peak
