"""Counts the bytes that a program compiled for a TPU moves to and from the chip's main memory."""

import math
import re
from collections.abc import Mapping
from typing import NamedTuple

_BITS = {"pred": 8, "token": 0}  # of types whose name does not say it
_COMPUTATION = re.compile(r"(?:ENTRY )?%?([\w.-]+) \(.*\) -> .* \{$")
_INSTRUCTION = re.compile(r"(ROOT )?%?([\w.-]+) = (\(.*?\)|\S+) ([\w-]+)\((.*)")
# Without its memory space a layout is that of the main memory; S(1) is the chip's fast memory.
_ARRAY = re.compile(r"(\w+)\[([\d,]*)\](?:\{([^}]*)\})?")
# What names memory, or waits for it, without moving anything
_SILENT = {
    "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "call",
    "conditional", "after-all", "partition-id", "replica-id", "opt-barrier", "add-dependency",
}  # fmt: skip


class _Instruction(NamedTuple):
    name: str
    type: str
    opcode: str
    operands: list[str]
    called: list[str]
    root: bool


def count_bytes(program: str, turns: int) -> float:
    """Sums what every operation reads from main memory and writes to it.

    An operation moves its operands and its results where they lie in main memory; of an array
    that is only sliced or updated in part, the part. A loop's body counts `turns` times.

    Args:
        program: text of an optimised module, as `jax.stages.Compiled.as_text` returns it.
        turns: of every loop.
    """
    computations, entry = _parse(program)

    def total(name: str) -> float:
        body = computations[name]
        types = {instruction.name: instruction.type for instruction in body}
        found = 0.0
        for instruction in body:
            if instruction.opcode == "while":
                found += turns * sum(map(total, instruction.called))
            elif instruction.opcode in ("call", "conditional"):
                found += sum(map(total, instruction.called))
            elif not (instruction.opcode in _SILENT or instruction.opcode.endswith("-done")):
                found += _moved(instruction, types, computations)
        return found

    return total(entry)


def _moved(
    instruction: _Instruction,
    types: Mapping[str, str],
    computations: Mapping[str, list[_Instruction]],
) -> float:
    operands = [types[name] for name in instruction.operands]
    if instruction.opcode.endswith("-start"):
        # Its type is (result, operand, ...) of a copy, and ((operands), result, ...) of others.
        place = 0 if instruction.opcode == "copy-start" else len(operands)
        result = list(_ARRAY.finditer(instruction.type))[place]
        ends = bool(_bytes(operands[0])) + _in_main_memory(result)
        return ends * _array_bytes(result)
    if instruction.opcode == "dynamic-slice":
        return _bytes(instruction.type) * (1 + bool(_bytes(operands[0])))
    if instruction.opcode == "dynamic-update-slice":
        return _bytes(operands[1]) + bool(_bytes(instruction.type)) * _size(operands[1])
    if instruction.opcode != "fusion" or not instruction.called:
        return _bytes(instruction.type) + sum(map(_bytes, operands))
    fused = computations[instruction.called[0]]
    parts = _parts(fused)
    parameters = {i.operands[0]: i.name for i in fused if i.opcode == "parameter"}
    found = 0.0
    for number, operand in enumerate(operands):
        part = parts.get(parameters.get(str(number), ""), _size(operand))
        found += min(part, _size(operand)) if _bytes(operand) else 0
    inner = {i.name: i for i in fused}
    root = next(i for i in fused if i.root)
    results = [inner[name] for name in root.operands] if root.opcode == "tuple" else [root]
    for result, kind in zip(results, _ARRAY.finditer(instruction.type), strict=True):
        while result.opcode == "bitcast":
            result = inner[result.operands[0]]
        updated = result.opcode == "dynamic-update-slice"
        part = _size(inner[result.operands[1]].type) if updated else _array_bytes(kind)
        found += part if _in_main_memory(kind) else 0
    return found


def _parts(fused: list[_Instruction]) -> dict[str, float]:
    """Bytes that a fusion reads of those of its parameters that it only slices or updates."""
    sources: dict[str, str] = {}
    parts: dict[str, float] = {}
    whole = set()
    for instruction in fused:
        if instruction.opcode == "parameter":
            sources[instruction.name] = instruction.name
        for place, name in enumerate(instruction.operands):
            if name not in sources:
                continue
            source = sources[name]
            if instruction.opcode == "bitcast":
                sources[instruction.name] = source
            elif instruction.opcode == "dynamic-slice" and place == 0:
                parts[source] = parts.get(source, 0) + _size(instruction.type)
            elif instruction.opcode == "dynamic-update-slice" and place == 0:
                parts.setdefault(source, 0)
            else:
                whole.add(source)
    return {source: part for source, part in parts.items() if source not in whole}


def _parse(program: str) -> tuple[dict[str, list[_Instruction]], str]:
    computations: dict[str, list[_Instruction]] = {}
    entry, current = "", []
    for line in program.splitlines():
        line = line.strip()
        if header := _COMPUTATION.match(line):
            current = computations.setdefault(header[1], [])
            entry = header[1] if line.startswith("ENTRY") else entry
        elif found := _INSTRUCTION.match(line):
            root, name, kind, opcode, rest = found.groups()
            arguments, _, attributes = rest.partition(")")
            # A parameter's argument is its number, others name their operands.
            operands = re.findall(r"\d+" if opcode == "parameter" else r"%([\w.-]+)", arguments)
            called = re.findall(r"(?:calls|body|to_apply)=%?([\w.-]+)", attributes)
            for group in re.findall(r"branch_computations=\{([^}]*)\}", attributes):
                called += re.findall(r"%?([\w.-]+)", group)
            current.append(_Instruction(name, kind, opcode, operands, called, bool(root)))
    return computations, entry


def _in_main_memory(array: re.Match[str]) -> bool:
    return "S(" not in (array[3] or "")


def _bytes(kind: str) -> float:
    """Bytes of those arrays of a type that lie in main memory."""
    return sum(_array_bytes(found) for found in _ARRAY.finditer(kind) if _in_main_memory(found))


def _size(kind: str) -> float:
    """Bytes of a type's arrays, wherever they lie."""
    return sum(map(_array_bytes, _ARRAY.finditer(kind)))


def _array_bytes(found: re.Match[str]) -> float:
    kind = found[1]
    bits = _BITS[kind] if kind in _BITS else int(re.search(r"\d+", kind)[0])  # f32, s4, f8e4m3fn
    return bits / 8 * math.prod(int(n) for n in found[2].split(",") if n)
