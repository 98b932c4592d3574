"""Resize and Upsample: nearest neighbours are moved numbers, linear interpolation is one sparse map per axis.

The engine computes coordinates in single precision whatever the data's type.  Where its roundings could choose
another pixel, nearest is refused; for linear interpolation they are a part of the stray.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from scipy import sparse

from certifier.operators import Identity, Kronecker, compose
from certifier.rules.building import linear, size_of
from certifier.rules.geometry import demand_elements
from certifier.rules.movements import integers_of, moved, places
from certifier.rules.reductions import normalised_axes
from certifier.rules.registry import Site, rule
from certifier.terms import Blurred, Term

_COORDINATES = ("half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric")
_NEAREST = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
_RESIZE = (
    "antialias", "axes", "coordinate_transformation_mode", "cubic_coeff_a", "exclude_outside",
    "extrapolation_value", "keep_aspect_ratio_policy", "mode", "nearest_mode",
)  # fmt: skip

_UPWARD = "floor upward only"
"""Versions before 11 say no more than "nearest": upward all take the pixel below; downward they differ."""

COORDINATE_ROUNDINGS = 8
"""No formula of the standard rounds more often: scale, quotient, difference, and an offset of five steps."""


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """One axis: `size` entries become `resized`, by `scale` as the model states it."""

    size: int
    resized: int
    scale: Fraction

    def coordinate(self, place: int, mode: str) -> Fraction:
        """The exact coordinate of output `place` among the inputs."""
        if mode == "align_corners":
            return Fraction(place * (self.size - 1), self.resized - 1) if self.resized > 1 else Fraction(0)
        if mode == "asymmetric":
            return place / self.scale
        if mode == "pytorch_half_pixel" and self.resized == 1:
            return Fraction(0)
        centre = (place + Fraction(1, 2)) / self.scale - Fraction(1, 2)
        if mode == "half_pixel_symmetric":
            return Fraction(self.size, 2) * (1 - self.resized / (self.scale * self.size)) + centre
        return centre

    def is_exact_at(self, place: int, mode: str) -> bool:
        """Whether single precision computes the coordinate of `place` without any rounding."""
        if self.size >= 2**20 or self.resized >= 2**20:
            return False
        if mode == "align_corners":
            return self.resized == 1 or _is_single(self.coordinate(place, mode))
        if mode == "asymmetric" and place == 0:
            return True
        if not _is_single(self.scale):
            return False
        if mode == "half_pixel_symmetric" and self.resized != self.scale * self.size:
            return False
        shifted = Fraction(place) if mode == "asymmetric" else place + Fraction(1, 2)
        return _is_single(shifted / self.scale)

    @property
    def slack(self) -> Fraction:
        """How far the engine's coordinate may be off: every step rounds a number below size + 2."""
        return Fraction(COORDINATE_ROUNDINGS * (self.size + 2), 2**24)


def _is_single(value: Fraction) -> bool:
    """Whether single precision holds `value` with two bits to spare for a shift by a half."""
    denominator = value.denominator
    return denominator & (denominator - 1) == 0 and abs(value.numerator) < 2**22 and denominator < 2**22


@rule("Resize", since=(10, 11, 13, 18, 19), attributes=_RESIZE)
def resize(site: Site) -> tuple[Term, ...]:
    """x on another grid, nearest or linear; scales or sizes constant; no cubic, antialias or crop."""
    site.live(0)
    if site.integer("antialias", 0) or site.integer("exclude_outside", 0):
        raise site.refuse("antialias and exclude_outside are not supported")
    if site.text("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise site.refuse("keep_aspect_ratio_policy must be stretch")
    if site.node.since == 10:
        return _resized(site, _stretches(site, scales=1, sizes=None), "asymmetric", _UPWARD)
    coordinates = site.text("coordinate_transformation_mode", "half_pixel")
    if coordinates not in _COORDINATES or (coordinates == "half_pixel_symmetric" and site.node.since < 19):
        raise site.refuse(f"coordinate_transformation_mode {coordinates!r} is not supported")
    nearest = site.text("nearest_mode", "round_prefer_floor")
    if nearest not in _NEAREST:
        raise site.refuse(f"nearest_mode {nearest!r} is not known")
    return _resized(site, _stretches(site, scales=2, sizes=3), coordinates, nearest)


@rule("Upsample", since=(7, 9), attributes=("mode", "scales"))
def upsample(site: Site) -> tuple[Term, ...]:
    """x on a finer grid, nearest or linear, coordinates counted from the corner; scales constant."""
    site.live(0)
    stretches = _stretches(site, scales=1, sizes=None)
    if any(stretch.scale < 1 for stretch in stretches):
        raise site.refuse("a scale below 1 is not defined for it")
    return _resized(site, stretches, "asymmetric", _UPWARD)


def _resized(site: Site, stretches: tuple[Stretch, ...], coordinates: str, nearest: str) -> tuple[Term, ...]:
    demand_elements(site, math.prod(stretch.resized for stretch in stretches))
    mode = site.text("mode", "nearest")
    if mode == "nearest":
        read = places(site)
        for axis, stretch in enumerate(stretches):
            read = read.take(_nearest_pixels(site, stretch, coordinates, nearest), axis=axis)
        return (moved(site, read),)
    if mode not in ("linear", "bilinear"):
        raise site.refuse(f"mode {mode!r} is not supported; nearest and linear are")
    return (_interpolation(site, stretches, coordinates),)


def _stretches(site: Site, *, scales: int, sizes: int | None) -> tuple[Stretch, ...]:
    """How every axis is stretched, from the constant scales or sizes."""
    shape = site.shape(0)
    axes = normalised_axes(site, site.integers("axes", tuple(range(len(shape)))), len(shape))
    if "scales" in site.node.attributes:
        factors = tuple(np.asarray(site.node.attributes["scales"], dtype=np.float64).tolist())
    elif site.has(scales):
        factors = tuple(float(value) for value in site.weights(scales, "the scales").reshape(-1))
    else:
        factors = ()
    targets = integers_of(site, sizes, "the sizes") if sizes is not None and site.has(sizes) else ()
    if bool(factors) == bool(targets) or len(factors or targets) != len(axes):
        raise site.refuse(f"needs either scales or sizes, one for each of {len(axes)} axes")
    stretches = [Stretch(size=size, resized=size, scale=Fraction(1)) for size in shape]
    for position, axis in enumerate(axes):
        if factors:
            stretches[axis] = _scaled(site, shape[axis], factors[position])
        elif targets[position] < 1:
            raise site.refuse(f"size {targets[position]} is not positive")
        else:
            scale = Fraction(targets[position], shape[axis])
            stretches[axis] = Stretch(size=shape[axis], resized=targets[position], scale=scale)
    return tuple(stretches)


def _scaled(site: Site, size: int, factor: float) -> Stretch:
    if not 0 < factor < 2**20:
        raise site.refuse(f"scale {factor} is not usable")
    scale = Fraction(factor)
    resized = math.floor(scale * size)
    if resized < 1 or resized != math.floor(np.float32(factor) * np.float32(size)):
        raise site.refuse(f"scale {factor} times {size} is too close to an integer to tell its floor")
    return Stretch(size=size, resized=resized, scale=scale)


def _checked_corners(site: Site, stretch: Stretch, coordinates: str) -> None:
    if coordinates == "align_corners" and stretch.scale * stretch.size != stretch.resized:
        raise site.refuse("align_corners with a scale that gives no whole size is read in more than one way")


def _nearest_pixels(site: Site, stretch: Stretch, coordinates: str, nearest: str) -> np.ndarray:
    """The pixel that every output of the axis takes."""
    if stretch.scale == 1:
        return np.arange(stretch.size)
    _checked_corners(site, stretch, coordinates)
    pixels = []
    for place in range(stretch.resized):
        coordinate = stretch.coordinate(place, coordinates)
        pixel = _pixel(site, coordinate, nearest, stretch)
        if not stretch.is_exact_at(place, coordinates):
            low = _pixel(site, coordinate - stretch.slack, nearest, stretch)
            high = _pixel(site, coordinate + stretch.slack, nearest, stretch)
            if low != high:
                raise site.refuse(
                    f"output {place} reads from {float(coordinate):.6g}, where the engine's rounding decides "
                    "which pixel is nearest"
                )
        pixels.append(pixel)
    return np.array(pixels, dtype=np.int64)


def _pixel(site: Site, coordinate: Fraction, nearest: str, stretch: Stretch) -> int:
    half = Fraction(1, 2)
    if nearest == _UPWARD:
        if stretch.scale < 1 and coordinate.denominator != 1:
            raise site.refuse("how nearest downsampling rounds was not defined before version 11")
        pixel = math.floor(coordinate)
    else:
        pixel = {
            "floor": math.floor(coordinate),
            "ceil": math.ceil(coordinate),
            "round_prefer_floor": math.ceil(coordinate - half),
            "round_prefer_ceil": math.floor(coordinate + half),
        }[nearest]
    return min(max(pixel, 0), stretch.size - 1)


def _interpolation(site: Site, stretches: tuple[Stretch, ...], coordinates: str) -> Term:
    """One sparse map per stretched axis, and the telescoped errors of their coordinates.

    (|A_2| + E_2)(|A_1| + E_1) - |A_2||A_1| = (|A_2| + E_2) E_1 + E_2 |A_1|, and so on for more axes.
    """
    shape = [stretch.size for stretch in stretches]
    maps, wider, errors = [], [], []
    for axis, stretch in enumerate(stretches):
        if stretch.scale != 1:
            _checked_corners(site, stretch, coordinates)
            weights, slack = _axis_matrices(stretch, coordinates)
            before, after = math.prod(shape[:axis]), math.prod(shape[axis + 1 :])
            is_exact = bool(np.all(np.mod(weights.data * 2.0**40, 1.0) == 0))
            error = 0.0 if is_exact else 2.0**-52
            maps.append(Kronecker(weights, before=before, after=after, weight_error=error))
            wider.append(Kronecker(weights + slack, before=before, after=after, weight_error=error))
            errors.append(Kronecker(slack, before=before, after=after, weight_error=0.0))
            shape[axis] = stretch.resized
    operator = compose([Identity(size_of(site.shape(0))), *maps])
    if not maps:
        return linear(site, operator, shape=tuple(shape))
    telescoped = tuple(compose([*maps[:i], errors[i], *wider[i + 1 :]]) for i in range(len(maps)))
    return Blurred(
        name=site.node.name,
        operator=site.node.operator,
        sources=(site.live(0),),
        output=site.node.outputs[0],
        shape=tuple(shape),
        dtype=site.dtype,
        operators=(operator,),
        offset=None,
        offset_magnitude=None,
        arrangement="sum",
        # The engine multiplies the weights of all axes first, one rounding each.
        roundings=2 + 4 * len(maps),
        swelling=1.0,
        amplification=1.0,
        errors=telescoped,
    )


def _axis_matrices(stretch: Stretch, coordinates: str) -> tuple[sparse.csr_array, sparse.csr_array]:
    """The weights of one axis, and how far the engine's may be from them."""
    weights = sparse.lil_array((stretch.resized, stretch.size))
    slack = sparse.lil_array((stretch.resized, stretch.size))
    for place in range(stretch.resized):
        exact = stretch.coordinate(place, coordinates)
        coordinate = min(max(exact, Fraction(0)), Fraction(stretch.size - 1))
        pixel = math.floor(coordinate)
        share = coordinate - pixel
        weights[place, pixel] = float(1 - share)
        if share:
            weights[place, pixel + 1] = float(share)
        if not stretch.is_exact_at(place, coordinates):
            reach = math.ceil(stretch.slack) + 1
            for near in range(max(pixel - reach, 0), min(pixel + reach + 1, stretch.size - 1) + 1):
                slack[place, near] = float(stretch.slack)
    return sparse.csr_array(weights), sparse.csr_array(slack)
