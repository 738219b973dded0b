"""Saving and restoring: network directories and training checkpoints. The only user of Orbax."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging

from diffcf_jax import parallel
from diffcf_jax.checkpoint.description import check_description
from diffcf_jax.checkpoint.diffusers import describe_diffusers, is_diffusers, read_diffusers
from diffcf_jax.checkpoint.network import (
    Network,
    abstract_variables,
    build_module,
    fingerprint,
)
from diffcf_jax.errors import UserError
from diffcf_jax.files import check_regular_file, read_text
from diffcf_jax.shipped import command, find_checkpoint

FORMAT = 1
_HINT = "copy or train the checkpoint again"


def save_network(directory: str | os.PathLike, description: dict, variables: Any) -> None:
    """Write a network directory: `network.json` and the variables in `params/`.

    The directory appears whole or not at all; an older network of that name is replaced. In a run
    of several processes all of them must call this.

    Args:
        directory: where to.
        description: see `Network.description`; `format` and `digest` are added.
        variables: what `module.apply` takes first.

    Raises:
        UserError: the directory exists and is no network.
    """
    directory = Path(directory).absolute()
    if jax.process_index() == 0:
        recover_network(directory)
    if directory.exists() and not (directory / "network.json").is_file():
        raise UserError(f"{directory} exists and is not a network; give another directory.")
    partial = directory.with_name(f".{directory.name}.partial")
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(partial / "params", variables, force=True)
    if jax.process_index() != 0:
        return
    # Orbax notes where it wrote to, which is wrong as soon as the directory moves.
    (partial / "params" / "commit_success.txt").unlink(missing_ok=True)
    described = {"format": FORMAT, **description, "digest": fingerprint(variables)}
    text = json.dumps(described, indent=2)
    (partial / "network.json").write_text(text + "\n")
    older = _older(directory)
    shutil.rmtree(older, ignore_errors=True)
    if directory.exists():
        directory.rename(older)
    partial.rename(directory)
    shutil.rmtree(older, ignore_errors=True)


def recover_network(directory: Path) -> None:
    """Bring a network back that `save_network` was about to replace when it was killed."""
    if not directory.exists() and _older(directory).exists():
        _older(directory).rename(directory)


def load_network(directory: str | os.PathLike) -> Network:
    """Read a network directory, or a DDPM of diffusers (see `read_diffusers`).

    Raises:
        UserError: it is missing, damaged, of another format, does not hold the variables that its
            `network.json` describes, or holds values that are not finite.
    """
    directory = find_checkpoint(directory)
    if is_diffusers(directory):
        description, variables = read_diffusers(directory)
        variables = jax.device_put(variables, jax.local_devices()[0])
        return Network(description, build_module(description), variables)
    params = directory / "params"
    description = read_description(directory)
    try:
        module, wanted = build_module(description), abstract_variables(description)
    except UserError as error:
        raise UserError(f"{directory / 'network.json'}: {error}") from None
    variables = _read_variables(params, wanted)
    if "digest" not in description:
        logging.warning("%s has no digest in its network.json; its values are not checked.", params)
    elif description["digest"] != fingerprint(variables):
        raise UserError(f"The checkpoint {params} is damaged; {_HINT}.")
    if (name := _non_finite(variables)) is not None:
        raise UserError(f"{params} has values of {name} that are not finite; {_HINT}.")
    return Network(description, module, variables)


def _read_variables(params: Path, wanted: Any) -> Any:
    """Read variables of the wanted shapes."""
    sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    target = jax.tree.map(
        lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=sharding), wanted
    )
    _check_files(params)
    with ocp.StandardCheckpointer() as checkpointer:
        try:
            found = checkpointer.metadata(params).item_metadata.tree
            differences = _differences(wanted, found)
        except Exception:  # what Orbax says is of keys and arrays, not of files
            raise UserError(f"The checkpoint {params} cannot be read; {_HINT}.") from None
        if differences:
            raise UserError(
                f"{params} does not match its network.json ({differences}); give the checkpoint "
                "that belongs to it."
            )
        try:
            return checkpointer.restore(params, target)
        except Exception:
            raise UserError(f"The checkpoint {params} is damaged; {_HINT}.") from None


def _check_files(folder: Path) -> None:
    """Refuse pipes and devices, at whose end Orbax would wait for ever."""
    for path, _, names in os.walk(folder):
        for name in names:
            check_regular_file(Path(path, name))


def _non_finite(variables: Any) -> str | None:
    """Name an array with values that are not finite, if there is one."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(variables):
        if not np.isfinite(leaf).all():
            return "/".join(str(key.key) for key in path)
    return None


def training_checkpoints(directory: str | os.PathLike, keep: int = 2) -> ocp.CheckpointManager:
    """Open the checkpoints of a training run, of which the newest `keep` stay."""
    options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=True)
    handler = ocp.StandardCheckpointHandler()  # which `restore_state` asks what there is
    return ocp.CheckpointManager(Path(directory).absolute(), options=options, item_handlers=handler)


def save_state(checkpoints: ocp.CheckpointManager, step: int, state: Any) -> None:
    """Save a training state in the background; a save that is interrupted leaves no trace."""
    digest = {"digest": fingerprint(state)}
    checkpoints.save(step, args=ocp.args.StandardSave(state), custom_metadata=digest)


def restore_state(checkpoints: ocp.CheckpointManager, like: Any) -> Any:
    """Restore the newest training state that is whole, in the structure and sharding of `like`.

    Damaged ones are put aside, so that their steps can be saved again. Returns `like` itself when
    there is no state yet.

    Raises:
        UserError: a checkpoint is of another network or optimiser, or all are damaged.
    """
    target = jax.tree.map(
        lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=a.sharding), like
    )
    damaged = []
    for step in sorted(checkpoints.all_steps(), reverse=True):
        folder = Path(checkpoints.directory) / str(step)
        state = _restore(checkpoints, step, folder, target)
        if all(parallel.gather(f"{folder} is whole", state is not None)):
            _put_aside(damaged)
            checkpoints.reload()
            return state
        damaged.append(folder)
    if damaged:
        raise UserError(
            f"Every checkpoint in {checkpoints.directory} is damaged; remove that folder to begin "
            "anew, or use another --workdir."
        )
    return like


def read_description(directory: Path) -> dict[str, Any]:
    """Read what a network directory, or a folder of diffusers, says of its network.

    Raises:
        UserError: it is missing, or of another format.
    """
    if is_diffusers(directory):
        return describe_diffusers(directory)
    path = directory / "network.json"
    if not os.path.lexists(path):
        raise UserError(
            f"There is no network at {directory.absolute()}: {path.name} is missing; give a "
            f"directory that {command('train')} or {command('convert')} wrote."
        )
    text = read_text(path, remedy=_HINT)
    try:
        description = json.loads(text)
    except (ValueError, RecursionError) as error:
        reason = str(error)[:200]
        raise UserError(f"{path} is not valid JSON ({reason}); {_HINT}.") from None
    found = description.get("format") if isinstance(description, dict) else None
    if type(found) is int and found != FORMAT:
        raise UserError(
            f"{path} has format {found}, this version reads {FORMAT}; install the version of "
            "diffcf_jax that wrote it."
        )
    try:
        check_description(description)
    except UserError as error:
        raise UserError(f"{path}: {error} Copy or train the checkpoint again.") from None
    if found != FORMAT:
        raise UserError(f"{path} has no whole number as its format; {_HINT}.")
    return description


def _older(directory: Path) -> Path:
    return directory.with_name(f".{directory.name}.older")


def _restore(
    checkpoints: ocp.CheckpointManager, step: int, folder: Path, target: Any
) -> Any | None:
    """Return a training state, None if it is damaged."""
    try:
        _check_files(folder)
        differences = _differences(target, checkpoints.item_metadata(step).tree)
        if not differences:
            state = checkpoints.restore(step, args=ocp.args.StandardRestore(target))
            digest = (checkpoints.metadata(step).custom_metadata or {}).get("digest")
            if digest not in (None, fingerprint(state)):
                raise ValueError("its values are not those that were saved")
            return state
    except Exception as error:  # damage shows as errors of every kind
        logging.warning("The checkpoint %s cannot be read: %s", folder, _first_line(error))
        return None
    raise UserError(
        f"The checkpoint {folder} does not fit this config ({differences}); use another --workdir "
        "or the config that it was made with."
    )


def _put_aside(damaged: list[Path]) -> None:
    for folder in damaged:
        aside = folder.with_name(f"{folder.name}.damaged")
        logging.warning("%s is damaged and is now %s; an older one is used.", folder, aside.name)
        if jax.process_index() == 0:
            shutil.rmtree(aside, ignore_errors=True)
            folder.rename(aside)
    parallel.wait_for_all("damaged checkpoints are put aside")


def _forms(tree: Any) -> dict[str, str]:
    """Return type and shape of each array, such as "float32[3,3]", by its path."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {
        "/".join(str(getattr(k, "key", k)).lstrip(".") for k in path): (
            f"{np.dtype(leaf.dtype)}[{','.join(map(str, leaf.shape))}]"
        )
        for path, leaf in leaves
    }


def _differences(wanted: Any, found: Any) -> str:
    """Say in which arrays two trees differ, empty if in none."""
    wanted, found = _forms(wanted), _forms(found)
    problems = [f"missing {name}" for name in wanted.keys() - found.keys()]
    problems += [f"unexpected {name[:100]}" for name in found.keys() - wanted.keys()]
    problems += [
        f"{name} is {found[name]} instead of {form}"
        for name, form in wanted.items()
        if name in found and found[name] != form
    ]
    more = f" and {len(problems) - 5} more" if len(problems) > 5 else ""
    return "; ".join(sorted(problems)[:5]) + more


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
