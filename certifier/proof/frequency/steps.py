"""What a network is to the proof: segments of steps on one joint state, free of names and formats."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from certifier.proof.frequencies import Indices
from certifier.proof.rounding import TINY, Float, add_upper


@dataclass(frozen=True, kw_only=True, eq=False)
class Block:
    """Rows row … of A get Σ_t kernel[:, :, t] e^{iω·offsets[t]} of columns column …; kernel None is the identity.

    The exact kernel is within `relative_error` of the stored one, entry by entry.
    Shapes: kernel (c_out, c_in, T), or None for (channels, channels); offsets (T, axes).
    """

    row: int
    column: int
    channels: int
    kernel: Float | None
    offsets: Indices
    relative_error: float

    @property
    def taps(self) -> int:
        return 1 if self.kernel is None else self.kernel.shape[2]

    @property
    def is_pointwise(self) -> bool:
        """The symbol is the same real matrix at every frequency."""
        return self.kernel is None or not self.offsets.any()


@dataclass(frozen=True, kw_only=True, eq=False)
class Linear:
    """s -> A s on `rows` channels, every strides-th point kept; strides None keeps the point 0 alone."""

    blocks: tuple[Block, ...]
    rows: int
    strides: tuple[int, ...] | None


@dataclass(frozen=True, kw_only=True, eq=False)
class Slopes:
    """Channels start … become φ(y), masked or not, every difference quotient of which lies in [lower, upper]."""

    start: int
    lower: Float
    upper: Float

    @property
    def rows(self) -> slice:
        return slice(self.start, self.start + len(self.lower))

    def middle_and_half(self) -> tuple[Float, Float]:
        """(m, η), positive η, with [lower, upper] inside [m - η, m + η].

        Raises: ValueError for slopes that are not finite or not in order.
        """
        if not (np.isfinite(self.lower) & np.isfinite(self.upper) & (self.lower <= self.upper)).all():
            raise ValueError("slopes must be finite, the lower one first")
        middle = 0.5 * self.lower + 0.5 * self.upper
        half = np.maximum(add_upper(self.upper, -middle), add_upper(middle, -self.lower))
        return middle, np.maximum(half, TINY)


Step = Linear | Slopes


@dataclass(frozen=True, kw_only=True, eq=False)
class Segment:
    """Steps on one chain of tori, from Σ = diag(variances) on a torus of `sizes` points.

    Of the first segment the variances are `squares`; of another, squares times the d of the segment before: channel c
    starts with squares[c]·d[sources[c]], or squares[c]·max d where sources[c] is negative.
    Shapes: squares, sources (channels,).
    """

    sizes: tuple[int, ...]
    squares: Float
    sources: Indices
    steps: tuple[Step, ...]

    def widths(self) -> list[int]:
        """Channels of the state before every step and after the last."""
        widths = [len(self.squares)]
        for step in self.steps:
            widths.append(step.rows if isinstance(step, Linear) else widths[-1])
        return widths


@dataclass(frozen=True, kw_only=True, eq=False)
class Bound:
    """Rounded up: of all outputs together, of every channel's entries, of differences of channels at one point.

    Shapes: outputs (channels,); pairs (channels, channels), or None where the outputs are a map of several points.
    """

    upper: float
    outputs: Float
    pairs: Float | None


Matrices = NDArray[np.float64] | NDArray[np.complex128]
