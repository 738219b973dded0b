"""The synthetic squares of the paper, drawn exactly as its generator draws them.

A 64x64 image holds an 8x8 square with a grey border of 2 pixels on a uniform grey background.
The square is red with the value `inner` (0 to 255; green and blue are 0), and `inner / 255` is
the label. One field of Gaussian noise with standard deviation 20 lies over everything; every
region is clipped to [0, 255] and truncated to uint8.

Reference: the counterfactuals paper's `generate_squares.py` and `squares_dataset.py`
(https://github.com/DevinTDHa/Diffusion-Counterfactuals-for-Image-Regressors).
"""

import functools
import itertools

import numpy as np

from diffcf_jax.data.record import Record
from diffcf_jax.errors import UserError

IMAGE_SIZE = 64
INNER_SIZE = 8
BORDER = 2
SIDE = INNER_SIZE + 2 * BORDER  # of the square with its border
TRAIN_SIZE = 16_000

_BORDER_GREY = 127
_NOISE_STD = 20
_SEED = 0
_POSITIONS = IMAGE_SIZE - SIDE  # 52: number of places of the corner along one axis


class Squares:
    """The squares data set: random access to records, and all images as arrays.

    `train` has 16,000 images with random colours and places. `validation` has 630 on a grid of
    3 rows x 3 columns x 5 inner values x 7 backgrounds: 315 "lower" ones (inner value 0 to 127,
    names `lower_000.png` ...), then 315 "upper" ones, the same with the inner value 128 higher
    and the same noise (`upper_000.png` ...).

    Images are drawn at the first access (validation 0.1 s, train about 4 s) and kept
    for the life of the process. Every record has its label, its mask and the target of the
    paper's "mirror" experiment (`mirror_target`).

    Args:
        split: "train" or "validation".
        limit: keep only the first `limit` images; nothing more is drawn. None: all of them.

    Raises:
        UserError: unknown split, or a limit below 1.
    """

    unit = None  # of the labels

    def __init__(self, split: str, limit: int | None = None):
        if split not in ("train", "validation"):
            raise UserError(
                f'the squares data set has no split "{split}": use "train" or "validation"'
            )
        if limit is not None and limit < 1:
            raise UserError(f"a limit of {limit} leaves no image: data.limit must be at least 1")
        self.split = split
        if split == "train":
            names = [f"train_{i:05d}.png" for i in range(TRAIN_SIZE)]
        else:
            half = len(_validation_grid())
            names = [f"{part}_{i:03d}.png" for part in ("lower", "upper") for i in range(half)]
        self.names: list[str] = names[:limit]

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, i: int) -> Record:
        i = range(len(self))[i]
        inner, _, row, column = self.latents[i]
        return Record(
            id=i,
            name=self.names[i],
            image=self.images[i],
            y=float(inner) / 255,
            target=self.target(i),
            mask=inner_mask(row, column),
        )

    def target(self, i: int) -> float:
        """The target of an image in the "mirror" experiment."""
        return float(mirror_target(float(self.latents[i][0]) / 255))

    @property
    def images(self) -> np.ndarray:
        """All images, uint8 [N, 64, 64, 3], read-only."""
        return self._drawn[1]

    @property
    def latents(self) -> np.ndarray:
        """What each image shows, int64 [N, 4]: inner value, background, row, column.

        Row and column are those of the upper left corner of the border.
        """
        return self._drawn[0]

    @property
    def labels(self) -> np.ndarray:
        """Red value of each inner square over 255, float32 [N] in [0, 1]."""
        return (self.latents[:, 0] / 255).astype(np.float32)

    @property
    def masks(self) -> np.ndarray:
        """Inner squares, bool [N, 64, 64]."""
        return np.stack([inner_mask(row, column) for _, _, row, column in self.latents])

    @functools.cached_property
    def _drawn(self) -> tuple[np.ndarray, np.ndarray]:
        if self.split == "train":
            return _draw_train(len(self))
        latents, images = _draw_validation()
        return latents[: len(self)], images[: len(self)]


class VariedSquares(Squares):
    """The training squares with changes, to train regressors on.

    `distraction` gives random colours to everything but the inner square:
    `x + u distraction patches`, where `patches` is the mean of normal noise in cells of 1, 2, 4 and
    8 pixels, scaled to a standard deviation of 1, and u is uniform in [0, 1] for each image. A
    regressor of the plain data takes a border that turns red for a redder square, and
    counterfactuals redden the border; here the border says nothing.

    `ends` is the share of images whose inner square is drawn again with the value 0 or 255. Noise
    is clipped there, so that these squares look like those a few values further in; of the training
    images 0.8% have one of the two labels, of the validation images and the mirror targets 20%.

    `planted` plants a spurious feature: the background is drawn again near the inner value, at
    `inner + N(0, (255 planted)^2)`, clipped to [0, 255]. A regressor of these images can read the
    label from the background, and does so to some degree.

    Args:
        distraction: in [0, 1] pixel units.
        ends: in [0, 1].
        planted: in [0, 1] pixel units; 0 leaves the background as it is.
        limit: as of `Squares`.
    """

    def __init__(
        self,
        distraction: float = 0.0,
        ends: float = 0.0,
        planted: float = 0.0,
        limit: int | None = None,
    ):
        super().__init__("train", limit)
        self.distraction = distraction
        self.ends = ends
        self.planted = planted

    @functools.cached_property
    def _drawn(self) -> tuple[np.ndarray, np.ndarray]:
        latents, images = (array.copy() for array in super()._drawn)
        for i, mask in enumerate(map(inner_mask, latents[:, 2], latents[:, 3])):
            if self.ends:
                random = np.random.default_rng((_SEED, i, 1))
                if random.uniform() < self.ends:
                    latents[i, 0] = random.choice((0, 255))
                    noise = _NOISE_STD * random.standard_normal((IMAGE_SIZE, IMAGE_SIZE, 3))
                    images[i][mask] = render_square(*latents[i], noise)[mask]
            if self.planted:
                random = np.random.default_rng((_SEED, i, 2))
                grey = latents[i, 0] + 255 * self.planted * random.standard_normal()
                latents[i, 1] = np.clip(np.round(grey), 0, 255)
                noise = _NOISE_STD * random.standard_normal((IMAGE_SIZE, IMAGE_SIZE, 3))
                images[i] = render_square(*latents[i], noise)
            if self.distraction:
                random = np.random.default_rng((_SEED, i))
                change = 255 * self.distraction * random.uniform() * _patches(random)
                images[i] = np.round(
                    np.clip(images[i] + np.where(mask[..., None], 0, change), 0, 255)
                )
        return _read_only(latents, images)


def render_square(
    inner: int, background: int, row: int, column: int, noise: np.ndarray
) -> np.ndarray:
    """Draw one image.

    Args:
        inner: red value of the inner square, 0 to 255.
        background: grey value of the background, 0 to 255.
        row: row of the border's upper left corner, 0 to 52.
        column: column of that corner, 0 to 52.
        noise: [64, 64, 3], in grey values (standard deviation 20).

    Returns:
        uint8 [64, 64, 3].
    """
    # The sum is rounded to integers only once, by truncation, as in the original. Clipping the
    # whole image at the end is the same as clipping each region.
    image = noise + float(background)
    square = slice(row, row + SIDE), slice(column, column + SIDE)
    image[square] = noise[square] + float(_BORDER_GREY)
    square = _inner(row, column)
    image[square] = noise[square] + np.array([inner, 0.0, 0.0])
    return np.clip(image, 0, 255, out=image).astype(np.uint8)


def inner_mask(row: int, column: int) -> np.ndarray:
    """Mask of the inner square of a border with that corner, bool [64, 64]."""
    mask = np.zeros([IMAGE_SIZE, IMAGE_SIZE], dtype=bool)
    mask[_inner(row, column)] = True
    return mask


def inner_square_color(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Mean red value inside the square, what the paper's Square MAE compares with the target.

    Noise clipped at black or white shifts it: a square with inner value 0 reads about 0.03.

    Args:
        image: [..., H, W, 3], float in [0, 1].
        mask: bool [..., H, W].

    Returns:
        float64 [...] in [0, 1].
    """
    return np.mean(image[..., 0], axis=(-2, -1), where=mask, dtype=np.float64)


def background_color(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Mean over all channels of everything outside the inner square, the grey border included.

    The paper's Background MAE is the difference of these means before and after.

    Args:
        image: [..., H, W, 3], float in [0, 1].
        mask: bool [..., H, W].

    Returns:
        float64 [...] in [0, 1].
    """
    return np.mean(image, axis=(-3, -2, -1), where=~mask[..., None], dtype=np.float64)


def mirror_target(y: float | np.ndarray) -> np.ndarray:
    """Target of the paper's "mirror" experiment: the label moved by 128 grey values.

    With v = floor(255 y) as uint8: (v + 128) / 255 where v <= 127, else (v - 128) / 255.

    Args:
        y: label in [0, 1], any shape.

    Returns:
        float64 of that shape; rounded to float32 it is the original's value to the last bit.
    """
    # 255 y is taken in float32 like in the original: it decides where truncation falls.
    value = (np.float32(y) * np.float32(255)).astype(np.uint8).astype(np.float64)
    return np.where(value <= 127, value + 128, value - 128) / 255


def _inner(row: int, column: int) -> tuple[slice, slice]:
    top, left = row + BORDER, column + BORDER
    return slice(top, top + INNER_SIZE), slice(left, left + INNER_SIZE)


@functools.lru_cache(maxsize=2)
def _draw_train(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Latents [size, 4] and images of the first training images."""
    # One random stream through all images: the order of draws is part of the data set.
    random = np.random.RandomState(_SEED)
    latents = np.empty([size, 4], dtype=np.int64)
    images = np.empty([size, IMAGE_SIZE, IMAGE_SIZE, 3], dtype=np.uint8)
    for i in range(size):
        # The bits of i choose the upper (bit 0) or lower half of each latent's range.
        for k, (middle, end) in enumerate(2 * [(128, 256)] + 2 * [(_POSITIONS // 2, _POSITIONS)]):
            low, high = (middle, end) if (i >> k) % 2 == 0 else (0, middle)
            latents[i, k] = random.randint(low, high)
        images[i] = render_square(*latents[i], _noise(random))
    return _read_only(latents, images)


def _patches(random: np.random.Generator) -> np.ndarray:
    """Noise of unit variance in cells of 1, 2, 4 and 8 pixels, [64, 64, 3]."""
    total = np.zeros((IMAGE_SIZE, IMAGE_SIZE, 3))
    for cell in (1, 2, 4, 8):
        cells = random.standard_normal((IMAGE_SIZE // cell, IMAGE_SIZE // cell, 3))
        total += cells.repeat(cell, 0).repeat(cell, 1)
    shift = tuple(random.integers(8, size=2))
    return np.roll(total, shift, (0, 1)) / 2


@functools.lru_cache(maxsize=1)
def _draw_validation() -> tuple[np.ndarray, np.ndarray]:
    """Latents [630, 4] and images of the validation set."""
    random = np.random.RandomState(_SEED)
    lower = _validation_grid()
    upper = lower + np.array([128, 0, 0, 0])
    noises = [_noise(random) for _ in lower]
    latents = np.concatenate([lower, upper])
    images = [
        render_square(*latent, noise) for latent, noise in zip(latents, 2 * noises, strict=True)
    ]
    return _read_only(latents, np.stack(images))


def _validation_grid() -> np.ndarray:
    positions = np.linspace(0, _POSITIONS, num=3, dtype=np.int64)
    inners = np.linspace(0, 127, num=5, dtype=np.int64)
    backgrounds = np.linspace(0, 255, num=7, dtype=np.int64)
    grid = itertools.product(positions, positions, inners, backgrounds)
    return np.array([(inner, background, row, column) for row, column, inner, background in grid])


def _noise(random: np.random.RandomState) -> np.ndarray:
    return random.randn(IMAGE_SIZE, IMAGE_SIZE, 3) * _NOISE_STD


def _read_only(*arrays: np.ndarray) -> tuple[np.ndarray, ...]:
    # They are shared by every Squares of the process.
    for array in arrays:
        array.setflags(write=False)
    return arrays
