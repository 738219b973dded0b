"""Counterfactuals per hour of trained networks, beside the originals with the same weights.

Their classes hold the shipped weights; where a network folds patches into channels, the patches are
folded and unfolded around it. Both sides explain the same squares and are measured on the images as
they would be saved.
"""

import dataclasses
import statistics
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from absl.flags import FlagValues
from safetensors.numpy import save_file

from diffcf_jax.checkpoint.store import load_network, save_network
from diffcf_jax.checkpoint.torch_keys import write_state_dict
from diffcf_jax.counterfactual.ac_re import ACRE
from diffcf_jax.counterfactual.diffae_re import DiffAERE
from diffcf_jax.counterfactual.methods import METHODS
from diffcf_jax.counterfactual.options import Options
from diffcf_jax.data.record import Record
from diffcf_jax.data.squares import Squares
from diffcf_jax.errors import UserError
from diffcf_jax.units import unit_of

from ..metrics.squares import square_metrics
from .job import write
from .side import SIDES, Side

OURS = "diffcf_jax"
# Counterfactuals [N, H, W, 3] as they would be saved, in [0, 1], to means
Quality = Callable[[np.ndarray], dict[str, float]]

# The paper's values for the squares, and the step that makes the originals fastest with the shipped
# networks at an unchanged rate of success.
_ACRE = ACRE(solver="pgd", iterations=100, step_size=2 / 255, gradient_floor=0.0)
_DIFFAERE = DiffAERE(
    solver="adam", iterations=200, learning_rate=0.002, inversion_steps=20, decode_steps=10,
    distance_weight=0.0,
)  # fmt: skip
_SETTINGS: dict[str, dict[str, Options]] = {
    ACRE.name: {"paper": _ACRE, "tuned": dataclasses.replace(_ACRE, step_size=8 / 255)},
    DiffAERE.name: {
        "paper": _DIFFAERE, "tuned": dataclasses.replace(_DIFFAERE, learning_rate=0.03)
    },
}  # fmt: skip
_KINDS = {"ddpm": "ddpm", "diffae": "diffae", "resnet": "resnet-regressor"}  # the originals'
# Both sides compute in float32; a prediction and an image may differ by this much at most.
_TOLERANCE = 1e-4
_STRIDE = 389  # between squares: 630 divided by the golden ratio, and prime to 630


def compare(config: Mapping[str, Any], batch: int, args: FlagValues) -> str:
    """Explains `--images` squares on each side, in turns, and returns the table.

    Raises:
        UserError: the config is not one of the squares, or the sides do not compute the same.
    """
    if config.get("data", {}).get("name") != "squares" or "method" not in config:
        raise UserError("--trained needs a config that explains the squares: give such a --config.")
    if config["regressor"].get("model"):
        raise UserError(
            "--trained needs a network directory that the originals can load: give "
            "config.regressor.checkpoint instead of config.regressor.model."
        )
    if not 1 <= args.images <= len(Squares("validation")):
        raise UserError(
            f"--images={args.images} must be the number of squares to explain with --trained, "
            f"1 to {len(Squares('validation'))}."
        )
    names = [OURS, *_SETTINGS[config["method"]["name"]]] if args.originals else [OURS]
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        quality = _write(folder, config, batch, args)
        sides = {name: Side(name, folder) for name in SIDES if name == OURS or args.originals}
        try:
            for side in sides.values():
                side.ask("prepare")
            if args.originals:
                print(check(sides, folder), flush=True)
            found: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
            for _ in range(args.repeats):
                for name in names:
                    side = sides[OURS if name == OURS else "originals"]
                    run = side.ask(f"explain {name}")["result"]
                    found[name].append(run | quality(np.load(folder / f"{name}.npy") / 255))
        finally:
            for side in sides.values():
                side.close()
    return table(batch, found)


def _write(folder: Path, config: Mapping[str, Any], batch: int, args: FlagValues) -> Quality:
    """Writes the job of both sides; returns what measures their counterfactuals."""
    method = config["method"]
    generator, regressor = (
        load_network(config[role]["checkpoint"]) for role in ("generator", "regressor")
    )
    if generator.kind != METHODS[method["name"]].generator_kind or regressor.kind not in _KINDS:
        raise UserError(
            f"--trained knows no originals of a {generator.kind} and a {regressor.kind} for "
            f"{method['name']}: give a config of the squares."
        )
    for role, network in (("generator", generator), ("regressor", regressor)):
        save_network(folder / role, network.description, network.variables)
        state_dict = write_state_dict(_KINDS[network.kind], network.variables)
        save_file(state_dict, folder / f"{role}.safetensors")
    unit = unit_of(regressor.description, config["regressor"])
    squares = _squares(args.images)
    targets = np.array([square.target for square in squares])
    settings = {OURS: method} | {
        name: {"name": method["name"], **dataclasses.asdict(options)}
        for name, options in _SETTINGS[method["name"]].items()
    }
    threshold = method["threshold"]
    write(
        folder,
        np.stack([square.image for square in squares]).astype(np.float32) / 255,
        unit.normalise(targets),
        args,
        batch,
        method=method,
        network=generator.description,
        regressor=regressor.description,
        settings={
            name: {**options, "threshold": threshold / unit.scale}
            for name, options in settings.items()
        },
    )

    def quality(made: np.ndarray) -> dict[str, float]:
        y = regressor.module.apply(regressor.variables, made.astype(np.float32))
        miss = np.abs(unit.denormalise(np.asarray(y)) - targets)
        measured = [
            square_metrics(square.image / 255, image, square.mask, square.target)
            for square, image in zip(squares, made, strict=True)
        ]
        means = {key: float(np.mean([each[key] for each in measured])) for key in measured[0]}
        return means | {"success_saved": float(np.mean(miss <= threshold))}

    return quality


def _squares(count: int) -> list[Record]:
    """Different validation squares, spread over positions, colours and backgrounds."""
    squares = Squares("validation")
    return [squares[_STRIDE * i % len(squares)] for i in range(count)]


def check(sides: Mapping[str, Side], folder: Path) -> str:
    """Says by how much the sides differ before the search: predictions and generated images.

    Raises:
        UserError: by more than float32 explains.
    """
    ours, theirs = (np.asarray(side.ask("check")["result"]) for side in sides.values())
    images = [np.load(folder / f"check_{name}.npy") for name in sides]
    differences = {
        "predictions": float(np.max(np.abs(ours - theirs))),
        "generated images": float(np.max(np.abs(images[0] - images[1]))),
    }
    for what, difference in differences.items():
        if not difference <= _TOLERANCE:
            raise UserError(
                f"The sides do not compute the same: their {what} differ by {difference:.2g}, and "
                f"{_TOLERANCE:g} is the limit."
            )
    listed = ", ".join(f"{what} by {value:.1e}" for what, value in differences.items())
    return f"From the same inputs the sides differ at most: {listed}."


def table(batch: int, found: Mapping[str, list[Mapping[str, Any]]]) -> str:
    """One column per run, medians over the repeats; below them the ratios to the first column."""
    rows: dict[str, list[float]] = {}
    forms: dict[str, str] = {}

    def row(label: str, form: str, value: Any) -> None:
        rows[label] = [statistics.median(map(value, runs)) for runs in found.values()]
        forms[label] = form

    def per_hour(run: Mapping[str, Any]) -> float:
        return 3600 * len(run["success"]) / (run["seconds"] - run["compile_seconds"])

    def cpu(run: Mapping[str, Any]) -> float:
        return (run["cpu_seconds"] - run["compile_cpu_seconds"]) / len(run["success"])

    row("counterfactuals per hour", ".1f", per_hour)
    row("the same with compiling", ".1f", lambda run: 3600 * len(run["success"]) / run["seconds"])
    row("CPU seconds per counterfactual", ".2f", cpu)
    row("seconds of compiling", ".1f", lambda run: run["compile_seconds"])
    row("CPU seconds of compiling", ".1f", lambda run: run["compile_cpu_seconds"])
    row("success, as the method sees it", ".3f", lambda run: np.mean(run["success"]))
    row("success of the saved image", ".3f", lambda run: run["success_saved"])
    row("iterations", ".1f", lambda run: np.mean(run["iterations"]))
    row("Square MAE", ".4f", lambda run: run["square_mae"])
    row("Background MAE", ".4f", lambda run: run["background_mae"])

    head = f"{len(found[OURS][0]['success'])} squares, batch {batch}"
    titles = [name if name == OURS else f"originals, {name}" for name in found]
    lines = [f"{head:34}" + "".join(f"{title:>20}" for title in titles)]
    lines += [
        f"{label:34}" + "".join(f"{value:>20{forms[label]}}" for value in values)
        for label, values in rows.items()
    ]
    ratios = {
        "times as many per hour": "counterfactuals per hour",
        "with compiling": "the same with compiling",
        "times as few CPU seconds": "CPU seconds per counterfactual",
    }
    for label, of in ratios.items() if len(found) > 1 else ():
        ours, *theirs = rows[of]
        values = [other / ours if of.startswith("CPU") else ours / other for other in theirs]
        lines.append(f"{label:34}{'':20}" + "".join(f"{value:>20.1f}" for value in values))
    return "\n".join(lines)
