"""ONNX graphs as functions of JAX: computed node by node while a program is traced."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffcf_jax.errors import UserError
from diffcf_jax.files import short
from diffcf_jax.regressors.onnx import (  # noqa: F401 - they enter their operators into the table
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
from diffcf_jax.regressors.onnx.table import OPERATORS, Array, unsupported

# Floats of more elements are variables; shorter ones (exponents, bounds, scales) may have to be
# known while the program is traced.
_LONGEST_CONSTANT = 8
_DEEPEST = 64  # functions that call functions


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
        return jnp.asarray(values[self.output])


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
    nodes = tuple(node for node in nodes if node.outputs[0] not in constants)
    return Program(
        nodes=nodes,
        constants={name: _small(x) for name, x in constants.items() if not _is_weight(x)},
        variables={name: _weight(name, x) for name, x in constants.items() if _is_weight(x)},
        input=graph.inputs[0].name,
        output=output,
        functions=model.functions,
    )


def _check_operators(
    nodes: Sequence[Node], functions: Mapping[tuple[str, str], Function], depth: int = 0
) -> None:
    if depth > _DEEPEST:
        raise UserError("The functions of this ONNX file call each other without an end.")
    for node in nodes:
        if (node.domain, node.op) in functions:
            body = functions[node.domain, node.op].graph.nodes
            _check_operators(body, functions, depth + 1)
        elif node.op == "If" and not node.domain:
            for branch in node.attributes.values():
                _check_operators(getattr(branch, "nodes", ()), functions, depth + 1)
        elif node.domain or node.op not in OPERATORS:
            raise UserError(
                f"{node} is an operator that this package does not read: export the model without "
                "it, or give the regressor as a function (package.module:name)."
            )


def _compute(
    nodes: Sequence[Node],
    values: dict[str, Any],
    functions: Mapping[tuple[str, str], Function],
) -> None:
    """Compute nodes one after the other; `values` gets their outputs."""
    for node in nodes:
        inputs = [values[name] for name in node.inputs]
        if (node.domain, node.op) in functions:
            results = _call(node, functions[node.domain, node.op], inputs, functions)
        elif node.op == "If" and not node.domain:
            results = _branch(node, inputs[0], values, functions)
        else:
            results = _apply(node, OPERATORS[node.op], inputs)
        results = results if isinstance(results, tuple) else (results,)
        for name, result in zip(node.outputs, results, strict=False):
            values[name] = result
        values[""] = None


def _apply(node: Node, operator: Callable[..., Any], inputs: Sequence[Any]) -> Any:
    while inputs and inputs[-1] is None:  # left out at the end
        inputs = inputs[:-1]
    try:
        return operator(node, *inputs)
    except UserError:
        raise
    # What does not fit together fails in numpy or JAX in many ways.
    except (TypeError, ValueError, IndexError, KeyError, AttributeError, OverflowError) as error:
        shapes = ", ".join("none" if x is None else str(np.shape(x)) for x in inputs)
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200].rstrip(".:")
        raise UserError(
            f"{node} cannot be computed for inputs of shape {shapes} ({reason}): check the image "
            "size, or export the model again."
        ) from error


def _branch(
    node: Node,
    condition: Array,
    values: Mapping[str, Any],
    functions: Mapping[tuple[str, str], Function],
) -> tuple[Any, ...]:
    """The branch that a condition chooses while the program is traced."""
    if not isinstance(condition, (np.ndarray, np.generic)):
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
    if np.isnan(x).any():
        raise UserError(f"The weights {short(name)} hold NaN: train or export the model again.")
    return x


def as_arrays(variables: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
    """Return the weights as arrays of JAX."""
    return {name: jnp.asarray(x) for name, x in variables.items()}
