"""Linear maps, written once each: forward, adjoint, |A| and fan-in.

An `Operator` maps flat row-major vectors of `columns` entries to flat vectors of `rows` entries; `forward` and
`adjoint` take a batch `[B, columns]` or `[B, rows]`.  `fan_in` is the largest number of products that any entry of
`forward` sums, so that one application in floating point errs by at most gamma(fan_in) |A||x| entrywise, whatever
the order of summation; a map that only moves numbers has fan-in 0 and is exact.  `weight_error` bounds the relative
error of the stored weights against the exact ones (0 for weights taken from a model; a few roundings for 1/9).

The file is longer than most because every map of the project lives here, each in about thirty lines.
"""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise, product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

Array = NDArray[Any]


class Operator(ABC):
    """A real linear map between flat vectors."""

    rows: int
    columns: int

    @abstractmethod
    def forward(self, x: Array) -> Array:
        """A x for every row x of `x`.  Shapes: [B, columns] -> [B, rows]."""

    @abstractmethod
    def adjoint(self, y: Array) -> Array:
        """A^T y for every row y of `y`.  Shapes: [B, rows] -> [B, columns]."""

    @abstractmethod
    def absolute(self) -> Operator:
        """|A|, entrywise (or an entrywise upper bound of it where parts are composed)."""

    @property
    @abstractmethod
    def fan_in(self) -> int:
        """The largest number of products summed into one entry of `forward`; 0 if entries are only moved."""

    @property
    @abstractmethod
    def fan_out(self) -> int:
        """The same for `adjoint`."""

    @property
    @abstractmethod
    def weight_error(self) -> float:
        """Relative entrywise error of the stored map against the exact one, in the sense of |A_stored|."""

    @abstractmethod
    def describe(self) -> str:
        """A few words for people: kind and size."""

    @abstractmethod
    def _fingerprint(self) -> Sequence[object]:
        """Everything that determines the map: numbers, tuples, arrays, operators."""

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the map's kind and weights: equal digests, equal maps."""
        state = hashlib.sha256(type(self).__name__.encode())
        for part in (self.rows, self.columns, *self._fingerprint()):
            _feed(state, part)
        return state.hexdigest()


def _feed(state: Any, part: object) -> None:
    if isinstance(part, Operator):
        state.update(b"operator" + part.digest.encode())
    elif isinstance(part, np.ndarray):
        contiguous = np.ascontiguousarray(part)
        state.update(f"array{contiguous.dtype.str}{contiguous.shape}".encode())
        state.update(contiguous)
    else:
        state.update(f"{type(part).__name__}{part!r};".encode())


@dataclass(frozen=True, eq=False)
class Identity(Operator):
    """x -> x."""

    columns: int

    @property
    def rows(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.columns

    def forward(self, x: Array) -> Array:
        return x

    def adjoint(self, y: Array) -> Array:
        return y

    def absolute(self) -> Operator:
        return self

    fan_in = 0  # pyright: ignore[reportAssignmentType]
    fan_out = 0  # pyright: ignore[reportAssignmentType]
    weight_error = 0.0  # pyright: ignore[reportAssignmentType]

    def describe(self) -> str:
        return f"identity {self.columns}"

    def _fingerprint(self) -> Sequence[object]:
        return ()


class Kronecker(Operator):
    """I_before (x) W (x) I_after for a dense or sparse matrix W: W acts on the middle of three axes."""

    def __init__(self, matrix: Array | sparse.csr_array, *, before: int, after: int, weight_error: float) -> None:
        self.matrix, self.before, self.after = matrix, before, after
        self._weight_error = float(weight_error)
        height, width = int(matrix.shape[0]), int(matrix.shape[1])  # pyright: ignore[reportOptionalSubscript]
        self.rows, self.columns = before * height * after, before * width * after

    def _apply(self, matrix: Any, x: Array) -> Array:
        batch = x.shape[0]
        if self.after == 1:
            flat = x.reshape(batch * self.before, matrix.shape[1])
            return np.asarray((matrix @ flat.T).T if self.is_sparse else flat @ matrix.T).reshape(batch, -1)
        cube = np.moveaxis(x.reshape(batch * self.before, matrix.shape[1], self.after), 1, 0)
        out = matrix @ cube.reshape(matrix.shape[1], -1)
        out = np.asarray(out).reshape(matrix.shape[0], batch * self.before, self.after)
        return np.moveaxis(out, 0, 1).reshape(batch, -1)

    def forward(self, x: Array) -> Array:
        return self._apply(self.matrix, x)

    def adjoint(self, y: Array) -> Array:
        return self._apply(self.matrix.T, y)

    def absolute(self) -> Operator:
        return Kronecker(abs(self.matrix), before=self.before, after=self.after, weight_error=self._weight_error)

    @property
    def is_sparse(self) -> bool:
        """Whether W is stored as a sparse matrix."""
        return not isinstance(self.matrix, np.ndarray)

    @property
    def core_shape(self) -> tuple[int, int]:
        """The shape of W."""
        shape = self.matrix.shape
        return int(shape[0]), int(shape[1])  # pyright: ignore[reportOptionalSubscript]

    def dense(self) -> Array:
        """W as a dense array."""
        return self.matrix if isinstance(self.matrix, np.ndarray) else self.matrix.toarray()

    @cached_property
    def fan_in(self) -> int:  # pyright: ignore[reportIncompatibleMethodOverride]
        if isinstance(self.matrix, np.ndarray):
            return self.matrix.shape[1]
        return int(np.diff(self.matrix.tocsr().indptr).max(initial=0))

    @cached_property
    def fan_out(self) -> int:  # pyright: ignore[reportIncompatibleMethodOverride]
        if isinstance(self.matrix, np.ndarray):
            return self.matrix.shape[0]
        return int(np.diff(self.matrix.tocsc().indptr).max(initial=0))

    @property
    def weight_error(self) -> float:
        return self._weight_error

    def describe(self) -> str:
        height, width = self.core_shape
        return f"{'sparse' if self.is_sparse else 'dense'} {height}x{width}"

    def _fingerprint(self) -> Sequence[object]:
        parts: list[object] = [self.before, self.after, self._weight_error, self.matrix.shape]
        if isinstance(self.matrix, np.ndarray):
            return [*parts, self.matrix]
        csr = self.matrix.tocsr()
        return [*parts, csr.indptr, csr.indices, csr.data]


def dense(matrix: Array) -> Kronecker:
    """x -> W x for an exact dense matrix W [rows, columns]."""
    return Kronecker(matrix, before=1, after=1, weight_error=0.0)


class Diagonal(Operator):
    """x -> d * x entrywise; `channels = (before, count, after)` if d is constant over all axes but one."""

    def __init__(self, values: Array, *, weight_error: float) -> None:
        self.values = values
        self._weight_error = float(weight_error)
        self.rows = self.columns = values.size

    def forward(self, x: Array) -> Array:
        return x * self.values

    def adjoint(self, y: Array) -> Array:
        return y * self.values

    def absolute(self) -> Operator:
        return Diagonal(abs(self.values), weight_error=self._weight_error)

    fan_in = 1  # pyright: ignore[reportAssignmentType]
    fan_out = 1  # pyright: ignore[reportAssignmentType]

    @property
    def weight_error(self) -> float:
        return self._weight_error

    def per_channel(self, channels: int) -> Array | None:
        """The `channels` values if d is constant within each of `channels` equal consecutive blocks, else None."""
        if channels == 0 or self.values.size % channels:
            return None
        blocks = self.values.reshape(channels, -1)
        return blocks[:, 0] if bool(np.all(blocks == blocks[:, :1])) else None

    def describe(self) -> str:
        return f"diagonal {self.values.size}"

    def _fingerprint(self) -> Sequence[object]:
        return (self.values, self._weight_error)


class Rearrange(Operator):
    """y_i = x[indices_i], or 0 where indices_i = -1: slices, permutations, repeats and zero padding."""

    def __init__(self, indices: Array, *, columns: int) -> None:
        self.indices = np.asarray(indices).ravel()
        self.rows, self.columns = self.indices.size, columns

    def forward(self, x: Array) -> Array:
        if self._has_zeros:
            padded = np.concatenate([x, np.zeros((x.shape[0], 1), dtype=x.dtype)], axis=1)
            return padded[:, self.indices]
        return x[:, self.indices]

    def adjoint(self, y: Array) -> Array:
        out = np.zeros((y.shape[0], self.columns + 1), dtype=y.dtype)
        if self._is_injective:
            out[:, self.indices] = y
        else:
            for row in range(y.shape[0]):
                np.add.at(out[row], self.indices, y[row])
        return out[:, :-1]

    def absolute(self) -> Operator:
        return self

    @cached_property
    def counts(self) -> Array:
        """How often every input entry is read: A^T A = diag(counts), so ||A|| = sqrt(max counts)."""
        return np.bincount(self.indices[self.indices >= 0], minlength=self.columns)

    @cached_property
    def _has_zeros(self) -> bool:
        return bool((self.indices < 0).any())

    @cached_property
    def _is_injective(self) -> bool:
        return int(self.counts.max(initial=0)) <= 1

    @cached_property
    def is_permutation(self) -> bool:
        """Every entry is read exactly once, so A is orthogonal."""
        return not self._has_zeros and self.rows == self.columns and self._is_injective

    fan_in = 0  # pyright: ignore[reportAssignmentType]

    @cached_property
    def fan_out(self) -> int:  # pyright: ignore[reportIncompatibleMethodOverride]
        most = int(self.counts.max(initial=0))
        return most if most > 1 else 0

    weight_error = 0.0  # pyright: ignore[reportAssignmentType]

    def describe(self) -> str:
        return f"rearrangement {self.columns}->{self.rows}"

    def _fingerprint(self) -> Sequence[object]:
        return (self.indices.astype(np.int64),)


class Placed(Operator):
    """x, laid into a larger tensor of zeros along the middle of three axes: an isometry, as parts of a Concat are.

    Shapes: [before, own, after] -> [before, total, after], from position `start` on.
    """

    def __init__(self, *, before: int, own: int, after: int, total: int, start: int) -> None:
        if not 0 <= start <= start + own <= total:
            raise ValueError("the part does not fit into the whole")
        self.before, self.own, self.after, self.total, self.start = before, own, after, total, start
        self.rows, self.columns = before * total * after, before * own * after

    @property
    def _span(self) -> slice:
        return slice(self.start, self.start + self.own)

    def forward(self, x: Array) -> Array:
        out = np.zeros((x.shape[0], self.before, self.total, self.after), dtype=x.dtype)
        out[:, :, self._span] = x.reshape(x.shape[0], self.before, self.own, self.after)
        return out.reshape(x.shape[0], -1)

    def adjoint(self, y: Array) -> Array:
        whole = y.reshape(y.shape[0], self.before, self.total, self.after)
        return np.ascontiguousarray(whole[:, :, self._span]).reshape(y.shape[0], -1)

    def absolute(self) -> Operator:
        return self

    fan_in = 0  # pyright: ignore[reportAssignmentType]
    fan_out = 0  # pyright: ignore[reportAssignmentType]
    weight_error = 0.0  # pyright: ignore[reportAssignmentType]

    def describe(self) -> str:
        return f"placement {self.columns}->{self.rows}"

    def _fingerprint(self) -> Sequence[object]:
        return (self.before, self.own, self.after, self.total, self.start)


class Convolution(Operator):
    """Cross-correlation with zero padding in any number of spatial axes, as ONNX Conv defines it.

    Shapes: kernel [c_out, c_in/groups, *taps]; input [c_in, *input_shape]; output [c_out, *output_shape].
    """

    def __init__(
        self,
        kernel: Array,
        *,
        input_shape: tuple[int, ...],
        strides: tuple[int, ...],
        pads_before: tuple[int, ...],
        pads_after: tuple[int, ...],
        dilations: tuple[int, ...],
        groups: int,
        weight_error: float,
    ) -> None:
        self.kernel, self.input_shape, self.strides = kernel, input_shape, strides
        self.pads_before, self.pads_after = pads_before, pads_after
        self.dilations, self.groups = dilations, groups
        self._weight_error = float(weight_error)
        self.output_shape = tuple(
            (n + before + after - dilation * (taps - 1) - 1) // stride + 1
            for n, before, after, dilation, taps, stride in zip(
                input_shape, pads_before, pads_after, dilations, kernel.shape[2:], strides, strict=True
            )
        )
        if min(self.output_shape) < 1:
            raise ValueError("the kernel does not fit into the padded input")
        if min(*pads_before, *pads_after) < 0:
            raise ValueError("a convolution's pads must not be negative")
        self.channels_in, self.channels_out = kernel.shape[1] * groups, kernel.shape[0]
        self.rows = self.channels_out * math.prod(self.output_shape)
        self.columns = self.channels_in * math.prod(input_shape)

    def _taps(self) -> list[tuple[tuple[int, ...], tuple[slice, ...]]]:
        """Every tap with the slice of the padded input that it meets."""
        taps = []
        for tap in product(*(range(size) for size in self.kernel.shape[2:])):
            window = tuple(
                slice(dilation * index, dilation * index + stride * (count - 1) + 1, stride)
                for index, dilation, stride, count in zip(
                    tap, self.dilations, self.strides, self.output_shape, strict=True
                )
            )
            taps.append((tap, window))
        return taps

    @property
    def _padded_shape(self) -> tuple[int, ...]:
        return tuple(
            n + before + after
            for n, before, after in zip(self.input_shape, self.pads_before, self.pads_after, strict=True)
        )

    @property
    def _interior(self) -> tuple[slice, ...]:
        return tuple(slice(before, before + n) for before, n in zip(self.pads_before, self.input_shape, strict=True))

    def forward(self, x: Array) -> Array:
        batch, groups = x.shape[0], self.groups
        grouped = (batch, groups, self.channels_in // groups)
        padded = np.zeros((*grouped, *self._padded_shape), dtype=x.dtype)
        padded[(..., *self._interior)] = x.reshape(*grouped, *self.input_shape)
        kernel = self.kernel.reshape(groups, self.channels_out // groups, *self.kernel.shape[1:])
        points = math.prod(self.output_shape)
        out = np.zeros((batch, groups, self.channels_out // groups, points), dtype=np.result_type(x, self.kernel))
        for tap, window in self._taps():
            seen = padded[(..., *window)].reshape(*grouped, points)
            out += kernel[(..., *tap)] @ seen
        return out.reshape(batch, -1)

    def adjoint(self, y: Array) -> Array:
        batch, groups = y.shape[0], self.groups
        given = y.reshape(batch, groups, self.channels_out // groups, *self.output_shape)
        # Functionals of single entries are zero outside of a few rows, which add nothing.
        used = np.flatnonzero(given.any(axis=tuple(axis for axis in range(given.ndim) if axis != 3)))
        first, last = (int(used[0]), int(used[-1]) + 1) if len(used) else (0, 1)
        given = given[:, :, :, first:last]
        points, shape = math.prod(given.shape[3:]), given.shape[3:]
        given = given.reshape(batch, groups, self.channels_out // groups, points)
        kernel = self.kernel.reshape(groups, self.channels_out // groups, *self.kernel.shape[1:])
        grouped = (batch, groups, self.channels_in // groups)
        padded = np.zeros((*grouped, *self._padded_shape), dtype=np.result_type(y, self.kernel))
        for tap, (rows, *others) in self._taps():
            start = rows.start + first * rows.step
            window = (slice(start, start + (last - first - 1) * rows.step + 1, rows.step), *others)
            spread = np.swapaxes(kernel[(..., *tap)], -1, -2) @ given
            padded[(..., *window)] += spread.reshape(*grouped, *shape)
        return padded[(..., *self._interior)].reshape(batch, -1)

    def with_kernel(self, kernel: Array, *, weight_error: float) -> Convolution:
        """The same geometry with other weights."""
        return Convolution(
            kernel,
            input_shape=self.input_shape,
            strides=self.strides,
            pads_before=self.pads_before,
            pads_after=self.pads_after,
            dilations=self.dilations,
            groups=self.groups,
            weight_error=weight_error,
        )

    def absolute(self) -> Operator:
        return self.with_kernel(abs(self.kernel), weight_error=self._weight_error)

    @property
    def fan_in(self) -> int:
        return math.prod(self.kernel.shape[1:])

    @property
    def fan_out(self) -> int:
        return (self.channels_out // self.groups) * math.prod(self.kernel.shape[2:])

    @property
    def weight_error(self) -> float:
        return self._weight_error

    def describe(self) -> str:
        return "convolution " + "x".join(map(str, self.kernel.shape))

    def _fingerprint(self) -> Sequence[object]:
        geometry = (self.input_shape, self.strides, self.pads_before, self.pads_after, self.dilations)
        return (self.kernel, geometry, self.groups, self._weight_error)


class Adjoint(Operator):
    """A^T of an operator A; a transposed convolution is the adjoint of the convolution that undoes its shape."""

    def __init__(self, operator: Operator) -> None:
        self.operator = operator
        self.rows, self.columns = operator.columns, operator.rows

    def forward(self, x: Array) -> Array:
        return self.operator.adjoint(x)

    def adjoint(self, y: Array) -> Array:
        return self.operator.forward(y)

    def absolute(self) -> Operator:
        return Adjoint(self.operator.absolute())

    @property
    def fan_in(self) -> int:
        return self.operator.fan_out

    @property
    def fan_out(self) -> int:
        return self.operator.fan_in

    @property
    def weight_error(self) -> float:
        return self.operator.weight_error

    def describe(self) -> str:
        return f"transposed {self.operator.describe()}"

    def _fingerprint(self) -> Sequence[object]:
        return (self.operator,)


class Composed(Operator):
    """parts[-1] ... parts[1] parts[0]: the first part is applied first."""

    def __init__(self, parts: Sequence[Operator]) -> None:
        for first, second in pairwise(parts):
            if first.rows != second.columns:
                raise ValueError(f"cannot compose {first.describe()} with {second.describe()}")
        self.parts = tuple(parts)
        self.rows, self.columns = parts[-1].rows, parts[0].columns

    def forward(self, x: Array) -> Array:
        for part in self.parts:
            x = part.forward(x)
        return x

    def adjoint(self, y: Array) -> Array:
        for part in reversed(self.parts):
            y = part.adjoint(y)
        return y

    def absolute(self) -> Operator:
        return Composed([part.absolute() for part in self.parts])

    @property
    def fan_in(self) -> int:
        # gamma_a and gamma_b compose to at most gamma_{a+b}.
        return sum(part.fan_in for part in self.parts)

    @property
    def fan_out(self) -> int:
        return sum(part.fan_out for part in self.parts)

    @property
    def weight_error(self) -> float:
        total = 1.0
        for part in self.parts:
            total *= 1.0 + part.weight_error
        return 0.0 if total == 1.0 else np.nextafter(total - 1.0, np.inf) * (1 + 1e-12) + 1e-30

    def describe(self) -> str:
        named = [part.describe() for part in self.parts if not isinstance(part, (Identity, Placed, Rearrange))]
        return " + ".join(named) if named else f"rearrangement {self.columns}->{self.rows}"

    def _fingerprint(self) -> Sequence[object]:
        return self.parts


class Sum(Operator):
    """The sum of operators between the same spaces."""

    def __init__(self, parts: Sequence[Operator]) -> None:
        if len({(part.rows, part.columns) for part in parts}) != 1:
            raise ValueError("a sum needs operators between the same spaces")
        self.parts = tuple(parts)
        self.rows, self.columns = parts[0].rows, parts[0].columns

    def forward(self, x: Array) -> Array:
        out = self.parts[0].forward(x)
        for part in self.parts[1:]:
            out = out + part.forward(x)
        return out

    def adjoint(self, y: Array) -> Array:
        out = self.parts[0].adjoint(y)
        for part in self.parts[1:]:
            out = out + part.adjoint(y)
        return out

    def absolute(self) -> Operator:
        return Sum([part.absolute() for part in self.parts])

    @property
    def fan_in(self) -> int:
        return max(part.fan_in for part in self.parts) + len(self.parts)

    @property
    def fan_out(self) -> int:
        return max(part.fan_out for part in self.parts) + len(self.parts)

    @property
    def weight_error(self) -> float:
        return max(part.weight_error for part in self.parts)

    def describe(self) -> str:
        return "sum of (" + "; ".join(part.describe() for part in self.parts) + ")"

    def _fingerprint(self) -> Sequence[object]:
        return self.parts


def compose(parts: Sequence[Operator]) -> Operator:
    """The composition of `parts`, first part first, with identities dropped and nested compositions flattened."""
    flat: list[Operator] = []
    for part in parts:
        flat.extend(part.parts if isinstance(part, Composed) else [part])
    kept = [part for part in flat if not isinstance(part, Identity)]
    if not kept:
        return Identity(parts[0].columns)
    return kept[0] if len(kept) == 1 else Composed(kept)
