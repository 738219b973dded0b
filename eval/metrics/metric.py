"""The table of all metrics: what each one is, which way is better, what it needs."""

import dataclasses

_IDENTITY = "identity: VGGFace2's resnet50_ft (--kind vggface2)"
_ATTRIBUTES = "attributes: STEEX's oracle of CelebAMask-HQ (--kind mnac)"


@dataclasses.dataclass(frozen=True)
class Metric:
    """A metric.

    Attributes:
        about: its definition in a line.
        better: "higher", "lower", or "" where neither is better in itself.
        reference: who defined it; "" for this package.
        in_unit: whether it is in the unit of the labels.
        needs: a folder under --weights, and the original that `diffcf convert` makes it of.
        full: only in --suite=full.
    """

    about: str
    better: str = ""
    reference: str = ""
    in_unit: bool = False
    needs: str = ""
    full: bool = False

    @property
    def network(self) -> str:
        """The folder's name in `needs`."""
        return self.needs.split(":")[0]

    @property
    def arrow(self) -> str:
        """The direction as a sign."""
        return {"higher": "↑", "lower": "↓", "": " "}[self.better]


PAPER = "Ha and Bender, 2025"

METRICS = {
    # squares
    "square_mae": Metric(
        "|mean red of x' inside the square - target|", "lower", PAPER
    ),
    "background_mae": Metric(
        "|mean of x' - mean of x| outside the square", "lower", PAPER
    ),
    "background_mae_per_pixel": Metric("mean |x' - x| outside the square", "lower"),
    # validity
    "success_rate": Metric("|regressor(x') - target| <= threshold", "higher", PAPER),
    "final_error": Metric("|regressor(x') - target|", "lower", in_unit=True),
    "iterations": Metric("optimisation steps", "lower"),
    "slope": Metric("of regressor(x') over the target, least squares; 1 is right", full=True),
    "intercept": Metric("of that line", in_unit=True, full=True),
    "r2": Metric("variance of regressor(x') explained by the target", "higher", full=True),
    "cout": Metric(
        "how few pixels carry the change of the prediction, -1 to 1", "higher",
        "Khorram and Fuxin, 2022", full=True,
    ),
    "oracle_mae": Metric("|oracle(x') - regressor(x')|", "lower", PAPER, in_unit=True),
    "oracle_error": Metric("|oracle(x') - target|", "lower", in_unit=True),
    "oracle_success_rate": Metric("|oracle(x') - target| <= threshold", "higher", PAPER),
    "diversity": Metric("mean |x'_i - x'_j| over the pairs of an image's answers", "higher"),
    # robustness
    "success_jpeg": Metric("success_rate after JPEG of quality 75", "higher", full=True),
    "change_jpeg": Metric("|regressor(JPEG(x')) - regressor(x')|", "lower", "", True, full=True),
    "change_noise": Metric(
        "|regressor(x' + noise) - regressor(x')|, noise of 2/255", "lower", in_unit=True, full=True
    ),
    # proximity and sparsity
    "l1": Metric("mean |x' - x|", "lower"),
    "l2": Metric("root of the mean (x' - x)^2", "lower"),
    "linf": Metric("largest |x' - x|", "lower"),
    "changed_area": Metric("share of pixels that changed by 8/255 or more", "lower"),
    "psnr": Metric("-20 log10(l2) in dB", "higher"),
    "ssim": Metric("structural similarity of x and x'", "higher", "Wang et al., 2004"),
    "fs": Metric(
        "cosine of the identity features of x and x'", "higher", "Jeanneret et al., 2023",
        needs=_IDENTITY,
    ),
    "fva": Metric("fs > 0.5: the same person", "higher", "Rodríguez et al., 2021", needs=_IDENTITY),
    "mnac": Metric(
        "attributes that changed, of 40", "lower", "Rodríguez et al., 2021", needs=_ATTRIBUTES
    ),
    "mnac_originals": Metric(
        "mnac on images that are normalised twice, as published", "lower",
        "Jeanneret et al., 2023", needs=_ATTRIBUTES,
    ),
    "cd": Metric(
        "sum over attributes a of |corr(change of y, change of a) - corr(y, a)|", "lower",
        "Jeanneret et al., 2022", needs=_ATTRIBUTES, full=True,
    ),
}  # fmt: skip
# Of each feature network NAME: fd_NAME and so on; Inception's has names of its own.
SETS = {
    "fd": Metric("Fréchet distance of the sets of x and x'", "lower", "Heusel et al., 2017"),
    "sfd": Metric(
        "the same between halves without a common pair", "lower", "Jeanneret et al., 2023"
    ),
    "kd": Metric("unbiased squared MMD, cubic kernel", "lower", "Binkowski et al., 2018"),
    "precision": Metric("x' among x", "higher", "Kynkäänniemi et al., 2019"),
    "recall": Metric("x among x'", "higher", "Kynkäänniemi et al., 2019"),
    "density": Metric("of x' in the neighbourhoods of x", "higher", "Naeem et al., 2020"),
    "coverage": Metric("of the neighbourhoods of x by x'", "higher", "Naeem et al., 2020"),
}


def definition(name: str) -> Metric | None:
    """Return what a metric of metrics.json is: one of the tables, of an oracle or a network."""
    if name in METRICS:
        return METRICS[name]
    of_oracle = (key for key in METRICS if key.startswith("oracle_"))
    for key in of_oracle:
        if name.endswith(key.removeprefix("oracle")):
            return METRICS[key]
    return SETS.get(name.split("_")[0])
