"""ATen operators -> nodes of the standard: the one meaning that TorchScript and exported programs share.

`lower` applies one operator to values that are known as far as they can be: tensors are `Ref`s, everything else is a
Python value.  Element types are numpy's names ("float32") or PyTorch's numbers; devices, layouts and memory formats
are any value, since none changes what is computed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from certifier.errors import UnsupportedNode
from certifier.reading import quantised
from certifier.reading.aten import (
    activations,  # noqa: F401  (importing a family registers its operators)
    arithmetic,  # noqa: F401
    attention,  # noqa: F401
    constants,  # noqa: F401
    movements,  # noqa: F401
    normalising,  # noqa: F401
    pooling,  # noqa: F401
    products,  # noqa: F401
    recurrent,  # noqa: F401
    reductions,  # noqa: F401
    registry,
    resizing,  # noqa: F401
    selections,  # noqa: F401
    values,  # noqa: F401
)
from certifier.reading.aten.registry import Call
from certifier.reading.emitting import Emitter, Ref

_UNKNOWN = "this operator is not supported in TorchScript and exported programs"
_ONNX = "export the model to ONNX, whose exporter may write it in operators that are known"
_RANDOM = "draws random numbers, so its output is no function of the input; export the model after model.eval()"
_SEARCH = "gives places or sizes that depend on the input's values, which is discontinuous"
_COMPLEX = "computes with complex numbers, which are not supported"
REFUSED = {
    **dict.fromkeys(("rand", "randn", "randint", "bernoulli", "normal", "uniform", "multinomial", "randperm"), _RANDOM),
    **dict.fromkeys(("rand_like", "randn_like", "native_dropout_backward", "poisson", "exponential"), _RANDOM),
    **dict.fromkeys(("argsort", "nonzero", "unique", "_unique2", "masked_select", "searchsorted"), _SEARCH),
    **dict.fromkeys(("fft_fft", "fft_rfft", "fft_ifft", "fft_irfft", "_fft_r2c", "_fft_c2c", "_fft_c2r"), _COMPLEX),
}
"""Operators that are refused on purpose, with the reason that a user reads."""


def lower(
    emitter: Emitter, operator: str, arguments: Sequence[object], keywords: Mapping[str, object], *, where: str
) -> object:
    """The result of one ATen operator: a `Ref`, a tuple or list of them, or a Python number.

    `operator` is its name without namespace and overload; its in-place form (`relu_`) gives the new value, and it is
    the caller's to give that value to every name of the old one.  `where` names the call in nodes and errors.
    Raises: UnsupportedNode, MalformedModel, ResourceLimitExceeded.
    """
    refusal = unknown(operator, where)
    if refusal is not None:
        raise refusal
    name, entry = registry.find(operator) or ("", None)
    assert entry is not None
    call = Call(emitter=emitter, operator=name, where=where)
    try:
        bound = entry.signature.bind(call, *arguments, **keywords)
    except TypeError as error:
        raise call.refuse(f"its arguments do not fit: {error}") from error
    try:
        result = entry.function(*bound.args, **bound.kwargs)
        if name != operator and isinstance(result, Ref) and arguments and isinstance(arguments[0], Ref):
            # What is written in place keeps its element type.
            return call.cast(result, arguments[0].dtype)
        return result
    except (ValueError, IndexError, OverflowError, ZeroDivisionError, TypeError) as error:
        # Shapes that do not fit one another surface as Python or numpy errors inside a lowering.
        raise call.refuse(f"its arguments do not fit: {error}") from error


def unknown(operator: str, where: str) -> UnsupportedNode | None:
    """The refusal of an operator that has no lowering; None if it has one."""
    if registry.find(operator) is not None:
        return None
    if quantised.is_quantised(operator):
        return UnsupportedNode(where, operator, quantised.REASON, remedy=quantised.REMEDY)
    reason = REFUSED.get(operator.removesuffix("_"), _UNKNOWN)
    return UnsupportedNode(where, operator, reason, remedy=_ONNX if reason == _UNKNOWN else None)


def supported() -> tuple[str, ...]:
    """The ATen operators that `lower` knows, sorted."""
    return registry.names()
