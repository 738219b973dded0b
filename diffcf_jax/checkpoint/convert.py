"""Turn an original's checkpoint, or a folder of diffusers, into a network directory.

    diffcf convert SOURCE... --kind KIND --out DIR [--preset NAME]
        [--flags "--num_channels 128 ..." | --flags_json FILE]

SOURCE is read without PyTorch or TensorFlow and nothing in it is run. Either every weight finds its
place or nothing is written. LPIPS has two SOURCEs: the classifier, and the weights of its layers.
Networks of TensorFlow.js are given by their .json, with the .bin beside it.
"""

import functools
import json
import math
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from diffcf_jax import cli, shipped
from diffcf_jax.checkpoint.description import check_description
from diffcf_jax.checkpoint.diffusers import describe_diffusers, read_diffusers
from diffcf_jax.checkpoint.network import abstract_variables
from diffcf_jax.checkpoint.original_flags import ORIGINALS, PRESETS
from diffcf_jax.checkpoint.store import save_network
from diffcf_jax.checkpoint.tfjs import read_tfjs
from diffcf_jax.checkpoint.torch_keys import IGNORED, names_in, unwrapped
from diffcf_jax.checkpoint.torch_reader import read_state_dict
from diffcf_jax.checkpoint.weights import fill
from diffcf_jax.errors import UserError
from diffcf_jax.files import read_text

DIFFUSERS = "diffusers"  # the kind whose SOURCE is a folder


def describe_unconverted(arguments: str) -> dict[str, Any]:
    """Describe the network that the command line makes, by its flags alone.

    Args:
        arguments: SOURCE and the options without --out; a DenseNet is taken for a densenet121.

    Raises:
        UserError: a flag is unknown or does not fit.
    """
    args, sources = main.parse([*shlex.split(arguments), "--out", "."])
    if args.kind == DIFFUSERS:
        return describe_diffusers(Path(sources[0]).expanduser())
    return ORIGINALS[args.kind][1](_read_flags(args), {})


def import_network(
    kind: str,
    state_dict: Mapping[str, np.ndarray],
    flags: Mapping[str, Any] | None = None,
    source: str = "The state dict",
) -> tuple[dict[str, Any], Any]:
    """Make a network of an original's weights.

    Args:
        kind: an original, a key of `ORIGINALS`.
        state_dict: its arrays by their original keys.
        flags: the original's flags by name; a missing one has the original's default value.
        source: where the weights come from, for messages.

    Returns:
        The description (see `Network.description`) and the variables, float32.

    Raises:
        UserError: a flag is unknown or does not fit, or weights are missing, extra or misshapen.
    """
    known, describe = ORIGINALS[kind]
    state_dict = unwrapped(state_dict)
    flags = {name: _typed(kind, known, name, value) for name, value in (flags or {}).items()}
    try:
        description = describe(flags, state_dict)
    except UserError:
        raise
    except (KeyError, ValueError, IndexError, ZeroDivisionError) as error:
        raise UserError(
            f"{source} is no {kind}: it lacks the weight {str(error)[:200]}; give the --kind that "
            "fits it."
        ) from None
    description["training"] = {"converted": kind}
    try:
        check_description(description)
        expected = abstract_variables(description)
    except UserError as error:
        raise UserError(f"These flags do not fit a {kind}: {error}") from None
    variables = fill(
        expected,
        state_dict,
        names_in(kind, state_dict),
        source,
        f"{source} does not fit --kind {kind} with these flags, nothing was written",
        IGNORED[kind],
    )
    return description, variables


def read_flags(
    kind: str, preset: str | None, text: str | None, json_file: Path | None
) -> dict[str, Any]:
    """Read the originals' flags; given ones override the preset's.

    Args:
        kind: an original, a key of `ORIGINALS`.
        preset: a name in `PRESETS`.
        text: flags as on a command line.
        json_file: a JSON object of flags.

    Raises:
        UserError: the preset is unknown, or the flags cannot be read.
    """
    flags: dict[str, Any] = {}
    if preset is not None:
        if (kind, preset) not in PRESETS:
            known = sorted(name for of_kind, name in PRESETS if of_kind == kind)
            raise UserError(f"--kind {kind} has no preset {preset!r}; it has {known or 'none'}.")
        flags.update(PRESETS[kind, preset])
    if text is not None:
        flags.update(_split_flags(text))
    if json_file is not None:
        content = read_text(json_file)
        try:
            given = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{json_file} cannot be read as JSON: {error}.") from None
        if not isinstance(given, dict):
            raise UserError(f"{json_file} must hold a JSON object of flags.")
        flags.update(given)
    return flags


def _split_flags(text: str) -> dict[str, str]:
    """Split "--name value" and "--name=value"."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise UserError(f"--flags cannot be split into words: {error}.") from None
    flags = {}
    while words:
        name, equals, value = words.pop(0).partition("=")
        if not name.startswith("--") or not (equals or words):
            raise UserError(f'--flags must be "--name value ...", but has {name!r}.')
        flags[name[2:]] = value if equals else words.pop(0)
    return flags


def _typed(kind: str, known: Mapping[str, Any], name: str, value: Any) -> Any:
    """Give a flag the type of its default value, of text or of JSON."""
    if name not in known:
        raise UserError(
            f"--kind {kind} has no flag {name!r}; it has {', '.join(known) or 'no flags'}."
        )
    default = known[name]
    try:
        if isinstance(default, bool):
            return {"true": True, "1": True, "false": False, "0": False}[str(value).lower()]
        if isinstance(default, tuple):
            if isinstance(value, str):
                value = [part for part in value.strip("()[] ").split(",") if part.strip()]
            return tuple(_number(part) for part in value or ())
        if isinstance(default, int):
            return _whole(value)
        if isinstance(default, float):
            return float(value)
        return "" if value is None else str(value)
    except (KeyError, ValueError, TypeError, OverflowError):
        raise UserError(f"The flag --{name} cannot be {value!r}.") from None


def _whole(value: Any) -> int:
    """Read a natural number, or the -1 by which the originals leave one out."""
    number = float(value)
    if number != int(number) or (number < 1 and number != -1):
        raise ValueError(value)
    return int(number)


def _number(value: Any) -> int | float:
    """Read a positive number."""
    number = float(value)
    if not 0 < number < math.inf:
        raise ValueError(value)
    return int(number) if number == int(number) else number


def _check_out(out: Path) -> None:
    """Refuse to replace what is no network directory."""
    if out.exists() and not (out / "network.json").is_file():
        raise UserError(f"{out} exists and is no network directory; give another --out.")


def _define(values: flags.FlagValues) -> None:
    presets = ", ".join(sorted({name for _, name in PRESETS}))
    kinds = sorted([*ORIGINALS, DIFFUSERS])
    flags.DEFINE_enum("kind", None, kinds, "What the original is.", flag_values=values)
    cli.define_path(values, "out", "The network directory to write.")
    flags.DEFINE_string("preset", None, f"Flags of a known network: {presets}.", flag_values=values)
    flags.DEFINE_string(
        "flags", None, 'The original\'s own flags, as "--num_channels 128 ...".', flag_values=values
    )
    cli.define_path(values, "flags_json", "The same as a JSON object in a file.")
    flags.DEFINE_alias("flags-json", "flags_json", flag_values=values)
    flags.mark_flags_as_mutual_exclusive(["flags", "flags_json"], flag_values=values)


def _read_flags(args: flags.FlagValues) -> dict[str, Any]:
    return read_flags(args.kind, args.preset, args.flags, args.flags_json)


def _convert(args: flags.FlagValues, arguments: list[str]) -> None:
    sources = [Path(argument).expanduser() for argument in arguments]
    _check_out(args.out)
    given = _read_flags(args)
    named = " with ".join(map(str, sources))
    if args.kind == DIFFUSERS:
        if given:
            raise UserError("--kind diffusers finds all in the folder: leave --flags out.")
        if len(sources) > 1:
            raise UserError("--kind diffusers reads one folder: leave the others out.")
        description, variables = read_diffusers(sources[0])
    else:
        state_dict = _read_sources(sources)
        description, variables = import_network(args.kind, state_dict, given, named)
    description["training"]["source"] = " with ".join(source.name for source in sources)
    save_network(args.out, description, variables)
    print(f"{args.out}: {args.kind} of {named}, as kind {description['kind']}")


def _read_sources(sources: Sequence[Path]) -> dict[str, np.ndarray]:
    """The weights of all files together."""
    together: dict[str, np.ndarray] = {}
    for source in sources:
        read = read_tfjs if source.suffix == ".json" else read_state_dict
        found = read(source)
        both = sorted(together.keys() & found.keys())
        if both:
            raise UserError(
                f"{source} has weights that an earlier file has too ({both[0]}): give each part of "
                "the original once."
            )
        together |= found
    return together


main = cli.Command(
    program=functools.partial(shipped.command, "convert"),
    about="""Turn an original's checkpoint, or a folder of diffusers, into a network directory.

SOURCE is read without PyTorch or TensorFlow and nothing in it is run. Either every weight finds its
place or nothing is written. LPIPS has two SOURCEs: the classifier, and the weights of its layers.
Networks of TensorFlow.js are given by their .json, with the .bin beside it.""",
    run=_convert,
    define=_define,
    arguments=("SOURCE", "..."),
    required=("kind", "out"),
)

if __name__ == "__main__":
    sys.exit(main())
