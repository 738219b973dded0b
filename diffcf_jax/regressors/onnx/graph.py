"""ONNX graphs as functions of JAX: computed node by node while a program is traced."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffcf_jax.errors import UserError
from diffcf_jax.files import short
from diffcf_jax.regressors.onnx import (  # noqa: F401 - they enter their operators into the table
    channels,
    ops_activation,
    ops_conv,
    ops_elementwise,
    ops_index,
    ops_linear,
    ops_norm,
    ops_resize,
    ops_shape,
)
from diffcf_jax.regressors.onnx.model import Function, Graph, Model, Node, Reference
from diffcf_jax.regressors.onnx.simplify import share_concatenations
from diffcf_jax.regressors.onnx.table import OPERATORS, Array, is_static, unsupported

# Floats of more elements are variables; shorter ones (exponents, bounds, scales) may have to be
# known while the program is traced.
_LONGEST_CONSTANT = 8
_DEEPEST = 32  # functions that call functions
_MOST_NODES = 1_000_000


@dataclasses.dataclass(frozen=True)
class Program:
    """What of a model has to be computed for one of its outputs.

    Attributes:
        nodes: in the order of the file.
        constants: name -> array that is known while a program is traced.
        variables: name -> weights, float arrays.
        input: name of the image.
        output: name of the result.
        functions: of the model.
    """

    nodes: tuple[Node, ...]
    constants: Mapping[str, np.ndarray]
    variables: Mapping[str, np.ndarray]
    input: str
    output: str
    functions: Mapping[tuple[str, str], Function]

    def __call__(self, variables: Mapping[str, Array], x: Array) -> Array:
        """Return the output for an image batch as the model takes it."""
        values = {**self.constants, **variables, self.input: x, "": None}
        _compute(self.nodes, values, self.functions)
        return jnp.asarray(channels.channels_first(values[self.output]))


def compile_graph(model: Model, output: str) -> Program:
    """Return the part of a model that computes one of its outputs.

    Raises:
        UserError: the graph is cyclic, reads what nothing computes, or has an unknown operator.
    """
    graph = model.graph
    made = {value.name: None for value in graph.inputs} | dict.fromkeys(graph.constants)
    producers: dict[str, Node] = {}
    for node in graph.nodes:
        for name in (name for name in _reads(node) if name not in made):
            raise UserError(
                f"{node} reads {short(name)} before anything has computed it: the graph is cyclic "
                "or incomplete; export the model again."
            )
        for name in filter(None, node.outputs):
            if name in made:
                raise UserError(
                    f"{node} computes {short(name)} a second time: export the model again."
                )
            made[name], producers[name] = None, node
    if output not in made:
        raise UserError(f"The output is {short(output)}, which nothing computes: export it again.")
    needed, stack = set(), [output]
    while stack:
        name = stack.pop()
        if name not in needed:
            needed.add(name)
            stack.extend(_reads(producers[name]) if name in producers else ())
    nodes = tuple(node for node in graph.nodes if needed & set(node.outputs))
    _check_operators(nodes, model.functions)
    constants = {name: graph.constants[name] for name in graph.constants if name in needed}
    for node in nodes:
        if node.op == "Constant" and not node.domain and node.attributes.get("value") is not None:
            constants[node.outputs[0]] = node.attributes["value"]
    nodes = share_concatenations(node for node in nodes if node.outputs[0] not in constants)
    return Program(
        nodes=nodes,
        constants={name: _small(x) for name, x in constants.items() if not _is_weight(x)},
        variables={name: _weight(name, x) for name, x in constants.items() if _is_weight(x)},
        input=graph.inputs[0].name,
        output=output,
        functions=model.functions,
    )


def _check_operators(
    nodes: Sequence[Node],
    functions: Mapping[tuple[str, str], Function],
    sizes: dict[tuple[str, str], int] | None = None,
    depth: int = 0,
) -> int:
    """The number of operators that nodes come to, with all functions put in place.

    Raises:
        UserError: an operator is unknown, or functions call each other too often.
    """
    sizes, total = {} if sizes is None else sizes, 0
    for node in nodes:
        key = node.domain, node.op
        if key in functions:
            if depth < _DEEPEST and key not in sizes:
                body = functions[key].graph.nodes
                sizes[key] = _check_operators(body, functions, sizes, depth + 1)
            total += sizes.get(key, _MOST_NODES)
        elif key == ("", "If"):
            for branch in node.attributes.values():
                inner = getattr(branch, "nodes", ())
                total += _check_operators(inner, functions, sizes, depth + 1)
        elif node.domain or node.op not in OPERATORS:
            raise UserError(
                f"{node} is an operator that this package does not read: export the model without "
                "it, or give the regressor as a function (package.module:name)."
            )
        total += 1
    if total > _MOST_NODES:
        raise UserError(
            f"This ONNX file comes to more than {_MOST_NODES:,} operators, since its functions "
            "call each other: export the model again."
        )
    return total


def _compute(
    nodes: Sequence[Node],
    values: dict[str, Any],
    functions: Mapping[tuple[str, str], Function],
) -> None:
    """Compute nodes one after the other; `values` gets their outputs."""
    for node in nodes:
        try:
            inputs = [values[name] for name in node.inputs]
            results = _results(node, inputs, values, functions)
        except UserError:
            raise
        except Exception as error:  # what does not fit together fails in many ways
            shapes = [getattr(values.get(name), "shape", ()) for name in node.inputs]
            reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
            raise UserError(
                f"{node} cannot be computed for inputs of shape {', '.join(map(str, shapes))} "
                f"({reason.rstrip('.:')}): check the image size, or export the model again."
            ) from error
        results = results if isinstance(results, tuple) else (results,)
        for name, result in zip(node.outputs, results, strict=False):
            values[name] = result
        values[""] = None


def _results(
    node: Node,
    inputs: list[Any],
    values: Mapping[str, Any],
    functions: Mapping[tuple[str, str], Function],
) -> Any:
    if (node.domain, node.op) in functions:
        return _call(node, functions[node.domain, node.op], inputs, functions)
    if node.op == "If":
        return _branch(node, inputs[0], values, functions)
    while inputs and inputs[-1] is None:  # left out at the end
        inputs = inputs[:-1]
    return channels.apply(node, inputs)


def _branch(
    node: Node,
    condition: Array,
    values: Mapping[str, Any],
    functions: Mapping[tuple[str, str], Function],
) -> tuple[Any, ...]:
    """The branch that a condition chooses while the program is traced."""
    if not is_static(condition):
        raise unsupported(node, "a condition that depends on the image")
    graph: Graph = node.attributes["then_branch" if condition.all() else "else_branch"]
    inner = {**values, **graph.constants}
    _compute(graph.nodes, inner, functions)
    return tuple(inner[value.name] for value in graph.outputs)


def _call(
    node: Node,
    function: Function,
    inputs: Sequence[Any],
    functions: Mapping[tuple[str, str], Function],
) -> tuple[Any, ...]:
    """A function that the model defines, with the attributes of its node."""
    given = {**function.defaults, **node.attributes}
    names = [value.name for value in function.graph.inputs]
    values = {**dict.fromkeys([*names, ""]), **dict(zip(names, inputs, strict=False))}
    _compute([_with_attributes(inner, given) for inner in function.graph.nodes], values, functions)
    return tuple(values[value.name] for value in function.graph.outputs)


def _with_attributes(node: Node, given: Mapping[str, Any]) -> Node:
    attributes = {
        name: given.get(value.name) if isinstance(value, Reference) else value
        for name, value in node.attributes.items()
    }
    return dataclasses.replace(node, attributes=attributes)


def _reads(node: Node) -> list[str]:
    """Names of the values that a node needs, those of its branches included."""
    names = [name for name in node.inputs if name]
    for graph in node.attributes.values():
        if isinstance(graph, Graph):
            own = {name for inner in graph.nodes for name in inner.outputs} | set(graph.constants)
            read = [name for inner in graph.nodes for name in _reads(inner)]
            read += [value.name for value in graph.outputs]
            names += [name for name in read if name not in own]
    return names


def _is_weight(x: np.ndarray) -> bool:
    return x.size > _LONGEST_CONSTANT and jnp.issubdtype(x.dtype, jnp.floating)


def _small(x: np.ndarray) -> np.ndarray:
    return x.astype(np.float32) if x.dtype == np.float64 else x


def _weight(name: str, x: np.ndarray) -> np.ndarray:
    x = _small(x)
    if np.isnan(x.min()):  # which is NaN where any is, and needs no array of flags
        raise UserError(f"The weights {short(name)} hold NaN: train or export the model again.")
    return x


def as_arrays(variables: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
    """Return the weights as arrays of JAX."""
    return {name: jnp.asarray(x) for name, x in variables.items()}
