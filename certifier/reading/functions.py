"""How large a model becomes when its local functions are inlined, told before any of them is."""

from __future__ import annotations

import onnx

from certifier.errors import MalformedModel
from certifier.limits import Limits

Key = tuple[str, str]


def demand_expansion(model: onnx.ModelProto, limits: Limits) -> None:
    """The inlined model stays within `limits.nodes`.  Functions that call one another twice grow exponentially.

    Raises: ResourceLimitExceeded; MalformedModel for functions that call themselves.
    """
    functions = {(function.domain, function.name): function for function in model.functions}
    sizes: dict[Key, int] = {}
    for root in functions:
        _measure(root, functions, sizes, limits)
    total = sum(sizes.get((node.domain, node.op_type), 1) for node in model.graph.node)
    limits.demand("nodes", total)


def _measure(root: Key, functions: dict[Key, onnx.FunctionProto], sizes: dict[Key, int], limits: Limits) -> None:
    """Fill `sizes` for `root` and all that it calls, children first and without recursion."""
    pending, open_calls = [root], set[Key]()
    while pending:
        key = pending[-1]
        calls = [(node.domain, node.op_type) for node in functions[key].node]
        missing = [call for call in calls if call in functions and call not in sizes]
        if key in sizes:
            pending.pop()
        elif missing:
            open_calls.add(key)
            if missing[0] in open_calls:
                raise MalformedModel(f"function {missing[0][1]!r} calls itself")
            pending.append(missing[0])
        else:
            sizes[key] = sum(sizes.get(call, 1) for call in calls)
            limits.demand("nodes", sizes[key], f"function {key[1]!r}")
            open_calls.discard(key)
            pending.pop()
