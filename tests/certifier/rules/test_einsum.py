"""Einsum means what the standard says, with the norms of the matrices that it multiplies by."""

from __future__ import annotations

import numpy as np
import pytest

from certifier.errors import UnsupportedNode
from certifier.products import Bilinear
from tests.building import Model, certify_model
from tests.certifier.patterns.checking import assert_bound
from tests.certifier.rules.oracle import Case, check

RNG = np.random.default_rng(0)
Shape = tuple[int, ...]


def einsum(equation: str, shapes: tuple[Shape, ...], live: tuple[int, ...], opset: int = 12) -> Case:
    inputs = {f"o{index}": RNG.standard_normal(shape).astype(np.float32) for index, shape in enumerate(shapes)}
    return Case(
        operator="Einsum",
        opset=opset,
        inputs=inputs,
        live=tuple(f"o{index}" for index in live),
        outputs=("y",),
        attributes={"equation": equation},
    )


ONE = [
    ("ij->ji", (3, 4)), ("bij->b", (1, 3, 4)), ("bii->bi", (1, 3, 3)), ("ii", (3, 3)), ("...ij -> ...ji", (2, 3, 4)),
    ("bi", (1, 3)), ("...", (2, 3)),
]  # fmt: skip
WITH_CONSTANT = [
    ("bij,jk->bik", (1, 3, 4), (4, 2), 0), ("jk,bij->bik", (4, 2), (1, 3, 4), 1), ("bi,i->bi", (1, 4), (4,), 0),
    ("bchw,cd->bdhw", (1, 3, 2, 2), (3, 5), 0), ("bcx,cxd->bd", (1, 3, 4), (3, 4, 2), 0),
    ("bgi,gij->bgj", (1, 3, 4), (3, 4, 2), 0), ("bi,j->bij", (1, 3), (4,), 0), ("bij,j->b", (1, 3, 4), (4,), 0),
    ("i...,ij", (3, 2), (3, 4), 0), ("ii,ij->j", (3, 3), (3, 4), 0), ("ij,jj->i", (3, 3), (3, 3), 0),
    ("bij,->bij", (1, 3, 4), (), 0),
]  # fmt: skip
TWO_LIVE = [
    ("bhqd,bhkd->bhqk", (1, 2, 3, 4), (1, 2, 5, 4)), ("bi,bj->bij", (1, 3), (1, 4)), ("bi,bi->bi", (1, 3), (1, 3)),
    ("bi,bi->b", (1, 3), (1, 3)), ("bij,bk->bk", (1, 3, 2), (1, 4)), ("bij,bjk", (1, 3, 4), (1, 4, 2)),
    ("bij,bkj->bki", (1, 3, 4), (1, 2, 4)),
]  # fmt: skip


@pytest.mark.parametrize(("equation", "shape"), ONE)
def test_of_one_operand(equation, shape):
    check(einsum(equation, (shape,), (0,)))


@pytest.mark.parametrize(("equation", "first", "second", "live"), WITH_CONSTANT)
def test_with_a_constant(equation, first, second, live):
    (term,) = check(einsum(equation, (first, second), (live,)))
    assert not isinstance(term, Bilinear)


@pytest.mark.parametrize(("equation", "first", "second"), TWO_LIVE)
def test_of_two_live_operands(equation, first, second):
    terms = check(einsum(equation, (first, second), (0, 1)))
    assert sum(isinstance(term, Bilinear) for term in terms) == 1


REFUSED = [
    ("ij,jk,kl->il", ((2, 3), (3, 4), (4, 5)), (0,), "more than two"), ("ij,k->ij", ((2, 3), (4,)), (0,), "alone"),
    ("ij->ik", ((2, 3),), (0,), "no operand has"), ("ij->ii", ((2, 3),), (0,), "twice"),
    ("ij,jk->ik", ((2, 3), (4, 5)), (0,), "has the sizes 3 and 4"), ("ijk->i", ((2, 3),), (0,), "ranks"),
    ("ij", ((2, 3), (2, 3)), (0,), "does not have 2 operands"), ("i1->i", ((2, 3),), (0,), "does not fit the shape"),
]  # fmt: skip


@pytest.mark.parametrize(("equation", "shapes", "live", "reason"), REFUSED)
def test_what_it_does_not_understand_is_refused(equation, shapes, live, reason):
    with pytest.raises(UnsupportedNode, match=reason):
        einsum(equation, shapes, live).terms()


def test_a_matrix_product_has_the_norm_of_its_matrix():
    weight = np.array([[1.0, 2.0], [0.5, -1.0], [0.25, 3.0]])
    model = Model(4, 3)
    model.add("Einsum", "x", weight, equation="bti,io->bto")
    assert_bound(model, float(np.linalg.norm(weight, 2)))


def test_the_trace_of_n_entries_has_the_norm_of_their_sum():
    model = Model(4, 4)
    model.add("Einsum", "x", equation="bii->b")
    assert_bound(model, 2.0)


def test_attention_weights_of_bounded_values_have_a_bound():
    model = Model(3, 4)
    queries, keys = model.add("Tanh", "x"), model.add("Sigmoid", "x")
    model.add("Einsum", queries, keys, equation="bqd,bkd->bqk")
    assert np.isfinite(certify_model(model).certificate.lipschitz.upper)
    unbounded = Model(3, 4)
    unbounded.add("Einsum", "x", "x", equation="bqd,bkd->bqk")
    with pytest.raises(UnsupportedNode, match="no Lipschitz constant unless both are bounded"):
        certify_model(unbounded)
