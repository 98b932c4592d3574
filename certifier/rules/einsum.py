"""Einsum: sums of products over named axes, as movements, sums, matrix products and bilinear forms."""

from __future__ import annotations

import math
import string
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from certifier.operators import Diagonal, Kronecker, Operator, Rearrange, compose
from certifier.products import Bilinear, EntrywiseForm, MatrixForm
from certifier.rules.building import linear, size_of
from certifier.rules.geometry import demand_elements
from certifier.rules.registry import Site, rule
from certifier.terms import Term

Labels = str


@dataclass(frozen=True)
class _Equation:
    """One label for every axis of every operand and of the output; an ellipsis is written out."""

    operands: tuple[Labels, ...]
    output: Labels
    sizes: dict[str, int]

    def count(self, labels: Labels) -> int:
        """The product of the sizes of these axes."""
        return math.prod(self.sizes[label] for label in labels)


@rule("Einsum", since=(12, 28), attributes=("equation",))
def einsum(site: Site) -> tuple[Term, ...]:
    """A sum of products over named axes: of one live operand, of a live and a constant one, or of two live ones."""
    equation = _equation(site)
    live = [index for index in range(len(equation.operands)) if not site.is_constant(index)]
    shape = tuple(equation.sizes[label] for label in equation.output)
    if len(equation.operands) == 1:
        return _of_one(site, equation, shape)
    if len(equation.operands) != 2:
        raise site.refuse("of more than two operands is not supported", remedy="write it as several of two operands")
    if len(live) == 1:
        return _with_constant(site, equation, live[0], shape)
    return _of_two(site, equation, shape)


def _equation(site: Site) -> _Equation:
    text = site.text("equation", "").replace(" ", "")
    left, arrow, output = text.partition("->")
    operands = left.split(",")
    if len(operands) != len(site.node.inputs):
        raise site.refuse(f"equation {text!r} does not have {len(site.node.inputs)} operands")
    free = [letter for letter in string.ascii_letters if letter not in text]
    ranks = [len(site.shape(index)) - len(term.replace("...", "")) for index, term in enumerate(operands)]
    widest = max((rank for rank, term in zip(ranks, operands, strict=True) if "..." in term), default=0)
    if min(ranks) < 0 or widest > len(free):
        raise site.refuse(f"equation {text!r} does not fit the operands' ranks")
    extra = "".join(free[:widest])
    spelled = [_spelled_out(term, extra, rank) for term, rank in zip(operands, ranks, strict=True)]
    if not arrow:
        letters = sorted(set(left) - set(",."))
        output = ("..." if "..." in left else "") + "".join(each for each in letters if left.count(each) == 1)
    output = output.replace("...", extra)
    sizes: dict[str, int] = {}
    for index, term in enumerate(spelled):
        shape = site.shape(index)
        if len(term) != len(shape) or not set(term) <= set(string.ascii_letters):
            raise site.refuse(f"equation {text!r} does not fit the shape {shape}")
        for label, size in zip(term, shape, strict=True):
            if sizes.setdefault(label, size) != size:
                raise site.refuse(f"axis {label!r} of {text!r} has the sizes {sizes[label]} and {size}")
    if len(set(output)) < len(output) or not set(output) <= set(sizes):
        raise site.refuse(f"the output of {text!r} names an axis twice, or one that no operand has")
    return _Equation(tuple(spelled), output, sizes)


def _spelled_out(term: str, extra: str, rank: int) -> str:
    """The labels of an operand of which `rank` axes stand under its ellipsis, which align at the last."""
    return term.replace("...", extra[len(extra) - rank :] if rank else "")


def _gathered(site: Site, equation: _Equation, index: int, wanted: Labels) -> Operator:
    """The map from operand `index` to a tensor with the axes `wanted`, all its own; equal axes give the diagonal."""
    own = equation.operands[index]
    demand_elements(site, equation.count(wanted))
    grid = np.indices([equation.sizes[label] for label in wanted], sparse=True)
    axis_of = dict(zip(wanted, grid, strict=True))
    places = np.arange(size_of(site.shape(index))).reshape(site.shape(index))
    read = places[tuple(axis_of[label] for label in own)] if own else places
    full = np.broadcast_to(read, [equation.sizes[label] for label in wanted])
    return Rearrange(full.reshape(-1), columns=places.size)


def _totalled(equation: _Equation, kept: Labels, summed: Labels) -> list[Operator]:
    """The sum over the last axes of a tensor with the axes kept + summed."""
    if not summed:
        return []
    ones = np.ones((1, equation.count(summed)))
    return [Kronecker(ones, before=equation.count(kept), after=1, weight_error=0.0)]


def _of_one(site: Site, equation: _Equation, shape: tuple[int, ...]) -> tuple[Term, ...]:
    summed = "".join(dict.fromkeys(label for label in equation.operands[0] if label not in equation.output))
    gathered = _gathered(site, equation, 0, equation.output + summed)
    return (linear(site, compose([gathered, *_totalled(equation, equation.output, summed)]), shape=shape),)


def _with_constant(site: Site, equation: _Equation, live: int, shape: tuple[int, ...]) -> tuple[Term, ...]:
    """x -> I (x) W with one W for every index of the axes that operands and output share."""
    own, other = equation.operands[live], equation.operands[1 - live]
    weights = site.weights(1 - live, "one operand")
    shared = "".join(label for label in equation.output if label in own and label in other)
    left = "".join(label for label in equation.output if label in own and label not in other)
    right = "".join(label for label in equation.output if label not in own)
    summed = "".join(dict.fromkeys(label for label in own if label not in equation.output))
    if any(label not in own + equation.output for label in other):
        raise site.refuse("an axis of the constant alone is summed", remedy="sum the constant over it beforehand")
    demand_elements(site, equation.count(shared + right + summed))
    # One matrix [right, summed] for every index of the shared axes; an axis that only x has is summed with ones.
    present = [label for label in shared + right + summed if label in other]
    blocks = np.einsum(f"{other}->{''.join(present)}", weights)
    blocks = blocks.reshape([equation.sizes[label] if label in other else 1 for label in shared + right + summed])
    blocks = np.broadcast_to(blocks, [equation.sizes[label] for label in shared + right + summed])
    blocks = blocks.reshape(equation.count(shared), equation.count(right), equation.count(summed))
    gathered = _gathered(site, equation, live, left + shared + summed)
    product = _block_diagonal(blocks, before=equation.count(left))
    ordered = _reordered(equation, left + shared + right)
    return (linear(site, compose([gathered, product, ordered]), shape=shape, index=live),)


def _block_diagonal(blocks: np.ndarray, *, before: int) -> Operator:
    count, rows, columns = blocks.shape
    if count == 1:
        return Kronecker(np.ascontiguousarray(blocks[0]), before=before, after=1, weight_error=0.0)
    if rows == columns == 1:
        return Diagonal(np.tile(blocks.reshape(-1), before), weight_error=0.0)
    matrix = sparse.csr_array(sparse.block_diag([np.ascontiguousarray(block) for block in blocks]))
    return Kronecker(matrix, before=before, after=1, weight_error=0.0)


def _reordered(equation: _Equation, present: Labels) -> Operator:
    """From a tensor with the axes `present` to one with those of the output."""
    sizes = [equation.sizes[label] for label in present]
    places = np.arange(math.prod(sizes)).reshape(sizes)
    order = [present.index(label) for label in equation.output]
    return Rearrange(places.transpose(order).reshape(-1), columns=places.size)


def _of_two(site: Site, equation: _Equation, shape: tuple[int, ...]) -> tuple[Term, ...]:
    """A batch of matrix products, between movements; an axis of one operand alone is summed before."""
    first, second = equation.operands
    output = site.node.outputs[0]
    shared = "".join(label for label in equation.output if label in first and label in second)
    rows = "".join(label for label in equation.output if label in first and label not in second)
    columns = "".join(label for label in equation.output if label not in first)
    summed = "".join(dict.fromkeys(label for label in first if label in second and label not in equation.output))
    batch, left, middle, right = (equation.count(labels) for labels in (shared, rows, summed, columns))
    site.limits.demand("value_elements", batch * left * right, f"node {site.node.name!r}")
    terms: list[Term] = []
    for index, wanted, own_shape in (
        (0, shared + rows + summed, (batch, left, middle)),
        (1, shared + summed + columns, (batch, middle, right)),
    ):
        alone = "".join(dict.fromkeys(label for label in equation.operands[index] if label not in wanted))
        moved = compose([_gathered(site, equation, index, wanted + alone), *_totalled(equation, wanted, alone)])
        terms.append(linear(site, moved, shape=own_shape, index=index, output=f"{output}/operand{index}"))
    if left == middle == right == 1:
        form = EntrywiseForm(first=(batch,), second=(batch,), shape=(batch,))
    else:
        form = MatrixForm(first=(batch, left, middle), second=(batch, middle, right), shape=(batch, left, right))
    product = Bilinear(
        name=site.node.name,
        operator=site.node.operator,
        sources=(terms[0].output, terms[1].output),
        output=f"{output}/product",
        shape=form.shape,
        dtype=site.dtype,
        form=form,
        factors=None,
    )
    ordered = _reordered(equation, shared + rows + columns)
    return (*terms, product, linear(site, ordered, shape=shape, source=product.output))
