"""Saving and restoring: network directories and training checkpoints. The only user of Orbax."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from absl import logging

from diffcf_jax import parallel
from diffcf_jax.checkpoint.network import Network, abstract_variables, build_module
from diffcf_jax.errors import UserError
from diffcf_jax.shipped import command, find_checkpoint

FORMAT = 1
_REQUIRED = ("format", "kind", "model", "image_size")


def save_network(directory: str | os.PathLike, description: dict, variables: Any) -> None:
    """Writes a network directory: `network.json` and the variables in `params/`.

    The directory appears whole or not at all; an older network of that name is replaced. In a run
    of several processes all of them must call this.

    Args:
        directory: where to.
        description: see `Network.description`; `format` is added.
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
    text = json.dumps({"format": FORMAT, **description}, indent=2)
    (partial / "network.json").write_text(text + "\n")
    older = _older(directory)
    shutil.rmtree(older, ignore_errors=True)
    if directory.exists():
        directory.rename(older)
    partial.rename(directory)
    shutil.rmtree(older, ignore_errors=True)


def recover_network(directory: Path) -> None:
    """Brings a network back that `save_network` was about to replace when it was killed."""
    if not directory.exists() and _older(directory).exists():
        _older(directory).rename(directory)


def load_network(directory: str | os.PathLike) -> Network:
    """Reads a network directory.

    Raises:
        UserError: it is missing, truncated, of another format, or does not hold the variables of
            the network that its `network.json` describes.
    """
    directory = find_checkpoint(directory)
    description = read_description(directory)
    module = build_module(description)
    wanted = abstract_variables(description)
    hint = "copy or train the checkpoint again"
    with ocp.StandardCheckpointer() as checkpointer:
        found = checkpointer.metadata(directory / "params").item_metadata
        if found is None:
            raise UserError(f"The checkpoint {directory / 'params'} cannot be read; {hint}.")
        differences = _differences(_shapes(wanted), _shapes(found.tree))
        if differences:
            raise UserError(
                f"{directory / 'params'} holds another network than its network.json describes "
                f"({differences}); give the checkpoint that belongs to it."
            )
        sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        target = jax.tree.map(
            lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=sharding), wanted
        )
        try:
            variables = checkpointer.restore(directory / "params", target)
        except Exception:  # what it says is of arrays and slices, not of files
            raise UserError(f"The checkpoint {directory / 'params'} is damaged; {hint}.") from None
    return Network(description, module, variables)


def training_checkpoints(directory: str | os.PathLike, keep: int = 2) -> ocp.CheckpointManager:
    """Opens the checkpoints of a training run, of which the newest `keep` stay."""
    options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=True)
    handler = ocp.StandardCheckpointHandler()  # which `restore_state` asks what there is
    return ocp.CheckpointManager(Path(directory).absolute(), options=options, item_handlers=handler)


def save_state(checkpoints: ocp.CheckpointManager, step: int, state: Any) -> None:
    """Saves a training state in the background; a save that is interrupted leaves no trace."""
    checkpoints.save(step, args=ocp.args.StandardSave(state))


def restore_state(checkpoints: ocp.CheckpointManager, like: Any) -> Any:
    """Restores the newest training state that is whole, in the structure and sharding of `like`.

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
    """Reads what a network directory says of its network.

    Raises:
        UserError: it is missing, or of another format.
    """
    path = directory / "network.json"
    if not path.is_file():
        raise UserError(
            f"There is no network at {directory.absolute()}: {path.name} is missing; give a "
            f"directory that {command('train')} or {command('convert')} wrote."
        )
    try:
        description = json.loads(path.read_text())
        missing = [key for key in _REQUIRED if key not in description]
    except (json.JSONDecodeError, UnicodeDecodeError, TypeError) as error:
        raise UserError(f"{path} is not valid JSON ({error}); copy the checkpoint again.") from None
    if missing:
        raise UserError(f"{path} lacks the keys {', '.join(missing)}; copy the checkpoint again.")
    if description["format"] != FORMAT:
        raise UserError(
            f"{path} has format {description['format']}, this version reads {FORMAT}; "
            "install the version of diffcf_jax that wrote it."
        )
    return description


def _older(directory: Path) -> Path:
    return directory.with_name(f".{directory.name}.older")


def _restore(
    checkpoints: ocp.CheckpointManager, step: int, folder: Path, target: Any
) -> Any | None:
    """A training state; None if it is damaged."""
    try:
        found = checkpoints.item_metadata(step)
        differences = _differences(_shapes(target), _shapes(found.tree))
        if not differences:
            return checkpoints.restore(step, args=ocp.args.StandardRestore(target))
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


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {
        "/".join(str(getattr(k, "key", k)).lstrip(".") for k in path): tuple(leaf.shape)
        for path, leaf in leaves
    }


def _differences(wanted: dict[str, tuple], found: dict[str, tuple]) -> str:
    problems = [f"missing {name}" for name in wanted.keys() - found.keys()]
    problems += [f"unexpected {name}" for name in found.keys() - wanted.keys()]
    problems += [
        f"{name} has shape {found[name]} instead of {shape}"
        for name, shape in wanted.items()
        if name in found and found[name] != shape
    ]
    more = f" and {len(problems) - 5} more" if len(problems) > 5 else ""
    return "; ".join(sorted(problems)[:5]) + more


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
