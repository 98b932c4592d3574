"""Normalisation by stored statistics (linear), by the input's own statistics, and softmax."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np

from certifier.operators import Diagonal
from certifier.proof.drifts import LARGEST
from certifier.rules.building import Floats, affine, contraction, size_of
from certifier.rules.registry import Site, rule
from certifier.terms import PRECISIONS, Blurred, Term
from certifier.vector_functions.normalising import Normalisation
from certifier.vector_functions.softmaxes import LogSoftmax, Softmax

_SINGLE_1E_5 = 9.999999747378752e-06
"""The standard's default of every epsilon: 1e-5 in single precision."""


@rule("BatchNormalization", since=(7,), attributes=("epsilon", "momentum", "spatial"))
def batch_normalisation_by_pixel(site: Site) -> tuple[Term, ...]:
    """Y = scale (X - mean)/√(var + epsilon) + B per channel; all statistics constant; spatial = 1."""
    if site.integer("spatial", 1) != 1:
        raise site.refuse("statistics per pixel (spatial = 0) are not supported")
    return _by_stored_statistics(site)


@rule("BatchNormalization", since=(9,), attributes=("epsilon", "momentum"))
def batch_normalisation_of_inference(site: Site) -> tuple[Term, ...]:
    """Y = scale (X - mean)/√(var + epsilon) + B per channel; all statistics constant."""
    return _by_stored_statistics(site)


@rule("BatchNormalization", since=(14, 15), attributes=("epsilon", "momentum", "training_mode"))
def batch_normalisation(site: Site) -> tuple[Term, ...]:
    """Y = scale (X - mean)/√(var + epsilon) + B per channel; all statistics constant; no training mode."""
    if site.integer("training_mode", 0) != 0:
        raise site.refuse("training mode normalises by the batch, so rows depend on each other")
    return _by_stored_statistics(site)


def _by_stored_statistics(site: Site) -> tuple[Term, ...]:
    """The linear map and offset; four float64 roundings per derived weight, ten of the engine's per entry.

    The engine computes the derived weights itself, so that one may be flushed to zero; and it may centre first and
    scale then, so that what is flushed is multiplied by scale, inverse deviation or both.
    """
    _demand_single_output(site, "running statistics are those of training")
    site.live(0)
    shape = site.shape(0)
    channels = _channels(site, shape)
    scale, bias, mean, variance = (
        _vector(site, index, role, channels)
        for index, role in ((1, "the scale"), (2, "B"), (3, "the mean"), (4, "the variance"))
    )
    shifted = variance + _epsilon(site)
    if np.any(shifted <= 0):
        raise site.refuse("the variance plus epsilon is not positive")
    _demand_finite_weights(site, scale, shifted)
    with np.errstate(over="ignore", under="ignore"):
        factor = scale / np.sqrt(shifted)
        offset, magnitude = bias - mean * factor, abs(bias) + abs(mean * factor)
    if not np.isfinite(factor).all() or not np.isfinite(magnitude).all():
        raise site.refuse("the scale over the standard deviation is not finite")
    if np.any((scale != 0) & (abs(factor) < np.finfo(np.float64).tiny)):
        raise site.refuse("the scale over the standard deviation underflows")
    at = PRECISIONS[site.dtype]
    flushed = np.where((factor != 0) & (abs(factor) < 2 * at.tiny), at.tiny, 0.0)
    operator = Diagonal(_per_channel(factor, shape).reshape(-1), weight_error=4 * 2.0**-53)
    term = affine(
        site,
        operator,
        _per_channel(offset, shape),
        shape=shape,
        roundings=10,
        # At least one rounding of this is what the offset loses with a flushed weight.
        offset_magnitude=_per_channel(magnitude + abs(mean) * flushed / at.unit, shape),
    )
    steepest = max(1.0, *(float(np.max(abs(each))) for each in (scale, 1 / np.sqrt(shifted), factor)))
    term = replace(term, amplification=steepest * (1 + 2.0**-50))
    if not flushed.any():
        return (term,)
    errors = (Diagonal(_per_channel(flushed, shape).reshape(-1), weight_error=0.0),)
    return (Blurred(**{each.name: getattr(term, each.name) for each in fields(term)}, errors=errors),)


def _demand_finite_weights(site: Site, scale: Floats, shifted: Floats) -> None:
    """Nothing that the engine derives of the statistics may overflow, nor its variance be flushed to zero."""
    with np.errstate(over="ignore", under="ignore"):
        inverse = 1 / np.sqrt(shifted)
        derived = np.concatenate([shifted, inverse, abs(scale) * inverse])
    if not np.all(2 * derived <= LARGEST[site.dtype]) or np.any(shifted < PRECISIONS[site.dtype].tiny):
        raise site.refuse(f"the variance plus epsilon, or the scale over its root, leaves the range of {site.dtype}")


@rule("LayerNormalization", since=(17,), attributes=("axis", "epsilon", "stash_type"))
def layer_normalisation(site: Site) -> tuple[Term, ...]:
    """Y = Scale (X - mean)/√(var + epsilon) + B over the last axes; Scale, B constant; epsilon > 0."""
    return _over_last_axes(site, centred=True)


@rule("RMSNormalization", since=(23,), attributes=("axis", "epsilon", "stash_type"))
def rms_normalisation(site: Site) -> tuple[Term, ...]:
    """Y = scale X/√(mean X² + epsilon) over the last axes; scale constant; epsilon > 0."""
    return _over_last_axes(site, centred=False)


def _over_last_axes(site: Site, *, centred: bool) -> tuple[Term, ...]:
    _demand_single_output(site, "the statistics are not supported as outputs")
    _demand_single_stash(site)
    site.live(0)
    shape = site.shape(0)
    axis = _axis(site, site.integer("axis", -1), len(shape))
    scale = _broadcast(site, 1, "the scale", shape, axis)
    shift = _broadcast(site, 2, "B", shape, axis) if centred and site.has(2) else np.zeros(scale.shape)
    return _normalised(site, groups=size_of(shape[:axis]), scale=scale, shift=shift, centred=centred)


@rule("InstanceNormalization", since=(6, 22), attributes=("epsilon",))
def instance_normalisation(site: Site) -> tuple[Term, ...]:
    """y = scale (x - mean)/√(var + epsilon) + B per row and channel; scale, B constant; epsilon > 0."""
    site.live(0)
    shape = site.shape(0)
    channels = _channels(site, shape)
    if len(shape) < 3:
        raise site.refuse("needs at least one spatial axis")
    scale, shift = _vector(site, 1, "the scale", channels), _vector(site, 2, "B", channels)
    return _normalised(
        site,
        groups=shape[0] * channels,
        scale=_per_channel(scale, shape),
        shift=_per_channel(shift, shape),
        centred=True,
    )


@rule("GroupNormalization", since=(18,), attributes=("epsilon", "num_groups"))
def group_normalisation_by_group(site: Site) -> tuple[Term, ...]:
    """y = scale (x - mean)/√(var + epsilon) + bias per group; constant scale and bias per group."""
    return _over_groups(site, per_group=True)


@rule("GroupNormalization", since=(21,), attributes=("epsilon", "num_groups", "stash_type"))
def group_normalisation(site: Site) -> tuple[Term, ...]:
    """y = scale (x - mean)/√(var + epsilon) + bias per group; constant scale and bias per channel."""
    _demand_single_stash(site)
    return _over_groups(site, per_group=False)


def _over_groups(site: Site, *, per_group: bool) -> tuple[Term, ...]:
    site.live(0)
    shape = site.shape(0)
    channels, groups = _channels(site, shape), site.integer("num_groups", 0)
    if groups < 1 or channels % groups:
        raise site.refuse(f"{channels} channels do not fall into {groups} groups")
    count = groups if per_group else channels
    scale, shift = _vector(site, 1, "the scale", count), _vector(site, 2, "the bias", count)
    repeats = channels // count
    return _normalised(
        site,
        groups=shape[0] * groups,
        scale=_per_channel(np.repeat(scale, repeats), shape),
        shift=_per_channel(np.repeat(shift, repeats), shape),
        centred=True,
    )


@rule("Softmax", since=(13,), attributes=("axis",))
def softmax(site: Site) -> tuple[Term, ...]:
    """e^x / Σ e^x along `axis`; constant ½."""
    before, count, after = _along_axis(site)
    function = Softmax(name="softmax", before=before, count=count, after=after)
    return (contraction(site, function, shape=site.shape(0)),)


@rule("LogSoftmax", since=(13,), attributes=("axis",))
def log_softmax(site: Site) -> tuple[Term, ...]:
    """x - log Σ e^x along `axis` of n entries; constant √n."""
    before, count, after = _along_axis(site)
    function = LogSoftmax(name="log softmax", before=before, count=count, after=after)
    return (contraction(site, function, shape=site.shape(0)),)


@rule("Softmax", since=(1, 11), attributes=("axis",))
def softmax_of_matrix(site: Site) -> tuple[Term, ...]:
    """e^x / Σ e^x along all axes from `axis` on together; constant ½."""
    rows, count = _as_matrix(site)
    function = Softmax(name="softmax", before=rows, count=count, after=1)
    return (contraction(site, function, shape=site.shape(0)),)


@rule("LogSoftmax", since=(1, 11), attributes=("axis",))
def log_softmax_of_matrix(site: Site) -> tuple[Term, ...]:
    """x - log Σ e^x along all axes from `axis` on together, of n entries; constant √n."""
    rows, count = _as_matrix(site)
    function = LogSoftmax(name="log softmax", before=rows, count=count, after=1)
    return (contraction(site, function, shape=site.shape(0)),)


def _along_axis(site: Site) -> tuple[int, int, int]:
    """(entries before, along, after) the axis of the present standard, whose default is the last."""
    shape = site.shape(0)
    axis = _axis(site, site.integer("axis", -1), len(shape))
    return size_of(shape[:axis]), shape[axis], size_of(shape[axis + 1 :])


def _as_matrix(site: Site) -> tuple[int, int]:
    """(rows, columns) of the matrix that versions before 13 fold the input into at `axis`, by default 1."""
    shape = site.shape(0)
    axis = site.integer("axis", 1)
    if site.node.since < 11 and axis < 0:
        raise site.refuse("a negative axis has no meaning before version 11")
    axis = _axis(site, axis, len(shape))
    return size_of(shape[:axis]), size_of(shape[axis:])


def _normalised(site: Site, *, groups: int, scale: Floats, shift: Floats, centred: bool) -> tuple[Term, ...]:
    epsilon, shape = _epsilon(site), site.shape(0)
    if epsilon <= 0:
        raise site.refuse(f"epsilon is {epsilon}: without a positive one there is no Lipschitz constant")
    function = Normalisation(
        name="normalisation" if centred else "root mean square normalisation",
        groups=groups,
        scale=scale.reshape(-1),
        shift=shift.reshape(-1),
        epsilon=epsilon,
        centred=centred,
    )
    return (contraction(site, function, shape=shape),)


def _epsilon(site: Site) -> float:
    return site.number("epsilon", _SINGLE_1E_5)


def _axis(site: Site, axis: int, rank: int) -> int:
    if not -rank <= axis < rank:
        raise site.refuse(f"axis {axis} is outside of {rank} axes")
    return axis % rank


def _channels(site: Site, shape: tuple[int, ...]) -> int:
    if len(shape) < 2:
        raise site.refuse("needs a batch axis and a channel axis")
    return shape[1]


def _per_channel(values: Floats, shape: tuple[int, ...]) -> Floats:
    return np.broadcast_to(values.reshape(1, -1, *(1,) * (len(shape) - 2)), shape)


def _vector(site: Site, index: int, role: str, size: int) -> Floats:
    values = site.weights(index, role)
    if values.shape != (size,):
        raise site.refuse(f"{role} has shape {values.shape} instead of ({size},)")
    return values


def _broadcast(site: Site, index: int, role: str, shape: tuple[int, ...], axis: int) -> Floats:
    """Constant `index` over the normalised axes of every group, as a tensor of the input's shape."""
    values = site.weights(index, role)
    try:
        return np.broadcast_to(np.broadcast_to(values, shape[axis:]), shape)
    except ValueError:
        raise site.refuse(f"{role}'s shape {values.shape} does not broadcast to {shape[axis:]}") from None


def _demand_single_output(site: Site, reason: str) -> None:
    if any(site.node.outputs[1:]):
        raise site.refuse(f"has more than one output: {reason}")


def _demand_single_stash(site: Site) -> None:
    if site.integer("stash_type", 1) != 1:
        raise site.refuse("statistics in another precision than single (stash_type) are not supported")
