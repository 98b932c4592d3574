"""Which inputs of a model are perturbed; the others are constants, and several perturbed ones make one row.

The graph of several inputs becomes one of a single flat input that is cut into them in front, so that an L2 ball
around that row is the joint perturbation of all of them, and everything behind knows one input only.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from certifier.documents import FixedInput
from certifier.errors import InvalidInput, UnsupportedModel
from certifier.graph import FLOATING, Array, Graph, Node, Tensor
from certifier.limits import Limits
from certifier.reading.emitting import array_dtype
from certifier.reading.selecting import fresh, standard_node

FIELD = "options.fixed_inputs"


def with_inputs(
    graph: Graph, wanted: Sequence[str] | None, fixed: Mapping[str, object], *, limits: Limits
) -> tuple[Graph, tuple[FixedInput, ...]]:
    """The graph whose inputs are the wanted ones (None: all without a fixed value), and what the others are fixed to.

    Inputs that the outputs do not depend on need no value; with None they are dropped.
    Raises: InvalidInput, which names the input, for a name that the model does not have, a missing value, and a value
    that its declared shape or type does not hold; ResourceLimitExceeded.
    """
    known = {tensor.name: tensor for tensor in graph.inputs}
    names = ", ".join(known)
    for name in fixed:
        if name not in known:
            raise InvalidInput(f"{FIELD}.{name}", f"is none of the inputs {names}")
    read = _read(graph)
    if wanted is None:
        chosen = tuple(name for name in known if name not in fixed and (name in read or len(known) == 1))
        if not chosen:
            raise InvalidInput(FIELD, f"leaves none of the inputs {names} to perturb")
    else:
        chosen = tuple(wanted)
    if not chosen or len(set(chosen)) < len(chosen):
        raise InvalidInput("options.inputs", "name every input that is perturbed once")
    for name in chosen:
        if name not in known:
            raise InvalidInput("options.inputs", f"{name!r} is none of the inputs {names}")
        if name in fixed:
            raise InvalidInput(f"{FIELD}.{name}", "is fixed, but options.inputs names it as perturbed")
    constants: dict[str, Array] = {}
    described, notes = list[FixedInput](), list(graph.notes)
    for tensor in graph.inputs:
        if tensor.name in chosen:
            continue
        if tensor.name in fixed:
            value = _held(tensor, fixed[tensor.name], limits)
            constants[tensor.name] = value
            described.append(_describe(tensor, value))
            notes.append(f"certified with the input {tensor.name!r} fixed to the given value; not for other values")
        elif tensor.name in read:
            raise InvalidInput(
                f"{FIELD}.{tensor.name}",
                f"is missing: the outputs depend on this input, of type {tensor.dtype} and shape "
                f"{list(tensor.row_shape)}, and options.inputs does not name it",
            )
        else:
            notes.append(f"nothing that is certified depends on the input {tensor.name!r}")
    chosen_graph = replace(
        graph,
        inputs=tuple(known[name] for name in chosen),
        constants={**graph.constants, **constants},
        notes=tuple(notes),
    )
    return chosen_graph, tuple(described)


def with_joint_input(graph: Graph, *, limits: Limits) -> Graph:
    """A graph of one input: the same, or that of one flat row of all inputs, one after another.

    Raises: UnsupportedModel where there is no L2 ball around the inputs; ResourceLimitExceeded.
    """
    for tensor in graph.inputs:
        demand_ball(tensor)
    if len(graph.inputs) == 1:
        return graph
    dtypes = {tensor.dtype for tensor in graph.inputs}
    names = [tensor.name for tensor in graph.inputs]
    if len(dtypes) > 1:
        kinds = ", ".join(f"{tensor.name} ({tensor.dtype})" for tensor in graph.inputs)
        raise UnsupportedModel(
            f"the inputs {kinds} are of different types, so no row holds them together",
            remedy=f"perturb those of one type with options.inputs, and give the others as {FIELD}",
        )
    sizes = [math.prod(tensor.shape) for tensor in graph.inputs]
    limits.demand("value_elements", sum(sizes), f"the inputs {', '.join(names)}")
    taken = {name for node in graph.nodes for name in (*node.inputs, *node.outputs)} | set(graph.constants)
    joint = fresh("joint_input", taken | set(names))
    ends = list(itertools.accumulate(sizes))
    nodes, constants = list[Node](), dict[str, Array]()
    for position, (tensor, size, end) in enumerate(zip(graph.inputs, sizes, ends, strict=True)):
        part = f"{joint}_{position}"
        given: tuple[str, ...] = (joint,)
        attributes: dict[str, object] = {"starts": (end - size,), "ends": (end,), "axes": (1,)}
        if graph.opset >= 10:
            given = (joint, *(f"{part}_{key}" for key in attributes))
            constants |= {f"{part}_{key}": np.array(value, dtype=np.int64) for key, value in attributes.items()}
            attributes = {}
        constants[f"{part}_shape"] = np.array(tensor.shape, dtype=np.int64)
        nodes.append(standard_node(graph.opset, "Slice", given, part, attributes))
        nodes.append(standard_node(graph.opset, "Reshape", (part, f"{part}_shape"), tensor.name, {}))
    note = f"the inputs {', '.join(names)} are perturbed together: every distance is the L2 norm over all their entries"
    return replace(
        graph,
        nodes=(*nodes, *graph.nodes),
        inputs=(Tensor(name=joint, dtype=dtypes.pop(), shape=(1, sum(sizes)), batch_axis=True),),
        constants={**graph.constants, **constants},
        notes=(*graph.notes, note),
    )


def demand_ball(tensor: Tensor) -> None:
    """There are inputs within an L2 distance of another one.

    Raises: UnsupportedModel.
    """
    if tensor.dtype not in FLOATING:
        raise UnsupportedModel(
            f"input {tensor.name!r} is of type {tensor.dtype}: there is no L2 ball around integers or strings",
            remedy=f"export the model from its first floating-point tensor on, or give this input a value in {FIELD}",
        )
    if math.prod(tensor.shape) == 0:
        raise UnsupportedModel(f"input {tensor.name!r} is empty")


def _read(graph: Graph) -> set[str]:
    """The values that the outputs depend on."""
    wanted = set(graph.outputs)
    for node in reversed(graph.nodes):
        if not wanted.isdisjoint(node.outputs):
            wanted.update(node.inputs)
    return wanted


def _held(tensor: Tensor, value: object, limits: Limits) -> Array:
    """The value as the model's input holds it: a number for all entries, or an array of the declared shape.

    Arithmetic: a number that a floating-point type does not hold is rounded to nearest; what is held is certified.
    """
    field = f"{FIELD}.{tensor.name}"
    limits.demand("elements", math.prod(tensor.shape), f"input {tensor.name!r}")
    try:
        given = np.asarray(value)
    except ValueError:  # lists of unequal lengths
        given = np.array(None)
    if given.dtype.kind not in "biuf":
        raise InvalidInput(field, "is neither a number nor a regular array of numbers")
    if given.ndim and given.shape not in (tensor.shape, tensor.row_shape):
        raise InvalidInput(field, f"has shape {list(given.shape)}, but the input has shape {list(tensor.row_shape)}")
    held = _typed(given, tensor.dtype, field)
    return np.ascontiguousarray(np.broadcast_to(held if held.ndim == 0 else held.reshape(tensor.shape), tensor.shape))


def _typed(given: Array, dtype: str, field: str) -> Array:
    """`given` in the element type `dtype`; booleans, integers and fractions are not taken for one another."""
    if dtype == "bool" and given.dtype.kind == "b":
        return given
    if dtype in FLOATING and given.dtype.kind in "iuf":
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            held = given.astype(array_dtype(dtype))
            back = held.astype(np.float64)
        lost = ~np.isfinite(back) | ((back == 0) & (given != 0))
        if lost.any():
            raise InvalidInput(field, f"holds {given[lost].flat[0]}, which {dtype} does not represent")
        return held
    if dtype.startswith(("int", "uint")) and given.dtype.kind in "iu":
        span = np.iinfo(dtype)
        for end in (int(given.min(initial=0)), int(given.max(initial=0))):
            if not span.min <= end <= span.max:
                raise InvalidInput(field, f"holds {end}, which {dtype} does not represent")
        return given.astype(dtype)
    kind = {"b": "booleans", "i": "integers", "u": "integers", "f": "fractions"}[given.dtype.kind]
    raise InvalidInput(field, f"holds {kind}, but the input is of type {dtype}")


def _describe(tensor: Tensor, value: Array) -> FixedInput:
    little = value.astype(value.dtype.newbyteorder("<")) if value.dtype.kind in "iuf" else value
    return FixedInput(
        name=tensor.name,
        dtype=tensor.dtype,
        shape=list(tensor.shape),
        sha256=hashlib.sha256(little.tobytes()).hexdigest(),
    )
