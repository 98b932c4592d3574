"""Terms for products of two live values; ranges decide later whether they have a constant (`certifier.ranges`)."""

from __future__ import annotations

from certifier import steep
from certifier.products import Bilinear, EntrywiseForm, MatrixForm
from certifier.rules.building import activation, size_of
from certifier.rules.registry import Site
from certifier.terms import Term


def entrywise_product(
    site: Site, first: tuple[str, tuple[int, ...]], second: tuple[str, tuple[int, ...]], shape: tuple[int, ...]
) -> Bilinear:
    """u v entrywise, for two live values given by name and shape that broadcast to `shape`."""
    form = EntrywiseForm(first=first[1], second=second[1], shape=shape)
    return _bilinear(site, form, first[0], second[0], shape)


def quotient(site: Site, shape: tuple[int, ...]) -> tuple[Term, ...]:
    """u/v = u (1/v) for live u and v."""
    inverse = f"{site.node.outputs[0]}/inverse"
    divisor = activation(site, steep.reciprocal(), index=1, output=inverse)
    return divisor, entrywise_product(site, (site.live(0), site.shape(0)), (inverse, site.shape(1)), shape)


def matrix_product(site: Site) -> tuple[Term, ...]:
    """U V for two live (batches of) matrices; a vector on the left is a row, one on the right a column."""
    first, second = site.shape(0), site.shape(1)
    if not first or not second:
        raise site.refuse("needs two matrices or vectors")
    left = (1, *first) if len(first) == 1 else first
    right = (*second, 1) if len(second) == 1 else second
    if left[-1] != right[-2]:
        raise site.refuse(f"shapes {first} and {second} do not match")
    batch = _broadcast(site, left[:-2], right[:-2])
    rows = () if len(first) == 1 else (left[-2],)
    columns = () if len(second) == 1 else (right[-1],)
    # The flat value of a product with a vector is the same without the axis that the vector lacks.
    form = MatrixForm(first=left, second=right, shape=(*batch, left[-2], right[-1]))
    return (_bilinear(site, form, site.live(0), site.live(1), (*batch, *rows, *columns)),)


def _broadcast(site: Site, first: tuple[int, ...], second: tuple[int, ...]) -> tuple[int, ...]:
    longest = max(len(first), len(second))
    pairs = zip((1,) * (longest - len(first)) + first, (1,) * (longest - len(second)) + second, strict=True)
    extents = []
    for a, b in pairs:
        if a != b and 1 not in (a, b):
            raise site.refuse(f"batches {first} and {second} do not broadcast together")
        extents.append(max(a, b))
    return tuple(extents)


def _bilinear(
    site: Site, form: EntrywiseForm | MatrixForm, first: str, second: str, shape: tuple[int, ...]
) -> Bilinear:
    site.limits.demand("value_elements", size_of(shape), f"node {site.node.name!r}")
    return Bilinear(
        name=site.node.name,
        operator=site.node.operator,
        sources=(first, second),
        output=site.node.outputs[0],
        shape=shape,
        dtype=site.dtype,
        form=form,
        factors=None,
    )
