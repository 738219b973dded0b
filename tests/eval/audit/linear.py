"""A linear autoencoder: an image of 4x4 pixels is its own code, so that every answer is known."""

import numpy as np

from eval.audit.directions import Direction, Space, split
from eval.audit.subject import Subject

SIDE = 4
CODES = SIDE * SIDE * 3


class Linear:
    """What `Latent` does, for codes that are images."""

    def __init__(self, weights):
        self.weights = weights

    def encode(self, images):
        return images.reshape(len(images), CODES)

    def render(self, z, x_T):
        assert len(z) == len(x_T)
        return z.reshape(-1, SIDE, SIDE, 3)

    def gradient(self, z, x_T):
        return np.tile(self.weights, (len(z), 1))


def reader(weights):
    return lambda images: images.reshape(len(images), CODES) @ weights


def subject(z, weights, changes, image_of=None, names=None, **oracles):
    """A subject whose regressor is linear in z; changes are of s, one per counterfactual."""
    space = Space.of(z)
    n = len(z)
    image_of = np.arange(n) if image_of is None else np.asarray(image_of)
    names = [f"{i}.png" for i in range(n)] if names is None else names
    before = z[image_of] @ weights
    return Subject(
        names=names,
        images=z.reshape(n, SIDE, SIDE, 3),
        codes=space.standardise(z),
        x_T=np.zeros(n),
        half=split(names),
        image_of=image_of,
        changes=changes,
        before=before,
        after=before + space.change(changes) @ weights,
        space=space,
        latent=Linear(weights),
        readers={name: reader(w) for name, w in {"regressor": weights, **oracles}.items()},
        identity=None,
        unit=None,
        threshold=0.1,
        seed=0,
    )


def direction(vector, name="u", source="gradient"):
    """The same direction in both halves."""
    return Direction(name, source, np.stack([vector, vector]) / np.linalg.norm(vector), {})
