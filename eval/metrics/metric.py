"""The table of all metrics: what each one is, which way is better, what it needs."""

import dataclasses

_IDENTITY = "identity: VGGFace2's resnet50_ft (--kind vggface2)"
_ATTRIBUTES = "attributes: STEEX's oracle of CelebAMask-HQ (--kind mnac)"
_DLIB = "identity_dlib: dlib's network, of `diffcf fetch faces` (--kind face-api-identity)"
_INCEPTION = "inception: pt_inception-2015-12-05-6726825d.pth (--kind inception)"
_SIMSIAM = "simsiam: SimSiam's checkpoint_0099.pth.tar (--kind simsiam)"
_CLIP = "clip: the image encoder of CLIP ViT-L/14 at 336 pixels as an ONNX file"
# Networks of faces, which other images do not need
OF_FACES = ("identity", "identity_dlib", "attributes")


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
_HEUSEL = "Heusel et al., 2017"
_MONTEIRO = "Monteiro et al., 2023"
_ZHANG = "Zhang et al., 2018"

METRICS = {
    # squares
    "square_mae": Metric(
        "|mean red of x' inside the square - target|", "lower", PAPER
    ),
    "background_mae": Metric(
        "|mean of x' - mean of x| outside the square", "lower", PAPER
    ),
    "background_mae_per_pixel": Metric("mean |x' - x| outside the square", "lower"),
    "border_mae": Metric("|mean of x' - mean of x| in the square's grey border", "lower"),
    "noise_change": Metric(
        "|standard deviation of x' - of x| outside the square and its border, mean of the channels",
        "lower",
    ),
    "position_kept": Metric("the square of x' is found within a pixel of its place", "higher"),
    # validity
    "success_rate": Metric("|regressor(x') - target| <= threshold", "higher", PAPER),
    "final_error": Metric("|regressor(x') - target|", "lower", in_unit=True),
    "support": Metric("the target lies within the range of the training labels", "higher"),
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
    "oracle_direction": Metric(
        "the oracle's reading moves the same way, where the regressor's moves beyond the threshold",
        "higher",
    ),
    "oracle_follows": Metric("the same by at least half as much", "higher"),
    "diversity": Metric("mean |x'_i - x'_j| over the pairs of an image's answers", "higher"),
    # sweeps: images with three or more targets that are numbers
    "kendall_tau": Metric(
        "Kendall's tau-b of the targets and regressor(x'), per image", "higher", "Kendall, 1938"
    ),
    "oracle_kendall_tau": Metric("the same of the oracle's readings", "higher", "Kendall, 1938"),
    "path_length": Metric(
        "sum over neighbouring targets of the l2 between their x', per unit of the prediction",
        "lower",
    ),
    "path_curvature": Metric(
        "mean angle between successive steps of this path, in radians; 0 is a straight line"
    ),
    # robustness
    "success_jpeg": Metric("success_rate after JPEG of quality 75", "higher", full=True),
    "change_jpeg": Metric("|regressor(JPEG(x')) - regressor(x')|", "lower", "", True, full=True),
    "change_noise": Metric(
        "|regressor(x' + noise) - regressor(x')|, noise of 2/255", "lower", in_unit=True, full=True
    ),
    # axioms: with --axioms=N only
    "composition_1": Metric(
        "mean |x' - x| where the target is the reading of x: a null edit", "lower", _MONTEIRO
    ),
    "composition_10": Metric("the same after ten null edits in a row", "lower", _MONTEIRO),
    "reversibility": Metric(
        "mean |x'' - x|, with x'' made of x' for the reading of x", "lower", _MONTEIRO
    ),
    "change_seed": Metric(
        "|regressor(x') - regressor(x'_s)|, with x'_s of the next seed", "lower", in_unit=True
    ),
    "distance_seed": Metric("mean |x' - x'_s|", "lower"),
    # proximity and sparsity
    "l1": Metric("mean |x' - x|", "lower"),
    "l2": Metric("root of the mean (x' - x)^2", "lower"),
    "latent_distance": Metric(
        "|z' - z|, norm of the change of the semantic code, where the method has one", "lower"
    ),
    "linf": Metric("largest |x' - x|", "lower"),
    "changed_area": Metric("share of pixels that changed by 8/255 or more", "lower"),
    "psnr": Metric("-20 log10(l2) in dB", "higher"),
    "ssim": Metric("structural similarity of x and x'", "higher", "Wang et al., 2004"),
    "lpips": Metric(
        "learned perceptual distance of x and x' on AlexNet", "lower", _ZHANG,
        needs="lpips: torchvision's AlexNet and LPIPS's alex.pth (--kind lpips)",
    ),
    "lpips_vgg": Metric(
        "the same on VGG16", "lower", _ZHANG,
        needs="lpips_vgg: torchvision's VGG16 and LPIPS's vgg.pth (--kind lpips)", full=True,
    ),
    "lpips_squeeze": Metric(
        "the same on SqueezeNet 1.1", "lower", _ZHANG, full=True,
        needs="lpips_squeeze: torchvision's SqueezeNet 1.1 and LPIPS's squeeze.pth (--kind lpips)",
    ),
    "s3": Metric(
        "cosine of the SimSiam features of x and x'", "higher", "Jeanneret et al., 2023",
        needs=_SIMSIAM, full=True,
    ),
    "fs": Metric(
        "cosine of the identity features of x and x'", "higher", "Jeanneret et al., 2023",
        needs=_IDENTITY,
    ),
    "fva": Metric("fs > 0.5: the same person", "higher", "Rodríguez et al., 2021", needs=_IDENTITY),
    "identity_distance_dlib": Metric(
        "Euclidean distance of dlib's embeddings of x and x'", "lower", "King, 2017", needs=_DLIB
    ),
    "same_person_dlib": Metric(
        "identity_distance_dlib < 0.6: the same person", "higher", "King, 2017", needs=_DLIB
    ),
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
    # memorisation
    "train_l2": Metric("least l2 of x' and a training image or its mirror image"),
    "train_l2_input": Metric("the same of x, which the generator has not seen"),
    "train_l2_share": Metric(
        "share of x' with a train_l2 below that of all but 5% of the x", "lower"
    ),
    "train_dlib": Metric("least distance of dlib's embeddings of x' and a training image"),
    "train_dlib_input": Metric("the same of x, which the generator has not seen"),
    "train_dlib_share": Metric(
        "share of x' with a train_dlib below that of all but 5% of the x", "lower"
    ),
    # sets
    "fid": Metric(
        "Fréchet distance of the sets of x and x' on Inception", "lower", _HEUSEL,
        needs=_INCEPTION,
    ),
    "fid_success": Metric(
        "the same without the x' that miss the target", "lower", "Jeanneret et al., 2023",
        needs=_INCEPTION, full=True,
    ),
    "fid_region": Metric(
        "fid of the boxes around the masks, where masks kept the rest", "lower", _HEUSEL,
        needs=_INCEPTION, full=True,
    ),
    "sfid": Metric(
        "fid between halves without a common pair", "lower", "Jeanneret et al., 2023",
        needs=_INCEPTION, full=True,
    ),
    "kid": Metric(
        "unbiased squared MMD on Inception, cubic kernel", "lower", "Binkowski et al., 2018",
        needs=_INCEPTION, full=True,
    ),
    "cmmd": Metric(
        "1000 squared MMD on CLIP, Gaussian kernel of width 10", "lower",
        "Jayasumana et al., 2024", needs=_CLIP, full=True,
    ),
}  # fmt: skip
# Of each feature network NAME: fd_NAME and so on; for fd, sfd and kd, Inception has names above.
SETS = {
    "fd": Metric("Fréchet distance of the sets of x and x'", "lower", _HEUSEL),
    "fd_region": Metric(
        "the same of the boxes around the masks, where masks kept the rest", "lower", _HEUSEL
    ),
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
    return next((SETS[key] for key in reversed(SETS) if name.startswith(f"{key}_")), None)
